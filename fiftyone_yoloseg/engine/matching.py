"""Which prediction is which labelled object, by the overlap of their masks: confusions, and how good each image is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ..geometry import masks
from ..types import ImageRecord, Instances

NOTHING, IGNORED = -1, -2
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Matching:
    """The predictions of one image that count, and the label that each of them takes.

    predictions: (P,) indices, by falling confidence.  labels: (P,) index of the label taken, NOTHING, or IGNORED for one on a crowd.
    ious: (P,) overlap with the label taken, else 0.  missed: (M,) labels that nobody took, crowds left out.
    """

    predictions: Integers
    labels: Integers
    ious: npt.NDArray[np.float64]
    missed: Integers

    @property
    def hits(self) -> int:
        return int((self.labels >= 0).sum())

    @property
    def wrong(self) -> int:
        return int((self.labels == NOTHING).sum())

    @property
    def quality(self) -> float:
        """0..1, panoptic quality: sum of the overlaps / (hits + half of the wrong and the missed); 1 where there is nothing and nothing found."""
        total = self.hits + 0.5 * (self.wrong + len(self.missed))
        return float(self.ious.sum() / total) if total else 1.0


def match(record: ImageRecord, found: Instances, conf: float, *, iou: float = 0.5, classwise: bool = True) -> Matching:
    """COCO's rule: by falling confidence, each prediction takes the free label with the highest mask IoU of at least `iou`.

    conf: predictions below do not count.  classwise: only labels of the predicted class can be taken. A prediction that takes nothing but lies
    by that share of its area on a crowd of its class is ignored.
    """
    kept = np.flatnonzero(found.confidences >= conf)
    kept = kept[np.argsort(-found.confidences[kept], kind="stable")]
    crowd = np.array([label.crowd for label in record.instances], bool)
    classes = np.array([label.cls for label in record.instances], np.int64)
    return match_overlaps(kept, overlaps(record, found, kept), found.classes[kept], classes, crowd, iou=iou, classwise=classwise)


def match_overlaps(
    predictions: Integers,
    table: npt.NDArray[np.float64],
    predicted: Integers,
    classes: Integers,
    crowd: npt.NDArray[np.bool_],
    *,
    iou: float = 0.5,
    classwise: bool = True,
) -> Matching:
    """As `match`, of P predictions by falling confidence and L labels whose overlaps are known.

    predictions: (P,) their numbers, for the result.  table: (P, L) overlaps, with crowds the share of the prediction.  predicted: (P,) their
    classes.  classes, crowd: (L,).
    """
    free, threshold = (~crowd).tolist(), min(iou, 1 - 1e-10)
    labels, ious = np.full(len(predictions), NOTHING), np.zeros(len(predictions))
    rows, columns = np.nonzero(table >= threshold)  # most predictions are near no label, and most others near one
    near: dict[int, list[tuple[int, float]]] = {}
    for i, j, share in zip(rows.tolist(), columns.tolist(), table[rows, columns].tolist(), strict=True):
        near.setdefault(i, []).append((j, share))
    for i, candidates in near.items():
        best, at, on_crowd = 0.0, NOTHING, False
        for j, share in candidates:
            same = bool(classes[j] == predicted[i])
            on_crowd |= same and bool(crowd[j])
            if free[j] and (same or not classwise) and share >= best:  # of equal ones COCO takes the last
                best, at = share, j
        if at != NOTHING:
            labels[i], ious[i], free[at] = at, best, False
        elif on_crowd:
            labels[i] = IGNORED
    return Matching(predictions, labels, ious, np.flatnonzero(free))


def confusion_matrix(pairs: Iterable[tuple[ImageRecord, Instances]], nc: int, conf: float, iou: float = 0.5) -> Integers:
    """(nc + 1, nc + 1) counts: row = true class, column = predicted class, matched whatever their classes.

    The last column counts labels that nothing was found for, the last row predictions where there is no object.
    """
    counts = np.zeros((nc + 1, nc + 1), np.int64)
    for record, found in pairs:
        matching = match(record, found, conf, iou=iou, classwise=False)
        for prediction, label in zip(matching.predictions, matching.labels, strict=True):
            if label != IGNORED:
                counts[record.instances[label].cls if label >= 0 else nc, found.classes[prediction]] += 1
        for label in matching.missed:
            counts[record.instances[label].cls, nc] += 1
    return counts


def overlaps(record: ImageRecord, found: Instances, kept: Integers) -> npt.NDArray[np.float64]:
    """(P, labels) mask IoU of the predictions `kept`, indices; with a crowd the share of the prediction that lies on it."""
    crowd = np.array([label.crowd for label in record.instances], bool)
    if not len(kept) or not len(crowd):
        return np.zeros((len(kept), len(crowd)))
    size = record.height, record.width
    predicted = [masks.to_coco_rle(found.masks[i], *size) for i in kept]
    labelled = [masks.to_coco_rle(label.mask, *size) for label in record.instances]
    shares: npt.NDArray[np.float64] = coco_mask.iou(predicted, labelled, crowd.astype(np.uint8).tolist())
    return shares
