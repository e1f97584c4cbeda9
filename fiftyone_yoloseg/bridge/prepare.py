"""A view, split and read: what training and conversion both start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from ..types import ImageRecord, Names, ProgressFn, SegmentationData
from .splits import split_view
from .views import Maskless, Problem, check_view, class_names, view_records


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
    val_fraction: float = 0.2,
    seed: int = 0,
    maskless: Maskless = "error",
    progress: ProgressFn | None = None,
) -> Prepared:
    """Split a view (see `split_view`) and read its labels, with one class list for all splits. Raises DataError."""
    check_view(view)
    splits = split_view(view, split, val_fraction=val_fraction, seed=seed)
    names = class_names(splits.views.values(), label_field, classes)
    if not names:
        raise DataError(f"field '{label_field}' has no labelled object in this view of '{view._dataset.name}'")
    skipped: list[Problem] = []
    dropped: list[Problem] = []
    records: dict[str, list[ImageRecord]] = {}
    for i, (name, part) in enumerate(splits.views.items()):

        def part_progress(share: float, label: str, i: int = i) -> None:
            if progress:
                progress((i + share) / len(splits.views), label)

        read = view_records(
            part, label_field, list(names.values()), maskless=maskless, need_objects=name == "train", progress=part_progress
        )
        records[name] = read.records
        skipped += read.skipped
        dropped += read.dropped
    return Prepared(names, records, splits.how, skipped, dropped, f"FiftyOne dataset '{view._dataset.name}', field '{label_field}'")
