"""The training loss: boxes (CIoU), masks, classes, and the distribution focal loss of the box sides.

Departures from the 2023 recipe, see docs/metrics.md: mask targets are the share of each cell that the object covers, not 0 or 1,
so that the zero line of the upsampled logits falls on the object's border; and every cell that the box touches counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..geometry.boxes import ciou
from ..types import Batch
from .assign import assign
from .head import REG_MAX, HeadOutput, SegmentationHead


class Losses(NamedTuple):
    """Losses of a batch with their gains, each a scalar tensor, in the order of results.csv."""

    box: Tensor
    seg: Tensor
    cls: Tensor
    dfl: Tensor


WholeBatch = Callable[[Tensor, int], tuple[Tensor, int | Tensor]]


def _alone(weight: Tensor, count: int) -> tuple[Tensor, int]:
    return weight, count


class SegmentationLoss:
    """Losses of a batch. The mask loss uses the box gain.

    whole: where a batch is shared by several processes, turns a process's sum of class targets and number of positives into those of the
    whole batch. The losses of all processes then add up to those of the batch, and so do their gradients.
    """

    def __init__(
        self, head: SegmentationHead, box: float = 7.5, cls: float = 0.5, dfl: float = 1.5, whole: WholeBatch | None = None
    ) -> None:
        self.head, self.whole = head, whole or _alone
        self.box, self.cls, self.dfl = box, cls, dfl

    @staticmethod
    def total(losses: Losses, batch_size: int) -> Tensor:
        """What is minimised: the sum, times the images in the batch."""
        return torch.stack(losses).sum() * batch_size

    def __call__(self, out: HeadOutput, batch: Batch) -> Losses:
        out = HeadOutput(*(t.float() for t in out))
        with torch.no_grad():
            positives = assign(out.scores.sigmoid(), self.head.boxes(out), out.anchors, batch.image_index, batch.classes, batch.boxes)
        image, anchor, gt, weight = positives
        target = torch.zeros_like(out.scores)
        target[image, batch.classes[gt], anchor] = weight
        norm, count = self.whole(weight.sum(), len(gt))
        norm = norm.clamp(min=1)
        cls = F.binary_cross_entropy_with_logits(out.scores, target, reduction="sum") / norm
        if len(gt) == 0:  # keep every output in the graph
            zero = (out.distances.sum() + out.coefficients.sum() + out.protos.sum()) * 0
            return Losses(zero, zero, cls * self.cls, zero)

        centre, stride = out.anchors[anchor] / out.strides[anchor], out.strides[anchor]
        logits = out.distances[image, :, anchor].view(-1, 4, REG_MAX)  # (P, 4, 16)
        distance = logits.softmax(-1) @ torch.arange(REG_MAX, dtype=logits.dtype, device=logits.device)
        boxes = torch.cat((centre - distance[:, :2], centre + distance[:, 2:]), 1)
        target_boxes = batch.boxes[gt] / stride
        box = ((1 - ciou(boxes, target_boxes)) * weight).sum() / norm
        dfl = (_dfl(logits, centre, target_boxes) * weight).sum() / norm
        seg = _mask_loss(out.coefficients[image, :, anchor], out.protos, positives.image, gt, batch, count)
        return Losses(box * self.box, seg * self.box, cls * self.cls, dfl * self.dfl)


def _dfl(logits: Tensor, centre: Tensor, boxes: Tensor) -> Tensor:
    """Cross-entropy against the two bins around the true distance, mean of the four sides. (P, 4, 16), (P, 2), (P, 4) -> (P,)."""
    distance = torch.cat((centre - boxes[:, :2], boxes[:, 2:] - centre), 1).clamp(0, REG_MAX - 1 - 0.01)
    left = distance.floor()
    share = distance - left
    log_shares = logits.log_softmax(-1)
    low = log_shares.gather(-1, left.long()[..., None])[..., 0]
    high = log_shares.gather(-1, left.long()[..., None] + 1)[..., 0]
    return -(low * (1 - share) + high * share).mean(1)


def _mask_loss(coefficients: Tensor, protos: Tensor, image: Tensor, gt: Tensor, batch: Batch, count: int | Tensor | None = None) -> Tensor:
    """Binary cross-entropy inside the object's box, per cell of the box, mean over the positives (`count` if they are not all). Scalar.

    coefficients: (P, 32).  protos: (B, 32, h, w).  Object by object: all its positives share the box, so nothing outside any
    box is ever computed and memory follows the objects' area.
    """
    height, width = protos.shape[2:]
    masks = batch.masks
    if masks.shape[1:] != (height, width):  # mask_ratio < 4: finer targets, so bring the prototypes up to them
        protos = F.interpolate(protos, size=masks.shape[1:], mode="bilinear", align_corners=False)
        height, width = masks.shape[1:]
    cells = batch.boxes / (batch.images.shape[3] / width)
    area = ((cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1])).clamp(min=1e-3)
    edges = torch.cat((cells[:, :2].floor(), cells[:, 2:].ceil()), 1).long().clamp(min=0).tolist()

    order = gt.argsort(stable=True)
    objects, counts = gt[order].unique_consecutive(return_counts=True)
    images = batch.image_index[objects].tolist()
    total = protos.new_zeros(())
    for own, index, b in zip(coefficients[order].split(counts.tolist()), objects.tolist(), images, strict=True):
        x1, y1, x2, y2 = edges[index]
        logits = own @ protos[b, :, y1:y2, x1:x2].flatten(1)  # (k, cells)
        target = masks[index, y1:y2, x1:x2].flatten().float() / 255
        total = total + F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="sum") / area[index]
    return total / (len(gt) if count is None else count)
