"""COCO metrics of boxes and masks, equal to pycocotools, at the images' own resolution. docs/metrics.md has the definitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ..geometry import masks
from ..types import ImageRecord, Instances, Names
from .average_precision import Averager, Labelled, Predicted, Table

Floats = npt.NDArray[np.float64]
GRID: Floats = np.linspace(0, 1, 1000)
"""Confidences at which precision and recall are computed."""


@dataclass(frozen=True, slots=True)
class Curves:
    """What the plots show: curves of each class at IoU 0.5; rows of NaN for classes without objects.

    pr: (classes, 101) precision at recall 0, 0.01, ... 1, as COCO interpolates it: the area below is AP50.
    precision, recall: (classes, 1000) when all predictions of at least the confidence 0 ... 1 count.
    """

    pr: Floats
    precision: Floats
    recall: Floats

    @property
    def f1(self) -> Floats:
        """(classes, 1000)."""
        return 2 * self.precision * self.recall / np.maximum(self.precision + self.recall, 1e-16)


@dataclass(frozen=True, slots=True)
class Scores:
    """Metrics of boxes or of masks. Per-class arrays have one entry a class, NaN where the data has no such object.

    map: mean AP over IoU 0.50:0.05:0.95 and classes; map50, map75 at one IoU.  ap_small/medium/large: by object area below
    32^2, below 96^2, above (NaN without such objects).  ar1, ar10, ar100: mean recall over the same IoUs and classes with at most so many predictions
    an image and class; ar_small/medium/large: with 100.  maps, maps50, maps75, ars: per class, ars with 100.
    precision, recall, f1: class means at IoU 0.5 and the one confidence, `conf`, that gives the best mean F1.
    """

    map: float
    map50: float
    map75: float
    maps: Floats
    maps50: Floats
    maps75: Floats
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    ars: Floats
    precision: float
    recall: float
    f1: float
    conf: float
    precisions: Floats
    recalls: Floats
    curves: Curves


@dataclass(slots=True)
class Metrics:
    """Result of a validation. speed: milliseconds an image and stage. images, objects: what was evaluated, crowds not counted."""

    box: Scores
    seg: Scores
    names: Names
    images: int
    objects: int
    objects_per_class: npt.NDArray[np.int64]
    speed: dict[str, float] = field(default_factory=dict)

    @property
    def fitness(self) -> float:
        """What picks the best epoch: box mAP + mask mAP (IoU 0.50:0.95), 0..2."""
        return self.box.map + self.seg.map

    @property
    def results_dict(self) -> dict[str, float]:
        """Flat, with the names of results.csv."""
        result = {}
        for letter, scores in (("B", self.box), ("M", self.seg)):
            result[f"metrics/precision({letter})"] = scores.precision
            result[f"metrics/recall({letter})"] = scores.recall
            result[f"metrics/mAP50({letter})"] = scores.map50
            result[f"metrics/mAP50-95({letter})"] = scores.map
        return {**result, "fitness": self.fitness}


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """What the scores need of one image: labels, predictions by box and by mask, and their overlaps, (predictions, labels).

    order: images are scored by rising order; it decides between equal confidences only.
    """

    order: int
    labels: Labelled
    boxes: Predicted
    box_ious: Floats
    masks: Predicted
    mask_ious: Floats


class CocoScorer:
    """Collects labels and predictions image by image, then scores them. Masks are compared when they are added, and not kept.

    `images` of several scorers can be put together.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.images: list[ScoredImage] = []

    def add(self, record: ImageRecord, found: Instances, order: int = 0) -> None:
        size = record.height, record.width
        labels = record.instances
        classes, crowd = [label.cls for label in labels], [label.crowd for label in labels]
        areas = [label.area if label.area is not None else float(masks.area(label.mask)) for label in labels]
        predicted, scores = found.classes.tolist(), found.confidences.tolist()
        boxes = [_xywh(box) for box in found.boxes.tolist()]
        box_ious = _overlaps(predicted, classes, crowd, boxes, [_xywh(label.box) for label in labels])
        mask_ious = _overlaps(
            predicted,
            classes,
            crowd,
            [masks.to_coco_rle(mask, *size) for mask in found.masks],
            [masks.to_coco_rle(label.mask, *size) for label in labels],
        )
        self.images.append(
            ScoredImage(
                order, Labelled(classes, areas, crowd),
                Predicted(predicted, [w * h for _, _, w, h in boxes], scores), box_ious,
                # as pycocotools does: the size of a predicted mask is that of its pixels
                Predicted(predicted, [float(masks.area(mask)) for mask in found.masks], scores), mask_ious,
            )
        )  # fmt: skip

    def averagers(self) -> tuple[Averager, Averager]:
        """Of boxes and of masks, with all images in their order."""
        box, seg = Averager(), Averager()
        for image in sorted(self.images, key=attrgetter("order")):
            box.add(image.labels, image.boxes, image.box_ious)
            seg.add(image.labels, image.masks, image.mask_ious)
        return box, seg

    def compute(self) -> Metrics:
        (box, seg), nc = self.averagers(), len(self.names)
        tables = box.compute(nc), seg.compute(nc)
        counts = tables[1].objects[:, 0]
        return Metrics(scores_of(box, tables[0]), scores_of(seg, tables[1]), dict(self.names), len(self.images), int(counts.sum()), counts)


