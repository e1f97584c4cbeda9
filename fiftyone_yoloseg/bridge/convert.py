"""A FiftyOne view -> a YOLO-seg folder: images, label files, dataset.yaml, and a report that proves that no shape was lost.

Every row is read back and rasterised again, so that the report's IoU is what a reader of the files gets.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..data.dataset_yaml import write_dataset_yaml
from ..data.files import write_text
from ..data.yolo_labels import format_row, read_label_file, write_label_file
from ..errors import DataError, Stopped
from ..geometry import masks
from ..types import ImageRecord, InstanceRecord, ProgressFn
from .prepare import Prepared, prepare
from .views import Maskless

Media = Literal["copy", "symlink"]
MARKER = "conversion.json"
_WORST = 10


@dataclass(slots=True)
class ConversionReport:
    """What a conversion wrote.

    images: files a split. objects: usable objects of the view; rows: rows written, one an object. with_holes, with_parts:
    objects that have a hole, or more than one part. dropped: (sample id, reason) of samples and objects that are not in the
    output. mean_iou, min_iou: every row, read back, against its mask (1 if there is no row). worst: the rows that did
    not come back exactly, as (IoU, sample id, label id).
    """

    out_dir: Path
    dataset_yaml: Path
    images: dict[str, int] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    split: str = ""
    objects: int = 0
    rows: int = 0
    with_holes: int = 0
    with_parts: int = 0
    dropped: list[tuple[str, str]] = field(default_factory=list)
    mean_iou: float = 1.0
    min_iou: float = 1.0
    worst: list[tuple[float, str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out_dir": str(self.out_dir), "dataset_yaml": str(self.dataset_yaml)}


def convert(
    view: Any,
    out_dir: str | Path,
    label_field: str = "ground_truth",
    *,
    classes: Sequence[str] | None = None,
    split: Any = "auto",
    val_fraction: float = 0.2,
    seed: int = 0,
    media: Media = "copy",
    maskless: Maskless = "error",
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ConversionReport:
    """Write a view as images/<split>/, labels/<split>/ and dataset.yaml under `out_dir`.

    classes: class list and order; the labels that occur if not given. split: see `split_view`. media: copy the images or
    link to them. The folder appears whole or not at all; one that an earlier conversion wrote is replaced.
    Crowd regions cannot be said in YOLO-seg text and are left out (see `.dropped`).
    Raises DataError for unusable input or an `out_dir` that holds anything else, Stopped if stopped.
    """
    out = Path(out_dir).expanduser().absolute()
    if media not in ("copy", "symlink"):
        raise DataError(f"media={media!r}: use 'copy' or 'symlink'")
    check_target(out)
    step = progress or (lambda share, label: None)
    prepared = prepare(
        view, label_field, split, classes=classes, val_fraction=val_fraction, seed=seed, maskless=maskless,
        progress=lambda share, label: step(0.4 * share, label),
    )  # fmt: skip
    temporary = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"out_dir='{out}': cannot be written: {error.strerror}") from None
    try:
        report = _write(prepared, temporary, out, media, lambda share, label: step(0.4 + 0.6 * share, label), should_stop)
        _replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return report


def check_target(out: Path) -> None:
    """Raises DataError unless `out` is new, empty, or an earlier conversion."""
    if out.is_dir():
        if any(out.iterdir()) and not (out / MARKER).is_file():
            raise DataError(f"out_dir='{out}' is not empty and was not written by an earlier conversion: give another folder")
    elif out.exists() or out.is_symlink():
        raise DataError(f"out_dir='{out}' is not a folder")


def _write(
    prepared: Prepared, folder: Path, out: Path, media: Media, progress: ProgressFn, should_stop: Callable[[], bool] | None
) -> ConversionReport:
    report = ConversionReport(out, out / "dataset.yaml", classes=list(prepared.names.values()), split=prepared.how)
    report.dropped = [(p.sample_id, p.reason) for p in [*prepared.skipped, *prepared.dropped]]
    total, done = sum(map(len, prepared.splits.values())), 0
    scores: list[tuple[float, str, str]] = []
    for split, records in prepared.splits.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        used: set[str] = set()
        report.images[split] = 0
        for record in records:
            if should_stop and should_stop():
                raise Stopped(f"stopped after {done} of {total} images; nothing was written")
            progress(done / total, f"writing {split}: {report.images[split]} of {len(records)} images")
            done += 1
            name = _unique(record.path, used)
            try:
                _place(record.path, images / name, media)
            except OSError as error:
                report.dropped.append((record.source_id or "", f"{record.path}: cannot be copied: {error.strerror or error}"))
                continue
            report.images[split] += 1
            report.objects += len(record.instances)
            scores += _write_labels(record, labels / f"{Path(name).stem}.txt", len(prepared.names), report)
    report.rows = len(scores)
    if scores:
        report.mean_iou = sum(s[0] for s in scores) / len(scores)
        report.min_iou = min(s[0] for s in scores)
        report.worst = [s for s in sorted(scores)[:_WORST] if s[0] < 1]
    write_dataset_yaml(folder / "dataset.yaml", prepared.names, {split: f"images/{split}" for split in prepared.splits})
    write_text(folder / MARKER, json.dumps(report.to_dict(), indent=1, ensure_ascii=False))
    progress(1.0, f"{report.rows} rows in {done} images, mean IoU {report.mean_iou:.4f}")
    return report


def _write_labels(record: ImageRecord, path: Path, nc: int, report: ConversionReport) -> list[tuple[float, str, str]]:
    """Write one label file, read it again, and return (IoU, sample id, label id) of each row."""
    height, width, sample = record.height, record.width, record.source_id or ""
    rows: dict[str, InstanceRecord] = {}
    for instance in record.instances:
        if instance.crowd:
            report.dropped.append((sample, "a crowd region: YOLO-seg text has no word for it"))
            continue
        instance = replace(instance, confidence=None)  # labels have none, whatever field they come from
        row = format_row(instance, height, width)
        if row in rows:
            report.dropped.append((sample, "the same pixels and class as another object: readers take repeated rows as one"))
            continue
        rows[row] = instance
        parts, holes = masks.count_parts(instance.mask)
        report.with_parts += parts > 1
        report.with_holes += holes > 0
    write_label_file(path, rows.values(), height, width)
    back = read_label_file(path, height, width, nc, strict=True).records
    return [(float(masks.iou([a.mask], [b.mask])[0, 0]), sample, a.source_id or "") for a, b in zip(rows.values(), back, strict=True)]


def _unique(path: Path, used: set[str]) -> str:
    """The file's name, with a number where another file of the split has the same stem - they would share a label file."""
    stem, n = path.stem, 2
    while stem.casefold() in used:
        stem, n = f"{path.stem}-{n}", n + 1
    used.add(stem.casefold())
    return stem + path.suffix


def _place(source: Path, target: Path, media: Media) -> None:
    if media == "symlink":
        target.symlink_to(source.absolute())
    else:
        shutil.copyfile(source, target)


def _replace(temporary: Path, out: Path) -> None:
    """Put the finished folder in its place; an earlier conversion is removed only when the new one stands."""
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        out.rename(old)
    try:
        temporary.rename(out)
    except OSError as error:
        if old.exists():
            old.rename(out)
        raise DataError(f"out_dir='{out}': cannot be written: {error.strerror}") from None
    shutil.rmtree(old, ignore_errors=True)
