"""Polygons keep every pixel: write as text, read back, with our reader and with those that people have."""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from fiftyone_yoloseg.data.coco import load_coco
from fiftyone_yoloseg.data.label_text import decimals
from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.geometry.polygons import mask_outline_parts, mask_to_polygon
from fiftyone_yoloseg.geometry.rasterize import polygon_to_mask, polygons_to_mask

DONUT = ["#####", "#...#", "#...#", "#####"]
SHAPES = {
    "one pixel": ["#"],
    "two pixels": ["##"],
    "row": ["######"],
    "column": ["#", "#", "#"],
    "diagonal": ["#..", ".#.", "..#"],
    "touching corners": ["##..", "##..", "..##", "..##"],
    "cross of single pixels": [".#.", "###", ".#."],
    "spur": ["###....", "#######", "###...."],
    "donut": DONUT,
    "donut, wall of one pixel at corners only": [".#.", "#.#", ".#."],
    "donut with an island": ["#######", "#.....#", "#..#..#", "#.....#", "#######"],
    "donut in a donut": [
        "#########",
        "#.......#",
        "#.#####.#",
        "#.#...#.#",
        "#.#.#.#.#",
        "#.#...#.#",
        "#.#####.#",
        "#.......#",
        "#########",
    ],
    "two parts": ["##...##", "##...##"],
    "two single pixels": ["#....#"],
    "three parts on one line": ["#..#..#"],
    "two holes": ["#####", "#.#.#", "#####"],
    "holes and parts": ["#####..#", "#.#.#..#", "#####...", "........", "..##.#.."],
}


def bitmap(rows: list[str]) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows], np.uint8)


def as_text(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """What a reader has after the numbers went through a label file."""
    digits = decimals(height, width)
    shares = [[float(f"{x / width:.{digits}f}"), float(f"{y / height:.{digits}f}")] for x, y in points]
    return np.array(shares) * [width, height]


def opencv_fill(points: np.ndarray, height: int, width: int) -> masks.CropMask:
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [points.astype(np.int32)], 1)
    return masks.from_bitmap(canvas)


def coco_fill(points: np.ndarray, height: int, width: int) -> masks.CropMask:
    return masks.from_coco_rle(coco_mask.merge(coco_mask.frPyObjects([points.ravel().tolist()], height, width)))


def shoelace(points: np.ndarray) -> float:
    x, y = points.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("place", [(0, 0), (13, 5)])
@pytest.mark.parametrize("outline", ["pixel", "edge"])
def test_shapes_come_back_exactly(name: str, place: tuple[int, int], outline: str) -> None:
    mask = masks.from_bitmap(bitmap(SHAPES[name]), *place)
    height, width = mask.y + mask.h + place[1], mask.x + mask.w + place[0]  # at (0, 0) the object touches all four borders
    polygon = mask_to_polygon(mask, outline=outline)
    assert len(polygon) >= 3
    assert polygon_to_mask(as_text(polygon, height, width), height, width) == mask


PARTS = {"two parts", "two single pixels", "three parts on one line", "holes and parts", "donut with an island", "donut in a donut"}


@pytest.mark.parametrize("name", sorted(set(SHAPES) - PARTS))
@pytest.mark.parametrize("convert", [np.trunc, np.rint])
def test_plain_opencv_fill_gives_one_part_with_holes_exactly(name: str, convert: np.ufunc) -> None:
    mask = masks.from_bitmap(bitmap(SHAPES[name]), 3, 2)
    polygon = as_text(mask_to_polygon(mask), 24, 32)
    assert opencv_fill(convert(polygon), 24, 32) == mask


def test_plain_opencv_fill_paints_nothing_but_the_shortest_bridge_between_parts() -> None:
    mask = masks.from_bitmap(bitmap(["##...##", "##...##"]))
    painted = opencv_fill(mask_to_polygon(mask), 2, 7)
    assert masks.area(painted) == masks.area(mask) + 3


def test_a_hole_is_never_filled_by_the_polygon() -> None:
    polygon = mask_to_polygon(masks.from_bitmap(bitmap(DONUT)), outline="edge")
    assert shoelace(polygon) == 14


def test_vertices_are_pixel_index_plus_a_quarter_without_straight_runs() -> None:
    polygon = mask_to_polygon(masks.from_bitmap(np.ones((3, 4)), 10, 20))
    assert sorted(map(tuple, polygon.tolist())) == [(10.25, 20.25), (10.25, 22.25), (13.25, 20.25), (13.25, 22.25)]


def test_edge_outline_is_made_of_pixel_corners() -> None:
    polygon = mask_to_polygon(masks.from_bitmap(np.ones((3, 4)), 10, 20), outline="edge")
    assert sorted(map(tuple, polygon.tolist())) == [(10, 20), (10, 23), (14, 20), (14, 23)]


