"""Verdicts of an evaluation into the database: attributes of single labels, in bulk, without reading or writing a mask."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import fiftyone as fo
import fiftyone.core.fields as fof
import fiftyone.core.odm as odm
from pymongo import UpdateOne

from .scoring import SampleScore, Scored, Verdicts

_CHUNK = 500


def declare_fields(dataset: Any, paths: Sequence[str], eval_key: str) -> None:
    """FiftyOne's fields of an evaluation, in one change of the schema: one at a time takes longer than all comparing. paths: label lists."""
    kinds: dict[str, type[fof.Field]] = {f"{eval_key}_{name}": fof.IntField for name in ("tp", "fp", "fn")}
    for path in paths:
        start = f"{path}.{eval_key}"
        kinds |= {start: fof.StringField, f"{start}_id": fof.StringField, f"{start}_iou": fof.FloatField}
    dataset._merge_sample_field_schema({path: odm.create_field(path.rpartition(".")[2], kind) for path, kind in kinds.items()})


def clear_scores(dataset: Any, paths: Sequence[str], eval_key: str) -> None:
    """Remove what an earlier evaluation has written on samples and labels; its fields stay. paths: label lists."""
    counts = [f"{eval_key}_{name}" for name in ("tp", "fp", "fn")]
    collection = dataset._sample_collection
    collection.update_many({"$or": [{name: {"$exists": True}} for name in counts]}, {"$unset": dict.fromkeys(counts, "")})
    for path in paths:
        values = [f"{path}.$[].{eval_key}{end}" for end in ("", "_id", "_iou")]
        collection.update_many({f"{path}.{eval_key}": {"$exists": True}}, {"$unset": dict.fromkeys(values, "")})


def write_scores(view: Any, scored: Scored, eval_key: str) -> None:
    """Set `<eval_key>`, `<eval_key>_id`, `<eval_key>_iou` of every label that was compared and the three counts of every sample.

    Labels are addressed by their place in the list, which is an update a sample; it applies only where the list still has the labels that were
    read. In a view that filters labels, or where somebody has changed the list since, they are addressed by their ids.
    """
    dataset = view._dataset
    collection, by_place = dataset._sample_collection, True
    for start in range(0, len(scored.samples), _CHUNK):
        samples = scored.samples[start : start + _CHUNK]
        now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)  # as FiftyOne writes it
        if by_place:
            result = collection.bulk_write([_by_place(sample, scored.paths, eval_key, now) for sample in samples], ordered=False)
            by_place = result.matched_count == len(samples)
        if not by_place:
            operations = [op for sample in samples for op in _by_id(sample, scored.paths, eval_key, now)]
            collection.bulk_write(operations, ordered=False)
    fo.Sample._reload_docs(dataset._sample_collection_name)  # also those outside of the view, whose earlier scores have been cleared
    if view._is_generated:
        view.save()  # a view of video frames: into the dataset that it was made from


def _counts(sample: SampleScore, eval_key: str, now: datetime.datetime) -> dict[str, Any]:
    counts = dict(zip((f"{eval_key}_tp", f"{eval_key}_fp", f"{eval_key}_fn"), sample.tally(), strict=True))
    return {**counts, "last_modified_at": now}


def _by_place(sample: SampleScore, paths: Sequence[str], eval_key: str, now: datetime.datetime) -> UpdateOne:
    update, unchanged = _counts(sample, eval_key, now), []
    for path, side in zip(paths, (sample.truth, sample.found), strict=True):
        if side.verdicts:
            unchanged.append({"$eq": [f"${path}._id", side.ids]})
        for position, verdict, other, iou in side.verdicts:
            start = f"{path}.{position}.{eval_key}"
            update[start], update[f"{start}_id"], update[f"{start}_iou"] = verdict, other, iou
    return UpdateOne({"_id": sample.id, **({"$expr": {"$and": unchanged}} if unchanged else {})}, {"$set": update})


def _by_id(sample: SampleScore, paths: Sequence[str], eval_key: str, now: datetime.datetime) -> list[UpdateOne]:
    operations = [UpdateOne({"_id": sample.id}, {"$set": _counts(sample, eval_key, now)})]
    for path, side in zip(paths, (sample.truth, sample.found), strict=True):
        operations += [_label(sample, path, eval_key, side, v) for v in side.verdicts]
    return operations


def _label(sample: SampleScore, path: str, eval_key: str, side: Verdicts, verdict: tuple[int, str, str, float | None]) -> UpdateOne:
    position, value, other, iou = verdict
    start = f"{path}.$.{eval_key}"
    return UpdateOne(
        {"_id": sample.id, f"{path}._id": side.ids[position]}, {"$set": {start: value, f"{start}_id": other, f"{start}_iou": iou}}
    )
