"""Letterbox: where the image goes and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_yoloseg.geometry import letterbox

sides = st.integers(1, 3000)


def test_known_cases() -> None:
    box = letterbox.fit((480, 640), (640, 640))
    assert (box.resized, box.size, box.left, box.top) == ((480, 640), (640, 640), 0, 80)
    box = letterbox.fit((480, 640), (640, 640), stride=32)
    assert (box.resized, box.size, box.left, box.top) == ((480, 640), (480, 640), 0, 0)
    box = letterbox.fit((1080, 810), (640, 640), stride=32)  # the well-known bus picture
    assert (box.resized, box.size, box.left, box.top) == ((640, 480), (640, 480), 0, 0)
    box = letterbox.fit((100, 51), (64, 64))
    assert (box.resized, box.left, box.top) == ((64, 33), 15, 0)  # 31 columns of padding: 15 left, 16 right


def test_scale_up_is_optional() -> None:
    assert letterbox.fit((10, 20), (64, 64), scale_up=False).resized == (10, 20)
    assert letterbox.fit((10, 20), (64, 64)).resized == (32, 64)


@given(sides, sides, st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_boxes_go_there_and_back(height: int, width: int, rows: int, columns: int, minimal: bool) -> None:
    box = letterbox.fit((height, width), (32 * rows, 32 * columns), stride=32 if minimal else None)
    assert box.left >= 0 and box.left + box.resized[1] <= box.size[1] <= 32 * columns
    assert box.top >= 0 and box.top + box.resized[0] <= box.size[0] <= 32 * rows
    corners = np.array([[0, 0, width, height], [width / 4, height / 3, width / 2, height / 2]])
    placed = box.boxes_to_input(corners)
    assert np.allclose(placed[0], [box.left, box.top, box.left + box.resized[1], box.top + box.resized[0]], atol=1e-2)
    assert np.allclose(box.boxes_to_image(placed), corners, rtol=1e-4, atol=0.05 * max(height, width) / min(box.resized))


def test_boxes_are_clipped_to_the_image() -> None:
    box = letterbox.fit((100, 200), (64, 64))
    assert box.boxes_to_image(np.array([[-50.0, -50, 500, 500]])).tolist() == [[0, 0, 200, 100]]
    assert box.boxes_to_image(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (64, 64), (7, 200)])
def test_the_image_is_inside_and_grey_around(size: tuple[int, int]) -> None:
    box = letterbox.fit(size, (64, 96))
    out = letterbox.apply(np.full((*size, 3), 7, np.uint8), box)
    assert out.shape == (64, 96, 3) and out.dtype == np.uint8
    inside = np.zeros((64, 96), bool)
    inside[box.top : box.top + box.resized[0], box.left : box.left + box.resized[1]] = True
    assert (out[inside] == 7).all() and (out[~inside] == letterbox.PAD_VALUE).all()


def test_an_image_that_fits_is_returned_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    assert letterbox.apply(image, letterbox.fit((64, 96), (64, 96))) is image
