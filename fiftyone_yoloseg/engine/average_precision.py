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
    """Predictions of one image and class by falling score. hit, ignored: (A, T, D), the latter by the label taken; None where none is near."""

    scores: list[float]
    areas: list[float]
    hit: Bools | None = None
    ignored: Bools | None = None
    image: int = 0


@dataclass(frozen=True, slots=True)
class Ranking:
    """One class, objects of all sizes: its N predictions by falling score. T IoU thresholds, I images.

    image: (N,) where each comes from.  hit: (T, N) right ones.  counts: (T, N) those that are not ignored.  objects: (I,) to find in each image.
    """

    image: Integers
    hit: Bools
    counts: Bools
    objects: Integers


class Averager:
    """Add images, then compute. thresholds: rising IoUs; limits: rising."""

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS, limits: Sequence[int] = LIMITS) -> None:
        self.thresholds, self.limits = tuple(thresholds), tuple(limits)
        self._matches: dict[int, list[_Matches]] = defaultdict(list)
        self._objects: dict[int, Integers] = defaultdict(lambda: np.zeros(len(AREAS), np.int64))
        self._objects_in: dict[int, dict[int, int]] = defaultdict(dict)  # class -> image -> objects, crowds not counted
        self.images = 0

    def add(self, labels: Labelled, found: Predicted, ious: Floats) -> None:
        """ious: (D, G) overlaps, of crowds the share of the prediction; those of different classes are not looked at."""
        of_label, of_found = _by_class(labels.classes), _by_class(found.classes)
        overlaps = ious.tolist()
        for cls in of_label.keys() | of_found.keys():
            columns = of_label.get(cls, [])
            rows = sorted(of_found.get(cls, ()), key=lambda i: -found.scores[i])[: self.limits[-1]]
            areas, crowd = [labels.areas[j] for j in columns], [labels.crowd[j] for j in columns]
            if columns:
                self._objects[cls] += _counts(areas, crowd)
                self._objects_in[cls][self.images] = len(crowd) - sum(crowd)
            if rows:
                near = [[(j, row[k]) for j, k in enumerate(columns) if row[k] >= self._lowest] for row in (overlaps[i] for i in rows)]
                hit, ignored = self._match(areas, crowd, near) if any(near) else (None, None)
                self._matches[cls].append(
                    _Matches([found.scores[i] for i in rows], [found.areas[i] for i in rows], hit, ignored, self.images)
                )
        self.images += 1

    @property
    def _lowest(self) -> float:
        return min(self.thresholds[0], 1 - 1e-10)

    def _match(self, areas: list[float], crowd: list[bool], near: list[list[tuple[int, float]]]) -> tuple[Bools, Bools]:
        """hit, ignored: (A, T, D)."""
        any_crowd = any(crowd)
        known: dict[tuple[bool, ...], Integers] = {}
        taken, ignored = [], []
        for low, high in AREAS:
            left_out = [c or not low <= area <= high for c, area in zip(crowd, areas, strict=True)]
            # whom a prediction takes depends on who is left out only if some are and others are not
            key = tuple(left_out) if any_crowd or not all(left_out) else (False,) * len(left_out)
            if key not in known:
                known[key] = _assign(near, key, crowd, self.thresholds)
            taken.append(known[key])
            ignored.append(np.array([*left_out, False])[known[key]])
        return np.array(taken) >= 0, np.array(ignored)

    def renumbered(self, index: Mapping[int, int]) -> Averager:
        """The same matches, of the classes in `index` only, under the numbers that it gives them."""
        other = Averager(self.thresholds, self.limits)
        other._matches.update({new: self._matches[old] for old, new in index.items() if old in self._matches})
        other._objects.update({new: self._objects[old] for old, new in index.items() if old in self._objects})
        other._objects_in.update({new: self._objects_in[old] for old, new in index.items() if old in self._objects_in})
        other.images = self.images
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
            confidences, hit, ignored, ranks, _ = self._sorted(cls)
            sizes = np.flatnonzero(count)
            hit, ignored = hit[sizes], ignored[sizes]
            for m, limit in enumerate(self.limits):
                first = (hit & ~ignored)[..., ranks < limit]
                recall[:, cls, sizes, m] = (first.sum(-1, dtype=np.float64) / count[sizes, None]).T
            best, reached_at = _curves(confidences, hit, ignored, count[sizes])
            precision[:, :, cls, sizes], scores[:, :, cls, sizes] = best.transpose(1, 2, 0), reached_at.transpose(1, 2, 0)
        return Table(precision, scores, recall, objects)

    def counted(self, cls: int, threshold: int = 0) -> tuple[Floats, Bools]:
        """Scores of the predictions of a class that count (not ignored), falling, and whether each is right at that IoU threshold."""
        confidences, hit, ignored, _, _ = self._sorted(cls)
        kept = ~ignored[0, threshold]
        return confidences[kept], hit[0, threshold][kept]

    def rankings(self) -> list[Ranking]:
        """Of each class that has objects."""
        found = []
        for cls, count in self._objects.items():
            if not count[0]:
                continue
            _, hit, ignored, _, image = self._sorted(cls)
            objects = np.zeros(self.images, np.int64)
            for where, number in self._objects_in[cls].items():
                objects[where] = number
            found.append(Ranking(image, hit[0] & ~ignored[0], ~ignored[0], objects))
        return found

    def _sorted(self, cls: int) -> tuple[Floats, Bools, Bools, Integers, Integers]:
        """Predictions of all images by falling score: scores (N,), hit and ignored (A, T, N), rank in their image and that image (N,)."""
        parts = self._matches.get(cls, [])
        if not parts:
            nothing = np.zeros((len(AREAS), len(self.thresholds), 0), bool)
            return np.zeros(0), nothing, nothing, np.zeros(0, np.int64), np.zeros(0, np.int64)
        scores = np.concatenate([p.scores for p in parts])
        areas = np.concatenate([p.areas for p in parts])
        ranks = np.concatenate([np.arange(len(p.scores)) for p in parts])
        shape = len(AREAS), len(self.thresholds), len(scores)
        hit, ignored, start = np.zeros(shape, bool), np.zeros(shape, bool), 0
        for part in parts:
            end = start + len(part.scores)
            if part.hit is not None:
                hit[..., start:end], ignored[..., start:end] = part.hit, part.ignored
            start = end
        low, high = np.array(AREAS).T[..., None]
        ignored |= ~hit & ((areas < low) | (areas > high))[:, None]
        order = np.argsort(-scores, kind="stable")
        image = np.repeat([p.image for p in parts], [len(p.scores) for p in parts])
        return scores[order], hit[..., order], ignored[..., order], ranks[order], image[order]


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


