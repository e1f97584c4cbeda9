"""Decoded images at working size, kept in memory or on disk within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..geometry.letterbox import Image, fit
from ..types import ImageRecord
from .disk_cache import DiskCache, working_shape
from .images import read_image


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes of decoded images to keep: in memory, or with a folder on disk."""

    bytes: int = 0
    folder: Path | None = None


class ImageStore:
    """`store[i]` is image i as (h, w, 3) uint8 RGB, its long side resized to `size` pixels.

    budget: bytes of decoded images to keep in memory; each loader process has a store of its own. disk: keep them there instead.
    """

    def __init__(self, records: Sequence[ImageRecord], size: int, budget: int = 0, disk: DiskCache | None = None) -> None:
        self.records, self.size, self.budget, self.disk = records, size, budget, disk
        self._kept: dict[int, Image] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Image:
        if index in self._kept:
            return self._kept[index]
        path = self.records[index].path
        if self.disk and (kept := self.disk.get(path, working_shape(self.records[index], self.size))) is not None:
            return kept
        image = read_image(path)
        resized = fit((image.shape[0], image.shape[1]), (self.size, self.size)).resized
        if image.shape[:2] != resized:
            image = np.asarray(cv2.resize(image, resized[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
        if self.disk:
            self.disk.put(path, image)
        elif image.nbytes <= self.budget:
            self._kept[index] = image
            self.budget -= image.nbytes
        return image