def test_empty_mask_has_no_polygon_and_no_polygon_is_an_empty_mask() -> None:
    assert mask_to_polygon(masks.EMPTY).shape == (0, 2)
    assert polygon_to_mask(np.zeros((0, 2)), 5, 5) == masks.EMPTY
    assert polygons_to_mask([], 5, 5) == masks.EMPTY
    assert mask_outline_parts(masks.EMPTY) == []


@st.composite
def random_masks(draw: st.DrawFn) -> tuple[masks.CropMask, int, int]:
    """Noise, noise blown up to blobs, or noise cut by lines: holes, parts, single pixels, borders."""
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    bits = draw(hnp.arrays(np.bool_, shape, elements=st.booleans(), fill=st.booleans()))
    factor = draw(st.sampled_from([1, 1, 2, 5]))
    bits = bits.repeat(factor, 0).repeat(factor, 1)
    if draw(st.booleans()):
        bits[:: draw(st.integers(2, 6))] = draw(st.booleans())
    right, bottom, x, y = (draw(st.sampled_from([0, 0, 1, 7, 500, 4000])) for _ in range(4))
    return masks.from_bitmap(bits, x, y), y + bits.shape[0] + bottom, x + bits.shape[1] + right


@settings(max_examples=400, deadline=None)
@given(random_masks())
def test_any_mask_survives_text_in_both_outlines(case: tuple[masks.CropMask, int, int]) -> None:
    mask, height, width = case
    if mask.w == 0:
        return
    for outline in ("pixel", "edge"):
        polygon = mask_to_polygon(mask, outline=outline)
        assert len(polygon) >= 3
        assert polygon.min() >= 0 and np.all(polygon <= [width, height])
        assert polygon_to_mask(as_text(polygon, height, width), height, width) == mask


@settings(max_examples=200, deadline=None)
@given(random_masks())
def test_other_readers_lose_no_pixel(case: tuple[masks.CropMask, int, int]) -> None:
    mask, _, _ = case
    if mask.w == 0:
        return
    mask = masks.CropMask(1, 1, mask.w, mask.h, mask.counts)
    height, width = mask.h + 2, mask.w + 2
    inside = masks.full_bitmap(mask, height, width)
    text = as_text(mask_to_polygon(mask), height, width)
    for converted in (np.trunc(text), np.rint(text)):
        assert np.all(masks.full_bitmap(opencv_fill(converted, height, width), height, width) >= inside)
    assert coco_fill(mask_to_polygon(mask, outline="edge"), height, width) == mask


@settings(max_examples=100, deadline=None)
@given(random_masks())
def test_outline_parts_have_the_area_of_the_pixels(case: tuple[masks.CropMask, int, int]) -> None:
    mask, _, _ = case
    parts = mask_outline_parts(mask)
    assert sum(shoelace(outer) - sum(map(shoelace, holes)) for outer, holes in parts) == masks.area(mask)
    if mask.w:
        outers = np.concatenate([outer for outer, _ in parts])
        assert (*outers.min(0), *outers.max(0)) == mask.box


def test_parts_and_holes_are_counted() -> None:
    parts = mask_outline_parts(masks.from_bitmap(bitmap(SHAPES["donut in a donut"])))
    assert sorted(len(holes) for _, holes in parts) == [0, 1, 1]
    assert [len(holes) for _, holes in mask_outline_parts(masks.from_bitmap(bitmap(SHAPES["two holes"])))] == [2]


def test_noise_in_a_4000_pixel_image_comes_back_in_time() -> None:
    rng = np.random.default_rng(0)
    bits = np.zeros((4000, 4000), np.uint8)
    bits[1500:1900, 100:400] = rng.random((400, 300)) < 0.5  # thousands of parts and holes
    bits[0, 0] = bits[-1, -1] = 1
    mask = masks.from_bitmap(bits)
    start = time.perf_counter()
    polygon = mask_to_polygon(mask)
    assert time.perf_counter() - start < 20  # a cost that grows with the square of the vertices would take minutes
    assert polygon_to_mask(as_text(polygon, 4000, 4000), 4000, 4000) == mask


@pytest.mark.parametrize("size", [100, 20_000, 60_000])
def test_text_has_enough_decimals_for_the_image(size: int) -> None:
    mask = masks.from_bitmap(bitmap(SHAPES["holes and parts"]), size - 8, size - 5)
    assert polygon_to_mask(as_text(mask_to_polygon(mask), size, size), size, size) == mask


def test_tolerance_saves_vertices_and_strays_little() -> None:
    canvas = np.zeros((200, 200), np.uint8)
    cv2.circle(canvas, (100, 100), 80, 1, -1)
    cv2.circle(canvas, (100, 100), 30, 0, -1)
    mask = masks.from_bitmap(canvas)
    exact, coarse = mask_to_polygon(mask), mask_to_polygon(mask, tolerance=1.0)
    assert len(coarse) < len(exact) / 3
    assert 0.96 < masks.iou([polygon_to_mask(coarse, 200, 200)], [mask])[0, 0] < 1


