"""Labels that are likely to be wrong, found by what a model says that has not been trained on them.

Each image is examined on its own (`Evidence`); what depends on how good the model is - how well it outlines objects of a size, how often it finds
them - is judged at the end over all images (`LabelErrors.suspects`). With u the IoU of two masks, conf a confidence:

- missing: conf * (1 - min(1, e / 0.5)) of a prediction; e is the larger of its best u with any label and the share of its pixels that lie on labels of
  its class. Of predictions that overlap by u >= 0.5 the most confident one stands for all.
- spurious: (1 - s) * (1 - (1 - m) * (1 - c)) of a label with s < 0.25. s, its support, is the larger of the best conf * min(1, u / 0.5) over predictions of any class
  and the mean over its pixels of the highest conf of its class there. m is the mean support that labels of this size have: what the model seldom finds is
  no reason. c is the mean over its pixels of the highest conf of a prediction that has another label (u >= 0.5): they belong to something else.
- wrong_class: conf * (1 - own) of a label and a prediction of another class with u >= 0.5 that has no label of its own class (u >= 0.5); own is
  the highest conf of the label's class with u >= 0.5.
- merged: conf * u * min(1, gain / 0.1) of a label and two or more predictions of its class: 0.7 of each lie on the label, at most 0.3 of each on the others,
  and none has a label of its own. conf is the lowest of them, u that of all of them together with the label, gain how much better this is
  than the best single prediction (whose u counts less if its confidence is lower).
- split: conf * u * min(1, gain / 0.1) * (1 - other) of a prediction and two or more labels of its class, the same with the sides exchanged; other is the
  highest confidence of a prediction that has one of the labels for itself (u >= 0.5 and better).
- sloppy: conf * z^2 / (z^2 + 9) * (1 - min(1, 2 o)) of a label and a prediction of its class that are each other's best, u >= 0.3. The gap is the number of
  pixels that only one of both has, over the length of the label's outline (how far the outlines are apart, in pixels) and over the square root of its
  area. z is how far the gap lies above the median of labels of this size, in standard deviations (1.4826 times the median distance of all gaps from those
  medians); 0 where it lies below. o is the label's highest score of wrong_class, merged and split: half of such a suspicion is a better explanation.

Crowds are no labels; a prediction of which half or more lies on a crowd of its class is left out, as COCO does.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import numpy.typing as npt

from ..config.values import LabelErrorKind
from ..geometry import masks
from ..geometry.masks import Crop
from ..types import CropMask, ImageRecord, Instances

KINDS: tuple[LabelErrorKind, ...] = get_args(LabelErrorKind)
SAME, ALIKE, INSIDE, APART, GAIN, DOUBT, ENOUGH = 0.5, 0.3, 0.7, 0.3, 0.1, 3.0, 0.25
LOW_CONF = 0.05
"""Predictions below do not count at all."""
_LEAST_SPREAD = 0.002
"""Of gaps, so that a model which always agrees does not make a pixel suspicious: a fifth of a pixel for an object of 100 x 100."""
_BIN, _MOST_BINS, _ROW = 40, 25, 9
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Suspect:
    """One suspicious place. image: its number. score: 0..1, higher is more suspicious, comparable within a kind.

    labels, predictions: indices into the record's instances and the predictions of that image; the object in doubt is the first label, of a missing one
    the first prediction. iou: of the masks that the kind compares, 0 if there is nothing to compare with.
    """

    image: int
    kind: LabelErrorKind
    score: float
    labels: tuple[int, ...]
    predictions: tuple[int, ...]
    iou: float = 0.0


@dataclass(frozen=True, slots=True)
class _Label:
    """What is known of one label, in the terms of the formulas above. elsewhere: c. gap: nan if no prediction is its own. trust: conf * (1 - min(1, 2 o))."""

    index: int
    area: float
    support: float
    elsewhere: float = 0.0
    prediction: int = -1
    gap: float = float("nan")
    trust: float = 0.0
    iou: float = 0.0


class Evidence:
    """The predictions of one image beside its labels. `suspects`: what can be judged from the image alone; `labels`: for the rest."""

    def __init__(self, image: int, record: ImageRecord, found: Instances, low_conf: float = LOW_CONF) -> None:
        self.image = image
        own = [i for i, label in enumerate(record.instances) if not label.crowd and label.mask.w]
        kept = [i for i in np.argsort(-found.confidences, kind="stable").tolist() if found.confidences[i] >= low_conf and found.masks[i].w]
        kept = _off_crowds(record, found, kept)
        self.label_ids, self.prediction_ids = own, kept
        self.label_crops: list[Crop] = [_crop(record.instances[i].mask) for i in own]
        self.crops: list[Crop] = [_crop(found.masks[i]) for i in kept]
        self.conf = found.confidences[kept].astype(np.float64)
        self.same = found.classes[kept][:, None] == np.array([record.instances[i].cls for i in own], np.int64)[None]
        self.alike = found.classes[kept][:, None] == found.classes[kept][None]
        self.shared = masks.shared_pixels(self.crops, self.label_crops)
        self.areas = np.array([np.count_nonzero(bits) for bits, _, _ in self.crops], np.float64)
        self.label_areas = np.array([np.count_nonzero(bits) for bits, _, _ in self.label_crops], np.float64)
        self.iou: Floats = self.shared / (self.areas[:, None] + self.label_areas[None] - self.shared)
        self.mine: Floats = np.where(self.same, self.iou, 0.0)
        self.suspects = [*self._missing(), *self._wrong_class(), *self._merged(), *self._split()]
        self.labels = self._labels()

    def _suspect(self, kind: LabelErrorKind, score: float, labels: Sequence[int], predictions: Sequence[int], iou: float = 0.0) -> Suspect:
        own, kept = tuple(self.label_ids[j] for j in labels), tuple(self.prediction_ids[i] for i in predictions)
        return Suspect(self.image, kind, float(min(max(score, 0.0), 1.0)), own, kept, float(iou))

    def _missing(self) -> list[Suspect]:
        out: list[Suspect] = []
        standing: list[int] = []
        best = self.iou.max(1, initial=0.0)
        for i in np.flatnonzero(best < SAME).tolist():
            near = np.flatnonzero(self.same[i] & (self.shared[i] > 0)).tolist()
            explained = max(float(best[i]), _share(self.crops[i], [self.label_crops[j] for j in near]))
            score = float(self.conf[i]) * (1 - min(1.0, explained / SAME))
            if score > 0 and all(masks.crop_iou(self.crops[i], self.crops[k]) < SAME for k in standing):
                standing.append(i)
                out.append(self._suspect("missing", score, (), (i,), float(best[i])))
        return out

    def _wrong_class(self) -> list[Suspect]:
        out = []
        without = self.mine.max(1, initial=0.0) < SAME
        for j in range(len(self.label_ids)):
            there = self.iou[:, j] >= SAME
            others = np.flatnonzero(there & ~self.same[:, j] & without)
            if len(others):
                own = float(self.conf[there & self.same[:, j]].max(initial=0.0))
                i = int(others[0])  # predictions come by falling confidence
                out.append(self._suspect("wrong_class", float(self.conf[i]) * (1 - own), (j,), (i,), self.iou[i, j]))
        return out

    def _merged(self) -> list[Suspect]:
        out = []
        home = _home(self.mine)
        taken = self.mine.max(1, initial=0.0) >= SAME
        for j, crop in enumerate(self.label_crops):
            inside = self.same[:, j] & (self.shared[:, j] >= INSIDE * self.areas) & ~(taken & (home != j))
            score, iou, parts = self._together(crop, np.flatnonzero(inside).tolist(), self.crops, self.mine[:, j], self.conf)
            if score > 0:
                out.append(self._suspect("merged", score, (j,), parts, iou))
        return out

    def _split(self) -> list[Suspect]:
        out = []
        for i, crop in enumerate(self.crops):
            inside = self.same[i] & (self.shared[i] >= INSIDE * self.label_areas)
            if inside.sum() < 2:
                continue
            for_itself = (self.mine >= SAME) & (self.mine > self.mine[i][None])
            other = np.where(for_itself, self.conf[:, None], 0.0).max(0)
            order = sorted(np.flatnonzero(inside).tolist(), key=lambda j: (other[j], -self.label_areas[j]))
            score, iou, parts = self._together(crop, order, self.label_crops, self.mine[i], 1 - other)
            if score > 0:
                out.append(self._suspect("split", score * float(self.conf[i]), parts, (i,), iou))
        return out

    @staticmethod
    def _together(whole: Crop, order: list[int], crops: list[Crop], single: Floats, weights: Floats) -> tuple[float, float, list[int]]:
        """The best score of two or more parts against the whole, its IoU, and the parts. order: by falling weight."""
        best: tuple[float, float, list[int]] = (0.0, 0.0, [])
        parts: list[int] = []
        union: Crop | None = None
        for i in order:
            if union is not None and _share(crops[i], [union]) > APART:
                continue
            parts.append(i)
            union = crops[i] if union is None else masks.union([union, crops[i]])
            if len(parts) < 2:
                continue
            weight, iou = float(weights[i]), masks.crop_iou(union, whole)
            alone = float((single * np.minimum(1.0, weights / max(weight, 1e-9))).max())
            score = weight * iou * min(1.0, max(0.0, iou - alone) / GAIN)
            if score > best[0]:
                best = score, iou, list(parts)
        return best

    def _labels(self) -> list[_Label]:
        other = dict.fromkeys(self.label_ids, 0.0)
        for suspect in self.suspects:
            for index in suspect.labels:
                other[index] = max(other[index], suspect.score)
        out = []
        taken, home = self.iou.max(1, initial=0.0) >= SAME, _home(self.iou)
        for j, index in enumerate(self.label_ids):
            area = float(self.label_areas[j])
            near = np.flatnonzero(self.same[:, j] & (self.shared[:, j] > 0)).tolist()
            support = float((self.conf * np.minimum(1.0, self.iou[:, j] / SAME)).max(initial=0.0))
            if support < 1:
                support = max(support, _painted(self.label_crops[j], [(self.crops[i], float(self.conf[i])) for i in near]))
            others = np.flatnonzero(taken & (home != j) & (self.shared[:, j] > 0)).tolist()
            elsewhere = _painted(self.label_crops[j], [(self.crops[i], float(self.conf[i])) for i in others])
            label = _Label(index, area, support, elsewhere)
            if near:
                i = max(near, key=lambda i: self.iou[i, j] * self.conf[i])
                u = float(self.iou[i, j])
                if u >= ALIKE and int(self.mine[i].argmax()) == j:
                    gap = (float(self.areas[i]) + area - 2 * float(self.shared[i, j])) / _outline(self.label_crops[j]) / area**0.5
                    trust = float(self.conf[i]) * (1 - min(1.0, 2 * other[index]))
                    label = _Label(index, area, support, elsewhere, self.prediction_ids[i], gap, trust, u)
            out.append(label)
        return out


@dataclass(slots=True)
class LabelErrors:
    """Add images one by one, then ask for `suspects`. 72 bytes a label and 200 to 300 a suspect are kept, and no mask.

    low_conf: predictions below do not count.  min_score: what scores less is forgotten.
    """

    low_conf: float = LOW_CONF
    min_score: float = 0.0
    images: int = 0
    predictions: int = 0
    _suspects: list[Suspect] = field(default_factory=list)
    _rows: array[float] = field(default_factory=lambda: array("d"))

    @property
    def labels(self) -> int:
        return len(self._rows) // _ROW

    def add(self, record: ImageRecord, found: Instances) -> None:
        """Examine an image; its number is how many came before."""
        evidence = Evidence(self.images, record, found, self.low_conf)
        self._suspects += [s for s in evidence.suspects if s.score > 0 and s.score >= self.min_score]
        for x in evidence.labels:
            self._rows.extend((self.images, x.index, x.area, x.support, x.elsewhere, x.prediction, x.gap, x.trust, x.iou))
        self.images += 1
        self.predictions += len(evidence.prediction_ids)

    def suspects(self) -> list[Suspect]:
        """All that score more than 0 and at least `min_score`, the most suspicious first; of equal scores in the order of images."""
        return sorted([*self._suspects, *self._judged()], key=lambda s: (-s.score, s.image, s.labels, s.predictions))

    def _judged(self) -> list[Suspect]:
        rows = np.frombuffer(self._rows, np.float64).reshape(-1, _ROW)
        if not len(rows):
            return []
        image, index, area, support, elsewhere, prediction, gap, trust, iou = rows.T
        size = np.log(area)
        spurious = (1 - support) * (1 - (1 - typical(size, support, size, np.mean)) * (1 - elsewhere))
        spurious[support >= ENOUGH] = 0
        sloppy = np.zeros(len(rows))
        own = np.flatnonzero(np.isfinite(gap))
        if len(own):
            above = gap[own] - typical(size[own], gap[own], size[own], np.median)
            z = np.maximum(above, 0) / max(1.4826 * float(np.median(np.abs(above))), _LEAST_SPREAD)
            sloppy[own] = trust[own] * z**2 / (z**2 + DOUBT**2)
        out = []
        for i in np.flatnonzero((spurious > 0) & (spurious >= self.min_score)):
            out.append(Suspect(int(image[i]), "spurious", float(min(spurious[i], 1.0)), (int(index[i]),), ()))
        for i in np.flatnonzero((sloppy > 0) & (sloppy >= self.min_score)):
            out.append(Suspect(int(image[i]), "sloppy", float(sloppy[i]), (int(index[i]),), (int(prediction[i]),), float(iou[i])))
        return out


def typical(at: Floats, values: Floats, where: Floats, statistic: object) -> Floats:
    """`statistic` (np.mean or np.median) of (N,) values around positions: of bins of equal count, 40 values or more each and 25 at most, with straight lines
    between the means of their positions. at: (N,) positions of the values.  where: (M,) positions asked for."""
    assert callable(statistic)
    order = np.argsort(at, kind="stable")
    parts = np.array_split(order, min(max(len(order) // _BIN, 1), _MOST_BINS))
    centres = np.array([at[part].mean() for part in parts])
    result: Floats = np.interp(where, centres, [float(statistic(values[part])) for part in parts])
    return result


def _off_crowds(record: ImageRecord, found: Instances, kept: list[int]) -> list[int]:
    crowds = [(label.cls, _crop(label.mask)) for label in record.instances if label.crowd and label.mask.w]
    if not crowds:
        return kept

    def ignored(i: int) -> bool:
        crop = _crop(found.masks[i])
        return any(cls == found.classes[i] and _share(crop, [crowd]) >= SAME for cls, crowd in crowds)

    return [i for i in kept if not ignored(i)]


def _home(iou: Floats) -> npt.NDArray[np.int64]:
    """(P,) the label that each prediction overlaps best, 0 if there is none."""
    return iou.argmax(1) if iou.size else np.zeros(len(iou), np.int64)


def _crop(mask: CropMask) -> Crop:
    return masks.crop_bitmap(mask), mask.x, mask.y


def _painted(crop: Crop, others: list[tuple[Crop, float]]) -> float:
    """Mean over the pixels of a crop of the highest value of the others there, 0 where there is none."""
    bits, x, y = crop
    canvas = np.zeros(bits.shape, np.float32)
    for (other, left, top), value in others:
        x1, y1 = max(x, left), max(y, top)
        x2, y2 = min(x + bits.shape[1], left + other.shape[1]), min(y + bits.shape[0], top + other.shape[0])
        if x1 < x2 and y1 < y2:
            part = canvas[y1 - y : y2 - y, x1 - x : x2 - x]
            np.maximum(part, other[y1 - top : y2 - top, x1 - left : x2 - left] * np.float32(value), out=part)
    return float(canvas[bits != 0].mean(dtype=np.float64)) if others else 0.0


def _share(crop: Crop, others: list[Crop]) -> float:
    """Share of the pixels of a crop that lie on others."""
    return _painted(crop, [(other, 1.0) for other in others])


def _outline(crop: Crop) -> float:
    """Length of the pixel edges around a crop, holes included."""
    padded = np.pad(crop[0], 1).astype(np.int8)
    return float(np.count_nonzero(np.diff(padded, axis=0)) + np.count_nonzero(np.diff(padded, axis=1)))
