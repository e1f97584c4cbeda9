"""Polygons as masks: the reader of our own outlines, exact, and of everybody else's, each by its own meaning.

What a list of numbers means depends on who wrote it. In image pixels:

- every vertex at a whole number + 0.25 (or the marks of `polygons`): our pixel outline. Exact, bridges paint nothing.
- whole numbers, all sides along the axes: pixel edges. Exact. A rectangle whose side has vertices in the middle is not that
  but a pixel by pixel contour of OpenCV.
- other whole numbers, or all at + 0.5: border pixels as OpenCV's findContours gives them. Vertices and lines are painted.
- anything else: a drawn outline, rasterised as COCO does (pycocotools).

Some tools write the parts of an object one after the other, each ended by its first point again. Such polygons are taken apart.
No polygon is lost: one that covers no pixel by these rules paints the pixels of its lines.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ..types import CropMask
from . import masks
from .masks import Crop
from .polygons import MARK, OFFSET, OPEN, Marks, Points

# how far a vertex may be from its place: 6 decimals are 0.01 pixels at a width of 20,000
SLACK = 0.02
LONGEST = 5_000_000
"""Pixels. A longer outline, one that crosses itself without end, is filled by OpenCV: COCO's rasteriser would take gigabytes."""
Lattice = npt.NDArray[np.int32]


def polygon_to_mask(points: Points, height: int, width: int) -> CropMask:
    """Pixels of one polygon, (n, 2) x, y in image pixels. Cut at the image; (0, 2) gives an empty mask."""
    points = np.asarray(points, np.float64).reshape(-1, 2)
    if len(points) == 0:
        return masks.EMPTY
    return masks.from_bitmap(*polygon_to_crop(points, height, width))


def polygon_to_crop(points: Points, height: int, width: int) -> Crop:
    """As `polygon_to_mask`, for one or more points; the crop may have empty borders."""
    own = own_outlines(points, [len(points)])[0]
    return paint(own.rings, height, width) if own else foreign_to_crop(points, height, width)


def foreign_to_crop(points: Points, height: int, width: int) -> Crop:
    """Somebody else's polygon, taken apart where a part is closed. A ring inside the parts before it says nothing as a part: it is a hole."""
    rings = _closed_rings(_without_repeats(points))
    if len(rings) == 1:
        return _foreign_ring(rings[0], height, width)
    pieces = [_foreign_ring(ring, height, width) for ring in rings]
    x, y = min(x for _, x, _ in pieces), min(y for _, _, y in pieces)
    canvas = np.zeros((max(y + b.shape[0] for b, _, y in pieces) - y, max(x + b.shape[1] for b, x, _ in pieces) - x), np.uint8)
    for bits, left, top in pieces:
        window = canvas[top - y : top - y + bits.shape[0], left - x : left - x + bits.shape[1]]
        if np.all(window >= bits):
            window &= 1 - bits
        else:
            window |= bits
    return (canvas, x, y) if canvas.any() else masks.union(pieces)  # the same part twice is no hole


def _without_repeats(points: Points) -> Points:
    """Of a point that is repeated, two are enough: the end of a part, and the beginning of the next."""
    again = np.all(points[1:] == points[:-1], 1)
    if not again.any():
        return points
    kept = np.ones(len(points), bool)
    kept[2:] = ~(again[1:] & again[:-1])
    return np.asarray(points[kept])


def _closed_rings(points: Points) -> list[Points]:
    """The parts of a polygon if each ends with its first point, else the polygon itself."""
    if not np.any(np.all(points[3:-4] == points[0], 1)):
        return [points]
    places: dict[tuple[float, float], list[int]] = {}
    vertices = list(map(tuple, points.tolist()))
    for i, vertex in enumerate(vertices):
        places.setdefault(vertex, []).append(i)
    rings, start = [], 0
    while start + 4 <= len(points):
        same = places[vertices[start]]
        at = bisect_left(same, start + 3)
        if at == len(same):
            break
        rings.append(points[start : same[at]])
        start = same[at] + 1
    return rings if len(rings) > 1 and start == len(points) else [points]


