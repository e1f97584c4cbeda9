"""train_batch<n>.png, what the network is fed; val_pictures.png and pinned/epoch_<n>.jpg, what it makes of unseen images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from ...config import PredictSettings
from ...data.images import read_image
from ...geometry import masks
from ...types import Batch, CropMask, ImageRecord, Instances, Names
from ..matching import NOTHING, Matching, match
from .canvas import BLUE, GREY, PALETTE, VERMILLION, class_name, short
from .pictures import Image, Section, Shape, Tile, draw, save_sheet

SHOWN = 8
_COLUMNS, _WIDTH, _LARGEST = 4, 1280, 640  # pictures; pixels
_SIDE = 230  # pixels of a validation picture
_MOST = 16
_PINNED_SIDES = (480, 320, 230)  # pixels of a pinned picture, the more there are the smaller
PINNED_CONF = float(PredictSettings.model_fields["conf"].default)
"""The same in all epochs, so that what is seen to change is the network."""


def plot_batch(number: int, batch: Batch, names: Names, path: Path) -> None:
    """Up to 16 images of a training batch, augmented as the network sees them, with the masks that it learns."""
    images = batch.images[:_MOST].permute(0, 2, 3, 1).contiguous().cpu().numpy()
    classes, covers, owner = batch.classes.cpu().numpy(), batch.masks.cpu().numpy(), batch.image_index.cpu().numpy()
    columns = min(len(images), _COLUMNS)
    tiles = []
    for i, image in enumerate(images):
        shapes = [
            Shape(covers[n], PALETTE[classes[n] % len(PALETTE)], class_name(names, int(classes[n]))) for n in np.flatnonzero(owner == i)
        ]
        tiles.append(Tile([draw(image, shapes, min(_WIDTH // columns, _LARGEST))]))
    what = f"{len(images)} of {len(batch.images)} images" if len(images) < len(batch.images) else f"{len(images)} images"
    size = f"{images.shape[2]} x {images.shape[1]} px"
    save_sheet([Section(f"Training batch {number + 1}: {what} of {size}, augmented, with their mask targets", tiles, columns)], path)


def plot_val_pictures(records: Sequence[ImageRecord], found: Mapping[int, Instances], names: Names, conf: float, path: Path) -> None:
    """Labels beside predictions: images spread over the split, the same in each run, and those with the worst masks."""
    matches = {i: match(records[i], instances, conf) for i, instances in found.items()}
    key = "left: labels, found (blue) or missed (orange); right: predictions, right (blue) or wrong (orange)"
    sections = [
        Section(title, [_pair(records[i], read_image(records[i].path), found[i], matches[i], names) for i in chosen], _COLUMNS)
        for title, chosen in (
            (f"Images spread over the validation split, confidence from {conf:.3f}. In each pair {key}", spread(len(records))),
            ("Images with the worst masks, by panoptic quality", worst(matches)),
        )
    ]
    save_sheet(sections, path)


def thumbnail(path: Path) -> Image:
    """An image no larger than it is drawn for `plot_pinned`."""
    image = read_image(path)
    scale = _PINNED_SIDES[0] / max(image.shape[:2])
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8) if scale < 1 else image


def plot_pinned(
    title: str, records: Sequence[ImageRecord], images: Sequence[Image], found: Sequence[Instances], names: Names, path: Path
) -> None:
    """Labels beside the predictions that a user would get, of a few images. images: their thumbnails."""
    side, columns = next((s, c) for s, c, most in zip(_PINNED_SIDES, (1, 1, 2), (1, 4, len(records)), strict=True) if len(records) <= most)
    tiles = [
        _pair(record, image, one, match(record, one, PINNED_CONF), names, side)
        for record, image, one in zip(records, images, found, strict=True)
    ]
    save_sheet([Section(title, tiles, columns)], path)


def spread(count: int, shown: int = SHOWN) -> list[int]:
    """Up to `shown` indices, at equal distances, the first among them."""
    return [i * count // min(shown, count) for i in range(min(shown, count))]


def worst(matches: Mapping[int, Matching], shown: int = SHOWN) -> list[int]:
    """Indices by rising quality; of equal ones, those with more mistakes first."""
    return sorted(matches, key=lambda i: (matches[i].quality, -matches[i].wrong - len(matches[i].missed), i))[:shown]


def _pair(record: ImageRecord, image: Image, found: Instances, matching: Matching, names: Names, side: int = _SIDE) -> Tile:
    """image: of the record, at any size."""
    missed = set(matching.missed.tolist())
    labels = [
        _shape(
            label.mask,
            record,
            GREY if label.crowd else VERMILLION if i in missed else BLUE,
            class_name(names, label.cls) if not label.crowd else "crowd",
        )
        for i, label in enumerate(record.instances)
    ]
    predictions = [
        _shape(
            found.masks[i],
            record,
            VERMILLION if taken == NOTHING else BLUE,
            f"{class_name(names, int(found.classes[i]))} {found.confidences[i]:.2f}",
        )
        for i, taken in zip(matching.predictions, matching.labels, strict=True)
    ]
    caption = f"quality {matching.quality:.2f}: {matching.hits} right, {matching.wrong} wrong, {len(missed)} missed · {record.path.name}"
    return Tile([draw(image, labels, side), draw(image, predictions, side)], caption)


def _shape(mask: CropMask, record: ImageRecord, colour: str, text: str) -> Shape:
    return Shape(masks.full_bitmap(mask, record.height, record.width) * np.uint8(255), colour, short(text, 24))
