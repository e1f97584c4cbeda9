"""Training samples: mosaic, affine, copy-paste, mixup, colour and flips, on images together with their exact masks.

Mosaic, affine and flips are composed into one matrix per source image, so every pixel and every mask is resampled once. What a
sample looks like depends on (seed, epoch, index) only: not on the worker, not on what came before. So a run can be resumed
bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..config import TrainSettings
from ..geometry.letterbox import PAD_VALUE
from ..types import ImageRecord, InstanceRecord
from .store import ImageStore
from .warp import Image, Matrix, hull, paint, shift, stretch, transform, warp_mask

MIN_SIDE, MAX_ASPECT, MIN_VISIBLE = 2.0, 100.0, 0.01
PASTE_MAX_COVERED = 0.30
MIXUP_BETA = 32.0


@dataclass(slots=True)
class Target:
    """One object of a sample. box: x1 y1 x2 y2 in input pixels. soft: (h, w) uint8, 255 inside, top-left at (x, y)."""

    cls: int
    box: tuple[float, float, float, float]
    x: int
    y: int
    soft: Image


@dataclass(slots=True)
class Sample:
    """image: (S, S, 3) uint8 RGB."""

    image: Image
    targets: list[Target]


class Augmenter:
    """Makes training samples from records."""

    def __init__(self, records: Sequence[ImageRecord], store: ImageStore, settings: TrainSettings) -> None:
        self.records, self.store, self.settings, self.size = records, store, settings, settings.imgsz

    def __call__(self, epoch: int, index: int, size: tuple[int, int] | None = None, closed: bool | None = None) -> Sample:
        """size: (height, width) of the input, imgsz squared if not given. closed: whether mosaic, mixup and copy-paste are off;
        in the last `close_mosaic` epochs if not given."""
        s, size = self.settings, size or (self.size, self.size)
        rng = np.random.default_rng((s.seed, epoch, index))
        heavy = epoch < s.epochs - s.close_mosaic if closed is None else not closed
        sample = self._compose(index, rng, heavy, size)
        if heavy and rng.random() < s.mixup:
            other = self._compose(int(rng.integers(len(self.records))), rng, heavy, size)
            share = rng.beta(MIXUP_BETA, MIXUP_BETA)
            sample = Sample(cv2.addWeighted(sample.image, share, other.image, 1 - share, 0), sample.targets + other.targets)  # type: ignore[arg-type]
        jitter_colour(sample.image, rng, s.hsv_h, s.hsv_s, s.hsv_v)
        return sample

    def _compose(self, index: int, rng: np.random.Generator, heavy: bool, size: tuple[int, int]) -> Sample:
        s, (high, wide) = self.settings, size
        if heavy and rng.random() < s.mosaic:  # with rect there is no mosaic: its input is a square
            indices = [index, *rng.integers(len(self.records), size=3).tolist()]
            canvas, centre = (2 * high, 2 * wide), rng.uniform(wide / 2, 3 * wide / 2, 2)
        else:
            indices, canvas, centre = [index], size, None
        view = self._random_view(rng, canvas, size)
        image = np.full((high, wide, 3), PAD_VALUE, np.uint8)
        targets: list[Target] = []
        for corner, i in enumerate(indices):
            source, record = self.store[i], self.records[i]
            kept_height, kept_width = source.shape[:2]
            zoom = max(size) / self.store.size if self.store.size != max(size) else 1
            height, width = kept_height * zoom, kept_width * zoom
            if centre is None:
                place = shift((wide - width) / 2, (high - height) / 2)
            else:  # the four images meet at the centre
                place = shift(centre[0] - width * (corner % 2 == 0), centre[1] - height * (corner < 2))
            matrix = view @ place
            paint(image, source, matrix @ stretch(zoom, zoom))
            to_output = matrix @ stretch(width / record.width, height / record.height)
            targets += [t for r in record.instances if (t := place_target(r, to_output, size, s.mask_ratio)) is not None]
        if heavy and s.copy_paste > 0:
            copy_paste(image, targets, rng, s.copy_paste)
        return Sample(image, targets)

    def _random_view(self, rng: np.random.Generator, canvas: tuple[int, int], size: tuple[int, int]) -> Matrix:
        """From the canvas to the input: perspective, rotation, zoom, shear and shift around the centre, and flips."""
        s, (high, wide) = self.settings, size
        perspective = np.eye(3)
        perspective[2, :2] = rng.uniform(-s.perspective, s.perspective, 2)
        angle, zoom = np.radians(rng.uniform(-s.degrees, s.degrees)), rng.uniform(1 - s.scale, 1 + s.scale)
        cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
        rotation = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        shear = np.eye(3)
        shear[0, 1], shear[1, 0] = np.tan(np.radians(rng.uniform(-s.shear, s.shear, 2)))
        x, y = rng.uniform(0.5 - s.translate, 0.5 + s.translate, 2) * (wide, high)
        view: Matrix = shift(x, y) @ shear @ rotation @ perspective @ shift(-canvas[1] / 2, -canvas[0] / 2)
        if rng.random() < s.flipud:
            view = shift(0, high) @ stretch(1, -1) @ view
        if rng.random() < s.fliplr:
            view = shift(wide, 0) @ stretch(-1, 1) @ view
        return view


def place_target(record: InstanceRecord, matrix: Matrix, size: tuple[int, int], ratio: int) -> Target | None:
    """An object moved into the input of `size` (height, width); None if too little of it is left. Crowds are never targets.

    The box is that of the visible mask. Sides that are not cut by the border are taken from the exact outline, which is finer
    than a pixel.
    """
    if record.crowd or record.mask.w == 0:
        return None
    placed = warp_mask(record.mask, matrix, size, ratio)
    if placed is None:
        return None
    x, y, soft = placed
    left, top, w, h = cv2.boundingRect((soft >= 128).view(np.uint8))
    if w <= MIN_SIDE or h <= MIN_SIDE or max(w / h, h / w) >= MAX_ASPECT:
        return None
    mask = record.mask
    aligned = matrix[0, 1] == 0 == matrix[1, 0] and matrix[2, 0] == 0 == matrix[2, 1]
    outline = np.array([[mask.x, mask.y], [mask.x + mask.w, mask.y + mask.h]]) if aligned else hull(mask)
    points = transform(matrix, outline)
    exact = np.concatenate([points.min(0), points.max(0)])
    if (w * h) / np.prod(exact[2:] - exact[:2]) <= MIN_VISIBLE:
        return None
    visible = np.array([x + left, y + top, x + left + w, y + top + h], np.float64)
    box = np.where(np.abs(exact - visible) <= 1, exact, visible).clip(0, [size[1], size[0], size[1], size[0]])
    return Target(record.cls, (box[0], box[1], box[2], box[3]), x, y, soft)


def copy_paste(image: Image, targets: list[Target], rng: np.random.Generator, share: float) -> None:
    """Paste mirrored copies of some objects where they cover little of the others, in place. Ghiasi et al. 2021, arXiv 2012.07177."""
    size = image.shape[1]
    mirrored = image[:, ::-1].copy()
    for i in rng.permutation(len(targets))[: round(share * len(targets))]:
        source = targets[i]
        x1, y1, x2, y2 = source.box
        if min(x2 - x1, y2 - y1) <= MIN_SIDE:  # little is left of it behind what was pasted before
            continue
        box = (size - x2, y1, size - x1, y2)
        if any(_covered(box, t.box) >= PASTE_MAX_COVERED for t in targets):
            continue
        height, width = source.soft.shape
        pasted = Target(source.cls, box, size - source.x - width, source.y, np.ascontiguousarray(source.soft[:, ::-1]))
        inside = pasted.soft >= 128
        window = np.s_[pasted.y : pasted.y + height, pasted.x : pasted.x + width]
        image[window][inside] = mirrored[window][inside]
        for other in targets:
            if hide(other, pasted):
                other.box = _shrunk(other)
        targets.append(pasted)
    targets[:] = [t for t in targets if min(t.box[2] - t.box[0], t.box[3] - t.box[1]) > MIN_SIDE]


def _shrunk(target: Target) -> tuple[float, float, float, float]:
    """The box of what is left of an object. Sides that did not move stay as exact as they are."""
    left, top, w, h = cv2.boundingRect((target.soft >= 128).view(np.uint8))
    visible = np.array([target.x + left, target.y + top, target.x + left + w, target.y + top + h], np.float64)
    x1, y1, x2, y2 = np.where(np.abs(np.array(target.box) - visible) <= 1, target.box, visible) if w else visible
    return float(x1), float(y1), float(x2), float(y2)


def hide(behind: Target, front: Target) -> bool:
    """Remove from `behind` the pixels that `front` covers, in place; whether their rectangles meet. The box stays."""
    x1, y1 = max(behind.x, front.x), max(behind.y, front.y)
    x2 = min(behind.x + behind.soft.shape[1], front.x + front.soft.shape[1])
    y2 = min(behind.y + behind.soft.shape[0], front.y + front.soft.shape[0])
    if x1 < x2 and y1 < y2:
        under = behind.soft[y1 - behind.y : y2 - behind.y, x1 - behind.x : x2 - behind.x]
        over = front.soft[y1 - front.y : y2 - front.y, x1 - front.x : x2 - front.x]
        np.minimum(under, 255 - over, out=under)
        return True
    return False


def _covered(inner: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over the area of `inner`."""
    w = min(inner[2], other[2]) - max(inner[0], other[0])
    h = min(inner[3], other[3]) - max(inner[1], other[1])
    return max(w, 0) * max(h, 0) / ((inner[2] - inner[0]) * (inner[3] - inner[1]))


def jitter_colour(image: Image, rng: np.random.Generator, hue: float, saturation: float, value: float) -> None:
    """Scale hue, saturation and value by 1 +- the gains, in place. Hue is circular, the others are clipped."""
    gains = 1 + rng.uniform(-1, 1, 3) * (hue, saturation, value)
    if np.array_equal(gains, [1, 1, 1]):
        return
    levels = np.arange(256)
    tables = np.stack([levels * gains[0] % 180, *(np.clip(levels * g, 0, 255) for g in gains[1:])], 1).astype(np.uint8)
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables[None])
    cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=image)