def _foreign_ring(points: Points, height: int, width: int) -> Crop:
    whole = np.rint(points)
    if np.abs(points - whole).max() < SLACK:
        return _fill_whole_numbers(whole.astype(np.int32), height, width)
    if np.abs(points - np.floor(points) - 0.5).max() < SLACK:
        return paint([np.floor(points).astype(np.int32)], height, width)
    drawn = _fill_coco(points, height, width) if not _too_long(points) else None
    return drawn if drawn is not None and drawn[0].any() else paint([np.floor(points).astype(np.int32)], height, width)


def _too_long(points: Points) -> bool:
    """Whether the length of the outline, as COCO's rasteriser counts it, is over the limit: it keeps several numbers for each fifth of a pixel."""
    if len(points) * float(points.max() - points.min()) < LONGEST:  # no side is longer than that, and this is quick
        return False
    return not float(np.abs(points - np.roll(points, 1, 0)).max(1).sum()) < LONGEST


def tangled(points: Points, height: int) -> bool:
    """Whether an outline, (n, 2) in image pixels, crosses itself so often that filling it would take more than some ten seconds.

    OpenCV sorts the crossings of each line of pixels again: their squares count. An outline of many pixels' borders is as long, but has
    short sides.
    """
    travel = float(np.abs(np.diff(points[:, 1])).sum())
    return travel > 20 * len(points) and travel**2 > 1e10 * height


def endless(points: Points, height: int) -> bool:
    """Whether COCO's rasteriser must not see an outline, (n, 2) in image pixels, that may also lie outside: it is `tangled`, or too long."""
    return _too_long(points) or tangled(points, height)


def polygons_to_mask(parts: Sequence[Points], height: int, width: int) -> CropMask:
    """The union of polygons, each read as `polygon_to_mask` does."""
    crops = [polygon_to_crop(np.asarray(part, np.float64), height, width) for part in parts if len(part)]
    return masks.from_bitmap(*masks.union(crops)) if crops else masks.EMPTY


@dataclass(frozen=True, slots=True)
class OwnOutline:
    """rings: border pixels, (n, 2) int32 each. continues: whether it is another part of the object in the row before."""

    rings: list[Lattice]
    continues: bool


def own_outlines(points: Points, lengths: Sequence[int]) -> list[OwnOutline | None]:
    """Polygons, one after the other in `points` (n, 2), each taken apart at its bridges if it is our pixel outline; None if it is not."""
    starts = np.cumsum([0, *lengths[:-1]])
    index = np.floor(points)
    fraction = points - index - OFFSET
    lattice = index.astype(np.int32)
    away = np.maximum.reduceat(np.abs(fraction).ravel(), 2 * starts)
    out: list[OwnOutline | None] = []
    for start, length, most in zip(starts.tolist(), lengths, away.tolist(), strict=True):
        row = slice(start, start + length)
        if most < SLACK:  # without any mark
            out.append(OwnOutline([lattice[row]], False))
        else:  # most foreign outlines have a vertex where no mark could be: that is seen at once
            out.append(_marked_outline(lattice[row], fraction[row]) if most < MARK + 2 * SLACK else None)
    return out


def _marked_outline(lattice: Lattice, fraction: Points) -> OwnOutline | None:
    """fraction: how far vertices are from where those without a mark would be."""
    marks = np.rint(fraction / MARK).astype(np.int8)
    if np.any(np.abs(fraction - marks * MARK) >= SLACK):
        return None
    continues = marks[0, 1]
    marks[0, 1] = 0
    if np.any(np.abs(marks[:, 0]) > 1) or np.any(marks[:, 1]) or continues not in (0, 1):
        return None
    rings = _take_apart(lattice, marks[:, 0])
    return None if rings is None else OwnOutline(rings, bool(continues))


