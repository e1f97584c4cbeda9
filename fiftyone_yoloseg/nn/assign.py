"""Task-aligned assignment: which anchors learn which object. Feng et al. 2021, arXiv 2108.07755.

Works on the list of (object, anchor) pairs where the anchor lies inside the object, not on the full table, so that its cost
follows the objects' area instead of objects x anchors.

Departure from the 2023 recipe: objects with a side under 16 px are widened to 16 px when looking for candidates; without
that, an object that lies between the 8 px grid's centres is never learnt.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..geometry.boxes import ciou

TOP_K = 10
SCORE_POWER, OVERLAP_POWER = 0.5, 6.0
MIN_CANDIDATE_SIDE = 16.0
EPS = 1e-9


class Assignment(NamedTuple):
    """P positive anchors: image (P,), anchor (P,), object (P,) index into the batch's objects, weight (P,) in [0, 1] = class target."""

    image: Tensor
    anchor: Tensor
    object: Tensor
    weight: Tensor


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, anchors: Tensor, gt_image: Tensor, gt_class: Tensor, gt_box: Tensor) -> Assignment:
    """Assign anchors to objects.

    scores: (B, nc, A) probabilities.  boxes: (B, A, 4) predicted, anchors: (A, 2), gt_box: (N, 4), all in input pixels.
    gt_image, gt_class: (N,) int64.
    """
    centre, side = (gt_box[:, :2] + gt_box[:, 2:]) / 2, (gt_box[:, 2:] - gt_box[:, :2])
    half = side.clamp(min=MIN_CANDIDATE_SIDE) / 2
    inside = ((anchors[None] - centre[:, None]).abs() < half[:, None] - EPS).all(-1)  # (N, A)
    gt, anchor = inside.nonzero(as_tuple=True)
    image = gt_image[gt]
    overlap = ciou(boxes[image, anchor], gt_box[gt]).clamp(min=0)
    metric = scores[image, gt_class[gt], anchor] ** SCORE_POWER * overlap**OVERLAP_POWER

    keep = _rank_within(gt, metric) < TOP_K
    gt, anchor, image, overlap, metric = (t[keep] for t in (gt, anchor, image, overlap, metric))
    # an anchor that several objects want goes to the one it overlaps most
    keep = _rank_within(image * len(anchors) + anchor, overlap) == 0
    gt, anchor, image, overlap, metric = (t[keep] for t in (gt, anchor, image, overlap, metric))

    best_metric = torch.zeros(len(gt_box), device=gt_box.device).scatter_reduce_(0, gt, metric, "amax")
    best_overlap = torch.zeros(len(gt_box), device=gt_box.device).scatter_reduce_(0, gt, overlap, "amax")
    weight = metric * best_overlap[gt] / (best_metric[gt] + EPS)
    return Assignment(image, anchor, gt, weight)


def _rank_within(group: Tensor, value: Tensor) -> Tensor:
    """Rank of each element among those of its group, 0 for the largest value."""
    order = value.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    sorted_group = group[order]
    index = torch.arange(len(group), device=group.device)
    first = torch.ones_like(sorted_group, dtype=torch.bool)
    first[1:] = sorted_group[1:] != sorted_group[:-1]
    start = torch.where(first, index, 0).cummax(0).values if len(group) else index
    return torch.empty_like(index).index_copy_(0, order, index - start)
