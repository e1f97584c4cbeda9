"""The pre-flight check of a view: what a training on it would stumble over, as a report and as saved views."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import fiftyone as fo
import psutil

from ..config import CheckSettings, parse
from ..data.audit import Entry, LabelProblem, Surroundings, audit
from ..data.audit_files import FileFacts, look_at
from ..data.audit_report import CheckReport, Finding
from ..errors import DataError
from ..types import ImageRecord, ProgressFn
from .objects import Problem, RawSample, Reader
from .plan import Plan, make_plan
from .splits import SplitOptions

PREFIX = "yoloseg check: "
"""Saved views whose name begins so belong to the check, which replaces them."""
_CHUNK = 256
_OBJECTS = frozenset(
    {
        "bad_labels", "labels_without_mask", "labels_without_class", "empty_masks", "duplicate_objects", "collisions_after_remap",
        "tiny_objects", "huge_objects", "masks_away_from_boxes", "crowds", "objects_with_holes", "objects_in_parts",
    }
)  # fmt: skip
"""Findings whose cases are labels."""


def check(
    view: Any,
    label_field: str = "ground_truth",
    *,
    split: Any = "auto",
    val_fraction: float = 0.2,
    seed: int = 0,
    imgsz: int = 640,
    remap: Mapping[str, str] | None = None,
    save_views: bool = False,
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> CheckReport:
    """Look at every image file and every object of a view, and report what is wrong before a training finds out.

    split: see `split_view`; a split that cannot be made is a finding. imgsz: the training size, which decides which objects are
    tiny. remap: old class name -> new one, to see what a merge would do. save_views: save a view of the cases of each finding
    on the dataset, named "yoloseg check: ...", in place of those of an earlier check. Samples and labels are never changed.
    Raises DataError if there is nothing to check (no such field, an empty view), Stopped if stopped; then no view is saved.
    """
    wanted = parse(CheckSettings, {"imgsz": imgsz, "remap": dict(remap or {})})
    plan, problem = _plan(view, label_field, SplitOptions(split, val_fraction, seed=seed))
    around = Surroundings("" if problem else plan.how, problem, psutil.virtual_memory().available, _free_disk())
    report = audit(
        _entries(plan, split=not problem), plan.names, len(view),
        imgsz=wanted.imgsz, remap=wanted.remap, around=around, progress=progress, should_stop=should_stop,
    )  # fmt: skip
    if save_views:
        report.views = _save_views(view, label_field, report.findings)
    return report


def _plan(view: Any, label_field: str, options: SplitOptions) -> tuple[Plan, str]:
    """The samples and classes, and why the split cannot be made."""
    whole = make_plan(view, label_field, SplitOptions({"train": view}), maskless="skip")
    try:
        return make_plan(view, label_field, options, maskless="skip", needed=("train", "val")), ""
    except DataError as error:
        return whole, str(error)


def _free_disk() -> int:
    """Bytes free where conversions go by default."""
    folder = Path(fo.config.default_dataset_dir).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _entries(plan: Plan, *, split: bool) -> Iterator[Entry]:
    """The stream that `audit` checks. The files of the next chunk are read while the labels of this one are."""
    reader, stream = Reader(plan.index, "skip"), plan.everything()
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 2)) as pool:

        def more() -> list[tuple[str | None, RawSample, Future[FileFacts]]]:
            return [(name, sample, pool.submit(look_at, sample.path)) for name, sample in islice(stream, _CHUNK)]

        ahead = more()
        while chunk := ahead:
            ahead = more()
            for name, sample, looked in chunk:
                file, record, problems = looked.result(), None, list[Problem]()
                if file.size is not None:
                    objects, problems = reader.read(sample, file.size)
                    record = ImageRecord(Path(sample.path), *file.size, tuple(o.record() for o in objects), sample.id)
                labels = [LabelProblem(p.kind, p.label_id, p.reason) for p in problems]
                yield Entry(sample.path, file, record, name if split else None, sample.id, labels)


def _save_views(view: Any, label_field: str, findings: Sequence[Finding]) -> dict[str, str]:
    """Replace the saved views of an earlier check. Returns kind of finding -> name."""
    dataset = view._dataset
    for name in dataset.list_saved_views():
        if name.startswith(PREFIX):
            dataset.delete_saved_view(name)
    saved = {}
    for finding in findings:
        samples = list(dict.fromkeys(c.sample_id for c in finding.cases if c.sample_id))
        labels = [c.label for c in finding.cases if c.label]
        if not samples:
            continue
        part = view.select_labels(ids=labels, fields=label_field) if finding.kind in _OBJECTS and labels else view.select(samples)
        more = f" (the first {len(finding.cases)})" if finding.count > len(finding.cases) else ""
        saved[finding.kind] = PREFIX + finding.title
        dataset.save_view(saved[finding.kind], part, description=f"{finding.message}{more}")
    return saved
