"""Labels of FiftyOne samples -> objects and records, each object that cannot be used named with its reason. Samples are never changed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, UserError
from ..types import ImageRecord, Instances, Names, ProgressFn
from .objects import Maskless, Problem, Reader, ReadObject, Size, file_size
from .plan import Plan, make_plan
from .raw import RawPair, raw_pairs
from .splits import SplitOptions

_CHUNK = 64
_SLOW = 0.002
"""Seconds for the header of one file."""


def read_sizes(files: Iterable[str]) -> Iterator[Size | UserError]:
    """(height, width) of each file from its header, or the error of a file that is missing or no image. Of a slow disk, from the first file on that
    takes its time, several are read at once; a fast one answers sooner than threads start."""
    waiting = iter(files)
    for file in waiting:
        begun = time.perf_counter()
        size = file_size(file)
        slow = time.perf_counter() - begun > _SLOW
        yield size
        if slow:
            break
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(file_size, waiting)


def sized_pairs(view: Any, truth: Sequence[str], found: Sequence[str], *, empty: bool = True) -> Iterator[tuple[RawPair, Size | UserError]]:
    """As `raw_pairs`, each with the size of its image: from the metadata where samples have it, so that the images need not be here, else from
    the files. empty: whether that of samples without labels is wanted; else it is (1, 1), and their files need not be there."""
    stream = raw_pairs(view, truth, found)
    while chunk := list(islice(stream, _CHUNK)):
        unknown = {pair.id: pair.path for pair in chunk if pair.size is None and (empty or pair.truth or pair.found)}
        sizes = dict(zip(unknown, read_sizes(unknown.values()), strict=True))
        for pair in chunk:
            yield pair, pair.size or sizes.get(pair.id, (1, 1))


def as_instances(objects: Sequence[ReadObject], size: Size) -> Instances:
    """Labels with a confidence, as the predictions that they are, in the same order."""
    records = [o.record() for o in objects]
    return Instances(
        *size,
        np.array([r.box for r in records], np.float32).reshape(-1, 4),
        np.array([r.confidence for r in records], np.float32),
        np.array([r.cls for r in records], np.int64),
        [r.mask for r in records],
    )


@dataclass(slots=True)
class ViewRecords:
    """What was read. skipped: whole samples; dropped: single objects of samples that are used."""

    names: Names
    splits: dict[str, list[ImageRecord]] = field(default_factory=dict)
    skipped: list[Problem] = field(default_factory=list)
    dropped: list[Problem] = field(default_factory=list)

    @property
    def records(self) -> list[ImageRecord]:
        return [record for records in self.splits.values() for record in records]

    @property
    def objects(self) -> int:
        return sum(len(r.instances) for r in self.records)


def read_plan(plan: Plan, maskless: Maskless, progress: ProgressFn | None = None) -> ViewRecords:
    """All records of a planned view. Samples without objects become records without instances."""
    out, reader = ViewRecords(plan.names, {name: [] for name in plan.counts}), Reader(plan.index, maskless)
    stream, done = plan.raw(), 0
    while chunk := list(islice(stream, _CHUNK)):
        if progress:
            progress(done / plan.samples, f"reading labels: {done} of {plan.samples} samples")
        done += len(chunk)
        for (split, sample), size in zip(chunk, read_sizes([sample.path for _, sample in chunk]), strict=True):
            if isinstance(size, UserError):
                out.skipped.append(Problem(sample.id, sample.path, str(size)))
                continue
            objects, dropped = reader.read(sample, size)
            out.splits[split].append(ImageRecord(Path(sample.path), *size, tuple(o.record() for o in objects), sample.id))
            out.dropped += dropped
    return out


def view_records(
    view: Any,
    label_field: str,
    classes: Sequence[str] | None = None,
    *,
    maskless: Maskless = "error",
    need_objects: bool = True,
    progress: ProgressFn | None = None,
) -> ViewRecords:
    """Read the objects of a view into records.

    classes: class list and order; the labels that occur if not given. Samples whose file is missing or no image are listed in
    `.skipped`, objects that have no pixels or another class in `.dropped`. Raises DataError if the field cannot be used, if labels
    without masks are found (maskless="error"), or if no sample - with `need_objects` no object - is left.
    """
    plan = make_plan(view, label_field, SplitOptions({"val": view}), classes=classes, maskless=maskless)
    out = read_plan(plan, maskless, progress)
    check_left(out, label_field, need_objects)
    return out


def check_left(out: ViewRecords, label_field: str, need_objects: bool = True) -> None:
    """Raises DataError if nothing that was read can be used."""
    if not out.records:
        raise DataError(f"no sample of this view can be read, the first: {out.skipped[0]}")
    if need_objects and not out.objects:
        first = f", the first: {out.dropped[0]}" if out.dropped else ""
        raise DataError(f"field '{label_field}': no object can be used; {len(out.dropped)} were left out{first}")
