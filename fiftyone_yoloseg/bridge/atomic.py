"""Changes of label fields that never overwrite what somebody else wrote in the meantime (compare and set).

A change is computed from the fields as they were read, and written only where MongoDB still holds exactly that. All fields of one sample change in
one step. Where the comparison fails the sample is read and the change computed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import fiftyone as fo
from bson import ObjectId
from pymongo import UpdateOne
from pymongo.errors import DocumentTooLarge, OperationFailure

from ..errors import DataError
from .objects import Label
from .provenance import now

Document = dict[str, Any]
Plan = Callable[[Document], dict[str, Document | None]]
"""A sample's document -> what changes: field -> attributes of its Detections ("detections" and others), or None for no Detections.

It is called again for a sample that somebody else has changed in between, also where the change was already written; there it must change nothing more."""
_CHUNK = 100
_TRIES = 5


def change(dataset: Any, ids: Sequence[str], fields: Sequence[str], plan: Plan) -> list[str]:
    """Change Detections fields of samples in bulk. Returns the samples that others kept changing, so that nothing was written there.

    fields: all fields that the plan looks at or changes. The document that it gets has these, `filepath` and `metadata`.
    Raises DataError if MongoDB refuses a sample, such as one of more than 16 MB.
    """
    contested: list[str] = []
    for start in range(0, len(ids), _CHUNK):
        chunk = list(ids[start : start + _CHUNK])
        left = [ObjectId(i) for i in chunk]
        for _ in range(_TRIES):
            left = _attempt(dataset, left, fields, plan)
            if not left:
                break
        else:  # one that was overtaken brings all of its chunk back: see which are still to do
            left = _attempt(dataset, left, fields, plan, write=False)
        contested += map(str, left)
        fo.Sample._reload_docs(dataset._sample_collection_name, sample_ids=chunk)
    return contested


def labels_in(document: Document, field: str) -> list[Label]:
    """The labels of a Detections field of a sample."""
    return (document.get(field) or {}).get("detections") or []


def _attempt(dataset: Any, ids: list[ObjectId], fields: Sequence[str], plan: Plan, write: bool = True) -> list[ObjectId]:
    """One bulk write, if there is something to write. Returns the samples to look at again: all, where one of them had been changed by somebody else."""
    project = dict.fromkeys((*fields, "filepath", "metadata"), 1)
    writes, written = [], []
    for document in dataset._sample_collection.find({"_id": {"$in": ids}}, project):
        after = {field: _merged(document.get(field), values) for field, values in plan(document).items()}
        after = {field: value for field, value in after.items() if value != document.get(field)}
        if after:
            before = {field: document.get(field) for field in fields}
            # the App saves an edit only where last_modified_at is what it was when the sample was opened
            writes.append(UpdateOne({"_id": document["_id"], **before}, {"$set": {**after, "last_modified_at": now()}}))
            written.append(document["_id"])
    if not writes or not write:
        return written
    try:
        result = dataset._sample_collection.bulk_write(writes, ordered=False)
    except (OperationFailure, DocumentTooLarge) as error:
        reason = str(error).split(", full error")[0]
        raise DataError(f"MongoDB refused to write labels of '{dataset.name}': {reason}") from None
    return [] if result.matched_count == len(writes) else written


def _merged(holder: Document | None, values: Document | None) -> Document | None:
    return None if values is None else {"_cls": "Detections", **(holder or {}), **values}
