"""Samples as MongoDB holds them, streamed in one pass: building FiftyOne's label objects would take most of the time of a conversion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bson import ObjectId

from .objects import Label, RawSample
from .splits import Facts
from .views import label_path

_DETECTION = ("_id", "label", "iscrowd", "confidence", "bounding_box", "mask", "mask_path")
_POLYLINE = ("_id", "label", "iscrowd", "confidence", "points", "filled")


def raw_samples(view: Any, label_field: str, keys: Sequence[str] | None = None) -> Iterator[RawSample]:
    """The samples of a view with their labels, in its order. keys: attributes of the labels; all that make an object if None."""
    path = label_path(view, label_field)
    keys = keys or (_POLYLINE if path.endswith(".polylines") else _DETECTION)
    field, kind = path.rsplit(".", 1)
    for document in view._aggregate(post_pipeline=[{"$project": {"filepath": 1, **{f"{path}.{key}": 1 for key in keys}}}]):
        holder = document.get(field) or {}
        yield RawSample(str(document["_id"]), document["filepath"], holder.get(kind) or [])


def object_attributes(path: str) -> list[str]:
    """Paths of all that makes an object of a label list, as 'ground_truth.detections'."""
    return [f"{path}.{key}" for key in (_POLYLINE if path.endswith(".polylines") else _DETECTION)]


@dataclass(frozen=True, slots=True)
class RawPair:
    """A sample with the labels of two fields. size: (height, width) as its metadata says, if it has any."""

    id: ObjectId
    path: str
    size: tuple[int, int] | None
    truth: list[Label]
    found: list[Label]


def raw_pairs(view: Any, truth: Sequence[str], found: Sequence[str]) -> Iterator[RawPair]:
    """The samples of a view with the labels of two fields, in its order.

    truth, found: paths of label attributes, as 'ground_truth.detections.label'; those of one side have one field.
    """
    project = dict.fromkeys([*truth, *found, "filepath", "metadata.width", "metadata.height"], 1)
    (gt_field, gt_kind), (pred_field, pred_kind) = truth[0].split(".")[:2], found[0].split(".")[:2]
    for document in view._aggregate(post_pipeline=[{"$project": project}]):
        metadata = document.get("metadata") or {}
        size = (metadata["height"], metadata["width"]) if metadata.get("height") and metadata.get("width") else None
        labels = (document.get(gt_field) or {}).get(gt_kind) or [], (document.get(pred_field) or {}).get(pred_kind) or []
        yield RawPair(document["_id"], document["filepath"], size, *labels)


def facts_of(view: Any, label_field: str | None, value: str | None = None, group: str | None = None) -> tuple[Facts, dict[int, list[str]]]:
    """What split rules look at, and of samples (by position) with maskless objects their labels.

    value, group: paths of fields. label_field: None leaves the classes and the maskless out.
    """
    project: dict[str, Any] = {"filepath": 1, "tags": 1}
    if value is not None:
        project["value"] = f"${value}"
    if group is not None:
        project["group"] = f"${group}"
    if label_field is not None:
        path = label_path(view, label_field)
        labels = {"$ifNull": [f"${path}", []]}
        unset = {"$ne": ["$$this.filled", True]} if path.endswith(".polylines") else {"$and": [_is_null("mask"), _is_null("mask_path")]}
        project["labels"] = f"${path}.label"
        project["crowds"] = {"$map": {"input": {"$filter": {"input": labels, "cond": "$$this.iscrowd"}}, "in": "$$this.label"}}
        project["bare"] = {"$map": {"input": {"$filter": {"input": labels, "cond": unset}}, "in": "$$this.label"}}
    facts, bare = Facts(), dict[int, list[str]]()
    names: dict[str, str] = {}  # one string a label, not one an object
    for i, document in enumerate(view._aggregate(post_pipeline=[{"$project": project}])):
        facts.ids.append(str(document["_id"]))
        facts.files.append(document["filepath"])
        facts.tags.append(tuple(document.get("tags") or ()))
        if value is not None:
            facts.values.append(document.get("value"))
        if group is not None:
            facts.groups.append(document.get("group"))
        if label_field is not None:
            facts.classes.append(tuple(names.setdefault(x, x) for x in document.get("labels") or () if x is not None))
            if document.get("crowds"):
                facts.crowds[i] = document["crowds"]
            if document.get("bare"):
                bare[i] = document["bare"]
    return facts, bare


def _is_null(attribute: str) -> dict[str, Any]:
    return {"$eq": [{"$ifNull": [f"$$this.{attribute}", None]}, None]}
