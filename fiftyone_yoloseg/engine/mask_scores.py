"""How sure a model is of a mask: three numbers in [0, 1] for each predicted object, beside its confidence.

They need no ground truth. None of them is a probability of being right; they rank objects for a person to look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..geometry import masks
from ..geometry.letterbox import Letterbox
from ..types import CropMask, Instances

Score = Literal["mask_certainty", "box_mask_gap", "flip_agreement"]
SCORES: tuple[Score, ...] = get_args(Score)
Scores = npt.NDArray[np.float32]
FLIP_CONFIDENCE = 0.5
"""Objects of the mirrored image count from this share of the least confidence on: one that was just above it is often just below it there."""


def certainty_sums(logits: npt.NDArray[Any]) -> tuple[float, float]:
    """What `mask_certainty` needs of a piece of an object's box: sum p x m and sum max(p, m), with p = 1 / (1 + exp(-logit)) and m = 1 where logit > 0."""
    e = np.exp(-np.abs(logits))
    p = np.where(logits > 0, 1.0, e) / (1.0 + e)
    inside = float(p[logits > 0].sum(dtype=np.float64))
    return inside, float(np.count_nonzero(logits > 0)) + float(p.sum(dtype=np.float64)) - inside


def mask_certainty(inside: float, either: float) -> float:
    """Sum p x m / sum max(p, m) over the pixels of the box: the IoU of the mask m and the fuzzy set of its probabilities p; 0 for an empty mask.

    1 where each pixel is certainly in or certainly out. A mask whose pixels all have p = 0.6, with nothing around it, has 0.6.
    """
    return inside / either if inside else 0.0


def box_mask_gap(instances: Instances) -> Scores:
    """(N,) 1 - IoU of the predicted box and the pixel rectangle of the mask, in image pixels; 1 for an empty mask.

    0 where the mask reaches all four sides of the box. A box that is not on whole pixels has a gap of a fraction of a pixel on each side.
    """
    rectangles = np.array([mask.box for mask in instances.masks], np.float64).reshape(-1, 4)
    boxes = instances.boxes.astype(np.float64).reshape(-1, 4)
    sides = np.minimum(boxes[:, 2:], rectangles[:, 2:]) - np.maximum(boxes[:, :2], rectangles[:, :2])
    both = np.prod(np.clip(sides, 0, None), 1)
    either = np.prod(boxes[:, 2:] - boxes[:, :2], 1) + np.prod(rectangles[:, 2:] - rectangles[:, :2], 1) - both
    return np.asarray(1 - np.divide(both, either, out=np.zeros_like(both), where=either > 0), np.float32)


def mirrored(letterbox: Letterbox) -> Letterbox:
    """Where the image lies when the whole input is flipped left to right."""
    return replace(letterbox, left=letterbox.size[1] - letterbox.left - letterbox.resized[1])


def flip_agreement(instances: Instances, flipped: Instances) -> Scores:
    """(N,) largest mask IoU with an object of the same class that was found in the image flipped left to right; 0 if there is none.

    flipped: its objects, in the frame of the flipped image. One of them may agree with several objects.
    """
    back = [_flip(mask, flipped.width) for mask in flipped.masks]
    iou = masks.iou(instances.masks, back)
    iou[instances.classes[:, None] != flipped.classes[None]] = 0
    return np.asarray(iou.max(1, initial=0), np.float32)


def _flip(mask: CropMask, width: int) -> CropMask:
    return masks.from_bitmap(masks.crop_bitmap(mask)[:, ::-1], width - mask.x - mask.w, mask.y) if mask.w else mask


def with_scores(instances: Instances, wanted: Sequence[Score], flipped: Instances | None) -> Instances:
    """The same objects with those scores that are not there yet, in the order of `SCORES`. flipped: needed for flip_agreement."""
    found: dict[str, Any] = dict(instances.scores)
    if "box_mask_gap" in wanted:
        found["box_mask_gap"] = box_mask_gap(instances)
    if "flip_agreement" in wanted:
        assert flipped is not None
        found["flip_agreement"] = flip_agreement(instances, flipped)
    return replace(instances, scores={name: found[name] for name in SCORES if name in wanted})
