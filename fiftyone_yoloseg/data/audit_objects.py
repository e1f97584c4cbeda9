"""What can be wrong with the objects of one image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..geometry import masks
from ..geometry.letterbox import fit
from ..types import CropMask, ImageRecord, InstanceRecord

TINY = 16.0
"""Square pixels at the training size: one 4 x 4 cell of the grid that masks are predicted on. Below it an object has no shape."""
HUGE = 0.95
"""Share of the image."""
SAME = 0.95
"""Mask IoU from which two objects of one class are one object labelled twice."""
AWAY = 0.5
"""IoU of the stated box and the mask's own, below which they do not belong together ..."""
OUTSIDE = 0.1
"""... and share of the stated box's side by which the mask may stick out of it."""
SLACK = 2.0
"""Pixels by which a box's edge may always be off."""

Found = tuple[str, InstanceRecord, str]
"""Kind of finding, the object, a note."""


def look_at_objects(record: ImageRecord, imgsz: int, names: Mapping[int, str]) -> Iterator[Found]:
    """names: class index -> the name it has after a remap; classes of one name are one class."""
    sx, sy = fit((record.height, record.width), (imgsz, imgsz)).scale
    usable = []
    for instance in record.instances:
        if instance.mask.w == 0:
            yield "empty_masks", instance, f"a {names[instance.cls]!r} without any pixel"
        elif instance.crowd:
            yield "crowds", instance, ""
        else:
            usable.append(instance)
            yield from _look(instance, record, sx * sy)
    for later, earlier, iou in twins([i.mask for i in usable], [names[i.cls] for i in usable]):
        one, other = usable[later], usable[earlier]
        kind = "duplicate_objects" if one.cls == other.cls else "collisions_after_remap"
        yield kind, one, f"mask IoU {iou:.2f} with {other.source_id or f'object {earlier + 1}'}"


def _look(instance: InstanceRecord, record: ImageRecord, scale: float) -> Iterator[Found]:
    pixels = masks.area(instance.mask)
    if pixels * scale < TINY:
        yield "tiny_objects", instance, f"{pixels * scale:.1f} square px"
    if pixels > HUGE * record.height * record.width:
        yield "huge_objects", instance, f"{pixels / record.height / record.width:.1%} of the image"
    if note := away(instance.mask, instance.box):
        yield "masks_away_from_boxes", instance, note
    parts, holes = masks.count_parts(masks.crop_bitmap(instance.mask))
    if parts > 1:
        yield "objects_in_parts", instance, f"{parts} parts"
    if holes:
        yield "objects_with_holes", instance, f"{holes} holes" if holes > 1 else "1 hole"


def away(mask: CropMask, box: tuple[float, float, float, float]) -> str:
    """How far a mask and its stated box (x1, y1, x2, y2) are apart, in words; empty if they fit."""
    own, stated = np.array(mask.box), np.array(box)
    sides = np.tile(stated[2:] - stated[:2], 2)
    out = np.maximum((stated - own) * [1, 1, -1, -1], 0)  # left, top, right, bottom
    if np.any(out > SLACK + OUTSIDE * sides):
        return f"the mask sticks out of its box by {out.max():.0f} px"
    overlap = np.prod(np.maximum(np.minimum(own[2:], stated[2:]) - np.maximum(own[:2], stated[:2]), 0))
    union = np.prod(own[2:] - own[:2]) + np.prod(stated[2:] - stated[:2]) - overlap
    if overlap < AWAY * union and np.any(np.abs(own - stated) > SLACK):
        return f"the mask fills {overlap / union:.0%} of its box"
    return ""


def twins(crops: Sequence[CropMask], names: Sequence[str]) -> Iterator[tuple[int, int, float]]:
    """(later, earlier, IoU) for each object that has the pixels of an earlier one of the same name. No crop is empty."""
    box = np.array([m.box for m in crops])
    pixels = np.array([masks.area(m) for m in crops], float)
    for later in range(1, len(crops)):
        common = np.minimum(box[later, 2:], box[:later, 2:]) - np.maximum(box[later, :2], box[:later, :2])
        least = SAME * np.maximum(pixels[later], pixels[:later])
        # neither the overlap of the rectangles nor the smaller mask may be less than what the masks must share: few pairs are left
        near = (common.min(1) > 0) & (common.prod(1) >= least) & (np.minimum(pixels[later], pixels[:later]) >= least)
        for earlier in np.flatnonzero(near).tolist():
            if names[later] != names[earlier]:
                continue
            iou = float(masks.iou([crops[later]], [crops[earlier]])[0, 0])
            if iou >= SAME:
                yield later, earlier, iou
                break
