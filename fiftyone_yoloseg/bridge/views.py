"""FiftyOne views -> image records. Everything that can be wrong with a view is found and named here.

Labels are read with `values()`, in chunks, without building FiftyOne's label objects; samples are never changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import fiftyone as fo
import fiftyone.core.media as fom
import numpy as np

from ..data.images import image_size
from ..errors import DataError, UserError
from ..geometry import masks
from ..types import CropMask, ImageRecord, InstanceRecord, Names, ProgressFn
from .labels import pixel_box, place_box, place_mask, place_polygon, read_mask

Maskless = Literal["error", "box", "skip"]
"""What to do with labels that have no mask: refuse, take their box as mask, or leave them out."""

_LISTS = {fo.Detections: "detections", fo.Polylines: "polylines"}
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Problem:
    """A sample, or one label of it, that cannot be used."""

    sample_id: str
    path: str
    reason: str
    label_id: str | None = None

    def __str__(self) -> str:
        return f"sample {self.sample_id} ({Path(self.path).name}): {self.reason}"


@dataclass(frozen=True, slots=True)
class LabelField:
    """A label field that can hold instance masks. masks: how many of its objects have one."""

    name: str
    kind: str
    objects: int
    masks: int


@dataclass(slots=True)
class ViewRecords:
    """What `view_records` read. skipped: whole samples; dropped: single objects of samples that are used."""

    records: list[ImageRecord]
    names: Names
    skipped: list[Problem] = field(default_factory=list)
    dropped: list[Problem] = field(default_factory=list)

    @property
    def objects(self) -> int:
        return sum(len(r.instances) for r in self.records)


def check_view(view: Any) -> None:
    """Raises DataError if `view` is not a non-empty collection of images."""
    if not isinstance(view, fo.core.collections.SampleCollection):
        raise DataError(f"expected a FiftyOne dataset or view, not {type(view).__name__}")
    if view.media_type == fom.GROUP:
        slices = ", ".join(view.group_slices or [])
        raise DataError(
            f"'{view.name}' has grouped samples (slices: {slices}): choose one, e.g. view.select_group_slices('{view.default_group_slice}')"
        )
    if view._is_patches:
        raise DataError(f"'{view.name}' is a patches view: use the view of samples that it was made from")
    if not len(view):
        raise DataError(f"the view of '{view._dataset.name}' is empty: there is no sample to work on")
    if view.media_type != fom.IMAGE:
        raise DataError(
            f"'{view.name}' holds {view.media_type} samples: only images can be used (for videos: view.to_frames(sample_frames=True))"
        )


def label_fields(view: Any) -> list[LabelField]:
    """The Detections and Polylines fields of a view, those with most masks first."""
    found = [(name, kind) for name, f in view.get_field_schema(embedded_doc_type=fo.Label).items() if (kind := _LISTS.get(f.document_type))]
    counts = []
    for name, kind in found:
        path = f"{name}.{kind}"
        is_mask = (
            fo.ViewField("filled") == True if kind == "polylines" else (fo.ViewField("mask") != None) | (fo.ViewField("mask_path") != None)
        )
        counts += [fo.Count(path), fo.Count(fo.ViewField(path).filter(is_mask), _unwind=True)]
    values = view.aggregate(counts) if counts else []
    fields = [LabelField(name, kind, int(values[2 * i]), int(values[2 * i + 1])) for i, (name, kind) in enumerate(found)]
    return sorted(fields, key=lambda f: (-f.masks, f.name))


def label_path(view: Any, label_field: str) -> str:
    """'ground_truth' -> 'ground_truth.detections'. Raises DataError where the field is missing or of another type."""
    schema = view.get_field_schema(flat=False)
    document = getattr(schema.get(label_field), "document_type", None)
    if document not in _LISTS:
        usable = [f"'{f.name}' ({f.masks} masks)" for f in label_fields(view) if f.masks]
        hint = "fields with masks: " + ", ".join(usable) if usable else "no field of this dataset holds instance masks"
        if label_field not in schema:
            raise DataError(f"'{view._dataset.name}' has no field '{label_field}'; {hint}")
        kind = document.__name__ if document else type(schema[label_field]).__name__
        raise DataError(
            f"field '{label_field}' of '{view._dataset.name}' is {kind}: need Detections with masks or filled Polylines; {hint}"
        )
    return f"{label_field}.{_LISTS[document]}"


def class_names(views: Iterable[Any], label_field: str, classes: Sequence[str] | None = None) -> Names:
    """Class index -> name: `classes` if given, else the labels that occur in the views, in the dataset's declared order
    where it declares all of them, else sorted."""
    if classes is not None:
        twice = [name for name, n in Counter(classes).items() if n > 1]
        if twice or not classes:
            raise DataError(f"classes={list(classes)!r}: " + (f"{twice[0]!r} is given twice" if twice else "give at least one class name"))
        return dict(enumerate(classes))
    found: set[str] = set()
    declared: list[str] = []
    for view in views:
        found.update(x for x in view.distinct(f"{label_path(view, label_field)}.label") if x is not None)
        declared = declared or list(view.classes.get(label_field) or view.default_classes)
    order = declared if found <= set(declared) else sorted(found)
    return dict(enumerate(name for name in order if name in found))


def view_records(
    view: Any,
    label_field: str,
    classes: Sequence[str] | None = None,
    *,
    maskless: Maskless = "error",
    need_objects: bool = True,
    progress: ProgressFn | None = None,
) -> ViewRecords:
    """Read the objects of a view into records; samples without objects become records without instances.

    Samples whose file is missing or no image are listed in `.skipped`, objects that have no pixels or another class in
    `.dropped`. Raises DataError if the field cannot be used, if labels without masks are found (maskless="error"), or if
    no sample - with `need_objects` no object - is left.
    """
    check_view(view)
    path = label_path(view, label_field)
    names = class_names([view], label_field, classes)
    if not names:
        raise DataError(f"field '{label_field}' has no labelled object in this view of '{view._dataset.name}'")
    out = ViewRecords([], names)
    without_mask: list[Problem] = []
    ids, files = view.values(["id", "filepath"])
    for start in range(0, len(ids), _CHUNK):
        if progress:
            progress(start / len(ids), f"reading labels: {start} of {len(ids)} samples")
        chunk = ids[start : start + _CHUNK]
        rows = _read_labels(view.select(chunk, ordered=True), path)
        sizes = read_sizes(files[start : start + _CHUNK])
        for sample_id, file, size, row in zip(chunk, files[start : start + _CHUNK], sizes, rows, strict=True):
            if isinstance(size, UserError):
                out.skipped.append(Problem(sample_id, file, str(size)))
                continue
            reader = _Reader(sample_id, file, *size, {name: i for i, name in names.items()}, maskless)
            out.records.append(ImageRecord(Path(file), *size, tuple(reader.read(row)), sample_id))
            out.dropped += reader.dropped
            without_mask += reader.without_mask
    _check_left(view, label_field, out, without_mask, need_objects)
    return out


def _check_left(view: Any, label_field: str, out: ViewRecords, without_mask: list[Problem], need_objects: bool) -> None:
    if without_mask:
        samples = list(dict.fromkeys(p.sample_id for p in without_mask))
        shown = ", ".join(samples[:5]) + (", ..." if len(samples) > 5 else "")
        usable = [f"'{f.name}'" for f in label_fields(view) if f.masks and f.name != label_field]
        raise DataError(
            f"field '{label_field}': {len(without_mask)} labels in {len(samples)} samples have no mask (samples {shown}). "
            "Use maskless='skip' to leave them out or maskless='box' to take their box as mask"
            + (f"; other fields with masks: {', '.join(usable)}" if usable else "")
        )
    if not out.records:
        raise DataError(f"no sample of this view can be read, the first: {out.skipped[0]}")
    if need_objects and not out.objects:
        first = f", the first: {out.dropped[0]}" if out.dropped else ""
        raise DataError(f"field '{label_field}': no object can be used; {len(out.dropped)} were left out{first}")


def read_sizes(files: Sequence[str]) -> Iterator[tuple[int, int] | UserError]:
    """(height, width) of each file from its header, or the error of a file that is missing or no image."""
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(_size, files)


def _size(file: str) -> tuple[int, int] | UserError:
    try:
        return image_size(Path(file))
    except UserError as error:
        return error


Row = list[dict[str, Any]]


def _read_labels(view: Any, path: str) -> list[Row]:
    """For each sample, its raw labels as dicts of attributes."""
    keys = ["id", "label", "iscrowd", "confidence"]
    keys += ["points", "filled"] if path.endswith(".polylines") else ["bounding_box", "mask", "mask_path"]
    columns = view.values([f"{path}.{key}" for key in keys], _allow_missing=True)
    return [
        [dict(zip(keys, label, strict=True)) for label in zip(*sample, strict=True)] if sample[0] else []
        for sample in zip(*columns, strict=True)
    ]


class _Reader:
    """Turns the raw labels of one sample into records, and keeps what could not be turned."""

    def __init__(self, sample_id: str, file: str, height: int, width: int, indices: dict[str, int], maskless: Maskless) -> None:
        self.sample_id, self.file, self.size, self.indices, self.maskless = sample_id, file, (height, width), indices, maskless
        self.dropped: list[Problem] = []
        self.without_mask: list[Problem] = []

    def read(self, labels: Row) -> Iterator[InstanceRecord]:
        for label in labels:
            cls = self.indices.get(label["label"])
            if cls is None:
                what = "an object has no class name" if label["label"] is None else f"class '{label['label']}' is not in the class list"
                self._drop(label, what)
                continue
            try:
                mask = self._mask(label)
            except ValueError as error:
                self._drop(label, str(error))
                continue
            if mask is None:
                self._no_mask(label)
            elif mask.w == 0:
                self._drop(label, f"the mask of a '{label['label']}' has no pixel inside the image")
            else:
                yield self._record(label, cls, mask)

    def _record(self, label: dict[str, Any], cls: int, mask: CropMask) -> InstanceRecord:
        box = pixel_box(label["bounding_box"], *self.size) if "bounding_box" in label else mask.box
        return InstanceRecord(cls, mask, box, bool(label["iscrowd"]), label["id"], label["confidence"])

    def _mask(self, label: dict[str, Any]) -> CropMask | None:
        """None if the label has no mask at all. Raises ValueError where what it has is broken."""
        if "points" in label:
            if label["filled"]:
                return place_polygon(label["points"] or [], *self.size)
            box = _bounds(label["points"] or [])
        else:
            box = label["bounding_box"]
            if not box or len(box) != 4 or not np.isfinite(box).all() or box[2] <= 0 or box[3] <= 0:
                raise ValueError(f"a '{label['label']}' has the impossible bounding box {box}")
            if label["mask"] is not None:
                return place_mask(label["mask"], box, *self.size)
            if label["mask_path"]:
                return place_mask(read_mask(label["mask_path"]), box, *self.size)
        if self.maskless != "box":
            return None
        return place_box(box, *self.size) if box else masks.EMPTY

    def _no_mask(self, label: dict[str, Any]) -> None:
        what = "is a polyline that is not filled" if "points" in label else "has no mask"
        problem = Problem(self.sample_id, self.file, f"a '{label['label']}' {what}", label["id"])
        (self.without_mask if self.maskless == "error" else self.dropped).append(problem)

    def _drop(self, label: dict[str, Any], reason: str) -> None:
        self.dropped.append(Problem(self.sample_id, self.file, reason, label["id"]))


def _bounds(points: Sequence[Sequence[Sequence[float]]]) -> list[float] | None:
    flat = [p for shape in points for p in shape]
    if not flat:
        return None
    (x1, y1), (x2, y2) = np.min(flat, axis=0), np.max(flat, axis=0)
    return [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]
