"""Instance masks: exact crops, COCO run lengths, IoU.

Bitmaps are (H, W) arrays, True or non-zero inside. Pixel i covers the continuous interval [i, i + 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ..types import CropMask

Bitmap = npt.NDArray[np.uint8]
Crop = tuple[Bitmap, int, int]
"""A bitmap and the image position x, y of its top-left pixel."""
EMPTY = CropMask(0, 0, 0, 0, b"")


def trim(bitmap: Bitmap, x: int = 0, y: int = 0) -> Crop:
    """A bitmap of 0 and 1, cut to the pixels that are set; of size 0 if there is none. (x, y): image position of its top-left pixel."""
    left, top, width, height = cv2.boundingRect(bitmap) if bitmap.size else (0, 0, 0, 0)
    if (height, width) == bitmap.shape:
        return bitmap, x, y
    return np.ascontiguousarray(bitmap[top : top + height, left : left + width]), x + left, y + top


def from_bitmap(bitmap: npt.NDArray[Any], x: int = 0, y: int = 0) -> CropMask:
    """Crop to the pixels that are set. (x, y): image position of the bitmap's top-left pixel. No pixel set -> EMPTY."""
    crop, x, y = trim(np.ascontiguousarray(bitmap != 0).view(np.uint8), x, y)
    if not crop.size:
        return EMPTY
    return CropMask(x, y, crop.shape[1], crop.shape[0], coco_mask.encode(np.asfortranarray(crop))["counts"])


def crop_bitmap(mask: CropMask) -> Bitmap:
    """The (h, w) uint8 crop, values 0 and 1."""
    if mask.w == 0:
        return np.zeros((0, 0), np.uint8)
    bits: Bitmap = coco_mask.decode({"size": [mask.h, mask.w], "counts": mask.counts})
    return bits


def full_bitmap(mask: CropMask, height: int, width: int) -> Bitmap:
    """The (height, width) uint8 bitmap of the whole image, values 0 and 1. Parts outside the image are cut off."""
    full = np.zeros((height, width), np.uint8)
    x1, y1, x2, y2 = max(mask.x, 0), max(mask.y, 0), min(mask.x + mask.w, width), min(mask.y + mask.h, height)
    if x1 < x2 and y1 < y2:
        full[y1:y2, x1:x2] = crop_bitmap(mask)[y1 - mask.y : y2 - mask.y, x1 - mask.x : x2 - mask.x]
    return full


def area(mask: CropMask) -> int:
    """Number of pixels."""
    return int(coco_mask.area({"size": [mask.h, mask.w], "counts": mask.counts})) if mask.w else 0


