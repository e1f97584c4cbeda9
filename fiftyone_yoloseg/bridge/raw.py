"""Samples as MongoDB holds them, streamed in one pass: building FiftyOne's label objects would take most of the time of a conversion."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from .splits import Facts
from .views import label_path

_DETECTION = ("_id", "label", "iscrowd", "confidence", "bounding_box", "mask", "mask_path")
_POLYLINE = ("_id", "label", "iscrowd", "confidence", "points", "filled")
Label = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RawSample:
    """labels: dicts of the attributes above, as far as they are set; masks are bytes for `decode_mask`."""

    id: str
    path: str
    labels: list[Label]


def raw_samples(view: Any, label_field: str, keys: Sequence[str] | None = None) -> Iterator[RawSample]:
    """The samples of a view with their labels, in its order. keys: attributes of the labels; all that make an object if None."""
    path = label_path(view, label_field)
    keys = keys or (_POLYLINE if path.endswith(".polylines") else _DETECTION)
    field, kind = path.rsplit(".", 1)
    for document in view._aggregate(post_pipeline=[{"$project": {"filepath": 1, **{f"{path}.{key}": 1 for key in keys}}}]):
        holder = document.get(field) or {}
        yield RawSample(str(document["_id"]), document["filepath"], holder.get(kind) or [])


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
            if document.get("bare"):
                bare[i] = document["bare"]
    return facts, bare


def _is_null(attribute: str) -> dict[str, Any]:
    return {"$eq": [{"$ifNull": [f"$$this.{attribute}", None]}, None]}


_NPY = re.compile(rb"\{'descr': '(\|b1|\|u1)', 'fortran_order': False, 'shape': \((\d+), (\d+)\), \} *\n")
_NPY_START = b"\x93NUMPY\x01\x00"


def decode_mask(data: bytes) -> npt.NDArray[Any]:
    """FiftyOne's stored array: a compressed .npy file. Raises ValueError if it is not one."""
    try:
        raw = zlib.decompress(data)
    except zlib.error as error:
        raise ValueError(f"its mask is damaged: {error}") from None
    # the usual kind is read without numpy's parser, which takes longer than all the rest
    if raw.startswith(_NPY_START) and (found := _NPY.match(raw, 10)):
        height, width = int(found[2]), int(found[3])
        if len(raw) == found.end() + height * width:
            return np.frombuffer(raw, np.bool_ if found[1] == b"|b1" else np.uint8, offset=found.end()).reshape(height, width)
    array = np.load(BytesIO(raw), allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3):
        raise ValueError("its mask is not an image")
    return array
