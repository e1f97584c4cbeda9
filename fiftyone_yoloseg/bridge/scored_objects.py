"""Labels of one sample, as MongoDB holds them -> what an evaluation compares: classes, boxes, crops, and their overlaps.

Nothing here needs FiftyOne itself: processes that compare do without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ..errors import UserError
from ..geometry import masks
from ..geometry.masks import Crop
from .objects import Label, Maskless, Size, bounds, label_crop
from .pixels import box_crop, place_mask

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
IouType = Literal["mask", "boundary"]
"""Overlap of whole masks, or the smaller one of that and of the bands along their outlines."""


@dataclass(frozen=True, slots=True)
class Measuring:
    """How labels are read and overlaps measured. masks: or boxes.  classwise: whether only labels of one class are compared.

    lowest: overlaps below it mean nothing, and may be 0.  averages: whether box overlaps are wanted beside those of masks.  maskless: see `Maskless`.  iscrowd: the attribute that marks crowds.
    """

    classwise: bool = True
    masks: bool = True
    iou_type: IouType = "mask"
    lowest: float = 0.0
    averages: bool = True
    maskless: Maskless = "box"
    iscrowd: str = "iscrowd"


@dataclass(slots=True)
class Side:
    """The usable labels of one field of one sample. Index i of every list is the same object.

    positions: where it is in the field's list.  boxes: x, y, w, h in image pixels.  crops: empty once it has been compared.  pixels: of its
    crop.  areas: in square pixels, of the mask where there is one, else of the box.
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


@dataclass(frozen=True, slots=True)
class Measured:
    """boxes, masks: (D, G) overlaps of predictions with labels, None where they are not wanted."""

    truth: Side
    found: Side
    boxes: Floats | None
    masks: Floats | None


def measure_all(samples: Sequence[tuple[Sequence[Label], Sequence[Label], Size] | UserError], how: Measuring) -> list[Measured | UserError]:
    """`measure` of each; what cannot be measured stays as it is."""
    return [sample if isinstance(sample, UserError) else measure(*sample, how) for sample in samples]


def measure(labels: Sequence[Label], predictions: Sequence[Label], size: Size, how: Measuring) -> Measured:
    """Read both sides of one sample and measure the overlaps that the rules ask for."""
    truth = read_side(labels, size, masks=how.masks, maskless=how.maskless, iscrowd=how.iscrowd)
    found = read_side(predictions, size, masks=how.masks, maskless=how.maskless)
    boxes = box_overlaps(found, truth) if how.averages or not how.masks else None
    overlaps = None
    if how.masks:
        number = {name: i for i, name in enumerate({*truth.names, *found.names})}
        pairs = np.equal.outer(*(np.array([number[n] for n in side.names], np.int64) for side in (found, truth)))
        if not how.classwise:
            pairs |= ~np.array(truth.crowd, bool)  # on crowds only predictions of their class are ignored
        overlaps = mask_overlaps(found, truth, pairs, how.lowest)
        if how.iou_type == "boundary":
            overlaps = np.minimum(overlaps, boundary_overlaps(found, truth, overlaps > 0, size))
    truth.crops, found.crops = [], []
    return Measured(truth, found, boxes, overlaps)


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
        x, y, w, h = (
            round(box[0] * width, 9),
            round(box[1] * height, 9),
            round(max(box[2] * width, 0.0), 9),
            round(max(box[3] * height, 0.0), 9),
        )
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
    try:
        x, y, w, h = box
        return math.isfinite(x) and math.isfinite(y) and math.isfinite(w) and math.isfinite(h)
    except (TypeError, ValueError):  # none, not four, or no numbers
        return False


def box_overlaps(found: Side, truth: Side) -> Floats:
    """(D, G) box IoU, with crowds the share of the prediction."""
    if not found.boxes or not truth.boxes:
        return np.zeros((len(found.boxes), len(truth.boxes)))
    overlaps: Floats = coco_mask.iou(np.array(found.boxes), np.array(truth.boxes), [int(c) for c in truth.crowd])
    return overlaps


def mask_overlaps(found: Side, truth: Side, pairs: Bools, lowest: float = 0.0) -> Floats:
    """(D, G) mask IoU, with crowds the share of the prediction; counted on the pixels that two crops share. pairs: (D, G) which are wanted, where
    they can be `lowest` or more by the sizes of masks and boxes; the others stay 0."""
    overlaps = np.zeros(pairs.shape)
    if not pairs.any():
        return overlaps
    (fx1, fy1, fx2, fy2), (tx1, ty1, tx2, ty2) = _extents(found.crops), _extents(truth.crops)
    left, right = np.maximum(fx1[:, None], tx1), np.minimum(fx2[:, None], tx2)
    top, bottom = np.maximum(fy1[:, None], ty1), np.minimum(fy2[:, None], ty2)
    pixels, others = np.array(found.pixels)[:, None], np.array(truth.pixels)
    most = np.minimum(np.maximum(right - left, 0) * np.maximum(bottom - top, 0), np.minimum(pixels, others))  # pixels that they may share
    of = np.where(truth.crowd, pixels, pixels + others - most)
    at = rows, columns = np.nonzero(pairs & (most > 0) & (most >= of * (lowest - 1e-9)))
    for i, j, x1, x2, y1, y2 in zip(
        rows.tolist(), columns.tolist(), left[at].tolist(), right[at].tolist(), top[at].tolist(), bottom[at].tolist(), strict=True
    ):
        (a, ax, ay), (b, bx, by) = found.crops[i], truth.crops[j]
        shared = a.view(np.bool_)[y1 - ay : y2 - ay, x1 - ax : x2 - ax] & b.view(np.bool_)[y1 - by : y2 - by, x1 - bx : x2 - bx]
        if both := int(np.count_nonzero(shared)):
            overlaps[i, j] = both / (found.pixels[i] if truth.crowd[j] else found.pixels[i] + truth.pixels[j] - both)
    return overlaps


def boundary_overlaps(found: Side, truth: Side, pairs: Bools, size: Size) -> Floats:
    """(D, G) Boundary IoU (Cheng et al. 2021, arXiv 2103.16562): of the parts of two masks within a distance of their outlines. With crowds 1:
    the outline of a crowd says nothing of the objects in it. pairs: (D, G) which are wanted."""
    overlaps = np.where(truth.crowd, 1.0, np.zeros(pairs.shape))
    wanted, distance = pairs & ~np.array(truth.crowd, bool), masks.boundary_distance(*size)
    bands: dict[tuple[int, int], Crop] = {}
    for i, j in np.argwhere(wanted).tolist():
        for which, side, at in ((0, found, i), (1, truth, j)):
            if (which, at) not in bands:
                bits, x, y = side.crops[at]
                bands[which, at] = masks.boundary(bits, distance), x, y
        overlaps[i, j] = masks.crop_iou(bands[0, i], bands[1, j])
    return overlaps


def _extents(crops: Sequence[Crop]) -> Any:
    """(4, N): x1, y1, x2, y2."""
    return np.array([(x, y, x + bits.shape[1], y + bits.shape[0]) for bits, x, y in crops]).T


_NOTHING: Crop = (np.zeros((0, 0), np.uint8), 0, 0)
