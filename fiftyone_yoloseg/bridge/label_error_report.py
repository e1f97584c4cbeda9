"""What a search for label errors found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..config.values import LabelErrorKind
from .objects import Problem

MEANING: dict[LabelErrorKind, str] = {
    "missing": "objects that no label explains",
    "spurious": "labels where the model sees nothing",
    "wrong_class": "labels that the model gives another class",
    "merged": "labels that cover several objects",
    "split": "objects with several labels",
    "sloppy": "outlines further off than usual",
}
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class LabelErrorCase:
    """One suspicious place. score: 0..1, comparable within a kind.

    label_ids: labels in doubt (none if one is missing, several if they are one object); prediction_ids: what speaks against them.
    labels, predicted: their classes.  iou: of the masks that the kind compares.
    """

    kind: LabelErrorKind
    score: float
    sample_id: str
    path: str
    label_ids: tuple[str, ...]
    prediction_ids: tuple[str, ...]
    labels: tuple[str, ...]
    predicted: tuple[str, ...]
    iou: float

    def __str__(self) -> str:
        what = " + ".join(self.labels) or "no label"
        seen = " + ".join(self.predicted) or "nothing"
        return f"{self.score:.2f} {Path(self.path).name}: {what}, predicted {seen}"


@dataclass(slots=True)
class LabelErrorReport:
    """images, labels, predictions: what was compared (without crowds and predictions of low confidence). cases: the most suspicious first, at
    most `limit` of each kind. counts: how many there are of each kind. skipped: samples, dropped: labels and predictions that could not be used.
    views: kind -> saved view. written: labels that got attributes. notes: what the user should know.
    """

    pred_field: str
    gt_field: str
    images: int
    labels: int
    predictions: int
    cases: list[LabelErrorCase]
    counts: dict[LabelErrorKind, int]
    skipped: list[Problem] = field(default_factory=list)
    dropped: list[Problem] = field(default_factory=list)
    views: dict[str, str] = field(default_factory=dict)
    written: int = 0
    notes: list[str] = field(default_factory=list)

    def of(self, kind: str) -> list[LabelErrorCase]:
        """The cases of one kind, the most suspicious first."""
        return [c for c in self.cases if c.kind == kind]

    def summary(self) -> str:
        """One line."""
        found = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in self.counts.items() if n)
        return f"{found or 'nothing suspicious'}; {self.labels} labels and {self.predictions} predictions in {self.images} images"

    def text(self) -> str:
        """For a terminal."""
        lines = [self.summary()]
        for kind, n in self.counts.items():
            cases = self.of(kind)
            lines += [f"{kind}: {n} {MEANING[kind]}"] if n else []
            lines += [f"  {case}" for case in cases[:_EXAMPLES]]
        lines += [f"saved view: {name}" for name in self.views.values()]
        return "\n".join([*lines, *self._left_out(), *self.notes])

    def markdown(self) -> str:
        """For the App."""
        rows = [f"| {kind.replace('_', ' ')} | {n} | {MEANING[kind]} | {self._examples(kind)} |" for kind, n in self.counts.items()]
        table = ["| kind | cases | | most suspicious |", "|---|---|---|---|", *rows]
        rest = [*self._left_out(), *self.notes, *([f"{self.written} labels carry their kind and score"] if self.written else [])]
        return "\n".join([f"**{_cell(self.summary())}**", "", *table, *(f"\n{_cell(line)}" for line in rest)])

    def to_dict(self, cases: int | None = None) -> dict[str, Any]:
        """JSON-able. cases: at most so many of each kind; all that were kept if None."""
        plain = ("pred_field", "gt_field", "images", "labels", "predictions", "counts", "views", "written", "notes")
        left_out = {name: [str(p) for p in getattr(self, name)] for name in ("skipped", "dropped")}
        shown = {kind: [asdict(c) for c in self.of(kind)[:cases]] for kind in self.counts}
        return {**{name: getattr(self, name) for name in plain}, "cases": shown, **left_out}

    def _left_out(self) -> list[str]:
        parts = ((self.skipped, "samples could not be read"), (self.dropped, "labels or predictions could not be used"))
        return [f"{len(problems)} {what}, the first: {problems[0]}" for problems, what in parts if problems]

    def _examples(self, kind: LabelErrorKind) -> str:
        return _cell("; ".join(str(c) for c in self.of(kind)[:_EXAMPLES]))


def _cell(text: str) -> str:
    """Text from outside in a cell of a Markdown table."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
