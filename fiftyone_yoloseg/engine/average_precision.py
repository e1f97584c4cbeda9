"""COCO's matching and averaging over arrays: the numbers of pycocotools' COCOeval to the last bit (tests compare every value of its tables).

COCOeval loops over classes x object sizes x images and keeps every mask until the end. Here an image is matched when it is added, and only what
the averages need is kept, so that 5,000 images do not fill the memory and a class that an image does not show costs nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int32]
THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
RECALLS: Floats = np.linspace(0.0, 1.0, 101)
AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
"""All, small, medium and large objects, in square pixels, both ends included."""
LIMITS = (1, 10, 100)
"""At most so many predictions of an image and class count, the most confident ones."""
_AT_ONCE = 20_000
"""Predictions whose averages are computed together."""


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


@dataclass(slots=True)
class _Matches:
    """The predictions of one class, image by image, each image's by falling score; index i of every list is the same one.

    ranks: in its image. images: which one. near: (first, hit, ignored) of those images where a label is near, both (A, T, D), the latter by the
    label taken.
    """

    scores: list[float] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    near: list[tuple[int, Bools, Bools]] = field(default_factory=list)


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
        self._matches: dict[int, _Matches] = defaultdict(_Matches)
        self._objects: dict[int, Integers] = defaultdict(lambda: np.zeros(len(AREAS), np.int64))
        self._objects_in: dict[int, dict[int, int]] = defaultdict(dict)  # class -> image -> objects, crowds not counted
        self.images = 0
        self._clipped: Floats = np.minimum(self.thresholds, 1 - 1e-10)  # (T,) the overlaps at which pycocotools calls a label taken

    def add(self, labels: Labelled, found: Predicted, ious: Floats) -> None:
        """ious: (D, G) overlaps, of crowds the share of the prediction; those of different classes are not looked at."""
        of_label, of_found = _by_class(labels.classes), _by_class(found.classes)
        near: dict[int, list[tuple[int, float]]] = {}  # prediction -> labels of its class that it may take, with the overlap
        rows, columns = np.nonzero(ious >= self._clipped[0])
        for i, j, iou in zip(rows.tolist(), columns.tolist(), ious[rows, columns].tolist(), strict=True):
            if found.classes[i] == labels.classes[j]:
                near.setdefault(i, []).append((j, iou))
        for cls, own in of_label.items():
            self._objects[cls] += _counts([labels.areas[j] for j in own if not labels.crowd[j]])
            self._objects_in[cls][self.images] = sum(not labels.crowd[j] for j in own)
        for cls, every in of_found.items():
            ranked = sorted(every, key=lambda i: -found.scores[i])[: self.limits[-1]]
            candidates = [near.get(i, ()) for i in ranked]
            own_matches = self._matches[cls]
            if any(candidates):
                own_matches.near.append((len(own_matches.scores), *self._match(labels, of_label[cls], candidates)))
            own_matches.scores += [found.scores[i] for i in ranked]
            own_matches.areas += [found.areas[i] for i in ranked]
            own_matches.ranks += range(len(ranked))
            own_matches.images += [self.images] * len(ranked)
        self.images += 1

    def _match(self, labels: Labelled, own: list[int], near: Sequence[Sequence[tuple[int, float]]]) -> tuple[Bools, Bools]:
        """hit, ignored: (A, T, D). own: the labels of the class.  near: of each prediction the labels that it may take."""
        out = {j: [labels.crowd[j] or not low <= labels.areas[j] <= high for low, high in AREAS] for j in own}
        if all(len(row) < 2 for row in near):
            return self._match_single(labels, out, near)
        known: dict[tuple[bool, ...], Integers] = {}
        hits, ignored = [], []
        for a in range(len(AREAS)):
            # whom a prediction takes depends on who is left out only if some are and others are not
            key = tuple(out[j][a] for j in own)
            if not any(labels.crowd[j] for j in own) and all(key):
                key = (False,) * len(own)
            if key not in known:
                known[key] = _assign(near, dict(zip(own, key, strict=True)), labels.crowd, self._clipped.tolist())
            taken = known[key]
            hits.append(taken >= 0)
            ignored.append(np.array([*(out[j][a] if j in out else False for j in range(len(labels.areas))), False])[taken])
        return np.array(hits), np.array(ignored)

    def _match_single(
        self, labels: Labelled, out: dict[int, list[bool]], near: Sequence[Sequence[tuple[int, float]]]
    ) -> tuple[Bools, Bools]:
        """As `_match` where no prediction has a choice: a label goes to the first that overlaps it enough."""
        ious, before, left_out = np.full(len(near), -1.0), np.full(len(near), -1.0), np.zeros((len(AREAS), len(near)), bool)
        highest: dict[int, float] = {}
        for i, row in enumerate(near):
            for j, iou in row:
                ious[i], before[i], left_out[:, i] = iou, highest.get(j, -1.0), out[j]
                if not labels.crowd[j]:  # a crowd can be taken by all
                    highest[j] = max(iou, highest.get(j, -1.0))
        thresholds = self._clipped[:, None]
        hit = (thresholds <= ious) & (thresholds > before)
        return np.broadcast_to(hit, (len(AREAS), *hit.shape)), hit & left_out[:, None]

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
        for group in self._groups():
            confidences, hit, ignored, ranks, _, starts = self._sorted(group)
            there = objects[group].T  # (A, K)
            right = hit & ~ignored
            for m, limit in enumerate(self.limits):
                share = _sums(_running(right & (ranks < limit)), starts) / np.maximum(there, 1)[:, None]
                recall[..., m][:, group] = np.where(there[:, None] > 0, share, -1.0).transpose(1, 2, 0)
            best, reached_at = _curves(confidences, right, ~ignored, starts, there)
            precision[:, :, group], scores[:, :, group] = best.transpose(1, 3, 2, 0), reached_at.transpose(1, 3, 2, 0)
        return Table(precision, scores, recall, objects)

    def _groups(self) -> Iterator[list[int]]:
        """Classes that have objects, as many at a time as keep the arrays small: numpy's calls cost more than the numbers of a rare class."""
        group: list[int] = []
        for cls, count in self._objects.items():
            if count[0]:
                group.append(cls)
            if sum(len(self._matches[c].scores) for c in group if c in self._matches) > _AT_ONCE or len(group) == _AT_ONCE // 100:
                yield group
                group = []
        if group:
            yield group

    def counted(self, cls: int, threshold: int = 0) -> tuple[Floats, Bools]:
        """Scores of the predictions of a class that count (not ignored), falling, and whether each is right at that IoU threshold."""
        confidences, hit, ignored, *_ = self._sorted([cls])
        kept = ~ignored[0, threshold]
        return confidences[kept], hit[0, threshold][kept]

    def rankings(self) -> list[Ranking]:
        """Of each class that has objects."""
        found = []
        for cls, count in self._objects.items():
            if not count[0]:
                continue
            _, hit, ignored, _, image, _ = self._sorted([cls])
            objects = np.zeros(self.images, np.int64)
            for where, number in self._objects_in[cls].items():
                objects[where] = number
            found.append(Ranking(image, hit[0] & ~ignored[0], ~ignored[0], objects))
        return found

    def _sorted(self, classes: Sequence[int]) -> tuple[Floats, Bools, Bools, Integers, Integers, Integers]:
        """Predictions of all images, class by class, each by falling score: scores (N,), hit and ignored (A, T, N), rank in their image and that
        image (N,), and where each class starts (K + 1,)."""
        own = [self._matches.get(cls, _Matches()) for cls in classes]
        lengths = [len(matches.scores) for matches in own]
        starts = np.cumsum([0, *lengths])
        scores, areas = (np.array([v for m in own for v in getattr(m, name)], np.float64) for name in ("scores", "areas"))
        ranks, images = (np.array([v for m in own for v in getattr(m, name)], np.int64) for name in ("ranks", "images"))
        hit = np.zeros((len(AREAS), len(self.thresholds), len(scores)), bool)
        ignored = np.zeros_like(hit)
        near = [(at + start, *found) for matches, at in zip(own, starts.tolist(), strict=False) for start, *found in matches.near]
        if near:
            columns = np.concatenate([np.arange(at, at + there.shape[2]) for at, there, _ in near])
            hit[..., columns] = np.concatenate([there for _, there, _ in near], -1)
            ignored[..., columns] = np.concatenate([there for _, _, there in near], -1)
        low, high = np.array(AREAS).T[..., None]
        ignored |= ~hit & ((areas < low) | (areas > high))[:, None]
        order = np.lexsort((-scores, np.repeat(np.arange(len(own)), lengths)))
        return scores[order], hit[..., order], ignored[..., order], ranks[order], images[order], starts


