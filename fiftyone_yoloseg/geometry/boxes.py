"""Boxes as torch tensors. xyxy: x1, y1, x2, y2; cxcywh: centre and size. Any one frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS = 1e-7


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) -> (..., 4)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), -1)


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU of xyxy boxes, (..., 4) x (..., 4) -> (...), broadcast. In (-1.5, 1]. Zheng et al. 2020, arXiv 1911.08287."""
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    aw, ah, bw, bh = ax2 - ax1, ay2 - ay1 + EPS, bx2 - bx1, by2 - by1 + EPS
    inter = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(0) * (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(0)
    iou = inter / (aw * ah + bw * bh - inter + EPS)
    # squared distance of the centres over the squared diagonal of the enclosing box
    enclosing_w = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    enclosing_h = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    diagonal = enclosing_w**2 + enclosing_h**2 + EPS
    distance = ((bx1 + bx2 - ax1 - ax2) ** 2 + (by1 + by2 - ay1 - ay2) ** 2) / 4
    aspect = (4 / math.pi**2) * (torch.atan(bw / bh) - torch.atan(aw / ah)) ** 2
    with torch.no_grad():
        alpha = aspect / (aspect - iou + (1 + EPS))
    return iou - (distance / diagonal + aspect * alpha)
