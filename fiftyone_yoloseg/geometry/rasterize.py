"""Polygons as masks: the reader of our own outlines, exact, and of everybody else's, each by its own meaning.

What a list of numbers means depends on who wrote it. In image pixels:

- every vertex at a whole number + 0.25 (or the two marks of `polygons`): our pixel outline. Exact, bridges paint nothing.
- whole numbers, all sides along the axes: pixel edges. Exact. A rectangle whose side has vertices in the middle is not that
  but a pixel by pixel contour of OpenCV.
- other whole numbers, or all at + 0.5: border pixels as OpenCV's findContours gives them. Vertices and lines are painted.
- anything else: a drawn outline, rasterised as COCO does (pycocotools).

No polygon is lost: one that covers no pixel by these rules paints the pixels of its lines.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ..types import CropMask
from . import masks
from .polygons import CLOSE, MARK, OFFSET, OPEN, Points

# how far a vertex may be from its place: 6 decimals are 0.01 pixels at a width of 20,000
SLACK = 0.02
Lattice = npt.NDArray[np.int64]


def polygon_to_mask(points: Points, height: int, width: int) -> CropMask:
    """Pixels of one polygon, (n, 2) x, y in image pixels. Cut at the image; (0, 2) gives an empty mask."""
    points = np.asarray(points, np.float64).reshape(-1, 2)
    if len(points) == 0:
        return masks.EMPTY
    if (rings := _own_rings(points)) is not None:
        return _fill(rings, height, width)
    whole = np.rint(points)
    if np.abs(points - whole).max() < SLACK:
        return _fill_whole_numbers(whole.astype(np.int64), height, width)
    if np.abs(points - np.floor(points) - 0.5).max() < SLACK:
        return _fill([np.floor(points).astype(np.int64)], height, width)
    mask = _fill_coco(points, height, width)
    return mask if mask.w else _fill([np.floor(points).astype(np.int64)], height, width)


def polygons_to_mask(parts: Sequence[Points], height: int, width: int) -> CropMask:
    """The union of polygons, each read as `polygon_to_mask` does."""
    pieces = [piece for part in parts if (piece := polygon_to_mask(part, height, width)).w]
    if len(pieces) <= 1:
        return pieces[0] if pieces else masks.EMPTY
    x, y = min(p.x for p in pieces), min(p.y for p in pieces)
    canvas = np.zeros((max(p.y + p.h for p in pieces) - y, max(p.x + p.w for p in pieces) - x), np.uint8)
    for p in pieces:
        canvas[p.y - y : p.y - y + p.h, p.x - x : p.x - x + p.w] |= masks.crop_bitmap(p)
    return masks.from_bitmap(canvas, x, y)


def _own_rings(points: Points) -> list[Lattice] | None:
    """The rings of our pixel outline, taken apart at its bridges; None if it is not one."""
    index = np.floor(points)
    fraction = points - index - OFFSET
    mark = np.rint(fraction[:, 0] / MARK)
    fraction[:, 0] -= mark * MARK
    if np.abs(mark).max() > 1 or np.abs(fraction).max() >= SLACK:
        return None
    lattice = index.astype(np.int64)
    marked = np.flatnonzero(mark)
    if len(marked) == 0:
        return [lattice]
    done: list[Lattice] = []
    open_rings: list[list[Lattice]] = [[]]
    at = 0
    for i in marked.tolist():
        open_rings[-1].append(lattice[at : i + 1])
        at = i + 1
        if mark[i] == OPEN:
            open_rings.append([])
        elif mark[i] == CLOSE:
            done.append(np.concatenate(open_rings.pop()))
            if not open_rings:
                return None
    open_rings[-1].append(lattice[at:])
    if len(open_rings) > 1:
        return None
    done.append(np.concatenate(open_rings[0]))
    return [ring for ring in done if len(ring)]


def _fill_whole_numbers(points: Lattice, height: int, width: int) -> CropMask:
    corners = points[np.any(points != np.roll(points, 1, 0), 1)]
    if len(corners) >= 4 and _along_axes(corners):
        mask = _fill_edges(corners, height, width)
        if mask.w and (len(corners) == 4 or masks.area(mask) < mask.w * mask.h):
            return mask
    return _fill([points], height, width)


def _along_axes(points: Lattice) -> bool:
    """Whether all sides are upright or level, but for bridges: those are walked once in each direction."""
    steps = np.stack([points, np.roll(points, -1, 0)], 1)
    slanted = steps[np.all(steps[:, 0] != steps[:, 1], 1)]
    return sorted(slanted.reshape(-1, 4).tolist()) == sorted(slanted[:, ::-1].reshape(-1, 4).tolist())


def _window(points: npt.NDArray[np.float64] | Lattice, height: int, width: int) -> tuple[int, int, int, int]:
    """The part of the image that the points span: x, y, w, h with w, h >= 1 as long as the image has pixels."""
    low = np.clip(np.floor(points.min(0)), 0, [width - 1, height - 1]).astype(int)
    high = np.clip(np.floor(points.max(0)) + 1, low + 1, [width, height]).astype(int)
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


def _fill(rings: list[Lattice], height: int, width: int) -> CropMask:
    """Border pixels and what lies inside by the even-odd rule."""
    limit = np.array([width - 1, height - 1])  # 1.0 is the first pixel outside the image
    rings = [np.clip(ring, 0, limit) for ring in rings]
    x, y, w, h = _window(np.concatenate(rings), height, width)
    canvas = np.zeros((h, w), np.uint8)
    cv2.fillPoly(canvas, [(ring - [x, y]).astype(np.int32) for ring in rings], (1,))
    return masks.from_bitmap(canvas, x, y)


def _fill_edges(points: Lattice, height: int, width: int) -> CropMask:
    """Pixels inside pixel corners by the even-odd rule; only the upright sides matter, bridges cancel themselves."""
    points = np.clip(points, 0, [width, height])
    x, y, w, h = _window(points, height, width)
    a, b = points - [x, y], np.roll(points, -1, 0) - [x, y]
    upright = (a[:, 0] == b[:, 0]) & (a[:, 1] != b[:, 1])
    a, b = a[upright], b[upright]
    crossings = np.zeros((h + 1, w + 1), np.int32)
    np.add.at(crossings, (np.minimum(a[:, 1], b[:, 1]), a[:, 0]), 1)
    np.add.at(crossings, (np.maximum(a[:, 1], b[:, 1]), a[:, 0]), -1)
    return masks.from_bitmap(crossings.cumsum(0).cumsum(1)[:h, :w] & 1, x, y)


def _fill_coco(points: Points, height: int, width: int) -> CropMask:
    if len(points) < 3:
        return masks.EMPTY
    x, y, w, h = _window(points, height, width)
    # COCO's coordinates have two decimals and its rasteriser rounds at ties: the noise of another number of decimals would show
    crop = np.round(np.round(points, 2) - [x, y], 2)
    rle = coco_mask.frPyObjects([crop.ravel().tolist()], h, w)
    return masks.from_bitmap(coco_mask.decode(rle)[:, :, 0], x, y)