def scores_of(averager: Averager, table: Table) -> Scores:
    """What COCOeval's `summarize` prints, and more. averager: has COCO's thresholds and limits; table: what it computes."""
    curves = Curves(_known(table.precision[0, :, :, 0]).T, *_by_confidence(averager, table))
    return Scores(**averages(table), **_best_f1(curves), curves=curves)


def averages(table: Table) -> dict[str, Any]:
    """What COCOeval's `summarize` prints, and AP and AR of each class, under the names that `Scores` has for them."""
    # (IoU thresholds, recall points, classes, areas); -1 where there is no object
    precision, recall = _known(table.precision), _known(table.recall)
    every = precision[..., 0]
    return {
        "map": _mean(every),
        "map50": _mean(every[0]),
        "map75": _mean(every[5]),
        "maps": _class_means(every),
        "maps50": _class_means(every[:1]),
        "maps75": _class_means(every[5:6]),
        "ap_small": _mean(precision[..., 1]),
        "ap_medium": _mean(precision[..., 2]),
        "ap_large": _mean(precision[..., 3]),
        "ar1": _mean(recall[..., 0, 0]),
        "ar10": _mean(recall[..., 0, 1]),
        "ar100": _mean(recall[..., 0, 2]),
        "ar_small": _mean(recall[..., 1, 2]),
        "ar_medium": _mean(recall[..., 2, 2]),
        "ar_large": _mean(recall[..., 3, 2]),
        "ars": _class_means(recall[..., 0, 2][:, None]),
    }


def _xywh(box: Sequence[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def _overlaps(predicted: list[int], classes: list[int], crowd: list[bool], found: list[Any], labels: list[Any]) -> Floats:
    """(D, G) IoU, with a crowd the share of the prediction, of the pairs of one class; 0 elsewhere. found, labels: boxes or run lengths."""
    ious = np.zeros((len(predicted), len(classes)))
    rows, columns = np.array(predicted, np.int64), np.array(classes, np.int64)
    for cls in {*predicted} & {*classes}:
        d, g = np.flatnonzero(rows == cls), np.flatnonzero(columns == cls)
        ious[np.ix_(d, g)] = coco_mask.iou([found[i] for i in d], [labels[j] for j in g], [int(crowd[j]) for j in g])
    return ious


def _known(values: Floats) -> Floats:
    return np.where(values < 0, np.nan, values)


def _mean(values: Floats) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def _class_means(precision: Floats) -> Floats:
    """(T, R, classes) -> (classes,). All values of a class are known, or none is."""
    means: Floats = np.ascontiguousarray(precision.reshape(-1, precision.shape[2]).T).mean(1)
    return means


def _by_confidence(averager: Averager, table: Table) -> tuple[Floats, Floats]:
    """Precision and recall, each (nc, 1000), at IoU 0.5 and every confidence of GRID."""
    objects = table.objects[:, 0]
    precision, recall = np.full((len(objects), len(GRID)), np.nan), np.full((len(objects), len(GRID)), np.nan)
    for k in np.flatnonzero(objects):
        scores, hits = averager.counted(int(k))
        above = np.searchsorted(-scores, -GRID, side="right")  # detections with confidence >= grid point
        true = np.concatenate([[0], np.cumsum(hits)])[above]
        precision[k], recall[k] = true / np.maximum(above, 1), true / objects[k]
    return precision, recall


def _best_f1(curves: Curves) -> dict[str, Any]:
    """Precision and recall per class at the confidence that gives the best mean F1, at IoU 0.5."""
    precision, recall, f1 = curves.precision, curves.recall, curves.f1
    if np.isnan(recall).all():
        nothing = float("nan")
        return {
            "precision": nothing,
            "recall": nothing,
            "f1": nothing,
            "conf": nothing,
            "precisions": precision[:, 0],
            "recalls": recall[:, 0],
        }
    best = int(np.nanmean(f1, 0).argmax())
    p, r = precision[:, best], recall[:, best]
    return {
        "precision": float(np.nanmean(p)),
        "recall": float(np.nanmean(r)),
        "f1": float(np.nanmean(f1[:, best])),
        "conf": float(GRID[best]),
        "precisions": p,
        "recalls": r,
    }
