"""Where a review stands, and who made which object."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ...errors import DataError
from ..atomic import Document, change, labels_in
from ..objects import Label
from ..provenance import EDITED, ORIGINS, declare, edit_iou, origin_of
from ..views import check_view
from .fields import FIELD, TRUTH, Fields, fields_of


@dataclass(slots=True)
class ReviewStatus:
    """samples: of the view; empty: without ground truth and without anything decided; waiting: with pending objects; objects: field -> origin -> how many;
    edits: the mask IoU before and after of each edited object whose original mask is known, pending or accepted."""

    fields: Fields
    samples: int = 0
    empty: int = 0
    waiting: int = 0
    objects: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    edits: list[float] = dataclasses.field(default_factory=list)

    @property
    def mean_edit_iou(self) -> float | None:
        return sum(self.edits) / len(self.edits) if self.edits else None

    def table(self) -> str:
        """Markdown."""
        rows = ["| field | " + " | ".join(ORIGINS) + " |", "|---|" + "---|" * len(ORIGINS)]
        rows += [f"| {field} | " + " | ".join(str(counts[o]) for o in ORIGINS) + " |" for field, counts in self.objects.items()]
        return "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        counts = {"samples": self.samples, "empty": self.empty, "waiting": self.waiting}
        return {**counts, "objects": self.objects, "edited": len(self.edits), "mean_edit_iou": self.mean_edit_iou}


def status(view: Any, field: str = FIELD, *, gt_field: str = TRUTH) -> ReviewStatus:
    """Count pending, accepted and rejected objects by origin, comparing each with what the model wrote. Changes nothing."""
    check_view(view)
    dataset = view._dataset
    fields = fields_of(dataset, field, gt_field, must_exist=False)
    out = ReviewStatus(fields, objects={name: dict.fromkeys(ORIGINS, 0) for name in fields.all})
    project = dict.fromkeys(fields.all, 1)
    for document in dataset.select(view.values("id"))._aggregate(post_pipeline=[{"$project": project}]):
        out.samples += 1
        pending = labels_in(document, fields.pending)
        out.waiting += bool(pending)
        out.empty += not labels_in(document, fields.truth) and not labels_in(document, fields.rejected)
        for name in fields.all:
            for label in labels_in(document, name):
                origin = origin_of(label)
                out.objects[name][origin] += 1
                if origin == EDITED and (iou := edit_iou(label)) is not None:
                    out.edits.append(iou)
    return out


def mark(view: Any, field: str = FIELD, *, gt_field: str = TRUTH) -> dict[str, int]:
    """Write the origin, and for edits `edit_iou`, on every pending and ground truth object, so that the App can filter by it.

    An edit made in the App shows as "edited" only then (or once it is accepted). Class, box and mask are not touched. Returns origin -> how many.
    Raises UserError for a field or view that cannot be used, or if other programs keep changing a sample.
    """
    check_view(view)
    dataset = view._dataset
    fields = fields_of(dataset, field, gt_field, must_exist=False)
    names = [name for name in (fields.pending, fields.truth) if dataset.get_field(name) is not None]
    for name in names:
        declare(dataset, name, reviewed=True)
    counts: dict[str, dict[str, int]] = {}

    def plan(document: Document) -> dict[str, Document | None]:
        counted = counts[str(document["_id"])] = dict.fromkeys(ORIGINS, 0)
        after: dict[str, Document | None] = {}
        for name in names:
            labels = [_marked(label) for label in labels_in(document, name)]
            for label in labels:
                counted[label["origin"]] += 1
            if labels:
                after[name] = {"detections": labels}
        return after

    contested = change(dataset, view.values("id"), names, plan)
    if contested:
        raise DataError(f"sample {contested[0]} of '{dataset.name}' is being changed by another program: try again")
    return {origin: sum(c[origin] for c in counts.values()) for origin in ORIGINS}


def _marked(label: Label) -> Label:
    origin = origin_of(label)
    iou = edit_iou(label) if origin == EDITED else None
    return {**label, "origin": origin, **({} if iou is None else {"edit_iou": iou})}