def _curves(confidences: Floats, hit: Bools, ignored: Bools, objects: Integers) -> tuple[Floats, Floats]:
    """(S, T, R) precision and the confidence where it is reached, 0 beyond the largest recall. hit, ignored: (S, T, N); objects: (S,)."""
    sizes, thresholds, n = hit.shape
    if not n:
        return np.zeros((sizes, thresholds, len(RECALLS))), np.zeros((sizes, thresholds, len(RECALLS)))
    right, counted = np.cumsum(hit & ~ignored, -1), np.cumsum(~ignored, -1)
    wrong: Floats = (counted - right).astype(np.float64)
    best = right / (wrong + right + np.spacing(1))
    best = np.maximum.accumulate(best[..., ::-1], -1)[..., ::-1]
    # how many right ones each recall needs, then where each row has as many: its counts rise, so that all rows can be searched as one
    needed = np.stack([np.searchsorted(np.arange(o + 1) / o, RECALLS, side="left") for o in objects.tolist()])
    row = np.arange(sizes * thresholds).reshape(sizes, thresholds, 1)
    offset = row * (int(objects.max()) + 2)
    at = np.searchsorted((right + offset).ravel(), (needed[:, None] + offset).ravel(), side="left").reshape(sizes, thresholds, -1) - row * n
    reached = at < n
    at = np.minimum(at, n - 1)
    return np.where(reached, np.take_along_axis(best, at, -1), 0.0), np.where(reached, confidences[at], 0.0)
