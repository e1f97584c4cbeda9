"""Decoded images at working size, kept in memory within a budget."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..geometry.letterbox import Image, fit
from ..types import ImageRecord
from .images import read_image


class ImageStore:
    """`store[i]` is image i as (h, w, 3) uint8 RGB, its long side resized to `size` pixels.

    budget: bytes of decoded images to keep; each loader process has a store of its own.
    """

    def __init__(self, records: Sequence[ImageRecord], size: int, budget: int = 0) -> None:
        self.records, self.size, self.budget = records, size, budget
        self._kept: dict[int, Image] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Image:
        if index in self._kept:
            return self._kept[index]
        image = read_image(self.records[index].path)
        resized = fit((image.shape[0], image.shape[1]), (self.size, self.size)).resized
        if image.shape[:2] != resized:
            image = np.asarray(cv2.resize(image, resized[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
        if image.nbytes <= self.budget:
            self._kept[index] = image
            self.budget -= image.nbytes
        return image
