"""A small synthetic dataset for the demo: overlapping discs, squares and rings on noisy backgrounds, with exact masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ..geometry import masks
from ..types import ImageRecord, InstanceRecord, SegmentationData

NAMES = {0: "disc", 1: "square", 2: "ring"}
WIDTHS = (224, 256, 288)
HEIGHT = 224


def _disc(canvas: np.ndarray, centre: tuple[int, int], radius: int, rng: np.random.Generator) -> None:
    cv2.circle(canvas, centre, radius, 1, -1)


def _square(canvas: np.ndarray, centre: tuple[int, int], radius: int, rng: np.random.Generator) -> None:
    corners = cv2.boxPoints((centre, (1.7 * radius, 1.7 * radius), float(rng.uniform(0, 90))))
    cv2.fillPoly(canvas, [np.round(corners).astype(np.int32)], 1)


def _ring(canvas: np.ndarray, centre: tuple[int, int], radius: int, rng: np.random.Generator) -> None:
    cv2.circle(canvas, centre, radius, 1, -1)
    cv2.circle(canvas, centre, round(radius * 0.45), 0, -1)


_DRAW: dict[int, Callable[[np.ndarray, tuple[int, int], int, np.random.Generator], None]] = {0: _disc, 1: _square, 2: _ring}


def write_synthetic(folder: Path, *, train: int, val: int, seed: int = 0) -> SegmentationData:
    """Draw `train` + `val` images into folder/images/<split>/ as PNG and return their records."""
    splits = {}
    for split_number, (split, count) in enumerate((("train", train), ("val", val))):
        images = folder / "images" / split
        images.mkdir(parents=True, exist_ok=True)
        splits[split] = [_draw(images / f"{i:05}.png", np.random.default_rng((seed, split_number, i))) for i in range(count)]
    return SegmentationData(NAMES, splits, "synthetic shapes")


def _draw(path: Path, rng: np.random.Generator) -> ImageRecord:
    height, width = HEIGHT, int(rng.choice(WIDTHS))
    coarse = (rng.integers(70, 186, 3) + rng.integers(-40, 41, (4, 5, 3))).astype(np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    drawn: list[tuple[int, np.ndarray]] = []
    for _ in range(rng.integers(2, 6)):
        cls = int(rng.integers(len(NAMES)))
        shape = np.zeros((height, width), np.uint8)
        _DRAW[cls](shape, (int(rng.integers(width)), int(rng.integers(height))), int(rng.integers(16, 46)), rng)
        image[shape > 0] = rng.integers(0, 256, 3)
        drawn = [(c, m & ~shape) for c, m in drawn] + [(cls, shape)]  # the later object is in front
    image = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
    cv2.imwrite(str(path), image)
    instances = []
    for cls, bitmap in drawn:
        mask = masks.from_bitmap(bitmap)
        if masks.area(mask) >= 40:  # what is left visible of a covered object
            instances.append(InstanceRecord(cls, mask, mask.box))
    return ImageRecord(path, height, width, tuple(instances))
