"""COCO metrics of boxes and masks, computed by pycocotools, at the images' own resolution. docs/metrics.md has the definitions."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..geometry import masks
from ..types import CropMask, ImageRecord, Instances, Names

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
    32^2, below 96^2, above (NaN without such objects).  precision, recall, f1: class means at IoU 0.5 and the one confidence, `conf`, that gives
    the best mean F1.
    """

    map: float
    map50: float
    map75: float
    maps: Floats
    maps50: Floats
    ap_small: float
    ap_medium: float
    ap_large: float
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


class Outlined(NamedTuple):
    """A label or a prediction in COCO's terms. counts: its run lengths in the whole image. area: of the mask, in pixels."""

    cls: int
    box: Sequence[float]
    counts: bytes
    area: float
    crowd: bool = False
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """What the scores need of one image. order: images are scored by rising order; it decides between equal confidences only."""

    order: int
    height: int
    width: int
    labels: list[Outlined]
    found: list[Outlined]


class CocoScorer:
    """Collects labels and predictions image by image, then scores them. `images` of several scorers can be put together."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.images: list[ScoredImage] = []

    def add(self, record: ImageRecord, found: Instances, order: int = 0) -> None:
        height, width = record.height, record.width

        def counts(mask: CropMask) -> bytes:
            return bytes(masks.to_coco_rle(mask, height, width)["counts"])

        labels = [
            Outlined(r.cls, r.box, counts(r.mask), r.area if r.area is not None else float(masks.area(r.mask)), r.crowd)
            for r in record.instances
        ]
        predictions = zip(found.boxes.tolist(), found.confidences.tolist(), found.classes.tolist(), found.masks, strict=True)
        outlined = [Outlined(cls, box, counts(mask), float(masks.area(mask)), score=score) for box, score, cls, mask in predictions]
        self.images.append(ScoredImage(order, height, width, labels, outlined))

    def compute(self) -> Metrics:
        self._images: list[dict[str, Any]] = []
        self._labels: list[dict[str, Any]] = []
        self._found: dict[Literal["bbox", "segm"], list[dict[str, Any]]] = {"bbox": [], "segm": []}
        for image, scored in enumerate(sorted(self.images, key=attrgetter("order")), 1):
            self._images.append({"id": image, "height": scored.height, "width": scored.width})
            size = [scored.height, scored.width]
            for o in scored.labels:
                rle = {"size": size, "counts": o.counts}
                self._labels.append(_annotation(len(self._labels) + 1, image, o.cls, o.box, rle, o.area, iscrowd=int(o.crowd)))
            for o in scored.found:
                rle, number = {"size": size, "counts": o.counts}, len(self._found["bbox"]) + 1
                box_area = (o.box[2] - o.box[0]) * (o.box[3] - o.box[1])
                self._found["bbox"].append(_annotation(number, image, o.cls, o.box, rle, box_area, score=o.score))
                # as pycocotools does: the size of a predicted mask is that of its pixels
                self._found["segm"].append(_annotation(number, image, o.cls, o.box, rle, o.area, score=o.score))
        counts = np.bincount([a["category_id"] for a in self._labels if not a["iscrowd"]], minlength=len(self.names))
        return Metrics(self._score("bbox"), self._score("segm"), dict(self.names), len(self._images), int(counts.sum()), counts)

    def _score(self, kind: Literal["bbox", "segm"]) -> Scores:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            evaluation = COCOeval(self._coco(self._labels), self._coco(self._found[kind]), kind)
            evaluation.evaluate()
            evaluation.accumulate()
        # (IoU thresholds, recall points, classes, areas, limits of detections); -1 where there is no object
        precision = np.where(evaluation.eval["precision"] < 0, np.nan, evaluation.eval["precision"])[..., -1]
        every = precision[..., 0]
        curves = Curves(every[0].T, *_by_confidence(evaluation, len(self.names)))
        return Scores(
            map=_mean(every),
            map50=_mean(every[0]),
            map75=_mean(every[5]),
            maps=_class_means(every),
            maps50=_class_means(every[:1]),
            ap_small=_mean(precision[..., 1]),
            ap_medium=_mean(precision[..., 2]),
            ap_large=_mean(precision[..., 3]),
            **_best_f1(curves),
            curves=curves,
        )

    def _coco(self, annotations: list[dict[str, Any]]) -> COCO:
        coco = COCO()
        coco.dataset = {"images": self._images, "annotations": annotations, "categories": [{"id": i} for i in self.names]}
        coco.createIndex()
        return coco


def _annotation(number: int, image: int, cls: int, box: Sequence[float], rle: dict[str, Any], area: float, **more: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    bbox = [x1, y1, x2 - x1, y2 - y1]
    return {"id": number, "image_id": image, "category_id": cls, "bbox": bbox, "segmentation": rle, "area": area, "iscrowd": 0, **more}


def _mean(values: Floats) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def _class_means(precision: Floats) -> Floats:
    """(T, R, classes) -> (classes,)."""
    return np.array([_mean(precision[..., k]) for k in range(precision.shape[2])])


def _by_confidence(evaluation: COCOeval, nc: int) -> tuple[Floats, Floats]:
    """Precision and recall, each (nc, 1000), at IoU 0.5 and every confidence of GRID."""
    precision, recall = np.full((nc, len(GRID)), np.nan), np.full((nc, len(GRID)), np.nan)
    per_class = len(evaluation.params.areaRng) * len(evaluation.params.imgIds)
    for k in range(nc):
        # evalImgs runs over classes, then areas (the first is "all"), then images
        start = k * per_class
        images = [e for e in evaluation.evalImgs[start : start + len(evaluation.params.imgIds)] if e is not None]
        objects = sum(int(np.sum(np.logical_not(e["gtIgnore"]))) for e in images)
        if objects == 0:
            continue
        counted = [np.logical_not(e["dtIgnore"][0]) for e in images]
        scores = np.concatenate([np.asarray(e["dtScores"])[c] for e, c in zip(images, counted, strict=True)])
        hits = np.concatenate([(e["dtMatches"][0] > 0)[c] for e, c in zip(images, counted, strict=True)])
        order = np.argsort(-scores, kind="stable")
        above = np.searchsorted(-scores[order], -GRID, side="right")  # detections with confidence >= grid point
        true = np.concatenate([[0], np.cumsum(hits[order])])[above]
        precision[k], recall[k] = true / np.maximum(above, 1), true / objects
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
