"""Labels of one sample, as MongoDB holds them -> objects, each label that cannot be used named with its reason.

Nothing here needs FiftyOne itself: processes that convert do without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..data.images import image_size
from ..errors import DataError, UserError
from ..geometry import masks
from ..geometry.masks import Crop
from ..types import InstanceRecord
from .pixels import box_crop, decode_mask, mask_crop, pixel_box, polygon_crop, read_mask

Maskless = Literal["error", "box", "skip"]
"""What to do with labels that have no mask: refuse, take their box as mask, or leave them out."""
Label = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RawSample:
    """labels: dicts of their attributes, as far as they are set; masks are bytes for `decode_mask`, or what it makes of them."""

    id: str
    path: str
    labels: list[Label]


@dataclass(frozen=True, slots=True)
class Problem:
    """A sample, or one label of it, that cannot be used."""

    sample_id: str
    path: str
    reason: str
    label_id: str | None = None
    kind: str = "bad_labels"
    """Of a label: bad_labels, labels_without_class, labels_without_mask or empty_masks."""

    def __str__(self) -> str:
        return f"sample {self.sample_id} ({Path(self.path).name}): {self.reason}"


Size = tuple[int, int]
"""Height and width in image pixels."""


@dataclass(slots=True)
class ReadObject:
    """One usable label. crop: its exact pixels, trimmed. box: x1, y1, x2, y2 in image pixels as the label states it."""

    id: str
    cls: int
    crop: Crop
    box: tuple[float, float, float, float] | None
    crowd: bool
    confidence: float | None
    boxed: bool = False
    """Whether the crop is the label's box, because it has no mask."""

    def record(self) -> InstanceRecord:
        mask = masks.from_bitmap(*self.crop)
        return InstanceRecord(self.cls, mask, self.box or mask.box, self.crowd, self.id, self.confidence)


class _UnusableError(ValueError):
    """Why a label cannot be used; kind: see `Problem`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Reader:
    """Turns the labels of samples into objects. index: label -> class index."""

    def __init__(self, index: Mapping[str, int], maskless: Maskless) -> None:
        self.index, self.maskless = index, maskless

    def read(self, sample: RawSample, size: Size) -> tuple[list[ReadObject], list[Problem]]:
        """The usable objects of a sample, and what is wrong with the others."""
        objects, dropped = [], []
        for label in sample.labels:
            try:
                objects.append(self._object(label, size))
            except _UnusableError as error:
                dropped.append(Problem(sample.id, sample.path, str(error), str(label["_id"]), error.kind))
            except ValueError as error:
                dropped.append(Problem(sample.id, sample.path, str(error), str(label["_id"])))
        return objects, dropped

    def _object(self, label: Label, size: Size) -> ReadObject:
        """Raises ValueError that says why the label cannot be used."""
        name = label.get("label")
        if name is None or name not in self.index:
            if name is None:
                raise _UnusableError("labels_without_class", "an object has no class name")
            raise ValueError(f"class '{name}' is not in the class list")
        lines = "points" in label
        box = None if lines else label.get("bounding_box")
        if not lines and (not box or len(box) != 4 or not all(map(math.isfinite, box)) or box[2] <= 0 or box[3] <= 0):
            raise ValueError(f"a '{name}' has the impossible bounding box {box}")
        crop, boxed = label_crop(label, box, size), False
        if crop is None:
            if self.maskless != "box":
                what = "is a polyline that is not filled" if lines else "has no mask"
                raise _UnusableError("labels_without_mask", f"a '{name}' {what}")
            box, boxed = (bounds(label["points"] or []) if lines else box), True
            crop = box_crop(box, *size) if box else None
        if crop is None or not crop[0].size:
            raise _UnusableError("empty_masks", f"the mask of a '{name}' has no pixel inside the image")
        stated = None if lines or box is None else pixel_box(box, *size)
        return ReadObject(str(label["_id"]), self.index[name], crop, stated, bool(label.get("iscrowd")), label.get("confidence"), boxed)


def label_crop(label: Label, box: Any, size: Size, place: Callable[..., Crop] = mask_crop) -> Crop | None:
    """The pixels of a label. None if it has no mask at all; a crop without pixels if it has none inside the image.

    box: its relative bounding box.  place: `mask_crop` or `place_mask`. Raises ValueError if its mask cannot be read.
    """
    if "points" in label:
        return polygon_crop(label["points"] or [], *size) if label.get("filled") else None
    mask = label.get("mask")
    if mask is not None:
        return place(decode_mask(mask) if isinstance(mask, bytes) else mask, box, *size)
    if label.get("mask_path"):
        return place(read_mask(label["mask_path"]), box, *size)
    return None


def bounds(points: Sequence[Sequence[Sequence[float]]]) -> list[float] | None:
    """The relative bounding box of a polyline's shapes; None if it has no point."""
    flat = [p for shape in points for p in shape]
    if not flat:
        return None
    (x1, y1), (x2, y2) = np.min(flat, axis=0), np.max(flat, axis=0)
    return [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]


def file_size(file: str) -> Size | UserError:
    if "://" in file:
        return DataError(f"{file}: is not on this machine: download the media first")
    try:
        return image_size(Path(file))
    except UserError as error:
        return error