def count_parts(bits: Bitmap) -> tuple[int, int]:
    """Number of parts (touching at corners counts as one) and of holes."""
    contours, hierarchy = cv2.findContours(bits, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return 0, 0
    inner = int((hierarchy[0][:, 3] >= 0).sum())
    return len(contours) - inner, inner


def to_coco_rle(mask: CropMask, height: int, width: int) -> dict[str, Any]:
    """COCO compressed RLE of the whole (height, width) image; the crop must lie inside it.

    Works on the runs of the crop, so that its cost does not grow with the image.
    """
    if mask.w == 0:
        return _compress([height * width], height, width)
    columns = np.zeros((mask.w, mask.h + 1), np.int8)  # one empty pixel after each column keeps runs inside columns
    columns[:, :-1] = crop_bitmap(mask).T
    edges = np.diff(columns.ravel(), prepend=0)
    column, row = np.divmod(np.flatnonzero(edges), mask.h + 1)  # run starts and ends, alternating
    position = (mask.x + column) * height + mask.y + row
    counts = np.diff(position, prepend=0, append=height * width)
    if np.any(counts[1:-1] == 0):  # an object that spans the image's full height: its runs meet
        starts, ends = position[0::2], position[1::2]
        joined = starts[1:] == ends[:-1]
        starts, ends = starts[np.r_[True, ~joined]], ends[np.r_[~joined, True]]
        counts = np.diff(np.stack([starts, ends], 1).ravel(), prepend=0, append=height * width)
    if counts[-1] == 0:
        counts = counts[:-1]
    return _compress(counts.tolist(), height, width)


def _compress(counts: list[int], height: int, width: int) -> dict[str, Any]:
    rle: dict[str, Any] = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return rle


def from_coco_rle(rle: dict[str, Any]) -> CropMask:
    """From COCO RLE of the whole image: compressed (bytes or str) or a list of counts."""
    height, width = rle["size"]
    if isinstance(rle["counts"], list):
        rle = coco_mask.frPyObjects(rle, height, width)
    left, top, w, h = (int(v) for v in coco_mask.toBbox(rle))
    if w == 0 or h == 0:
        return EMPTY
    # toBbox gives a too large rectangle when a run passes from one column into the next, so crop again
    return from_bitmap(coco_mask.decode(rle)[top : top + h, left : left + w], left, top)


def from_checked_rle(rle: dict[str, Any], height: int, width: int) -> CropMask:
    """As `from_coco_rle`, for run lengths from outside: pycocotools trusts what it gets.

    Raises ValueError if they do not fill an image of (height, width) pixels or mark none of them.
    """
    size, counts = rle["size"], rle["counts"]
    if list(size) != [height, width]:
        raise ValueError(f"RLE of size {size}, image of [{height}, {width}] (height, width)")
    runs = counts if isinstance(counts, list) else _runs(counts)
    if any(not isinstance(run, int) or run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError("RLE counts do not add up to the image size")
    mask = from_coco_rle({"size": [height, width], "counts": counts})
    if mask.w == 0:
        raise ValueError("RLE without any pixel")
    return mask


def _runs(counts: str | bytes) -> list[int]:
    """Run lengths of a compressed RLE: 5 bits a character, the lowest first; from the fourth on, differences to the last but one."""
    text = counts.encode() if isinstance(counts, str) else counts
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError("RLE counts hold a character that does not belong there")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("RLE counts end in the middle of a number")
    return runs


def union(crops: Sequence[Crop]) -> Crop:
    """All pixels of one or more crops."""
    if len(crops) == 1:
        return crops[0]
    x, y = min(x for _, x, _ in crops), min(y for _, _, y in crops)
    right, bottom = max(x + bits.shape[1] for bits, x, _ in crops), max(y + bits.shape[0] for bits, _, y in crops)
    canvas = np.zeros((bottom - y, right - x), np.uint8)
    for bits, left, top in crops:
        canvas[top - y : top - y + bits.shape[0], left - x : left - x + bits.shape[1]] |= bits
    return canvas, x, y


def crop_iou(a: Crop, b: Crop) -> float:
    """Intersection over union of two crops of 0 and 1; 0 if both are without pixels."""
    (bits_a, ax, ay), (bits_b, bx, by) = a, b
    if ax == bx and ay == by and bits_a.shape == bits_b.shape and bits_a.size and not cv2.norm(bits_a, bits_b, cv2.NORM_INF):
        return 1.0 if cv2.hasNonZero(bits_a) else 0.0  # most are the same: OpenCV sees that in half of numpy's time
    x1, y1 = max(ax, bx), max(ay, by)
    x2, y2 = min(ax + bits_a.shape[1], bx + bits_b.shape[1]), min(ay + bits_a.shape[0], by + bits_b.shape[0])
    both = 0
    if x1 < x2 and y1 < y2:
        both = int(np.count_nonzero(bits_a[y1 - ay : y2 - ay, x1 - ax : x2 - ax] & bits_b[y1 - by : y2 - by, x1 - bx : x2 - bx]))
    either = int(np.count_nonzero(bits_a) + np.count_nonzero(bits_b)) - both
    return both / either if either else 0.0


def boundary_distance(height: int, width: int) -> int:
    """How far from the outline Boundary IoU looks, in pixels: 2 % of the image's diagonal, at least 1 (Cheng et al. 2021, arXiv 2103.16562)."""
    return max(1, round(0.02 * math.hypot(height, width)))


def boundary(bits: Bitmap, distance: int) -> Bitmap:
    """The pixels of a crop of 0 and 1 from which a pixel outside of the mask is at most `distance` steps away, diagonal ones too. What is outside
    of the crop, or of the image, is outside of the mask."""
    if min(bits.shape) <= 2 * distance:
        return bits
    inner = cv2.erode(bits, np.ones((2 * distance + 1,) * 2, np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    return np.asarray(bits - inner, np.uint8)


def shared_pixels(a: Sequence[Crop], b: Sequence[Crop]) -> npt.NDArray[np.int64]:
    """(len(a), len(b)) number of pixels that two crops of 0 and 1 have in common; looks only where their rectangles meet."""
    result = np.zeros((len(a), len(b)), np.int64)
    if not a or not b:
        return result
    first, second = (np.array([(x, y, x + bits.shape[1], y + bits.shape[0]) for bits, x, y in crops]) for crops in (a, b))
    starts, ends = np.maximum(first[:, None, :2], second[None, :, :2]), np.minimum(first[:, None, 2:], second[None, :, 2:])
    for i, j in np.argwhere((starts < ends).all(2)):
        (bits_a, ax, ay), (bits_b, bx, by), (x1, y1), (x2, y2) = a[i], b[j], starts[i, j], ends[i, j]
        result[i, j] = np.count_nonzero(bits_a[y1 - ay : y2 - ay, x1 - ax : x2 - ax] & bits_b[y1 - by : y2 - by, x1 - bx : x2 - bx])
    return result


def iou(a: Sequence[CropMask], b: Sequence[CropMask]) -> npt.NDArray[np.float64]:
    """(len(a), len(b)) intersection over union, computed on the overlap of the crops only. Empty masks give 0."""
    result = np.zeros((len(a), len(b)))
    crops_b: list[Bitmap | None] = [None] * len(b)
    areas_b = [area(m) for m in b]
    for i, p in enumerate(a):
        crop_p, area_p = None, area(p)
        for j, q in enumerate(b):
            x1, y1 = max(p.x, q.x), max(p.y, q.y)
            x2, y2 = min(p.x + p.w, q.x + q.w), min(p.y + p.h, q.y + q.h)
            if x1 >= x2 or y1 >= y2:
                continue
            crop_p = crop_bitmap(p) if crop_p is None else crop_p
            crop_q = crops_b[j]
            if crop_q is None:
                crop_q = crops_b[j] = crop_bitmap(q)
            overlap = np.count_nonzero(crop_p[y1 - p.y : y2 - p.y, x1 - p.x : x2 - p.x] & crop_q[y1 - q.y : y2 - q.y, x1 - q.x : x2 - q.x])
            result[i, j] = overlap / (area_p + areas_b[j] - overlap)
    return result
