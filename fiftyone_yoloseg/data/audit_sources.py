"""Datasets on the disk - a dataset.yaml or a COCO folder - as the stream that `audit` checks."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DataError
from ..types import ImageRecord, ProgressFn
from .audit import Entry, LabelProblem, Surroundings, audit
from .audit_files import look_at
from .audit_report import CheckReport
from .coco import load_coco
from .dataset_yaml import read_dataset_yaml
from .load import yaml_in
from .scan import find_label
from .yolo_labels import read_label_file

CHUNK = 256
"""Images that are read ahead of the check."""
A = TypeVar("A")
B = TypeVar("B")


def check_data(
    path: Path,
    *,
    imgsz: int = 640,
    remap: Mapping[str, str] | None = None,
    free_memory: int | None = None,
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> CheckReport:
    """Check a dataset.yaml, or a folder that holds one or COCO annotations. free_memory: bytes; None to leave that out.

    Raises DataError where nothing can be checked: no such file, no plain YAML or JSON, folders that are not there; Stopped if stopped.
    """
    path = path.expanduser()
    yaml = yaml_in(path) if path.is_dir() else path
    names, entries, sizes = _from_coco(path) if yaml is None else _from_yaml(yaml)
    lacking = [split for split in ("train", "val") if not sizes.get(split)]
    problem = f"no {' and no '.join(lacking)} split; there are {', '.join(sizes)}" if lacking else ""
    around = Surroundings(f"the files of {yaml or path}", problem, free_memory)
    return audit(entries, names, sum(sizes.values()), imgsz=imgsz, remap=remap, around=around, progress=progress, should_stop=should_stop)


def in_threads(work: Callable[[A], B], items: Sequence[A]) -> Iterator[B]:
    """Results in order, a chunk at a time, so that they do not pile up."""
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 2)) as pool:
        for start in range(0, len(items), CHUNK):
            yield from pool.map(work, items[start : start + CHUNK])


Source = tuple[dict[int, str], Iterator[Entry], dict[str, int]]
"""Class names, the stream, images a split."""


def _from_yaml(path: Path) -> Source:
    yaml = read_dataset_yaml(path)

    def read(split: str) -> Callable[[Path], Entry]:
        return lambda image: _entry(image, yaml.labels.get(image) or find_label(image), split, len(yaml.names))

    stream = chain.from_iterable(in_threads(read(split), images) for split, images in yaml.splits.items())
    return yaml.names, stream, {split: len(images) for split, images in yaml.splits.items()}


def _entry(image: Path, path: Path, split: str, nc: int) -> Entry:
    file = look_at(str(image))
    if file.size is None:
        return Entry(str(image), file, None, split)
    labels = read_label_file(path, *file.size, nc)
    problems = []
    for problem in labels.problems:
        line, _, reason = problem.removeprefix(str(path)).partition(": ")
        problems.append(LabelProblem("bad_labels", path.name + line, reason))
    if labels.duplicates:
        problems.append(LabelProblem("duplicate_objects", path.name, "repeated rows, read as one", labels.duplicates))
    return Entry(str(image), file, ImageRecord(image, *file.size, tuple(labels.records)), split, problems=problems)


def _from_coco(folder: Path) -> Source:
    problems: dict[tuple[str, Path], list[LabelProblem]] = defaultdict(list)

    def refused(split: str, image: Path, annotation: dict[str, Any] | None, error: DataError) -> None:
        if annotation is None:
            problems[split, image].append(LabelProblem("bad_labels", None, str(error).removeprefix(f"{image}: ")))
        else:
            kind = "bad_labels" if annotation.get("segmentation") else "labels_without_mask"
            problems[split, image].append(LabelProblem(kind, str(annotation.get("id")), str(error).partition(": annotation ")[2]))

    data = load_coco(folder, missing="skip", on_problem=refused)
    images: list[tuple[str, Path, ImageRecord | None]] = [(s, r.path, r) for s, records in data.splits.items() for r in records]
    used = {(split, path) for split, path, _ in images}
    images += [(split, path, None) for split, path in problems if (split, path) not in used]

    def entry(item: tuple[str, Path, ImageRecord | None]) -> Entry:
        split, path, record = item
        file = look_at(str(path))
        return Entry(str(path), file, record, split, problems=() if file.size is None else problems.get((split, path), ()))

    sizes: dict[str, int] = defaultdict(int)
    for split, _, _ in images:
        sizes[split] += 1
    return data.names, in_threads(entry, images), dict(sizes)
