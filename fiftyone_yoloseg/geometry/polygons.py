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

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from ..types import CropMask
from . import masks

Points = npt.NDArray[np.float64]
Ring = npt.NDArray[np.int32]
Marks = npt.NDArray[np.int8]
Walk = tuple[Ring, Marks]
Outline = Literal["pixel", "edge"]

OFFSET = 0.25
MARK = 0.05
PLAIN, OPEN, CLOSE = 0, 1, -1


def mask_to_polygon(mask: CropMask, *, tolerance: float = 0.0, outline: Outline = "pixel") -> Points:
    """One closed polygon, (n, 2) x, y in image pixels, n >= 3; (0, 2) for an empty mask. The first point is not repeated.

    tolerance: how far the outline may stray to save vertices, in pixels; 0 keeps every pixel. A hole is never closed by it.
    """
    if mask.w == 0:
        return np.zeros((0, 2))
    return vertices(bitmap_outlines(masks.crop_bitmap(mask), tolerance=tolerance, outline=outline)[0], mask.x, mask.y, outline)


def bitmap_outlines(crop: masks.Bitmap, *, tolerance: float = 0.0, outline: Outline = "pixel", split: bool = False) -> list[Walk]:
    """The outline of a bitmap that has pixels, as one closed walk; with `split` as one for each part, its holes joined to it.

    A walk is its vertices, (n, 2) int32, n >= 3, border pixels or pixel corners of the crop, and the mark of each, (n,) int8.
    """
    simple = outline == "pixel" and tolerance <= 0
    if simple:
        contours, _ = cv2.findContours(crop, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        if len(contours) == 1:
            return [_at_least_three(np.asarray(contours[0], np.int32).reshape(-1, 2), None)]
    parts = [[outer, *holes] for outer, holes in _rings(crop, outline)]
    if tolerance > 0:
        parts = [_simplify(rings, tolerance, crop.shape) for rings in parts]
    if not split:
        parts = [[ring for rings in parts for ring in rings]]
    return [_walk(rings, thin=tolerance <= 0) for rings in parts]


def vertices(walk: Walk, x: int, y: int, outline: Outline) -> Points:
    """A walk of a crop whose top-left pixel is (x, y), as points in image pixels."""
    points, marks = walk
    out: Points = points.astype(np.float64) + np.array([x, y])
    if outline == "pixel":
        out[:, 0] += OFFSET + MARK * marks
        out[:, 1] += OFFSET
    return out


def _walk(rings: list[Ring], *, thin: bool) -> Walk:
    if len(rings) == 1:
        return _at_least_three(rings[0][_corners(rings[0])] if thin else rings[0], None)
    return _at_least_three(*_join(rings, _bridges(rings), thin=thin))


def _at_least_three(points: Ring, marks: Marks | None) -> Walk:
    """A single pixel or a straight line of pixels has fewer: readers want three points."""
    marks = np.zeros(len(points), np.int8) if marks is None else marks
    if len(points) < 3:
        last = np.full(3 - len(points), len(points) - 1)
        points, marks = np.concatenate([points, points[last]]), np.concatenate([marks, marks[last]])
    return points, marks


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
    closed = np.concatenate([ring[-1:], ring, ring[:1]])
    step = np.sign(closed[1:] - closed[:-1])
    direction = 3 * step[:, 0] + step[:, 1]
    corner: npt.NDArray[np.bool_] = direction[1:] != direction[:-1]
    return corner


def _simplify(rings: list[Ring], tolerance: float, shape: tuple[int, ...]) -> list[Ring]:
    """An outer ring and its holes with fewer vertices; as they are where a hole would be gone, or nearly so."""
    exact = [ring[_corners(ring)] for ring in rings]
    simple = [np.asarray(cv2.approxPolyDP(ring, tolerance, True), np.int32).reshape(-1, 2) for ring in rings]
    for hole in rings[1:]:
        inside = cv2.fillPoly(np.zeros(shape, np.uint8), [hole], (1,))
        inside[hole[:, 1], hole[:, 0]] = 0
        filled = np.bitwise_and(cv2.fillPoly(np.zeros(shape, np.uint8), simple, (1,)), inside)
        if 2 * np.count_nonzero(filled) > np.count_nonzero(inside):
            return exact
    return simple


def _bridges(rings: list[Ring]) -> npt.NDArray[np.int64]:
    """The shortest set of bridges that joins all rings: (len(rings) - 1, 2) indices of vertices, counted over all rings.

    So each region of the picture, inside or outside the object, is crossed no more often than it must be: bridges to holes run
    inside and only those between parts cross the background. The length of a bridge is what OpenCV paints of a line: the larger
    of its extents along the axes.
    """
    pairs = _close_pairs(rings) if len(rings) <= _FEW else None
    near, far, length = _mapped_pairs(rings) if pairs is None else pairs
    if len(rings) == 2:
        best = int(length.argmin())
        return np.array([[near[best], far[best]]])
    ranked = np.argsort(length, kind="stable")
    start = np.cumsum([len(ring) for ring in rings])
    a, b = (np.searchsorted(start, ends[ranked], side="right") for ends in (near, far))
    # of each pair of rings only the shortest bridge can be part of the shortest tree
    first = np.sort(np.unique(np.minimum(a, b) * len(rings) + np.maximum(a, b), return_index=True)[1])
    root = list(range(len(rings)))
    chosen = []
    for i, end_a, end_b in zip(ranked[first].tolist(), a[first].tolist(), b[first].tolist(), strict=True):
        root_a, root_b = _find(root, end_a), _find(root, end_b)
        if root_a != root_b:
            root[root_a] = root_b
            chosen.append(i)
    return np.stack([near[chosen], far[chosen]], 1)


_FEW, _AT_ONCE, _WORTH_A_MAP = 8, 10_000, 200_000
Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Bridges to choose from: two vertices, counted over all rings, and the length."""


def _close_pairs(rings: list[Ring]) -> Pairs | None:
    """The shortest bridge between any two rings, all vertices compared; None if those that may be near are too many."""
    start = np.cumsum([0, *(len(ring) for ring in rings)]).tolist()
    boxes = [cv2.boundingRect(ring) for ring in rings]
    found = []
    for i, p in enumerate(rings):
        for j in range(i + 1, len(rings)):
            q = rings[j]
            if len(p) * len(q) <= _AT_ONCE:  # so few that all can be compared at once
                apart = _distances(p, q)
                at_p, at_q = divmod(int(apart.argmin()), len(q))
                found.append((start[i] + at_p, start[j] + at_q, int(apart[at_p, at_q])))
                continue
            limit = int(_distances(p[:: len(p) // 16 + 1], q[:: len(q) // 16 + 1]).min())
            a, b = _near(p, boxes[j], limit), _near(q, boxes[i], limit)
            if len(a) * len(b) > _WORTH_A_MAP:
                return None
            apart = _distances(p[a], q[b])
            at_a, at_b = divmod(int(apart.argmin()), len(b))
            found.append((start[i] + int(a[at_a]), start[j] + int(b[at_b]), int(apart[at_a, at_b])))
    near, far, length = np.array(found, np.int64).reshape(-1, 3).T
    return near, far, length


def _near(ring: Ring, box: Sequence[int], limit: int) -> npt.NDArray[np.int64]:
    """Which vertices are no farther from a box than `limit`."""
    x, y, w, h = box
    column, row = ring[:, 0], ring[:, 1]
    return np.flatnonzero((column >= x - limit) & (column < x + w + limit) & (row >= y - limit) & (row < y + h + limit))


def _distances(a: Ring, b: Ring) -> npt.NDArray[np.int32]:
    apart: npt.NDArray[np.int32] = np.abs(a[:, None, 0] - b[None, :, 0])
    np.maximum(apart, np.abs(a[:, None, 1] - b[None, :, 1]), out=apart)
    return apart


def _mapped_pairs(rings: list[Ring]) -> Pairs:
    """Bridges between neighbours on the map of nearest vertices: its cost grows with the area, not with the square of the vertices."""
    points = np.concatenate(rings)
    owner = np.repeat(np.arange(len(rings), dtype=np.int32), [len(ring) for ring in rings])
    width, height = (points.max(0) + 1).tolist()
    pixel = points[:, 1] * width + points[:, 0]
    seeds = np.ones(height * width, np.uint8)
    seeds[pixel] = 0
    _, map_ = cv2.distanceTransformWithLabels(seeds.reshape(height, width), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    labels = map_.ravel()
    vertex_of_label = np.zeros(len(points) + 1, np.int32)
    vertex_of_label[labels[pixel]] = np.arange(len(points), dtype=np.int32)
    region = owner[vertex_of_label][labels]
    below = np.flatnonzero(region[width:] != region[:-width])
    right = np.flatnonzero(region[1:] != region[:-1])
    right = right[right % width != width - 1]
    near = vertex_of_label[labels[np.concatenate([below, right])]]
    far = vertex_of_label[labels[np.concatenate([below + width, right + 1])]]
    # where rings share a pixel, the map knows one of them only
    order = np.argsort(pixel, kind="stable")
    shared = np.flatnonzero(pixel[order[1:]] == pixel[order[:-1]])
    near, far = np.concatenate([order[shared], near]), np.concatenate([order[shared + 1], far])
    return near, far, np.abs(points[near] - points[far]).max(1)


def _find(root: list[int], i: int) -> int:
    while root[i] != i:
        root[i] = root[root[i]]
        i = root[i]
    return i


def _join(rings: list[Ring], bridges: npt.NDArray[np.int64], *, thin: bool) -> Walk:
    """One closed walk over all rings, and the marks of its vertices. thin: leave out vertices inside straight runs."""
    start = np.cumsum([0] + [len(ring) for ring in rings])
    owner = (np.searchsorted(start, bridges, side="right") - 1).tolist()
    links: list[list[tuple[int, int, int]]] = [[] for _ in rings]  # of each ring: own vertex, other ring, its vertex
    for (a, b), (i, j) in zip(owner, (bridges - start[owner]).tolist(), strict=True):
        links[a].append((i, b, j))
        links[b].append((j, a, i))

    entry = {0: 0}  # of each ring: the vertex where it is entered
    children: list[list[tuple[int, int]]] = [[] for _ in rings]  # how many vertices after the entry, which ring
    queue = [0]
    for ring in queue:
        for i, other, j in links[ring]:
            if other not in entry:
                entry[other] = j
                children[ring].append(((i - entry[ring]) % len(rings[ring]), other))
                queue.append(other)

    walks: dict[int, tuple[list[Ring], list[Marks]]] = {}
    for ring in reversed(queue):
        points, inner = rings[ring], sorted(children[ring])
        if entry[ring]:
            points = np.concatenate([points[entry[ring] :], points[: entry[ring]]])
        if ring:  # an inner ring is left where it was entered
            points = np.concatenate([points, points[:1]])
        keep = _corners(points) if thin else np.ones(len(points), np.bool_)
        pieces: list[Ring] = []
        marks: list[Marks] = []
        at = 0
        for i, child in [*inner, (len(points) - 1, -1)]:
            use = keep[at : i + 1].copy()
            use[0] = use[-1] = True  # bridges start there
            piece = points[at : i + 1][use]
            mark = np.zeros(len(piece), np.int8)
            mark[-1] = OPEN if child >= 0 else CLOSE if ring else PLAIN
            pieces.append(piece)
            marks.append(mark)
            if child >= 0:
                inner_pieces, inner_marks = walks.pop(child)
                pieces += inner_pieces
                marks += inner_marks
            at = i
        walks[ring] = pieces, marks
    pieces, marks = walks[0]
    return np.concatenate(pieces), np.concatenate(marks)
