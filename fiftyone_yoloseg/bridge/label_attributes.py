"""A verdict on single labels, written in bulk, and saved views of the labels that have each verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import fiftyone as fo

from ..errors import UserError
from .provenance import PROVENANCE_FIELDS, REVIEW_FIELDS
from .views import label_path

_BATCH = 5000


def write_attributes(view: Any, path: str, values: Iterable[tuple[str, str, Mapping[str, Any]]]) -> int:
    """Set attributes of labels, given as (sample id, label id, values by name); returns how many labels.

    path: of the label list, as 'ground_truth.detections'. Labels that somebody has removed meanwhile are passed over. Values are taken
    and written in batches, so that memory does not grow with their number.
    """
    labels, stream = 0, iter(values)
    while batch := list(islice(stream, _BATCH)):
        by_name: dict[str, list[dict[str, Any]]] = {}
        for sample_id, label_id, attributes in batch:
            for name, value in attributes.items():
                by_name.setdefault(name, []).append({"sample_id": sample_id, "label_id": label_id, "value": value})
        for name, rows in by_name.items():
            view._dataset.set_label_values(f"{path}.{name}", rows, dynamic=True, progress=False)
        labels += len(batch)
    return labels


def clear_attributes(view: Any, paths: Sequence[str], names: Sequence[str]) -> None:
    """Remove attributes of an earlier run from the labels of all samples of a view."""
    ids = [sample["_id"] for sample in view._aggregate(post_pipeline=[{"$project": {"_id": 1}}])]
    for path in paths:
        old = {"_id": {"$in": ids}, "$or": [{f"{path}.{name}": {"$exists": True}} for name in names]}
        view._dataset._sample_collection.update_many(old, {"$unset": {f"{path}.$[].{name}": "" for name in names}})


OWN = frozenset(
    {
        *fo.Detection._fields_ordered,
        *fo.Polyline._fields_ordered,
        "_id",
        "_cls",
        "iscrowd",
        *PROVENANCE_FIELDS,
        *REVIEW_FIELDS,
        "model_hash",
    }
)
"""What makes a label, and what tells whose work it is: never to be overwritten with something else."""


def check_key(view: Any, key: str, fields: Sequence[str], verdicts: Sequence[str], more: Sequence[str] = ()) -> None:
    """Raises UserError if attributes of the labels in `fields` cannot have that name: their values would be lost.

    verdicts: the values that an earlier run has written, which may be replaced. more: ends of the names of further attributes.
    """
    if not key.isidentifier():
        raise UserError(f"key={key!r}: use letters, digits and underscores, and begin with a letter")
    collection = view._dataset._sample_collection
    for path in (label_path(view, name) for name in fields):
        values = collection.distinct(f"{path}.{key}") if key not in OWN else []
        others = [
            f"{key}{end}" for end in more if not values and collection.count_documents({f"{path}.{key}{end}": {"$exists": True}}, limit=1)
        ]
        if key in OWN or others or not {v for v in values if v is not None} <= set(verdicts):
            raise UserError(
                f"key={key!r}: labels of '{path}' have an attribute '{(others or [key])[0]}' that is not ours; choose another name"
            )


def save_views(view: Any, key: str, fields: Mapping[str, str], attribute: str) -> dict[str, str]:
    """Save a view of the labels of each verdict; those of an earlier run under that key are replaced. Returns verdict -> name of the view.

    fields: verdict -> label field. A verdict that no label has gets no view.
    """
    dataset, saved = view._dataset, {}
    for verdict, field in fields.items():
        if dataset.has_saved_view(f"{key}: {verdict}"):
            dataset.delete_saved_view(f"{key}: {verdict}")
        part = view.filter_labels(field, fo.ViewField(attribute) == verdict)
        if len(part):
            saved[verdict] = f"{key}: {verdict}"
            dataset.save_view(saved[verdict], part)
    return saved
