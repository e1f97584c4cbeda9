"""Crops, COCO run lengths and IoU against the full bitmaps and pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.types import CropMask

bitmaps = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1), fill=st.integers(0, 1))


def encode(bits: np.ndarray) -> dict:  # type: ignore[type-arg]
    return coco_mask.encode(np.asfortranarray(bits))


@settings(max_examples=300, deadline=None)
@given(bitmaps)
@example(np.ones((4, 3), np.uint8))
@example(np.zeros((4, 3), np.uint8))
@example(np.array([[0, 1, 1, 0]] * 3, np.uint8))
@example(np.array([[1, 0, 1, 1], [1, 0, 1, 1]], np.uint8))
def test_coco_rle_is_that_of_the_full_bitmap(bits: np.ndarray) -> None:
    mask = masks.from_bitmap(bits)
    height, width = bits.shape
    assert masks.to_coco_rle(mask, height, width) == encode(bits)
    assert masks.from_coco_rle(encode(bits)) == mask


@settings(max_examples=100, deadline=None)
@given(bitmaps, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_placed_in_a_larger_image(bits: np.ndarray, left: int, top: int, right: int, bottom: int) -> None:
    full = np.pad(bits, ((top, bottom), (left, right)))
    mask = masks.from_bitmap(bits, left, top)
    assert mask == masks.from_bitmap(full)
    assert np.array_equal(masks.full_bitmap(mask, *full.shape), full)
    assert masks.to_coco_rle(mask, *full.shape) == encode(full)
    assert masks.area(mask) == full.sum()


@settings(max_examples=100, deadline=None)
@given(bitmaps)
def test_uncompressed_rle(bits: np.ndarray) -> None:
    flat = bits.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    counts = np.diff(edges, prepend=0, append=len(flat)).tolist()
    assert masks.from_coco_rle({"size": list(bits.shape), "counts": counts}) == masks.from_bitmap(bits)


def test_crop_is_the_exact_rectangle_of_the_pixels() -> None:
    bits = np.zeros((10, 20), bool)
    bits[2:5, 3:7] = True
    bits[8, 15] = True
    mask = masks.from_bitmap(bits)
    assert (mask.x, mask.y, mask.w, mask.h) == (3, 2, 13, 7)
    assert mask.box == (3.0, 2.0, 16.0, 9.0)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_any_value_but_zero_is_inside(dtype: type) -> None:
    assert masks.area(masks.from_bitmap(np.array([[0, 1], [7, 0]], dtype))) == 2


def test_nothing_is_the_empty_mask() -> None:
    for bits in (np.zeros((3, 4)), np.zeros((0, 4)), np.zeros((3, 0))):
        assert masks.from_bitmap(bits) == masks.EMPTY
    assert masks.area(masks.EMPTY) == 0
    assert masks.crop_bitmap(masks.EMPTY).shape == (0, 0)
    assert not masks.full_bitmap(masks.EMPTY, 3, 4).any()
    assert masks.to_coco_rle(masks.EMPTY, 3, 4) == encode(np.zeros((3, 4), np.uint8))
    assert masks.from_coco_rle(masks.to_coco_rle(masks.EMPTY, 3, 4)) == masks.EMPTY


def test_parts_outside_the_image_are_cut_off() -> None:
    full = masks.full_bitmap(masks.from_bitmap(np.ones((4, 4)), -2, -1), 5, 6)
    assert full.sum() == 2 * 3 and full[:3, :2].all()
    assert not masks.full_bitmap(masks.from_bitmap(np.ones((2, 2)), 10, 10), 5, 6).any()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(bitmaps, st.integers(0, 6), st.integers(0, 6)), max_size=4),
    st.lists(st.tuples(bitmaps, st.integers(0, 6), st.integers(0, 6)), max_size=4),
)
def test_iou_is_that_of_full_bitmaps(a: list, b: list) -> None:  # type: ignore[type-arg]
    left, right = ([masks.from_bitmap(*item) for item in side] for side in (a, b))
    found = masks.iou(left, right)
    assert found.shape == (len(left), len(right))
    for i, p in enumerate(masks.full_bitmap(m, 20, 20) for m in left):
        for j, q in enumerate(masks.full_bitmap(m, 20, 20) for m in right):
            union = (p | q).sum()
            assert found[i, j] == pytest.approx((p & q).sum() / union if union else 0)


def test_iou_of_hand_made_boxes() -> None:
    a = masks.from_bitmap(np.ones((2, 2)))
    b = masks.from_bitmap(np.ones((2, 2)), 1, 0)
    assert masks.iou([a], [a, b, masks.EMPTY]).tolist() == [[1.0, pytest.approx(1 / 3), 0.0]]


def test_counts_are_bytes_and_masks_hashable() -> None:
    mask = masks.from_bitmap(np.eye(3))
    assert isinstance(mask.counts, bytes) and hash(mask) == hash(CropMask(0, 0, 3, 3, mask.counts))


def test_boundary_by_hand() -> None:
    assert masks.boundary_distance(100, 100) == 3 and masks.boundary_distance(480, 640) == 16 and masks.boundary_distance(8, 8) == 1
    band = masks.boundary(np.ones((20, 20), np.uint8), 3)
    assert band.sum() == 20 * 20 - 14 * 14 and band[3:17, 3:17].sum() == 0
    assert masks.boundary(np.ones((6, 40), np.uint8), 3).all(), "no pixel is further from the outline"


@settings(max_examples=150, deadline=None)
@given(bitmaps, st.integers(0, 3), st.integers(0, 3), st.integers(1, 4))
@example(np.ones((12, 12), np.uint8), 0, 0, 2)
@example(np.pad(np.zeros((1, 1), np.uint8), 5, constant_values=1), 3, 3, 1)
def test_boundary_of_a_crop_is_that_of_the_whole_image(bits: np.ndarray, left: int, top: int, distance: int) -> None:
    """Naively: a pixel of the mask from which some pixel outside of it, or of the image, is at most so many king's moves away."""
    full = np.pad(bits, ((top, 2), (left, 2)))
    around = np.pad(full, distance)
    naive = np.zeros_like(full)
    for y, x in np.argwhere(full):
        naive[y, x] = not around[y : y + 2 * distance + 1, x : x + 2 * distance + 1].all()
    mask = masks.from_bitmap(full)
    band = masks.from_bitmap(masks.boundary(masks.crop_bitmap(mask), distance), mask.x, mask.y)
    np.testing.assert_array_equal(masks.full_bitmap(band, *full.shape), naive)
