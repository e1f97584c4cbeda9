"""COCO's matching and averaging over arrays: the numbers of pycocotools' COCOeval to the last bit (tests compare every value of its tables).

COCOeval loops over classes x object sizes x images and keeps every mask until the end. Here an image is matched when it is added, and only what
the averages need is kept, so that 5,000 images do not fill the memory and a class that an image does not show costs nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
RECALLS: Floats = np.linspace(0.0, 1.0, 101)
AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
"""All, small, medium and large objects, in square pixels, both ends included."""
LIMITS = (1, 10, 100)
"""At most so many predictions of an image and class count, the most confident ones."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labelled objects of one image. classes: (G,).  areas: (G,) square pixels.  crowd: (G,)."""

    classes: Sequence[int]
    areas: Sequence[float]
    crowd: Sequence[bool]


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predicted objects of one image. classes: (D,).  areas: (D,) square pixels.  scores: (D,) confidences."""

    classes: Sequence[int]
    areas: Sequence[float]
    scores: Sequence[float]


@dataclass(frozen=True, slots=True)
class Table:
    """COCOeval's tables, -1 where a class has no object of that size. T IoU thresholds, R recalls, K classes, A sizes, L limits.

    precision: (T, R, K, A) at the largest limit, the best at that recall or above.  scores: (T, R, K, A) confidence at which it is reached.
    recall: (T, K, A, L).  objects: (K, A) labelled objects, crowds not counted.
    """

    precision: Floats
    scores: Floats
    recall: Floats
    objects: Integers


@dataclass(frozen=True, slots=True)
class _Matches:
    """Predictions of one image and class by falling score. hit, ignored: (A, T, D)."""

    scores: list[float]
    hit: Bools
    ignored: Bools


class Averager:
    """Add images, then compute. thresholds: rising IoUs; limits: rising."""

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS, limits: Sequence[int] = LIMITS) -> None:
        self.thresholds, self.limits = tuple(thresholds), tuple(limits)
        self._matches: dict[int, list[_Matches]] = defaultdict(list)
        self._objects: dict[int, Integers] = defaultdict(lambda: np.zeros(len(AREAS), np.int64))

    def add(self, labels: Labelled, found: Predicted, ious: Floats) -> None:
        """ious: (D, G) overlaps, of crowds the share of the prediction; those of different classes are not looked at."""
        of_label, of_found = _by_class(labels.classes), _by_class(found.classes)
        for cls in of_label.keys() | of_found.keys():
            columns = of_label.get(cls, [])
            rows = sorted(of_found.get(cls, ()), key=lambda i: -found.scores[i])[: self.limits[-1]]
            areas, crowd = [labels.areas[j] for j in columns], [labels.crowd[j] for j in columns]
            overlaps = ious[np.ix_(rows, columns)].tolist() if rows and columns else [[]] * len(rows)
            near = [[(j, iou) for j, iou in enumerate(row) if iou >= self._lowest] for row in overlaps]
            self._objects[cls] += _counts(areas, crowd)
            if rows:
                self._matches[cls].append(self._match([found.scores[i] for i in rows], [found.areas[i] for i in rows], areas, crowd, near))

    @property
    def _lowest(self) -> float:
        return min(self.thresholds[0], 1 - 1e-10)

    def _match(
        self,
        scores: list[float],
        found_areas: list[float],
        areas: list[float],
        crowd: list[bool],
        near: list[list[tuple[int, float]]],
    ) -> _Matches:
        shape = len(AREAS), len(self.thresholds), len(scores)
        hit, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
        any_near, any_crowd = any(near), any(crowd)
        known: dict[tuple[bool, ...], Integers] = {}
        for a, (low, high) in enumerate(AREAS):
            if any_near:
                left_out = [c or not low <= area <= high for c, area in zip(crowd, areas, strict=True)]
                # whom a prediction takes depends on who is left out only if some are and others are not
                key = tuple(left_out) if any_crowd or not all(left_out) else (False,) * len(left_out)
                if key not in known:
                    known[key] = _assign(near, key, crowd, self.thresholds)
                taken = known[key]
                hit[a] = taken >= 0
                ignored[a] = np.array([*left_out, False])[taken]
            outside = [not low <= area <= high for area in found_areas]
            if any(outside):
                ignored[a] |= ~hit[a] & np.array(outside)
        return _Matches(scores, hit, ignored)

    def renumbered(self, index: Mapping[int, int]) -> Averager:
        """The same matches, of the classes in `index` only, under the numbers that it gives them."""
        other = Averager(self.thresholds, self.limits)
        other._matches.update({new: self._matches[old] for old, new in index.items() if old in self._matches})
        other._objects.update({new: self._objects[old] for old, new in index.items() if old in self._objects})
        return other

    def compute(self, classes: int) -> Table:
        """classes: how many there are, from 0 on."""
        shape = len(self.thresholds), len(RECALLS), classes, len(AREAS)
        precision, scores = np.full(shape, -1.0), np.full(shape, -1.0)
        recall = np.full((len(self.thresholds), classes, len(AREAS), len(self.limits)), -1.0)
        objects = np.zeros((classes, len(AREAS)), np.int64)
        for cls, count in self._objects.items():
            objects[cls] = count
            if count[0] == 0:  # no object of any size
                continue
            confidences, hit, ignored, ranks = self._sorted(cls)
            for a in np.flatnonzero(count):
                recall[:, cls, a] = _recalls(hit[a] & ~ignored[a], ranks, self.limits) / count[a]
                precision[:, :, cls, a], scores[:, :, cls, a] = _curve(confidences, hit[a], ignored[a], int(count[a]))
        return Table(precision, scores, recall, objects)

    def counted(self, cls: int, threshold: int = 0) -> tuple[Floats, Bools]:
        """Scores of the predictions of a class that count (not ignored), falling, and whether each is right at that IoU threshold."""
        confidences, hit, ignored, _ = self._sorted(cls)
        kept = ~ignored[0, threshold]
        return confidences[kept], hit[0, threshold][kept]

    def _sorted(self, cls: int) -> tuple[Floats, Bools, Bools, Integers]:
        """Predictions of all images by falling score: scores (N,), hit and ignored (A, T, N), rank in their image (N,)."""
        parts = self._matches.get(cls, [])
        if not parts:
            nothing = np.zeros((len(AREAS), len(self.thresholds), 0), bool)
            return np.zeros(0), nothing, nothing, np.zeros(0, np.int64)
        scores = np.concatenate([p.scores for p in parts])
        order = np.argsort(-scores, kind="stable")
        ranks = np.concatenate([np.arange(len(p.scores)) for p in parts])
        hit, ignored = np.concatenate([p.hit for p in parts], -1), np.concatenate([p.ignored for p in parts], -1)
        return scores[order], hit[..., order], ignored[..., order], ranks[order]


def _by_class(classes: Sequence[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for i, cls in enumerate(classes):
        found.setdefault(cls, []).append(i)
    return found


def _counts(areas: list[float], crowd: list[bool]) -> list[int]:
    """Objects of each size that count."""
    counted = [area for area, c in zip(areas, crowd, strict=True) if not c]
    return [sum(low <= area <= high for area in counted) for low, high in AREAS]


def _assign(near: list[list[tuple[int, float]]], left_out: tuple[bool, ...], crowd: list[bool], thresholds: Sequence[float]) -> Integers:
    """(T, D) index of the label that each prediction takes, -1 for none.

    The best free label of at least the threshold, of equal ones the last; one that counts before one that is left out. Crowds stay free.
    """
    taken = np.full((len(thresholds), len(near)), -1)
    ordered = [sorted(row, key=lambda pair: left_out[pair[0]]) for row in near]
    for t, threshold in enumerate(thresholds):
        used: set[int] = set()
        for i, row in enumerate(ordered):
            best, at = min(threshold, 1 - 1e-10), -1
            for j, iou in row:
                if j in used and not crowd[j]:
                    continue
                if at >= 0 and left_out[j] and not left_out[at]:
                    break
                if iou >= best:
                    best, at = iou, j
            if at >= 0:
                used.add(at)
                taken[t, i] = at
    return taken


def _recalls(right: Bools, ranks: Integers, limits: Sequence[int]) -> Floats:
    """(T, L) right predictions among the first `limit` of each image."""
    return np.stack([right[:, ranks < limit].sum(1, dtype=np.float64) for limit in limits], 1)


def _curve(confidences: Floats, hit: Bools, ignored: Bools, objects: int) -> tuple[Floats, Floats]:
    """(T, R) precision and the confidence where it is reached, 0 beyond the largest recall."""
    shape = len(hit), len(RECALLS)
    precision, scores = np.zeros(shape), np.zeros(shape)
    right = np.cumsum(hit & ~ignored, 1).astype(np.float64)
    wrong = np.cumsum(~hit & ~ignored, 1).astype(np.float64)
    reached = right / objects
    best = right / (wrong + right + np.spacing(1))
    best = np.maximum.accumulate(best[:, ::-1], 1)[:, ::-1]
    for t in range(len(hit)):
        at = np.searchsorted(reached[t], RECALLS, side="left")
        at = at[at < reached.shape[1]]
        precision[t, : len(at)], scores[t, : len(at)] = best[t, at], confidences[at]
    return precision, scores