def _take_apart(lattice: Lattice, marks: Marks) -> list[Lattice] | None:
    """The rings between the marks of bridges; None where marks do not match as brackets do."""
    if not marks.any():
        return [lattice]
    done: list[Lattice] = []
    open_rings: list[list[Lattice]] = [[]]
    at = 0
    for i in np.flatnonzero(marks).tolist():
        open_rings[-1].append(lattice[at : i + 1])
        at = i + 1
        if marks[i] == OPEN:
            open_rings.append([])
        else:
            done.append(np.concatenate(open_rings.pop()))
            if not open_rings:
                return None
    open_rings[-1].append(lattice[at:])
    if len(open_rings) > 1:
        return None
    done.append(np.concatenate(open_rings[0]))
    return [ring for ring in done if len(ring)]


def paint(rings: Sequence[Lattice], height: int, width: int) -> Crop:
    """Border pixels, (n, 2) x, y in image pixels, and what lies inside by the even-odd rule."""
    x, y, w, h = cv2.boundingRect(rings[0] if len(rings) == 1 else np.concatenate(rings))
    if x < 0 or y < 0 or x + w > width or y + h > height:  # 1.0 is the first pixel outside the image
        rings = [np.clip(ring, 0, [width - 1, height - 1]).astype(np.int32) for ring in rings]
        x, y, w, h = cv2.boundingRect(np.concatenate(rings))
    canvas = np.zeros((h, w), np.uint8)
    cv2.fillPoly(canvas, rings, (1,), offset=(-x, -y))
    return canvas, x, y


def _fill_whole_numbers(points: Lattice, height: int, width: int) -> Crop:
    corners = points[np.any(points != np.roll(points, 1, 0), 1)]
    if len(corners) >= 4 and _along_axes(corners):
        filled = _fill_edges(corners, height, width)
        _, _, w, h = cv2.boundingRect(filled[0])
        if w and (len(corners) == 4 or np.count_nonzero(filled[0]) < w * h):
            return filled
    return paint([points], height, width)


def _along_axes(points: Lattice) -> bool:
    """Whether all sides are upright or level, but for bridges: those are walked once in each direction."""
    steps = np.stack([points, np.roll(points, -1, 0)], 1)
    slanted = steps[np.all(steps[:, 0] != steps[:, 1], 1)]
    return sorted(slanted.reshape(-1, 4).tolist()) == sorted(slanted[:, ::-1].reshape(-1, 4).tolist())


def _window(points: npt.NDArray[np.float64] | Lattice, height: int, width: int) -> tuple[int, int, int, int]:
    """The part of the image that the points span: x, y, w, h with w, h >= 1 as long as the image has pixels."""
    (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
    x, y = min(max(math.floor(x1), 0), width - 1), min(max(math.floor(y1), 0), height - 1)
    return x, y, min(max(math.floor(x2), x), width - 1) + 1 - x, min(max(math.floor(y2), y), height - 1) + 1 - y


def _fill_edges(points: Lattice, height: int, width: int) -> Crop:
    """Pixels inside pixel corners by the even-odd rule; only the upright sides matter, bridges cancel themselves."""
    points = np.clip(points, 0, [width, height])
    x, y, w, h = _window(points, height, width)
    a, b = points - [x, y], np.roll(points, -1, 0) - [x, y]
    upright = (a[:, 0] == b[:, 0]) & (a[:, 1] != b[:, 1])
    a, b = a[upright], b[upright]
    crossings = np.zeros((h + 1, w + 1), np.int32)
    np.add.at(crossings, (np.minimum(a[:, 1], b[:, 1]), a[:, 0]), 1)
    np.add.at(crossings, (np.maximum(a[:, 1], b[:, 1]), a[:, 0]), -1)
    return (crossings.cumsum(0).cumsum(1)[:h, :w] & 1).astype(np.uint8), x, y


def _fill_coco(points: Points, height: int, width: int) -> Crop:
    if len(points) < 3:
        return np.zeros((1, 1), np.uint8), 0, 0
    x, y, w, h = _window(points, height, width)
    # COCO's coordinates have two decimals and its rasteriser rounds at ties: the noise of another number of decimals would show
    crop = np.round(np.round(points, 2) - [x, y], 2)
    rle = coco_mask.frPyObjects([crop.ravel().tolist()], h, w)
    return coco_mask.decode(rle)[:, :, 0], x, y
