"""The segmentation head: boxes as distributions, class scores, mask coefficients, and mask prototypes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..types import RawOutput
from .blocks import DFL, Conv, Proto

STRIDES = (8, 16, 32)
REG_MAX = 16
MASKS = 32


class HeadOutput(NamedTuple):
    """Raw output of the head over A anchors of all levels (strides 8, 16, 32; row-major within a level).

    distances: (B, 4 * 16, A) logits of the distances to left, top, right, bottom.
    scores: (B, nc, A) class logits.  coefficients: (B, 32, A).  protos: (B, 32, H/4, W/4).
    anchors: (A, 2) cell centres x, y in input pixels.  strides: (A, 1).
    """

    distances: Tensor
    scores: Tensor
    coefficients: Tensor
    protos: Tensor
    anchors: Tensor
    strides: Tensor


def make_anchors(shapes: Sequence[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Grid shapes (h, w) of the levels -> centres (A, 2) in input pixels, strides (A, 1)."""
    anchors, strides = [], []
    for (height, width), stride in zip(shapes, STRIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
        anchors.append((torch.stack((x, y), -1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((height * width, 1), float(stride), device=device))
    return torch.cat(anchors), torch.cat(strides)


def _tower(c_in: int, hidden: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(Conv(c_in, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, c_out, 1))


class SegmentationHead(nn.Module):
    """Three towers a level and prototypes from the finest level. `channels`: widths of the stride 8, 16 and 32 inputs."""

    def __init__(self, nc: int, channels: tuple[int, int, int], proto_channels: int) -> None:
        super().__init__()
        self.nc = nc
        box = max(16, channels[0] // 4, 4 * REG_MAX)
        cls = max(channels[0], min(nc, 100))
        coefficient = max(channels[0] // 4, MASKS)
        self.cv2 = nn.ModuleList(_tower(c, box, 4 * REG_MAX) for c in channels)
        self.cv3 = nn.ModuleList(_tower(c, cls, nc) for c in channels)
        self.dfl = DFL(REG_MAX)
        self.proto = Proto(channels[0], proto_channels, MASKS)
        self.cv4 = nn.ModuleList(_tower(c, coefficient, MASKS) for c in channels)

    @torch.no_grad()
    def init_bias(self) -> None:
        """Start from boxes of even distances and from the class scores of about 5 objects in a 640 px image."""
        for box, cls, stride in zip(self.cv2, self.cv3, STRIDES, strict=True):
            box[-1].bias.fill_(1.0)  # type: ignore[index]
            cls[-1].bias.fill_(math.log(5 / self.nc / (640 / stride) ** 2))  # type: ignore[index]

    def forward(self, levels: tuple[Tensor, Tensor, Tensor]) -> HeadOutput:
        def join(towers: nn.ModuleList) -> Tensor:
            return torch.cat([tower(x).flatten(2) for tower, x in zip(towers, levels, strict=True)], 2)

        anchors, strides = make_anchors([(x.shape[2], x.shape[3]) for x in levels], levels[0].device)
        return HeadOutput(join(self.cv2), join(self.cv3), join(self.cv4), self.proto(levels[0]), anchors, strides)

    def boxes(self, out: HeadOutput) -> Tensor:
        """(B, A, 4) x1 y1 x2 y2 in input pixels."""
        distances = self.dfl(out.distances).transpose(1, 2) * out.strides
        return torch.cat((out.anchors - distances[..., :2], out.anchors + distances[..., 2:]), -1)

    def decode(self, out: HeadOutput) -> RawOutput:
        """Centre and size in input pixels, class probabilities, coefficients: the layout that YOLOv8-seg clients read."""
        distances = self.dfl(out.distances) * out.strides.T
        left_top, right_bottom = distances.chunk(2, 1)
        centre = out.anchors.T + (right_bottom - left_top) / 2
        pred = torch.cat((centre, left_top + right_bottom, out.scores.sigmoid(), out.coefficients), 1)
        return RawOutput(pred, out.protos)