def _by_class(classes: Sequence[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for i, cls in enumerate(classes):
        found.setdefault(cls, []).append(i)
    return found


def _counts(areas: list[float]) -> list[int]:
    """Objects of each size."""
    return [sum(low <= area <= high for area in areas) for low, high in AREAS]


def _assign(
    near: Sequence[Sequence[tuple[int, float]]], left_out: Mapping[int, bool], crowd: Sequence[bool], thresholds: Sequence[float]
) -> Integers:
    """(T, D) index of the label that each prediction takes, -1 for none.

    The best free label of at least the threshold, of equal ones the last; one that counts before one that is left out. Crowds stay free.
    """
    taken = np.full((len(thresholds), len(near)), -1)
    ordered = [sorted(row, key=lambda pair: left_out[pair[0]]) for row in near]
    for t, threshold in enumerate(thresholds):
        used: set[int] = set()
        for i, row in enumerate(ordered):
            best, at = threshold, -1
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


def _running(values: Bools) -> Counts:
    """(A, T, N + 1) how many there are before each, and in all. values: (A, T, N)."""
    before = np.zeros((*values.shape[:2], values.shape[2] + 1), np.int32)
    np.cumsum(values, -1, np.int32, out=before[..., 1:])
    return before


def _sums(running: Counts, starts: Integers) -> Counts:
    """(A, T, K) how many of each class. starts: (K + 1,)."""
    return np.diff(running[..., starts])


def _so_far(running: Counts, starts: Integers) -> Counts:
    """(A, T, N) how many of its class up to and with each."""
    return running[..., 1:] - np.repeat(running[..., starts[:-1]], np.diff(starts), -1)


def _curves(confidences: Floats, right: Bools, counted: Bools, starts: Integers, objects: Integers) -> tuple[Floats, Floats]:
    """(A, T, K, R) precision, the best at that recall or above, and the confidence where it is reached; 0 beyond the largest recall, -1 without objects.

    right, counted: (A, T, N) by class and falling score. starts: (K + 1,) of the classes. objects: (A, K).
    """
    sizes, thresholds, n = right.shape
    known = np.broadcast_to((objects > 0)[:, None], (sizes, thresholds, objects.shape[1]))
    best, reached_at = np.full((*known.shape, len(RECALLS)), -1.0), np.full((*known.shape, len(RECALLS)), -1.0)
    if not n:
        best[known] = reached_at[known] = 0.0
        return best, reached_at
    # of each class the counts up to and with each prediction, and from them the precision there
    running = _running(right)
    rights, counts = _so_far(running, starts), _so_far(_running(counted), starts)
    wrong: Floats = (counts - rights).astype(np.float64)
    precision = rights / (wrong + rights + np.spacing(1))
    # M curves, (a, t, k) of each: how many right ones each recall needs, and where the last of them is; all rows lie one behind the other
    a, t, k = np.nonzero(known)
    ways = {o: np.searchsorted(np.arange(o + 1) / o, RECALLS, side="left") for o in set(objects[objects > 0].tolist())}
    needed = np.array([ways[o] for o in objects[a, k].tolist()]).reshape(-1, len(RECALLS))
    row = (a * thresholds + t) * n
    first, end = (starts[k] + row)[:, None], (starts[k + 1] + row)[:, None]
    places = np.append(np.flatnonzero(right), 0)
    earlier = np.searchsorted(places[:-1], first)
    reached = (needed <= _sums(running, starts)[known][:, None]) & (first < end)
    at = np.where(reached, np.where(needed > 0, places[np.where(reached, earlier + needed - 1, 0)], first), end)
    # the best from there on: of the parts between one recall's place and the next, then of all parts that follow
    parts = np.maximum.reduceat(np.append(precision.ravel(), 0.0), np.concatenate([at, end], 1).ravel()).reshape(-1, len(RECALLS) + 1)
    best[known] = np.maximum.accumulate(np.where(reached, parts[:, :-1], 0.0)[:, ::-1], 1)[:, ::-1]
    reached_at[known] = np.where(reached, confidences[at % n], 0.0)
    return best, reached_at
