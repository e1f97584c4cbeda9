"""Two sets of predictions on the same images: how much better one is, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .average_precision import RECALLS, Averager, Ranking

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """mAP of both, 0..1, what the second has more, and the interval that holds the true difference with the given confidence.

    samples: how often the images were drawn anew. better: the share of those draws in which the second was ahead.
    """

    first: float
    second: float
    low: float
    high: float
    better: float
    samples: int
    confidence: float = 0.95

    @property
    def difference(self) -> float:
        return self.second - self.first

    @property
    def sure(self) -> bool:
        """Whether zero lies outside of the interval."""
        return self.low > 0 or self.high < 0


def bootstrap(first: Averager, second: Averager, *, samples: int = 300, confidence: float = 0.95, seed: int = 0) -> Difference:
    """Paired bootstrap over images (Efron 1979; percentile interval): the same draw of images, with replacement, for both.

    first, second: the same images, added in the same order. Raises ValueError if their numbers differ.
    """
    if first.images != second.images:
        raise ValueError(f"{first.images} and {second.images} images: a paired comparison needs the same")
    rng = np.random.default_rng(seed)
    rankings = [averager.rankings() for averager in (first, second)]
    once = np.ones(first.images)
    whole = [_map(own, once) for own in rankings]
    drawn = np.empty(samples)
    for i in range(samples):
        weights = np.bincount(rng.integers(first.images, size=first.images), minlength=first.images).astype(np.float64)
        drawn[i] = _map(rankings[1], weights) - _map(rankings[0], weights)
    low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Difference(whole[0], whole[1], float(low), float(high), float(np.nanmean(drawn > 0)), samples, confidence)


def _map(rankings: list[Ranking], weights: Floats) -> float:
    """COCO's mAP over all IoUs and object sizes of images that count `weights` (I,) times each; NaN without any object."""
    values = [average for own in rankings if (average := _average(own, weights)) is not None]
    return float(np.mean(values)) if values else float("nan")


def _average(ranking: Ranking, weights: Floats) -> float | None:
    objects = float(ranking.objects @ weights)
    if not objects:
        return None
    own = weights[ranking.image]
    right, counted = np.cumsum(ranking.hit * own, 1), np.cumsum(ranking.counts * own, 1)  # (T, N)
    rows, n = right.shape
    if not n:
        return 0.0
    best = right / np.maximum(counted, np.spacing(1))
    best = np.maximum.accumulate(best[:, ::-1], 1)[:, ::-1]
    # counts are whole numbers: a recall is reached with the next one; all rows are searched as one
    needed = np.ceil(RECALLS * objects - 1e-9)
    offset = np.arange(rows)[:, None] * (objects + 2)
    at = np.searchsorted((right + offset).ravel(), (needed + offset).ravel(), side="left").reshape(rows, -1) - np.arange(rows)[:, None] * n
    return float(np.where(at < n, np.take_along_axis(best, np.minimum(at, n - 1), 1), 0.0).mean())
