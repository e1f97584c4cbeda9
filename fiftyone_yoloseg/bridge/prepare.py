"""A view, split and read: what training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..types import ImageRecord, Names, ProgressFn, SegmentationData
from .objects import Maskless, Problem
from .plan import make_plan
from .read import check_left, read_plan
from .splits import SplitOptions


@dataclass(frozen=True, slots=True)
class Prepared:
    """names, records a split, how the view was split, and what had to be left out."""

    names: Names
    splits: dict[str, list[ImageRecord]]
    how: str
    skipped: list[Problem]
    dropped: list[Problem]
    origin: str

    @property
    def data(self) -> SegmentationData:
        return SegmentationData(self.names, self.splits, self.origin)

    @property
    def notes(self) -> list[str]:
        """What a user should know about this data, one line each."""
        lines = [f"split by {self.how}: " + ", ".join(f"{len(records)} {name}" for name, records in self.splits.items())]
        for problems, what in ((self.skipped, "samples were skipped"), (self.dropped, "objects were left out")):
            if problems:
                lines.append(f"{len(problems)} {what}, the first: {problems[0]}")
        return lines


def prepare(
    view: Any,
    label_field: str,
    split: Any = "auto",
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    maskless: Maskless = "error",
    progress: ProgressFn | None = None,
) -> Prepared:
    """Split a view for training (see `SplitOptions`) and read its labels, with one class list for all splits. Raises DataError."""
    plan = make_plan(view, label_field, SplitOptions(split, seed=seed), classes=classes, maskless=maskless, needed=("train", "val"))
    read = read_plan(plan, maskless, progress)
    check_left(read, label_field)
    return Prepared(
        plan.names, read.splits, plan.how, read.skipped, read.dropped, f"FiftyOne dataset '{view._dataset.name}', field '{label_field}'"
    )
