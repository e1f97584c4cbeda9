"""Labels of one sample, as MongoDB holds them -> what an evaluation compares: classes, boxes, crops, and their overlaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ..geometry.masks import Crop
from .objects import Label, Maskless, Size, bounds, label_crop
from .pixels import box_crop, place_mask

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Side:
    """The usable labels of one field of one sample. Index i of every list is the same object.

    positions: where it is in the field's list.  boxes: x, y, w, h in image pixels.  pixels: of its crop.  areas: in square pixels, of the
    mask where there is one, else of the box.
    """

    positions: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    crops: list[Crop] = field(default_factory=list)
    pixels: list[int] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    confidences: list[float | None] = field(default_factory=list)
    bare: int = 0
    """Labels without a mask."""
    wrong: list[str] = field(default_factory=list)
    """Why labels cannot be used."""


def read_side(labels: Sequence[Label], size: Size, *, masks: bool, maskless: Maskless, iscrowd: str | None = None) -> Side:
    """masks: whether crops are wanted; else they are only read where the label has a mask, for its area.  iscrowd: the crowd attribute.

    A label whose mask has no pixel inside the image stays: nobody can match it, which is what is wrong with it.
    """
    side = Side()
    height, width = size
    for position, label in enumerate(labels):
        name = label.get("label")
        if name is None:
            side.wrong.append("an object has no class name")
            continue
        box: Any = bounds(label["points"] or []) if "points" in label else label.get("bounding_box")
        if not _is_box(box):
            side.wrong.append(f"a '{name}' has the impossible bounding box {box}")
            continue
        try:
            crop = label_crop(label, box, size, place_mask)
        except ValueError as error:
            side.wrong.append(f"a '{name}': {error}")
            continue
        # what was divided by the image's size comes back to the last bit: an overlap of exactly the threshold must stay one
        x, y, w, h = (round(v, 9) for v in (box[0] * width, box[1] * height, max(box[2] * width, 0.0), max(box[3] * height, 0.0)))
        pixels = 0 if crop is None else int(np.count_nonzero(crop[0].view(np.bool_)))
        area = w * h if crop is None else float(pixels)
        if crop is None:
            side.bare += masks
            if masks and maskless == "skip":
                continue
            crop = box_crop(box, height, width) if masks else _NOTHING
            pixels = crop[0].size
        side.positions.append(position)
        side.names.append(name)
        side.boxes.append([x, y, w, h])
        side.crops.append(crop)
        side.pixels.append(pixels)
        side.areas.append(area)
        side.crowd.append(bool(iscrowd and label.get(iscrowd)))
        side.confidences.append(label.get("confidence"))
    return side


def _is_box(box: Any) -> bool:
    return bool(box) and len(box) == 4 and all(isinstance(v, (int, float)) and math.isfinite(v) for v in box)


def box_overlaps(found: Side, truth: Side) -> Floats:
    """(D, G) box IoU, with crowds the share of the prediction."""
    if not found.boxes or not truth.boxes:
        return np.zeros((len(found.boxes), len(truth.boxes)))
    overlaps: Floats = coco_mask.iou(np.array(found.boxes), np.array(truth.boxes), [int(c) for c in truth.crowd])
    return overlaps


def mask_overlaps(found: Side, truth: Side, pairs: Bools) -> Floats:
    """(D, G) mask IoU, with crowds the share of the prediction; counted on the pixels that two crops share. pairs: (D, G) which are wanted."""
    overlaps = np.zeros(pairs.shape)
    if not pairs.any():
        return overlaps
    (fx1, fy1, fx2, fy2), (tx1, ty1, tx2, ty2) = _extents(found.crops), _extents(truth.crops)
    left, right = np.maximum(fx1[:, None], tx1), np.minimum(fx2[:, None], tx2)
    top, bottom = np.maximum(fy1[:, None], ty1), np.minimum(fy2[:, None], ty2)
    rows, columns = np.nonzero(pairs & (left < right) & (top < bottom))
    at = rows, columns
    for i, j, x1, x2, y1, y2 in zip(
        rows.tolist(), columns.tolist(), left[at].tolist(), right[at].tolist(), top[at].tolist(), bottom[at].tolist(), strict=True
    ):
        (a, ax, ay), (b, bx, by) = found.crops[i], truth.crops[j]
        shared = a.view(np.bool_)[y1 - ay : y2 - ay, x1 - ax : x2 - ax] & b.view(np.bool_)[y1 - by : y2 - by, x1 - bx : x2 - bx]
        if both := int(np.count_nonzero(shared)):
            overlaps[i, j] = both / (found.pixels[i] if truth.crowd[j] else found.pixels[i] + truth.pixels[j] - both)
    return overlaps


def _extents(crops: Sequence[Crop]) -> Any:
    """(4, N): x1, y1, x2, y2."""
    return np.array([(x, y, x + bits.shape[1], y + bits.shape[0]) for bits, x, y in crops]).T


_NOTHING: Crop = (np.zeros((0, 0), np.uint8), 0, 0)
