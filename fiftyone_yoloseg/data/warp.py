"""Geometric transforms of images and masks by one 3 x 3 matrix.

Matrices map continuous source coordinates (pixel i covers [i, i + 1)) to continuous output coordinates. OpenCV puts integer
coordinates at pixel centres; the shift by half a pixel is made here and nowhere else.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..geometry import masks
from ..types import CropMask

Matrix = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


def shift(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def stretch(x: float, y: float) -> Matrix:
    return np.array([[x, 0, 0], [0, y, 0], [0, 0, 1]], np.float64)


def transform(matrix: Matrix, points: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(n, 2) -> (n, 2)."""
    out = np.c_[points, np.ones(len(points))] @ matrix.T
    moved: npt.NDArray[np.float64] = out[:, :2] / out[:, 2:]
    return moved


def bounds(matrix: Matrix, width: float, height: float) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of a transformed (width, height) rectangle at the origin."""
    corners = transform(matrix, np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64))
    (x1, y1), (x2, y2) = corners.min(0), corners.max(0)
    return float(x1), float(y1), float(x2), float(y2)


def _warp(source: Image, matrix: Matrix, size: tuple[int, int], border: int, out: Image | None = None) -> Image:
    centred = shift(-0.5, -0.5) @ matrix @ shift(0.5, 0.5)
    if np.array_equal(centred[2], [0, 0, 1]):
        result = cv2.warpAffine(source, centred[:2], size[::-1], dst=out, flags=cv2.INTER_LINEAR, borderMode=border)
    else:
        result = cv2.warpPerspective(source, centred, size[::-1], dst=out, flags=cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(result, np.uint8)


def paint(canvas: Image, source: Image, matrix: Matrix) -> None:
    """Draw the transformed `source` (h, w, 3) into `canvas` (H, W, 3), in place; the rest of the canvas stays as it is."""
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = bounds(matrix, source.shape[1], source.shape[0])
    x1, y1, x2, y2 = max(int(x1) - 1, 0), max(int(y1) - 1, 0), min(int(x2) + 2, width), min(int(y2) + 2, height)
    if x1 < x2 and y1 < y2:
        part = np.ascontiguousarray(canvas[y1:y2, x1:x2])
        canvas[y1:y2, x1:x2] = _warp(source, shift(-x1, -y1) @ matrix, part.shape[:2], cv2.BORDER_TRANSPARENT, part)


def warp_mask(mask: CropMask, matrix: Matrix, size: tuple[int, int], align: int) -> tuple[int, int, Image] | None:
    """Transform an object's pixels. `matrix` maps image to output coordinates, `size` is the output's (height, width).

    Returns left, top and the soft (h, w) uint8 mask, 255 inside, of the part within the output; all four sides are multiples
    of `align`. None if nothing of its rectangle is inside.
    """
    height, width = size
    matrix = matrix @ shift(mask.x, mask.y)
    x1, y1, x2, y2 = bounds(matrix, mask.w, mask.h)
    left, top = max(int(x1 // align) * align, 0), max(int(y1 // align) * align, 0)
    right, bottom = min(int(-(-x2 // align)) * align, width), min(int(-(-y2 // align)) * align, height)
    if left >= right or top >= bottom:
        return None
    crop = masks.crop_bitmap(mask) * np.uint8(255)
    return left, top, _warp(crop, shift(-left, -top) @ matrix, (bottom - top, right - left), cv2.BORDER_CONSTANT)


def hull(mask: CropMask) -> npt.NDArray[np.float64]:
    """(n, 2) corners of the convex hull of the object's pixels, in image coordinates."""
    contours, _ = cv2.findContours(np.ascontiguousarray(masks.crop_bitmap(mask)), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    pixels = np.concatenate(contours)[:, 0]
    corners = np.concatenate([pixels + offset for offset in ([0, 0], [1, 0], [0, 1], [1, 1])])
    return np.asarray(cv2.convexHull(corners.astype(np.int32))[:, 0] + np.array([mask.x, mask.y]), np.float64)
