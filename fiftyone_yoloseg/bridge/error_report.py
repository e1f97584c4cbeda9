"""What a search for kinds of errors found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..engine.error_types import KINDS, Kind
from .objects import Problem

KEPT = 20
"""Of each kind, the cases that a report keeps."""
MEANING: dict[Kind, str] = {
    "class": "the right place, the wrong class",
    "boundary": "the outline is off",
    "merged": "one mask on several objects",
    "split": "several masks on one object",
    "shifted": "the right shape in the wrong place",
    "class and localisation": "wrong class, and the outline is off",
    "duplicate": "an object that has been found already",
    "background": "nothing is there",
    "missed": "an object that was not found",
}


@dataclass(frozen=True, slots=True)
class ErrorCase:
    """One error. cost: what AP50 would rise by without it.  prediction_id: None for a missed object.  label_id: of the object that it lies on,
    None for background.  predicted, label: their classes.  iou: of the two."""

    kind: Kind
    cost: float
    sample_id: str
    path: str
    prediction_id: str | None
    label_id: str | None
    predicted: str | None
    label: str | None
    iou: float
    confidence: float | None


@dataclass(slots=True)
class ErrorReport:
    """ap50: mask AP at IoU 0.5, mean over classes. counts, costs: kind -> number of errors, and what ap50 would rise by without them.

    objects: to find. predictions: that count, which those on crowds do not. classes: class -> "objects", "AP50" (None without objects) and "errors",
    kind -> number, the class with most of them first; errors are of the predicted class, missed objects of their own. cases: the most expensive single errors of each kind, at most 20. left_out: samples and labels that could not be
    used. views: kind -> saved view. page: the report as HTML, if one was written.
    """

    pred_field: str
    gt_field: str
    samples: int
    objects: int
    predictions: int
    ap50: float
    counts: dict[Kind, int]
    costs: dict[Kind, float]
    classes: dict[str, dict[str, Any]]
    cases: list[ErrorCase]
    left_out: list[Problem]
    views: dict[str, str] = field(default_factory=dict)
    page: Path | None = None

    @property
    def errors(self) -> int:
        return sum(self.counts.values())

    @property
    def worst(self) -> list[ErrorCase]:
        """The most expensive errors of all kinds."""
        return sorted(self.cases, key=lambda case: -case.cost)[:KEPT]

    def of(self, kind: Kind) -> list[ErrorCase]:
        """The most expensive errors of one kind."""
        return [case for case in self.cases if case.kind == kind]

    def kinds(self) -> list[Kind]:
        """Those that occur, the most expensive first."""
        return sorted((kind for kind in KINDS if self.counts[kind]), key=lambda kind: -self.costs[kind])

    def headline(self) -> str:
        return (
            f"mask AP50 {self.ap50:.3f} on {self.samples} images with {self.objects} objects; {self.predictions} predictions, "
            f"{self.errors} errors"
        )

    def summary(self) -> str:
        """For a terminal."""
        lines = [f"  {kind:<24}{self.counts[kind]:>7}{self.share(kind):>7.1%}   AP50 {self.costs[kind]:+.3f}" for kind in self.kinds()]
        return "\n".join([self.headline(), "kinds of errors, and what AP50 would gain without each:", *lines])

    def share(self, kind: Kind) -> float:
        """Of all errors, 0..1."""
        return self.counts[kind] / self.errors if self.errors else 0.0

    def markdown(self) -> str:
        """For the App."""
        rows = [
            f"| {kind} | {self.counts[kind]} | {self.share(kind):.1%} | {self.costs[kind]:+.3f} | {MEANING[kind]} |"
            for kind in self.kinds()
        ]
        return "\n".join([f"**{self.headline()}**", "", "| kind | errors | share | AP50 would gain | |", "|---|---|---|---|---|", *rows])

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        plain = ("pred_field", "gt_field", "samples", "objects", "predictions", "errors", "ap50", "counts", "costs", "classes", "views")
        return {
            **{name: getattr(self, name) for name in plain},
            "cases": {kind: [asdict(case) for case in self.of(kind)] for kind in self.kinds()},
            "left_out": [str(problem) for problem in self.left_out],
            "page": None if self.page is None else str(self.page),
        }
