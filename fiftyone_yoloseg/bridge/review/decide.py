"""A person's decision on pending objects: into the ground truth, or aside."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bson import ObjectId

from ...errors import SettingsError, UserError
from ..atomic import Document, change, labels_in
from ..objects import Label
from ..provenance import EDITED, MODEL, crop_of, declare, edit_iou, now, origin_of, overlaps
from .fields import FIELD, SEEN, TRUTH, Fields, check_reviewable, fields_of, root, shown_labels, size_of, state_of, truth_state
from .prelabel import SAME

Kind = Literal["gone", "truth_changed", "overlap", "edited", "busy", "unreadable"]


@dataclass(frozen=True, slots=True)
class Conflict:
    """An object that was left as it is, because a person's work would have suffered or is not there any more.

    kind: gone (deleted, or never in the field), truth_changed (somebody changed the sample's ground truth since the model's objects were written), overlap
    (ground truth has an object there already), edited (rejecting it would put a person's edit aside), busy (others kept changing the sample), unreadable.
    """

    kind: Kind
    label_id: str
    sample_id: str | None
    reason: str

    def __str__(self) -> str:
        where = f"sample {self.sample_id}: " if self.sample_id else ""
        return f"{where}object {self.label_id} {self.reason}"


@dataclass(slots=True)
class Decision:
    """What was decided. moved: ids of the objects; origins: how many of each origin; already: objects that an earlier call had moved;
    conflicts: what was left alone, and why; mean_edit_iou: of the edited ones, the mask IoU before and after, None if there is none."""

    field: str
    moved: list[str] = dataclasses.field(default_factory=list)
    already: list[str] = dataclasses.field(default_factory=list)
    origins: dict[str, int] = dataclasses.field(default_factory=dict)
    mean_edit_iou: float | None = None
    conflicts: list[Conflict] = dataclasses.field(default_factory=list)


@dataclass(slots=True)
class _Outcome:
    """Of one sample, by the last look at it."""

    moved: dict[str, Label] = dataclasses.field(default_factory=dict)
    already: list[str] = dataclasses.field(default_factory=list)
    conflicts: list[Conflict] = dataclasses.field(default_factory=list)


def accept(
    view: Any,
    label_ids: Iterable[str] | None = None,
    field: str = FIELD,
    *,
    gt_field: str = TRUTH,
    overlap: float = SAME,
    force: bool = False,
    seconds: Mapping[str, float] | None = None,
) -> Decision:
    """Move pending objects into the ground truth, in bulk: those that the view shows (filter it by confidence, class, tags, ...), or those of `label_ids`.

    An object goes over as it is in the database now: if a person has edited it, the edit goes, with origin "edited" and `edit_iou`, the IoU of the mask
    before and after. The model's confidence is kept as `model_confidence`. Ground truth that exists is never changed. An object is left
    pending, and reported, where ground truth has one with a mask IoU of `overlap` or more, or where somebody has changed the sample's ground truth since
    the model looked at it (force=True: only the overlap decides). seconds: label id -> time that its edit took.
    Raises UserError for a field or view that cannot be used.
    """
    if not 0 < overlap <= 1:
        raise SettingsError(f"overlap={overlap!r}: a mask IoU above 0, up to 1")
    check_reviewable(view)
    dataset = root(view)
    fields = fields_of(dataset, field, gt_field, must_exist=True)
    declare(dataset, gt_field, reviewed=True)
    spent = {str(k): float(v) for k, v in (seconds or {}).items()}

    def judge(document: Document, wanted: list[Label]) -> tuple[list[Label], list[Conflict]]:
        sample_id = str(document["_id"])
        seen = (document.get(fields.pending) or {}).get(SEEN)
        if not force and seen is not None and seen != truth_state(document, fields.truth):
            reason = f"waits: somebody has changed '{gt_field}' since it was predicted; look at it, then accept with force=True"
            return [], [Conflict("truth_changed", str(label["_id"]), sample_id, reason) for label in wanted]
        truth = labels_in(document, fields.truth)
        try:
            size = size_of(document) if truth else (1, 1)
        except UserError as error:
            return [], [Conflict("unreadable", str(label["_id"]), sample_id, f"waits: {error}") for label in wanted]
        crops = [crop_of(label, size) for label in truth]
        good, conflicts = [], []
        for label in wanted:
            other = overlaps(label, crops, size, overlap)
            if other is None:
                good.append(_accepted(label, spent))
            else:
                reason = f"waits: '{gt_field}' has object {truth[other]['_id']} ('{truth[other].get('label')}') there"
                conflicts.append(Conflict("overlap", str(label["_id"]), sample_id, reason))
        return good, conflicts

    return _decide(view, label_ids, fields, fields.truth, judge)


def reject(
    view: Any, label_ids: Iterable[str] | None = None, field: str = FIELD, *, gt_field: str = TRUTH, edited: bool = False
) -> Decision:
    """Move pending objects aside, into "<field>_rejected": those that the view shows, or those of `label_ids`. The model will not propose them again.

    Objects that a person drew or edited stay and are reported, unless edited=True.
    Raises UserError for a field or view that cannot be used.
    """
    check_reviewable(view)
    dataset = root(view)
    fields = fields_of(dataset, field, gt_field, must_exist=True)
    declare(dataset, fields.rejected, reviewed=True)

    def judge(document: Document, wanted: list[Label]) -> tuple[list[Label], list[Conflict]]:
        good, conflicts = [], []
        for label in wanted:
            origin = origin_of(label)
            if origin == MODEL or edited:
                good.append({**label, "origin": origin, "reviewed_at": now()})
            else:
                reason = f"is a person's work ({origin}): reject it with edited=True if that is meant"
                conflicts.append(Conflict("edited", str(label["_id"]), str(document["_id"]), reason))
        return good, conflicts

    return _decide(view, label_ids, fields, fields.rejected, judge)


def _accepted(label: Label, seconds: Mapping[str, float]) -> Label:
    """A pending object as ground truth. Ground truth has no confidence: exporters and evaluations would take it for a prediction."""
    label = dict(label)
    label["origin"] = origin_of(label)
    if (confidence := label.pop("confidence", None)) is not None:
        label["model_confidence"] = confidence
    if label["origin"] == EDITED and (iou := edit_iou(label)) is not None:
        label["edit_iou"] = iou
    if (spent := seconds.get(str(label["_id"]))) is not None:
        label["edit_seconds"] = spent
    label["reviewed_at"] = now()
    return label


def _decide(view: Any, label_ids: Iterable[str] | None, fields: Fields, target: str, judge: Any) -> Decision:
    """Move what `judge` finds good from the pending field to the target, each sample in one step and only if nobody changed it in between."""
    asked, missing = shown_labels(view, fields.pending, label_ids)
    outcomes: dict[str, _Outcome] = {}

    def plan(document: Document) -> dict[str, Document | None]:
        sample_id = str(document["_id"])
        previous, out = outcomes.get(sample_id), _Outcome()
        outcomes[sample_id] = out
        there = {str(label["_id"]) for label in labels_in(document, target)}
        pending = labels_in(document, fields.pending)
        ids = asked[sample_id]
        out.already = sorted(ids & there)
        if previous and previous.moved and previous.moved.keys() <= there:  # our own change, seen again
            outcomes[sample_id] = previous
            return {}
        wanted = [label for label in pending if str(label["_id"]) in ids - there]
        lost = ids - there - {str(label["_id"]) for label in wanted}
        good, conflicts = judge(document, wanted)
        out.conflicts = [*conflicts, *(_gone(i, sample_id, fields.pending) for i in sorted(lost))]
        out.moved = {str(label["_id"]): label for label in good}
        if not good:
            return {}
        after = [*labels_in(document, target), *good]
        left: Document = {"detections": [label for label in pending if str(label["_id"]) not in out.moved]}
        if target == fields.truth and SEEN in (document.get(fields.pending) or {}):
            left[SEEN] = state_of(after)  # our own additions are no surprise to the next call
        return {fields.pending: left, target: {"detections": after}}

    busy = set(change(root(view), list(asked), fields.all, plan))
    done = _found(root(view), target, missing)
    decision = Decision(target, already=done, conflicts=[_gone(i, None, fields.pending) for i in missing if i not in done])
    origins: Counter[str] = Counter()
    distances = []
    for sample_id in asked:
        if sample_id in busy or sample_id not in outcomes:
            reason = "waits: other programs kept changing its sample; try again" if sample_id in busy else "is gone: its sample was deleted"
            kind: Kind = "busy" if sample_id in busy else "gone"
            decision.conflicts += [Conflict(kind, i, sample_id, reason) for i in sorted(asked[sample_id])]
            continue
        out = outcomes[sample_id]
        decision.moved += out.moved
        decision.already += out.already
        decision.conflicts += out.conflicts
        origins.update(label["origin"] for label in out.moved.values())
        distances += [label["edit_iou"] for label in out.moved.values() if label.get("edit_iou") is not None]
    decision.origins = dict(origins)
    decision.mean_edit_iou = sum(distances) / len(distances) if distances else None
    return decision


def _found(dataset: Any, field: str, label_ids: list[str]) -> list[str]:
    """Which of these labels are in a field of the dataset."""
    wanted = {ObjectId(i) for i in label_ids if ObjectId.is_valid(i)}
    path = f"{field}.detections._id"
    documents = dataset._sample_collection.find({path: {"$in": list(wanted)}}, {path: 1}) if wanted else ()
    return sorted(str(label["_id"]) for d in documents for label in labels_in(d, field) if label["_id"] in wanted)


def _gone(label_id: str, sample_id: str | None, field: str) -> Conflict:
    return Conflict("gone", label_id, sample_id, f"is not in '{field}' (any more): somebody deleted or accepted it, or the view hides it")
