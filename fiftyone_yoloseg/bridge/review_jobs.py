"""The actions of a review as one job: what the App's operator runs. See `jobs` for parameters and results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import UserError
from ..types import ProgressFn
from . import review
from .review.annotate import VIEW

Result = dict[str, Any]
_LISTED = 10


def run(view: Any, options: dict[str, Any], progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    """options: "action" and the keyword arguments of that function of `review`. Raises UserError for what the user can mend."""
    action = options.pop("action", "status")
    if action not in _ACTIONS:
        raise UserError(f"action={action!r}: choose from {', '.join(_ACTIONS)}")
    if action == "prelabel":
        options |= {"progress": progress, "should_stop": should_stop}
    return _ACTIONS[action](view, options)


def _prelabel(view: Any, options: Result) -> Result:
    report = review.prelabel(view, **options)
    lines = [f"**{report.objects} proposed objects in {report.samples} images**, in the field `{report.field}`"]
    if report.known:
        lines.append(f"{report.known} more lie on objects that are known there, or were rejected before")
    lines += _list([f"sample {i}: a person added ground truth meanwhile" for i in report.skipped], "left alone")
    lines += _list([str(p) for p in report.failed], "could not be predicted")
    facts = {"field": report.field, "samples": report.samples, "objects": report.objects, "known": report.known}
    return {"summary": "\n\n".join(lines), **facts, "skipped": report.skipped, "failed": [str(p) for p in report.failed]}


def _decided(function: Callable[..., review.Decision], view: Any, options: Result) -> Result:
    decision = function(view, **options)
    by_origin = ", ".join(f"{n} {origin}" for origin, n in decision.origins.items())
    lines = [f"**{len(decision.moved)} objects moved to `{decision.field}`**" + (f" ({by_origin})" if by_origin else "")]
    if decision.mean_edit_iou is not None:
        lines.append(f"Mask IoU before and after editing, mean: {decision.mean_edit_iou:.3f}")
    lines += _list([str(c) for c in decision.conflicts], "left as they are")
    conflicts = [{"kind": c.kind, "label": c.label_id, "sample": c.sample_id, "reason": c.reason} for c in decision.conflicts]
    facts = {"field": decision.field, "moved": decision.moved, "already": decision.already, "origins": decision.origins}
    return {"summary": "\n\n".join(lines), **facts, "mean_edit_iou": decision.mean_edit_iou, "conflicts": conflicts}


def _edit(view: Any, options: Result) -> Result:
    waiting = review.annotate(view, "app", **options)
    summary = f"**{len(waiting)} samples** have objects that wait, in the saved view `{VIEW}`. Open a sample and edit its masks there; then accept."
    return {"summary": summary, "samples": len(waiting), "view_name": VIEW}


def _mark(view: Any, options: Result) -> Result:
    counts = review.mark(view, **options)
    return {"summary": "**Marked**: " + ", ".join(f"{n} {origin}" for origin, n in counts.items()), "origins": counts}


def _status(view: Any, options: Result) -> Result:
    found = review.status(view, **options)
    lines = [f"**{found.samples} samples**: {found.waiting} with objects that wait, {found.empty} without ground truth", found.table()]
    if found.mean_edit_iou is not None:
        lines.append(f"{len(found.edits)} edited masks, mean IoU before and after: {found.mean_edit_iou:.3f}")
    return {"summary": "\n\n".join(lines), **found.to_dict()}


def _list(items: list[str], what: str) -> list[str]:
    if not items:
        return []
    shown = [f"- {item}" for item in items[:_LISTED]]
    more = [f"- and {len(items) - _LISTED} more"] if len(items) > _LISTED else []
    return ["\n".join([f"{len(items)} {what}:", "", *shown, *more])]


_ACTIONS: dict[str, Callable[[Any, Result], Result]] = {
    "prelabel": _prelabel,
    "accept": lambda view, options: _decided(review.accept, view, options),
    "reject": lambda view, options: _decided(review.reject, view, options),
    "edit": _edit,
    "mark": _mark,
    "status": _status,
}
