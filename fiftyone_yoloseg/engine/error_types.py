"""What kind of error each prediction is and what it costs, in the manner of TIDE (Bolya et al. 2020, arXiv 2008.08115), on masks.

An error of localisation is told apart further, because masks go wrong in more ways than boxes. With `u` the IoU of masks:

- class: u >= 0.5 with an object of another class;
- localisation: 0.1 <= u < 0.5 with an object of its class, and that is
  merged, if it covers half or more of each of two objects; split, if half or more of it and of another prediction of its class lie on the object;
  shifted, if u >= 0.5 once their centres of mass lie on each other; else boundary;
- class and localisation: 0.1 <= u < 0.5 with an object of another class only;
- duplicate: u >= 0.5 with an object of its class that a more confident prediction has;
- background: u < 0.1 with every object;
- missed: an object that nothing of the above, nor a correct prediction, lies on.

The cost of a kind is what AP at IoU 0.5, meaned over classes, would rise by if all errors of that kind were set right, and the cost of an object
what it would rise by if that one were: errors of class and localisation become correct, unless the object is taken already; the other false
predictions are removed; a missed object no longer counts.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ..geometry import masks
from ..types import CropMask, ImageRecord, Instances
from .matching import IGNORED, match, overlaps

Kind = Literal["class", "boundary", "merged", "split", "shifted", "class and localisation", "duplicate", "background", "missed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FOREGROUND, BACKGROUND, HALF = 0.5, 0.1, 0.5
_MENDED = ("class", "boundary", "merged", "split", "shifted")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ObjectError:
    """An error of one image. prediction: index into its predictions, None for a missed object. label: index of the object that it lies on,
    None for background. iou: with that object. confidence: of the prediction."""

    image: int
    kind: Kind
    prediction: int | None
    label: int | None
    iou: float = 0.0
    confidence: float = 0.0


@dataclass(slots=True)
class _Row:
    """One prediction that counts: what AP is computed from."""

    cls: int
    confidence: float
    correct: bool


@dataclass(slots=True)
class ErrorTypes:
    """Errors of all images so far. Add images one by one, then ask for `costs`. nc: number of classes."""

    nc: int
    errors: list[ObjectError] = field(default_factory=list)
    _rows: list[_Row] = field(default_factory=list)
    _row_of: dict[tuple[int, int], int] = field(default_factory=dict)  # (image, prediction) -> row
    _classes: dict[tuple[int, int], int] = field(default_factory=dict)  # (image, label) -> class, of labels that errors lie on
    _taken: set[tuple[int, int]] = field(default_factory=set)
    _objects: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._objects = [0] * self.nc

    def add(self, image: int, record: ImageRecord, found: Instances) -> list[ObjectError]:
        """The errors of one image. Crowds are no objects; a prediction that lies on one is no error."""
        matching = match(record, found, 0.0, iou=FOREGROUND)
        own = [i for i, label in enumerate(record.instances) if not label.crowd]
        for i in own:
            self._objects[record.instances[i].cls] += 1
        table = _Overlaps(record, found, own)
        errors, covered = [], set[int]()
        for prediction, label in zip(matching.predictions.tolist(), matching.labels.tolist(), strict=True):
            if label == IGNORED:
                continue
            self._row_of[image, prediction] = len(self._rows)
            self._rows.append(_Row(int(found.classes[prediction]), float(found.confidences[prediction]), label >= 0))
            if label >= 0:
                self._taken.add((image, label))
                continue
            error = table.error(image, prediction)
            if error.label is not None:
                self._classes[image, error.label] = record.instances[error.label].cls
                if error.kind in _MENDED:
                    covered.add(error.label)
            errors.append(error)
        for i in matching.missed.tolist():
            self._classes[image, i] = record.instances[i].cls
            if i not in covered:
                errors.append(ObjectError(image, "missed", None, i))
        self.errors += errors
        return errors

    @property
    def predictions(self) -> int:
        """How many count: those on crowds do not."""
        return len(self._rows)

    @property
    def ap(self) -> float:
        """AP at IoU 0.5 as it is, 0..1, mean over the classes that have objects."""
        return self._ap(())

    def per_class(self) -> list[tuple[int, int, float]]:
        """(class, objects to find, AP at IoU 0.5) of each class that has objects."""
        ranked = _Ranked(self._rows, self._objects)
        return [(cls, n, ranked.ap[cls]) for cls, n in enumerate(self._objects) if n]

    def costs(self) -> dict[Kind, float]:
        """What AP would rise by if all errors of a kind were set right, 0..1."""
        now = self.ap
        return {kind: self._ap([e for e in self.errors if e.kind == kind]) - now for kind in KINDS}

    def object_costs(self) -> list[float]:
        """The same for each of `errors` alone. Exact; predictions below the last correct one of their class cost nothing and take no time."""
        ranked = _Ranked(self._rows, self._objects)
        return [ranked.without(self._change(error)) for error in self.errors]

    def _change(self, error: ObjectError, taken: set[tuple[int, int]] | None = None) -> _Change:
        """What setting it right does to the rows. taken: objects that are found already."""
        taken = self._taken if taken is None else taken
        if error.prediction is None:
            return _Change(lost_object=self._classes[error.image, error.label or 0])
        row = self._row_of[error.image, error.prediction]
        place = (error.image, -1 if error.label is None else error.label)
        if error.kind in _MENDED and place not in taken:
            return _Change(row, becomes=self._classes[place])
        return _Change(row)

    def _ap(self, mended: Iterable[ObjectError]) -> float:
        classes = np.array([r.cls for r in self._rows], np.int64)
        confidences, correct = np.array([r.confidence for r in self._rows]), np.array([r.correct for r in self._rows], bool)
        objects, keep, taken = list(self._objects), np.ones(len(self._rows), bool), set(self._taken)
        for error in sorted(mended, key=lambda e: -e.confidence):
            change = self._change(error, taken)
            if change.row is None:
                objects[change.lost_object] -= 1
            elif change.becomes is None:
                keep[change.row] = False
            else:
                classes[change.row], correct[change.row] = change.becomes, True
                taken.add((error.image, error.label if error.label is not None else -1))
        order = np.argsort(-confidences, kind="stable")
        order = order[keep[order]]
        per_class = [average_precision(correct[order][classes[order] == cls], n) for cls, n in enumerate(objects) if self._objects[cls]]
        return float(np.mean(per_class)) if per_class else float("nan")


@dataclass(frozen=True, slots=True)
class _Change:
    """row: the prediction that is removed, or becomes a correct one of the class `becomes`; None if an object of the class `lost_object` no
    longer counts."""

    row: int | None = None
    becomes: int | None = None
    lost_object: int = 0


class _Ranked:
    """Rows of each class by falling confidence, to try single changes."""

    def __init__(self, rows: list[_Row], objects: list[int]) -> None:
        self.rows, self.objects = rows, objects
        order = sorted(range(len(rows)), key=lambda i: -rows[i].confidence)
        self.order = [[i for i in order if rows[i].cls == cls] for cls in range(len(objects))]
        self.rank = {i: rank for own in self.order for rank, i in enumerate(own)}
        self.correct = [np.array([rows[i].correct for i in own], bool) for own in self.order]
        self.keys = [[(-rows[i].confidence, i) for i in own] for own in self.order]  # equal confidences stay in the order of the rows
        self.last = [int(np.flatnonzero(c)[-1]) if c.any() else -1 for c in self.correct]
        self.ap = [average_precision(c, n) if n else 0.0 for c, n in zip(self.correct, objects, strict=True)]
        self.classes = sum(n > 0 for n in objects)

    def without(self, change: _Change) -> float:
        """How much the mean AP rises by one change."""
        if change.row is None:
            cls = change.lost_object
            return (average_precision(self.correct[cls], self.objects[cls] - 1) - self.ap[cls]) / self.classes
        gain, row = 0.0, self.rows[change.row]
        rank = self.rank[change.row]
        if self.objects[row.cls] and (rank <= self.last[row.cls] or change.becomes == row.cls):
            left = np.delete(self.correct[row.cls], rank)
            if change.becomes == row.cls:
                left = np.insert(left, rank, True)
            gain += average_precision(left, self.objects[row.cls]) - self.ap[row.cls]
        if change.becomes is not None and change.becomes != row.cls:
            cls = change.becomes
            at = bisect(self.keys[cls], (-row.confidence, change.row))
            gain += average_precision(np.insert(self.correct[cls], at, True), self.objects[cls]) - self.ap[cls]
        return gain / self.classes


def average_precision(correct: npt.NDArray[np.bool_], objects: int) -> float:
    """COCO's AP at one IoU, 0..1: mean over 101 recalls of the best precision at that recall or above. correct: predictions of one class, by
    falling confidence. objects: how many there are to find; without any there is nothing left to gain: 1."""
    if objects <= 0:
        return 1.0
    hits = np.cumsum(correct)
    precision = hits / np.arange(1, len(correct) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    at = np.searchsorted(hits / objects, np.linspace(0, 1, 101), side="left")
    return float(best[np.minimum(at, len(correct))].mean())


class _Overlaps:
    """The overlaps of the predictions of one image with its objects, and what they mean."""

    def __init__(self, record: ImageRecord, found: Instances, own: list[int]) -> None:
        self.record, self.found, self.own = record, found, own
        everything = np.arange(len(found))
        self.iou: Floats = overlaps(record, found, everything)[:, own] if own else np.zeros((len(found), 0))
        areas = np.array([masks.area(m) for m in found.masks], float)
        label_areas = np.array([masks.area(record.instances[i].mask) for i in own], float)
        shared = self.iou * (areas[:, None] + label_areas[None]) / (1 + self.iou)
        self.of_prediction = shared / np.maximum(areas[:, None], 1)
        self.of_label = shared / np.maximum(label_areas[None], 1)
        self.classes = np.array([record.instances[i].cls for i in own], np.int64)

    def error(self, image: int, prediction: int) -> ObjectError:
        """What is wrong with a prediction that is not correct."""
        confidence = float(self.found.confidences[prediction])
        same = self.classes == self.found.classes[prediction]
        mine, theirs = np.where(same, self.iou[prediction], 0.0), np.where(same, 0.0, self.iou[prediction])
        best, other = (float(v.max(initial=0.0)) for v in (mine, theirs))
        kind: Kind
        if best >= FOREGROUND:
            kind, values = "duplicate", mine
        elif other >= FOREGROUND:
            kind, values = "class", theirs
        elif best >= BACKGROUND:
            values = mine
            kind = self._localisation(prediction, int(mine.argmax()))
        elif other >= BACKGROUND:
            kind, values = "class and localisation", theirs
        else:
            return ObjectError(image, "background", prediction, None, max(best, other), confidence)
        at = int(values.argmax())
        return ObjectError(image, kind, prediction, self.own[at], float(values[at]), confidence)

    def _localisation(self, prediction: int, label: int) -> Kind:
        if (self.of_label[prediction] >= HALF).sum() >= 2:
            return "merged"
        alike = self.found.classes == self.found.classes[prediction]
        on_it = alike & (self.of_prediction[:, label] >= HALF)
        if on_it[prediction] and on_it.sum() >= 2:
            return "split"
        moved = _centred(self.found.masks[prediction], self.record.instances[self.own[label]].mask)
        return "shifted" if moved >= FOREGROUND else "boundary"


def _centred(a: CropMask, b: CropMask) -> float:
    """IoU of two masks once their centres of mass lie on each other, to a pixel."""
    (ax, ay), (bx, by) = _centre(a), _centre(b)
    bits = masks.crop_bitmap(a)
    return masks.crop_iou((bits, a.x + round(bx - ax), a.y + round(by - ay)), (masks.crop_bitmap(b), b.x, b.y))


def _centre(mask: CropMask) -> tuple[float, float]:
    rows, columns = np.nonzero(masks.crop_bitmap(mask))
    return mask.x + float(columns.mean()), mask.y + float(rows.mean())
