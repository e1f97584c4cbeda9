"""The pre-flight check of a view: what a training on it would stumble over, as a report and as saved views."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fiftyone as fo
import psutil

from ..config import CheckSettings, parse
from ..data.audit import Entry, LabelProblem, Surroundings, audit
from ..data.audit_files import look_at
from ..data.audit_report import CheckReport, Finding
from ..errors import DataError
from ..types import ImageRecord, ProgressFn
from .splits import split_view
from .views import Problem, check_view, class_names, view_records

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
    check_view(view)
    names = class_names([view], label_field)
    if not names:
        raise DataError(f"field '{label_field}' has no labelled object in this view of '{view._dataset.name}'")
    split_of, how, problem = _splits(view, split, val_fraction, seed)
    around = Surroundings(how, problem, psutil.virtual_memory().available, _free_disk())
    entries = _entries(view, label_field, list(names.values()), split_of)
    report = audit(
        entries, names, len(view), imgsz=wanted.imgsz, remap=wanted.remap, around=around, progress=progress, should_stop=should_stop
    )
    if save_views:
        report.views = _save_views(view, label_field, report.findings)
    return report


def _splits(view: Any, rule: Any, val_fraction: float, seed: int) -> tuple[dict[str, str], str, str]:
    """Sample id -> split, how they were chosen, and why they could not be."""
    try:
        splits = split_view(view, rule, val_fraction=val_fraction, seed=seed)
    except DataError as error:
        return {}, "", str(error)
    return {sample_id: name for name, part in splits.views.items() for sample_id in part.values("id")}, splits.how, ""


def _free_disk() -> int:
    """Bytes free where conversions go by default."""
    folder = Path(fo.config.default_dataset_dir).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _entries(view: Any, label_field: str, classes: Sequence[str], split_of: Mapping[str, str]) -> Iterator[Entry]:
    """The stream that `audit` checks. The files of the next chunk are read while the labels of this one are."""
    ids, paths = view.values(["id", "filepath"])
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 2)) as pool:
        ahead = [pool.submit(look_at, path) for path in paths[:_CHUNK]]
        for start in range(0, len(ids), _CHUNK):
            files = [future.result() for future in ahead]
            ahead = [pool.submit(look_at, path) for path in paths[start + _CHUNK : start + 2 * _CHUNK]]
            chunk = ids[start : start + _CHUNK]
            usable = [sample_id for sample_id, file in zip(chunk, files, strict=True) if file.size is not None]
            found = {sample_id: (record, problems) for sample_id, record, problems in _records(view, label_field, classes, usable)}
            for sample_id, path, file in zip(chunk, paths[start:], files, strict=False):
                record, problems = found.get(sample_id, (None, []))
                labels = [LabelProblem(_kind(p.reason), p.label_id, p.reason) for p in problems]
                yield Entry(path, file, record, split_of.get(sample_id), sample_id, labels)


def _records(
    view: Any, label_field: str, classes: Sequence[str], ids: Sequence[str]
) -> Iterator[tuple[str, ImageRecord | None, list[Problem]]]:
    """(sample id, record, labels that are not in it) of some samples of a view, whose files can be read."""
    if not ids:
        return
    read = view_records(view.select(ids, ordered=True), label_field, classes, maskless="skip", need_objects=False)
    problems: dict[str, list[Problem]] = {sample_id: [] for sample_id in ids}
    for problem in read.dropped:
        problems[problem.sample_id].append(problem)
    for record in read.records:
        yield record.source_id or "", record, problems[record.source_id or ""]


def _kind(reason: str) -> str:
    """The kind of finding that a `Problem` of `views` is."""
    if reason.endswith(("has no mask", "is a polyline that is not filled")):
        return "labels_without_mask"
    if reason.endswith("has no pixel inside the image"):
        return "empty_masks"
    return "labels_without_class" if reason == "an object has no class name" else "bad_labels"


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