# ---- what other people write


def test_reads_opencv_contours_at_whole_numbers() -> None:
    canvas = np.zeros((60, 80), np.uint8)
    cv2.ellipse(canvas, (40, 30), (25, 12), 30, 0, 360, 1, -1)
    contour = cv2.findContours(canvas, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0][0].reshape(-1, 2)
    for offset in (0.0, 0.5, 0.25):
        assert polygon_to_mask(as_text(contour + offset, 60, 80), 60, 80) == masks.from_bitmap(canvas)


def test_reads_an_opencv_contour_of_a_square_pixel_by_pixel_and_a_rectangle_by_its_edges() -> None:
    canvas = np.zeros((20, 20), np.uint8)
    canvas[3:8, 4:10] = 1
    contour = cv2.findContours(canvas, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0].reshape(-1, 2).astype(float)
    assert polygon_to_mask(contour, 20, 20) == masks.from_bitmap(canvas)
    edges = np.array([[4, 3], [10, 3], [10, 8], [4, 8]], float)
    assert polygon_to_mask(edges, 20, 20) == masks.from_bitmap(canvas)
    assert polygon_to_mask(np.vstack([edges, edges[:1]]), 20, 20) == masks.from_bitmap(canvas)  # closed by hand


def test_a_polygon_over_the_whole_image_covers_it() -> None:
    corners = np.array([[0, 0], [30, 0], [30, 20], [0, 20]], float)
    assert masks.area(polygon_to_mask(corners, 20, 30)) == 600
    assert polygon_to_mask(corners * 3 - 30, 20, 30).box == (0, 0, 30, 20)  # cut at the image


def test_bridges_of_other_writers_paint_nothing_in_drawn_outlines() -> None:
    left, right = np.array([[1.3, 1.3], [5.3, 1.3], [5.3, 5.3], [1.3, 5.3]]), np.array([[20.3, 1.3], [25.3, 1.3], [25.3, 5.3], [20.3, 5.3]])
    joined = np.vstack([left, left[:1], right, right[:1]])
    assert polygon_to_mask(joined, 10, 30) == polygons_to_mask([left, right], 10, 30)


def test_thin_polygons_are_not_lost() -> None:
    for points in ([[3.1, 3.2], [9.7, 3.2], [3.1, 3.2]], [[3.4, 3.4], [3.45, 3.4], [3.4, 3.45]], [[10, 10], [10, 10], [10, 10]]):
        mask = polygon_to_mask(np.array(points), 10, 10)
        assert masks.area(mask) >= 1 and mask.box[2] <= 10 and mask.box[3] <= 10


def test_unbalanced_marks_are_read_as_somebody_elses_outline() -> None:
    points = np.array([[2.30, 2.25], [9.25, 2.25], [9.25, 9.25], [2.25, 9.25]])
    assert masks.area(polygon_to_mask(points, 20, 20)) >= 49


def test_union_of_parts_that_overlap() -> None:
    a, b = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], float), np.array([[2, 2], [6, 2], [6, 6], [2, 6]], float)
    assert masks.area(polygons_to_mask([a, b], 10, 10)) == 16 + 16 - 4


def test_coco_round_trip(test_data: Path) -> None:
    """The figures that the documentation promises, over every object that goes into a label file."""
    own, plain, edge = [], [], []
    for record in (r for records in load_coco(test_data / "coco_tiny").splits.values() for r in records):
        height, width = record.height, record.width
        for mask in (i.mask for i in record.instances if not i.crowd):
            text = as_text(mask_to_polygon(mask), height, width)
            own.append(polygon_to_mask(text, height, width) == mask)
            for converted in (np.trunc(text), np.rint(text)):
                plain.append(masks.iou([opencv_fill(converted, height, width)], [mask])[0, 0])
            edges = as_text(mask_to_polygon(mask, outline="edge"), height, width)
            edge.append(coco_fill(edges, height, width) == mask and polygon_to_mask(edges, height, width) == mask)
    assert len(own) == 1503 and all(own) and all(edge)
    assert np.mean(plain) >= 0.998
    assert np.min(plain) >= 0.9  # one object of 152 pixels in three parts needs 16 pixels of bridge


def test_coco_polygons_read_from_text_as_pycocotools_reads_the_originals(test_data: Path) -> None:
    data = json.loads((test_data / "coco_tiny/annotations/instances_val2017.json").read_text())
    sizes = {i["id"]: (i["height"], i["width"]) for i in data["images"]}
    same = total = 0
    for annotation in data["annotations"]:
        height, width = sizes[annotation["image_id"]]
        for flat in annotation["segmentation"] if not annotation["iscrowd"] else []:
            points = np.array(flat).reshape(-1, 2)
            expected = coco_fill(points, height, width)
            same += expected.w > 0 and polygon_to_mask(as_text(points, height, width), height, width) == expected
            total += expected.w > 0
    assert total > 800 and same / total > 0.998
