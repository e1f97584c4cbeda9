"""What to label next: uncertain, unlike what was seen, and of classes that are rare. Pure arithmetic on arrays.

Items are images or objects. They are taken one by one, each time the one with the highest weighted mean of three scores in [0, 1]:

- uncertainty, fixed;
- diversity: distance of its features to the nearest item that is labelled or taken already, over the largest such distance there was at first
  (k-centre greedy: Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018);
- balance: how rare the rarest of its classes is among objects that are labelled or taken already, 1 / (1 + count) over the largest such value at first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_TOP = 3


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the three scores, not negative and not all 0."""

    uncertainty: float = 1.0
    diversity: float = 1.0
    balance: float = 0.5

    def __post_init__(self) -> None:
        values = (self.uncertainty, self.diversity, self.balance)
        if not all(np.isfinite(v) and v >= 0 for v in values) or not any(values):
            raise ValueError(f"weights {values}: must not be negative, and one of them above 0")


@dataclass(frozen=True, slots=True)
class Pick:
    """One chosen item: its index, and its scores when it was taken."""

    index: int
    score: float
    uncertainty: float
    diversity: float
    balance: float


def class_uncertainty(confidences: npt.ArrayLike) -> Array:
    """Entropy in bits of "an object of this class or not", (N,) in [0, 1]: 1 at a confidence of 0.5, 0 at 0 and at 1."""
    p = np.clip(np.asarray(confidences, np.float64), 0.0, 1.0)
    inside = (p > 0) & (p < 1)
    q = np.where(inside, p, 0.5)
    return np.where(inside, -(q * np.log2(q) + (1 - q) * np.log2(1 - q)), 0.0)


def object_uncertainty(confidences: npt.ArrayLike, mask_certainties: npt.ArrayLike | None = None) -> Array:
    """(N,) in [0, 1]: the larger of the uncertainty of the class and of the mask, 1 - certainty; NaN where a mask's certainty is not known."""
    of_class = class_uncertainty(confidences)
    if mask_certainties is None:
        return of_class
    of_mask = 1.0 - np.clip(np.asarray(mask_certainties, np.float64), 0.0, 1.0)
    return np.fmax(of_class, of_mask)


def image_uncertainty(objects: npt.ArrayLike) -> float:
    """Mean of the three highest uncertainties of an image's objects; 0 without objects. A mean over all would favour images with one object only."""
    values = np.sort(np.asarray(objects, np.float64))[::-1][:_TOP]
    return float(values.mean()) if values.size else 0.0


def select(
    uncertainty: Array,
    budget: float,
    *,
    costs: Array | None = None,
    features: Array | None = None,
    labelled: Array | None = None,
    classes: Array | None = None,
    class_counts: Array | None = None,
    weights: Weights | None = None,
    seed: int = 0,
) -> list[Pick]:
    """Items to label, in the order in which they are taken.

    uncertainty: (N,) in [0, 1].  budget: total cost to spend.  costs: (N,) above 0, 1 each if not given; an item that does not fit any more is passed over.
    features: (N, D), any scale, finite; without them diversity is 0.  labelled: (M, D) features of what is labelled already.
    classes: (N, C) expected objects of each class; without them balance is 0.  class_counts: (C,) objects of each class that are labelled already.
    seed: decides between items of equal score. The same input and seed give the same picks.
    Raises ValueError for arrays that do not fit together.
    """
    n = len(uncertainty)
    weights = weights or Weights()
    costs = np.ones(n) if costs is None else np.asarray(costs, np.float64)
    if costs.shape != (n,) or (n and costs.min() <= 0):
        raise ValueError(f"costs: expected {n} values above 0")
    if features is not None and (len(features) != n or not np.isfinite(features).all()):
        raise ValueError(f"features: expected ({n}, D) finite values, not {np.shape(features)}")
    if classes is not None and len(classes) != n:
        raise ValueError(f"classes: expected {n} rows, not {len(classes)}")
    order = np.random.default_rng(seed).permutation(n)  # argmax takes the first of equals
    near = _Nearest(features, labelled, n)
    rare = _Rarity(classes, class_counts, n)
    total = weights.uncertainty + weights.diversity + weights.balance
    free, left = np.ones(n, bool), float(budget)
    picks: list[Pick] = []
    while (open_ := free & (costs <= left)).any():
        diversity, balance = near.scores(), rare.scores()
        score = (weights.uncertainty * uncertainty + weights.diversity * diversity + weights.balance * balance) / total
        candidates = np.where(open_, score, -np.inf)
        best = int(order[np.argmax(candidates[order])])
        picks.append(Pick(best, float(score[best]), float(uncertainty[best]), float(diversity[best]), float(balance[best])))
        free[best], left = False, left - costs[best]
        near.take(best)
        rare.take(best)
    return picks


class _Nearest:
    """Distance of each item to the nearest that is labelled or taken; as long as there is none, all are equally far."""

    def __init__(self, features: Array | None, labelled: Array | None, n: int) -> None:
        self.features = None if features is None else np.asarray(features, np.float64)
        self.distance = np.full(n, np.inf if features is not None else 0.0)
        self.scale: float | None = None
        if self.features is not None and labelled is not None:
            for row in np.asarray(labelled, np.float64):
                self._shorten(row)

    def scores(self) -> Array:
        if not self.distance.size or np.isinf(self.distance[0]):
            return np.ones_like(self.distance)
        if self.scale is None:
            self.scale = float(self.distance.max()) or 1.0
        return np.minimum(self.distance / self.scale, 1.0)

    def take(self, index: int) -> None:
        if self.features is not None:
            self._shorten(self.features[index])

    def _shorten(self, row: Array) -> None:
        assert self.features is not None
        self.distance = np.minimum(self.distance, np.sqrt(((self.features - row) ** 2).sum(1)))


class _Rarity:
    """Of each item, the rarity of the rarest class in it. An item counts for a class where at least half an object of it is expected."""

    def __init__(self, classes: Array | None, counts: Array | None, n: int) -> None:
        self.classes = None if classes is None else np.asarray(classes, np.float64)
        self.n = n
        if self.classes is not None:
            self.counts = np.zeros(self.classes.shape[1]) if counts is None else np.array(counts, np.float64)
            present = (self.classes >= 0.5).any(0)
            self.scale = float(self._rarity()[present].max()) if present.any() else 1.0

    def _rarity(self) -> Array:
        return 1.0 / (1.0 + self.counts)

    def scores(self) -> Array:
        if self.classes is None or not self.classes.size:
            return np.zeros(self.n)
        rarest: Array = np.where(self.classes >= 0.5, self._rarity(), 0.0).max(1)
        return rarest / self.scale

    def take(self, index: int) -> None:
        if self.classes is not None:
            self.counts += self.classes[index]
