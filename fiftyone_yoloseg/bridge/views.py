"""What a view must be, which of its fields hold masks, and what is said of samples that cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom

from ..errors import DataError
from ..types import Names

_LISTS = {fo.Detections: "detections", fo.Polylines: "polylines"}
_LISTED = 5


@dataclass(frozen=True, slots=True)
class LabelField:
    """A label field that can hold instance masks. masks: how many of its objects have one.

    among: the number of samples that were counted, if not all of the view.
    """

    name: str
    kind: str
    objects: int
    masks: int
    among: int | None = None

    @property
    def some_bare(self) -> bool:
        """Whether objects have no mask, as far as is known: those of samples that were not counted may have none."""
        return self.masks < self.objects or self.among is not None


def check_view(view: Any, *, may_be_empty: bool = False) -> None:
    """Raises DataError if `view` is not a collection of images, or is an empty one."""
    if not isinstance(view, fo.core.collections.SampleCollection):
        raise DataError(f"expected a FiftyOne dataset or view, not {type(view).__name__}")
    name = view.name or view._root_dataset.name
    if view._is_dynamic_groups:
        raise DataError(
            f"this view of '{name}' has dynamic groups: view.flatten() has all their samples, view.get_dynamic_group(value) those of one"
        )
    if view.media_type == fom.GROUP:
        slices = ", ".join(view.group_slices or [])
        raise DataError(
            f"'{name}' has grouped samples (slices: {slices}): choose one, e.g. view.select_group_slices('{view.default_group_slice}')"
        )
    if view._is_patches:
        raise DataError(f"this is a patches view of '{name}': use the view of samples that it was made from")
    if not len(view):
        if may_be_empty:
            return
        raise DataError(f"the view of '{view._dataset.name}' is empty: there is no sample to work on")
    if view.media_type != fom.IMAGE:
        raise DataError(
            f"'{name}' holds {view.media_type} samples: only images can be used (for videos: view.to_frames(sample_frames=True))"
        )


def in_slice(view: Any, name: str | None) -> Any:
    """A slice of a grouped view, or with None the view itself. Raises DataError if there is no such slice."""
    if name is None:
        return view
    slices = view.group_slices if view.media_type == fom.GROUP else None
    if not slices or name not in slices:
        raise DataError(
            f"group_slice={name!r}: " + (f"there are {', '.join(slices)}" if slices else f"'{view._root_dataset.name}' has no groups")
        )
    return view.select_group_slices(name)


def label_fields(view: Any, limit: int | None = None) -> list[LabelField]:
    """The Detections and Polylines fields of a view, those with most masks first. limit: of each field count only the first samples that have
    labels there, if the view has more samples, because counting masks reads all labels."""
    among = limit if limit is not None and len(view) > limit else None
    found = [(name, kind) for name, f in view.get_field_schema(embedded_doc_type=fo.Label).items() if (kind := _LISTS.get(f.document_type))]
    values: list[int] = []
    for name, kind in found:
        path = f"{name}.{kind}"
        is_mask = (
            fo.ViewField("filled") == True if kind == "polylines" else (fo.ViewField("mask") != None) | (fo.ViewField("mask_path") != None)
        )
        some = view.match(fo.ViewField(path).length() > 0).limit(among) if among else view
        values += some.aggregate([fo.Count(path), fo.Count(fo.ViewField(path).filter(is_mask), _unwind=True)])
    fields = [LabelField(name, kind, int(values[2 * i]), int(values[2 * i + 1]), among) for i, (name, kind) in enumerate(found)]
    return sorted(fields, key=lambda f: (-f.masks, f.name))


def has_masks(view: Any, fields: Sequence[LabelField]) -> bool:
    """Whether any label has a mask. In one pass that ends at the first, where nothing is counted: MongoDB has to read all only if there is none."""
    wanted: list[dict[str, Any]] = []
    for name, kind in ((f.name, f.kind) for f in fields):
        attributes = {"filled": True} if kind == "polylines" else {"mask": {"$type": "binData"}, "mask_path": {"$type": "string"}}
        wanted += [{f"{name}.{kind}.{attribute}": value} for attribute, value in attributes.items()]
    return bool(wanted) and len(view.match({"$or": wanted}).limit(1)) > 0


def label_path(view: Any, label_field: str) -> str:
    """'ground_truth' -> 'ground_truth.detections'. Raises DataError where the field is missing or of another type."""
    schema = view.get_field_schema(flat=False)
    document = getattr(schema.get(label_field), "document_type", None)
    if document not in _LISTS:
        usable = [f"'{f.name}' ({f.masks} masks)" for f in fields_with_masks(view)]
        hint = "fields with masks: " + ", ".join(usable) if usable else "no field of this dataset holds instance masks"
        if label_field not in schema:
            raise DataError(f"'{view._dataset.name}' has no field '{label_field}'; {hint}")
        kind = document.__name__ if document else type(schema[label_field]).__name__
        raise DataError(
            f"field '{label_field}' of '{view._dataset.name}' is {kind}: need Detections with masks or filled Polylines; {hint}"
        )
    return f"{label_field}.{_LISTS[document]}"


def class_list(classes: Sequence[str]) -> Names:
    """Class index -> name, of class names in their order. Raises DataError if there is none, or one twice."""
    twice = [name for name, n in Counter(classes).items() if n > 1]
    if twice or not classes:
        raise DataError(f"classes={list(classes)!r}: " + (f"{twice[0]!r} is given twice" if twice else "give at least one class name"))
    return dict(enumerate(classes))


def fields_with_masks(view: Any) -> list[LabelField]:
    return [f for f in label_fields(view) if f.masks]


def listing(names: Sequence[str]) -> str:
    """The first few, for a message."""
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "") if names else "none"
