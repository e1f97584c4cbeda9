"""Labels of FiftyOne samples -> objects and records, each object that cannot be used named with its reason. Samples are never changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..data.images import image_size
from ..errors import DataError, UserError
from ..geometry import masks
from ..geometry.masks import Crop
from ..types import ImageRecord, InstanceRecord, Names, ProgressFn
from .labels import box_crop, mask_crop, pixel_box, polygon_crop, read_mask
from .plan import Plan, make_plan
from .raw import Label, RawSample, decode_mask
from .splits import SplitOptions
from .views import Maskless, Problem

_CHUNK = 64
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
        if not lines and (not box or len(box) != 4 or not np.isfinite(box).all() or box[2] <= 0 or box[3] <= 0):
            raise ValueError(f"a '{name}' has the impossible bounding box {box}")
        crop, boxed = self._shape(label, box, size), False
        if crop is None:
            if self.maskless != "box":
                what = "is a polyline that is not filled" if lines else "has no mask"
                raise _UnusableError("labels_without_mask", f"a '{name}' {what}")
            box, boxed = (_bounds(label["points"] or []) if lines else box), True
            crop = box_crop(box, *size) if box else None
        if crop is None or not crop[0].size:
            raise _UnusableError("empty_masks", f"the mask of a '{name}' has no pixel inside the image")
        stated = None if lines or box is None else pixel_box(box, *size)
        return ReadObject(str(label["_id"]), self.index[name], crop, stated, bool(label.get("iscrowd")), label.get("confidence"), boxed)

    def _shape(self, label: Label, box: Any, size: Size) -> Crop | None:
        """None if the label has no mask at all; a crop without pixels if it has none inside the image."""
        if "points" in label:
            return polygon_crop(label["points"] or [], *size) if label.get("filled") else None
        if label.get("mask") is not None:
            return mask_crop(decode_mask(label["mask"]), box, *size)
        if label.get("mask_path"):
            return mask_crop(read_mask(label["mask_path"]), box, *size)
        return None


def _bounds(points: Sequence[Sequence[Sequence[float]]]) -> list[float] | None:
    flat = [p for shape in points for p in shape]
    if not flat:
        return None
    (x1, y1), (x2, y2) = np.min(flat, axis=0), np.max(flat, axis=0)
    return [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]


def read_sizes(files: Iterable[str]) -> Iterator[Size | UserError]:
    """(height, width) of each file from its header, or the error of a file that is missing or no image."""
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(file_size, files)


def file_size(file: str) -> Size | UserError:
    if "://" in file:
        return DataError(f"{file}: is not on this machine: download the media first")
    try:
        return image_size(Path(file))
    except UserError as error:
        return error


@dataclass(slots=True)
class ViewRecords:
    """What was read. skipped: whole samples; dropped: single objects of samples that are used."""

    names: Names
    splits: dict[str, list[ImageRecord]] = field(default_factory=dict)
    skipped: list[Problem] = field(default_factory=list)
    dropped: list[Problem] = field(default_factory=list)

    @property
    def records(self) -> list[ImageRecord]:
        return [record for records in self.splits.values() for record in records]

    @property
    def objects(self) -> int:
        return sum(len(r.instances) for r in self.records)


def read_plan(plan: Plan, maskless: Maskless, progress: ProgressFn | None = None) -> ViewRecords:
    """All records of a planned view. Samples without objects become records without instances."""
    out, reader = ViewRecords(plan.names, {name: [] for name in plan.counts}), Reader(plan.index, maskless)
    stream, done = plan.raw(), 0
    while chunk := list(islice(stream, _CHUNK)):
        if progress:
            progress(done / plan.samples, f"reading labels: {done} of {plan.samples} samples")
        done += len(chunk)
        for (split, sample), size in zip(chunk, read_sizes([sample.path for _, sample in chunk]), strict=True):
            if isinstance(size, UserError):
                out.skipped.append(Problem(sample.id, sample.path, str(size)))
                continue
            objects, dropped = reader.read(sample, size)
            out.splits[split].append(ImageRecord(Path(sample.path), *size, tuple(o.record() for o in objects), sample.id))
            out.dropped += dropped
    return out


def view_records(
    view: Any,
    label_field: str,
    classes: Sequence[str] | None = None,
    *,
    maskless: Maskless = "error",
    need_objects: bool = True,
    progress: ProgressFn | None = None,
) -> ViewRecords:
    """Read the objects of a view into records.

    classes: class list and order; the labels that occur if not given. Samples whose file is missing or no image are listed in
    `.skipped`, objects that have no pixels or another class in `.dropped`. Raises DataError if the field cannot be used, if labels
    without masks are found (maskless="error"), or if no sample - with `need_objects` no object - is left.
    """
    plan = make_plan(view, label_field, SplitOptions({"val": view}), classes=classes, maskless=maskless)
    out = read_plan(plan, maskless, progress)
    check_left(out, label_field, need_objects)
    return out


def check_left(out: ViewRecords, label_field: str, need_objects: bool = True) -> None:
    """Raises DataError if nothing that was read can be used."""
    if not out.records:
        raise DataError(f"no sample of this view can be read, the first: {out.skipped[0]}")
    if need_objects and not out.objects:
        first = f", the first: {out.dropped[0]}" if out.dropped else ""
        raise DataError(f"field '{label_field}': no object can be used; {len(out.dropped)} were left out{first}")
