"""From raw outputs to objects: non-maximum suppression, and masks at the image's own resolution."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..geometry import masks
from ..geometry.boxes import cxcywh_to_xyxy
from ..geometry.letterbox import Letterbox
from ..nn.head import MASKS
from ..types import CropMask, Instances, RawOutput
from .mask_scores import certainty_sums, mask_certainty
from .nms import nms

MAX_CANDIDATES = 30_000
CLASS_OFFSET = 16384.0
"""Moves boxes of different classes apart, so that one pass of NMS never lets them compete; larger than any input."""
MASK_CHUNK = 64
BAND_PIXELS = 1 << 20
"""Masks are upsampled in bands of rows of so many pixels."""


def decode(
    raw: RawOutput,
    letterboxes: Sequence[Letterbox],
    *,
    conf: float,
    iou: float,
    max_det: int,
    classes: Sequence[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    certainty: bool = False,
) -> list[Instances]:
    """Objects of each image of a batch, in image pixels.

    conf: least confidence.  iou: NMS threshold.  classes: keep only these.  agnostic: NMS across classes.  multi_label: a box may
    count for every class above `conf`, as validation wants; else for its best class only.  certainty: with `scores["mask_certainty"]`.
    """
    result = []
    for pred, protos, letterbox in zip(raw.pred, raw.protos, letterboxes, strict=True):
        kept = _nms(pred, conf, iou, max_det, classes, agnostic, multi_label)
        boxes = letterbox.boxes_to_image(kept[:, :4].cpu().numpy())
        certainties = np.zeros(len(kept), np.float32) if certainty else None
        crops = assemble_masks(kept[:, 6:], protos, boxes, letterbox, certainties)
        confidences = kept[:, 4].cpu().numpy().astype(np.float32)
        scores = {} if certainties is None else {"mask_certainty": certainties}
        result.append(Instances(*letterbox.source, boxes, confidences, kept[:, 5].cpu().numpy().astype(np.int64), crops, scores))
    return result


def _nms(pred: Tensor, conf: float, iou: float, max_det: int, classes: Sequence[int] | None, agnostic: bool, multi_label: bool) -> Tensor:
    """(4 + nc + 32, A) -> (N, 6 + 32): x1 y1 x2 y2 in input pixels, confidence, class, coefficients; by falling confidence."""
    scores = pred[4:-MASKS]
    if classes is not None:
        allowed = torch.zeros(len(scores), dtype=torch.bool, device=pred.device)
        allowed[[c for c in classes if 0 <= c < len(scores)]] = True
        scores = scores * allowed[:, None]
    if multi_label:
        cls, anchor = (scores > conf).nonzero(as_tuple=True)
        score = scores[cls, anchor]
    else:
        score, cls = scores.max(0)
        anchor = (score > conf).nonzero()[:, 0]
        score, cls = score[anchor], cls[anchor]
    if len(score) > MAX_CANDIDATES:
        score, best = score.topk(MAX_CANDIDATES)
        cls, anchor = cls[best], anchor[best]
    boxes = cxcywh_to_xyxy(pred[:4, anchor].T)
    # in double precision, because float32 has no room for the corners beside the offset of a high class
    apart = boxes.double() + (0 if agnostic else cls[:, None] * CLASS_OFFSET)
    keep = nms(apart, score.double(), iou)[:max_det]
    return torch.cat((boxes[keep], score[keep, None], cls[keep, None].to(boxes.dtype), pred[-MASKS:, anchor[keep]].T), 1)


def assemble_masks(
    coefficients: Tensor, protos: Tensor, boxes: np.ndarray, letterbox: Letterbox, certainties: npt.NDArray[np.float32] | None = None
) -> list[CropMask]:
    """Masks at image resolution: logits -> upsampled -> thresholded at 0 -> cropped by the box.

    coefficients: (N, 32).  protos: (32, h, w).  boxes: (N, 4) x1 y1 x2 y2 in image pixels.  certainties: (N,), filled with `mask_certainty`. Pixel i belongs to a box if
    x1 <= i < x2, as in the official implementation. Only the pixels of each box are ever upsampled, so memory follows the largest box, not N x image.
    """
    height, width = protos.shape[1:]
    cell = letterbox.size[1] / width  # input pixels per cell of the prototypes
    sx, sy = (s / cell for s in letterbox.scale)  # cells per image pixel
    left, top = letterbox.left / cell, letterbox.top / cell
    pixels = np.ceil(boxes).astype(np.int64)
    result = []
    for start in range(0, len(coefficients), MASK_CHUNK):
        chunk = coefficients[start : start + MASK_CHUNK] @ protos.flatten(1)
        logits = chunk.view(-1, height, width).cpu().numpy()
        for field, (x1, y1, x2, y2) in zip(logits, pixels[start : start + MASK_CHUNK].tolist(), strict=True):
            if x1 >= x2 or y1 >= y2:
                result.append(masks.EMPTY)
                continue
            # only the cells around the box; OpenCV's warp is exact to 1/32 cell
            u1, v1 = max(int(x1 * sx + left) - 2, 0), max(int(y1 * sy + top) - 2, 0)
            window = np.ascontiguousarray(field[v1 : int(y2 * sy + top) + 3, u1 : int(x2 * sx + left) + 3])
            matrix = np.array([[sx, 0, (x1 + 0.5) * sx + left - 0.5 - u1], [0, sy, 0]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            bitmap = np.empty((y2 - y1, x2 - x1), np.bool_)
            rows = max(BAND_PIXELS // (x2 - x1), 1)
            inside = either = 0.0
            for y in range(y1, y2, rows):
                matrix[1, 2] = (y + 0.5) * sy + top - 0.5 - v1
                size = x2 - x1, min(rows, y2 - y)
                band = cv2.warpAffine(window, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
                bitmap[y - y1 : y - y1 + rows] = band > 0
                if certainties is not None:
                    sums = certainty_sums(band)
                    inside, either = inside + sums[0], either + sums[1]
            if certainties is not None:
                certainties[len(result)] = mask_certainty(inside, either)
            result.append(masks.from_bitmap(bitmap, x1, y1))
    return result
