"""The fields of a review, what of them a view shows, and what a sample's ground truth was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo

from ...errors import DataError, UserError
from .. import runs
from ..atomic import Document, labels_in
from ..objects import Size, file_size
from ..provenance import fingerprint
from ..views import check_view

FIELD, TRUTH = "review", runs.TRUTH
SEEN = "truth_seen"
"""Attribute of the pending Detections: `truth_state` of the sample when the model's objects were written."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the fields: pending objects, ground truth, rejected objects."""

    pending: str
    truth: str

    @property
    def rejected(self) -> str:
        return f"{self.pending}_rejected"

    @property
    def all(self) -> tuple[str, str, str]:
        return self.pending, self.truth, self.rejected


def fields_of(dataset: Any, field: str, gt_field: str, *, must_exist: bool) -> Fields:
    """Raises UserError if these cannot be the fields of a review. must_exist: whether there must be pending objects already."""
    fields = Fields(field, gt_field)
    for name in (field, gt_field):
        runs.check_name(name)
    if field in runs.truth_fields(dataset) | {gt_field}:
        raise UserError(f"field '{field}' is for ground truth: objects that wait for a review need a field of their own")
    for name in fields.all:
        existing = dataset.get_field(name)
        if existing is not None and getattr(existing, "document_type", None) is not fo.Detections:
            kind = getattr(existing, "document_type", type(existing)).__name__
            raise DataError(f"field '{name}' of '{dataset.name}' holds {kind}: a review works on Detections")
    if must_exist and dataset.get_field(field) is None:
        raise DataError(f"'{dataset.name}' has no field '{field}': run review.prelabel first, or name the field with predictions")
    return fields


def check_reviewable(view: Any) -> None:
    """As `check_view`; patches of the pending objects are welcome too."""
    if not getattr(view, "_is_patches", False):
        check_view(view)
    elif not len(view):
        raise DataError(f"the view of '{view._root_dataset.name}' is empty: there is no object to decide on")


def root(view: Any) -> Any:
    """The dataset that a view, also one of patches, comes from."""
    return view._root_dataset


def shown_labels(view: Any, field: str, label_ids: Iterable[str] | None) -> tuple[dict[str, set[str]], list[str]]:
    """Sample id -> ids of the labels of `field` that the view shows, and those of `label_ids` that it does not show."""
    if view._is_patches:
        if view.get_field(field) is None:
            raise DataError(f"this view has patches of another field than '{field}'")
        single = view.get_field(field).document_type is fo.Detection
        pairs = zip(*view.values(["sample_id", f"{field}.id" if single else f"{field}.detections.id"]), strict=True)
    else:
        pairs = zip(*view.values(["id", f"{field}.detections.id"]), strict=True)
    wanted = None if label_ids is None else set(map(str, label_ids))
    shown: dict[str, set[str]] = {}
    for sample_id, ids in pairs:
        chosen = set([ids] if isinstance(ids, str) else ids or ())
        chosen = chosen if wanted is None else chosen & wanted
        if chosen:
            shown.setdefault(sample_id, set()).update(chosen)
    missing = set() if wanted is None else wanted - set().union(*shown.values())
    return shown, sorted(missing)


def size_of(document: Document) -> Size:
    """Height and width of a sample's image, by its metadata or else its file. Raises UserError if the file cannot be read."""
    metadata = document.get("metadata") or {}
    if metadata.get("height") and metadata.get("width"):
        return int(metadata["height"]), int(metadata["width"])
    size = file_size(document["filepath"])
    if isinstance(size, UserError):
        raise size
    return size


def truth_state(document: Document, field: str) -> str:
    """Changes whenever a label of the ground truth is added, removed, or gets another class, box or mask."""
    return state_of(label for label in labels_in(document, field))


def state_of(labels: Iterable[Mapping[str, Any]]) -> str:
    lines = sorted(f"{label['_id']} {fingerprint(dict(label))}" for label in labels)
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()
