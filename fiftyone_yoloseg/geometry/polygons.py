"""Masks as polygons: one closed polygon an object, whatever holes and parts it has.

Two outlines of the same pixels, both in image pixels:

- "pixel" (what YOLO-seg tools read): vertices are the object's border pixels, at index + 0.25, so that OpenCV fill gives the
  pixels back whether the reader truncates or rounds. `rasterize` reads it back exactly.
- "edge" (what COCO tools read): vertices are pixel corners, whole numbers, and the enclosed area is the number of pixels.

Holes and further parts hang on zero-width bridges. In a pixel outline a bridge and a line of single pixels look alike, so
the vertices at a bridge are moved by 0.05 pixels - too little for anybody else to notice - as brackets are set in a text:
the vertex where a ring is left for an inner one is OPEN, the last vertex of that inner ring is CLOSE.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from ..types import CropMask
from . import masks

Points = npt.NDArray[np.float64]
Ring = npt.NDArray[np.int32]
Outline = Literal["pixel", "edge"]

OFFSET = 0.25
MARK = 0.05
PLAIN, OPEN, CLOSE = 0, 1, -1


def mask_to_polygon(mask: CropMask, *, tolerance: float = 0.0, outline: Outline = "pixel") -> Points:
    """One closed polygon, (n, 2) x, y in image pixels, n >= 3; (0, 2) for an empty mask. The first point is not repeated.

    tolerance: how far the outline may stray to save vertices, in pixels; 0 keeps every pixel.
    """
    if mask.w == 0:
        return np.zeros((0, 2))
    rings = [ring for outer, holes in _rings(masks.crop_bitmap(mask), outline) for ring in (outer, *holes)]
    if tolerance > 0:
        rings = [_simplify(ring, tolerance) for ring in rings]
    elif outline == "edge" or len(rings) == 1:
        rings = [ring[_corners(ring)] for ring in rings]
    if len(rings) == 1:
        points, marks = rings[0], np.zeros(len(rings[0]))
    else:
        points, marks = _join(rings, _bridges(rings), thin=tolerance <= 0)
    if len(points) < 3:  # a single pixel or a straight line of pixels: readers want three points
        last = np.full(3 - len(points), len(points) - 1)
        points, marks = np.concatenate([points, points[last]]), np.concatenate([marks, marks[last]])
    out: Points = points.astype(np.float64) + np.array([mask.x, mask.y])
    if outline == "pixel":
        out[:, 0] += OFFSET + MARK * marks
        out[:, 1] += OFFSET
    return out


def mask_outline_parts(mask: CropMask) -> list[tuple[Points, list[Points]]]:
    """Each part as its outer outline and the outlines of its holes: (n, 2) x, y in image pixels, along pixel edges.

    The area inside the outer outline less that of the holes is the part's number of pixels.
    """
    if mask.w == 0:
        return []
    origin = np.array([mask.x, mask.y], np.float64)
    parts = _rings(masks.crop_bitmap(mask), "edge")
    return [(outer[_corners(outer)] + origin, [hole[_corners(hole)] + origin for hole in holes]) for outer, holes in parts]


def _rings(crop: masks.Bitmap, outline: Outline) -> list[tuple[Ring, list[Ring]]]:
    """Outer rings and their holes, (n, 2) int32, in crop coordinates: of border pixels, or of pixel corners."""
    if outline == "edge":
        crop = crop.repeat(2, 0).repeat(2, 1)
    contours, hierarchy = cv2.findContours(crop, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [np.asarray(contour, np.int32).reshape(-1, 2) for contour in contours]
    if outline == "edge":
        # on the doubled grid, border pixel 2i lies left of edge i and 2i + 1 left of edge i + 1; that closes the cut corners too
        rings = [(ring + 1) // 2 for ring in rings]
        rings = [ring[np.any(ring != np.roll(ring, 1, 0), 1)] for ring in rings]
    parts: dict[int, tuple[Ring, list[Ring]]] = {i: (ring, []) for i, ring in enumerate(rings) if hierarchy[0][i][3] < 0}
    for i, ring in enumerate(rings):
        if hierarchy[0][i][3] >= 0:
            parts[int(hierarchy[0][i][3])][1].append(ring)
    return list(parts.values())


def _corners(ring: Ring) -> npt.NDArray[np.bool_]:
    """Which vertices are not in the middle of a straight run of unit or longer steps."""
    if len(ring) < 3:
        return np.ones(len(ring), np.bool_)
    after = np.sign(np.roll(ring, -1, 0) - ring)
    corner: npt.NDArray[np.bool_] = np.any(after != np.roll(after, 1, 0), 1)
    return corner


def _simplify(ring: Ring, tolerance: float) -> Ring:
    return np.asarray(cv2.approxPolyDP(ring, tolerance, True), np.int32).reshape(-1, 2)


def _bridges(rings: list[Ring]) -> npt.NDArray[np.int64]:
    """The shortest set of bridges that joins all rings: (len(rings) - 1, 2) indices of vertices, counted over all rings.

    Each region of the picture, inside or outside the object, is crossed no more often than it must be: bridges to holes run
    inside and only those between parts cross the background. Neighbours are found on the map of nearest vertices, so that
    the cost grows with the area and not with the square of the number of vertices.
    """
    points = np.concatenate(rings)
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    width, height = points.max(0) + 1
    pixel = points[:, 1].astype(np.int64) * width + points[:, 0]
    order = np.argsort(pixel, kind="stable")
    shared = np.flatnonzero(np.diff(pixel[order]) == 0)

    seeds = np.ones((height, width), np.uint8)
    seeds.ravel()[pixel] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    vertex_of_label = np.zeros(int(labels.max()) + 1, np.int64)
    vertex_of_label[labels.ravel()[pixel]] = np.arange(len(points))
    nearest = vertex_of_label[labels]
    pairs = [np.stack([order[shared], order[shared + 1]], 1)]
    for near in (nearest, nearest.T):  # neighbours in a column, then in a row
        border = owner[near[1:]] != owner[near[:-1]]
        pairs.append(np.stack([near[1:][border], near[:-1][border]], 1))
    pair = np.concatenate(pairs)
    length = np.abs(points[pair[:, 0]] - points[pair[:, 1]]).max(1)  # what OpenCV paints of a line
    ranked = pair[np.argsort(length, kind="stable")]
    # of each pair of rings only the first bridge can be part of the shortest tree
    key = np.sort(owner[ranked], 1) @ np.array([len(rings), 1])
    ranked = ranked[np.sort(np.unique(key, return_index=True)[1])]

    root = list(range(len(rings)))
    chosen = []
    for i, ends in enumerate(owner[ranked].tolist()):
        a, b = (_find(root, end) for end in ends)
        if a != b:
            root[a] = b
            chosen.append(i)
    return ranked[chosen]


def _find(root: list[int], i: int) -> int:
    while root[i] != i:
        root[i] = root[root[i]]
        i = root[i]
    return i


def _join(rings: list[Ring], bridges: npt.NDArray[np.int64], *, thin: bool) -> tuple[Ring, npt.NDArray[np.float64]]:
    """One closed walk over all rings: points (n, 2) and their marks (n,). thin: leave out vertices inside straight runs."""
    start = np.cumsum([0] + [len(ring) for ring in rings])
    owner = (np.searchsorted(start, bridges, side="right") - 1).tolist()
    local = (bridges - start[owner]).tolist() if len(bridges) else []
    links: list[list[tuple[int, int, int]]] = [[] for _ in rings]  # of each ring: own vertex, other ring, its vertex
    for (a, b), (i, j) in zip(owner, local, strict=True):
        links[a].append((i, b, j))
        links[b].append((j, a, i))
    keep = [_corners(ring) if thin else np.ones(len(ring), np.bool_) for ring in rings]

    entry = {0: 0}  # of each ring: the vertex where it is entered
    children: list[list[tuple[int, int]]] = [[] for _ in rings]  # how many vertices after the entry, which ring
    queue = [0]
    for ring in queue:
        for i, other, j in links[ring]:
            if other not in entry:
                entry[other] = j
                children[ring].append(((i - entry[ring]) % len(rings[ring]), other))
                queue.append(other)

    walks: dict[int, tuple[list[Ring], list[npt.NDArray[np.float64]]]] = {}
    for ring in reversed(queue):
        turn = np.roll(np.arange(len(rings[ring])), -entry[ring])
        pieces: list[Ring] = []
        marks: list[npt.NDArray[np.float64]] = []
        at = 0
        for i, child in sorted(children[ring]):
            _piece(rings[ring], turn[at : i + 1], keep[ring], OPEN, pieces, marks)
            inner, inner_marks = walks.pop(child)
            pieces += inner
            marks += inner_marks
            at = i
        rest = turn[at:] if ring == 0 else np.append(turn[at:], entry[ring])
        _piece(rings[ring], rest, keep[ring], PLAIN if ring == 0 else CLOSE, pieces, marks)
        walks[ring] = pieces, marks
    pieces, marks = walks[0]
    return np.concatenate(pieces), np.concatenate(marks)


def _piece(
    ring: Ring,
    index: npt.NDArray[np.int64],
    keep: npt.NDArray[np.bool_],
    mark: int,
    pieces: list[Ring],
    marks: list[npt.NDArray[np.float64]],
) -> None:
    """Append a stretch of a ring whose last vertex has the mark. Its ends stay, because bridges start there."""
    use = keep[index]
    use[[0, -1]] = True
    index = index[use]
    pieces.append(ring[index])
    marks.append(np.append(np.zeros(len(index) - 1), mark))
