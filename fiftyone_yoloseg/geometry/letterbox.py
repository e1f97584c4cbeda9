"""Letterbox: scale an image to fit the network input, pad the rest with grey, and find the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
PAD_VALUE = 114


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an image of `source` (height, width) was placed into an input of `size` (height, width).

    The image was resized to `resized` (height, width), which may stretch it by less than a pixel, and put at (left, top).
    """

    source: tuple[int, int]
    size: tuple[int, int]
    resized: tuple[int, int]
    left: int
    top: int

    @property
    def scale(self) -> tuple[float, float]:
        """Input pixels per image pixel: x, y."""
        return self.resized[1] / self.source[1], self.resized[0] / self.source[0]

    def boxes_to_image(self, boxes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(N, 4) x1 y1 x2 y2: input pixels -> image pixels, clipped to the image."""
        sx, sy = self.scale
        height, width = self.source
        out = (boxes - [self.left, self.top, self.left, self.top]) / [sx, sy, sx, sy]
        return np.clip(out, 0, [width, height, width, height]).astype(np.float32)

    def boxes_to_input(self, boxes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(N, 4) x1 y1 x2 y2: image pixels -> input pixels."""
        sx, sy = self.scale
        return (boxes * [sx, sy, sx, sy] + [self.left, self.top, self.left, self.top]).astype(np.float32)


def fit(source: tuple[int, int], size: tuple[int, int], *, stride: int | None = None, scale_up: bool = True) -> Letterbox:
    """Fit (height, width) into `size`, centred. With a stride, pad only up to its next multiple instead of the full size."""
    height, width = source
    ratio = min(size[0] / height, size[1] / width)
    if not scale_up:
        ratio = min(ratio, 1.0)
    resized = max(round(height * ratio), 1), max(round(width * ratio), 1)
    if stride is not None:
        size = -(-resized[0] // stride) * stride, -(-resized[1] // stride) * stride
    # odd padding: the extra pixel goes to the right and the bottom
    return Letterbox(source, size, resized, (size[1] - resized[1]) // 2, (size[0] - resized[0]) // 2)


def apply(image: Image, box: Letterbox) -> Image:
    """(H, W, 3) uint8 -> (size, 3) uint8."""
    if image.shape[:2] != box.resized:
        image = np.asarray(cv2.resize(image, box.resized[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
    if box.resized == box.size:
        return image
    out = np.full((*box.size, 3), PAD_VALUE, np.uint8)
    out[box.top : box.top + box.resized[0], box.left : box.left + box.resized[1]] = image
    return out
