"""A dataset.yaml as records: every image measured, every label row rasterised, everything that cannot be used reported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError
from ..types import ImageRecord, ProgressFn, SegmentationData
from .dataset_yaml import NO_DOWNLOAD, DatasetYaml, read_dataset_yaml
from .images import image_size
from .yolo_labels import LabelFile, read_label_file

SHOWN = 10
"""Problems named in one message."""


@dataclass(slots=True)
class ScanReport:
    """What a scan found. backgrounds: images without objects. duplicates: repeated rows. problems: one line each, with its place."""

    images: int = 0
    objects: int = 0
    backgrounds: int = 0
    duplicates: int = 0
    problems: list[str] = field(default_factory=list)

    def summary(self) -> str:
        parts = [f"{self.images} images", f"{self.objects} objects", f"{self.backgrounds} backgrounds"]
        if self.duplicates:
            parts.append(f"{self.duplicates} duplicate rows dropped")
        if self.problems:
            parts.append(f"{len(self.problems)} problems (first: {self.problems[0]})")
        return ", ".join(parts)


def load_dataset(
    path: Path | str, *, splits: Sequence[str] | None = None, progress: ProgressFn | None = None, strict: bool = False
) -> SegmentationData:
    """Read a YOLO-seg dataset. splits: only these, each required; all of the file if None.

    Images and rows that cannot be used are left out (`scan_dataset` tells which). Raises DataError if a split has no usable
    image, or train or val no object; with `strict` for any problem.
    """
    data, report = scan_dataset(path, splits=splits, progress=progress)
    if strict and report.problems:
        raise DataError(f"{path}: {len(report.problems)} problems:\n{_first(report.problems)}")
    return data


def scan_dataset(
    path: Path | str, *, splits: Sequence[str] | None = None, progress: ProgressFn | None = None
) -> tuple[SegmentationData, ScanReport]:
    """As `load_dataset`, with the report. Image bodies are not decoded here."""
    yaml = read_dataset_yaml(path, splits)
    report = ScanReport()
    total, done = sum(map(len, yaml.splits.values())), 0
    found: dict[str, list[ImageRecord]] = {}
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 2)) as pool:
        for split, images in yaml.splits.items():
            records: list[ImageRecord] = []
            before = len(report.problems)
            for record, labels in pool.map(lambda image: _scan(image, len(yaml.names)), images, chunksize=1):
                report.problems += labels.problems
                report.duplicates += labels.duplicates
                if record is not None:
                    records.append(record)
                done += 1
                if progress is not None and (done % 50 == 0 or done == total):
                    progress(done / total, f"{split}: {len(records)} images")
            _require(split, records, yaml, report.problems[before:])
            found[split] = records
            report.images += len(records)
            report.objects += sum(len(r.instances) for r in records)
            report.backgrounds += sum(not r.instances for r in records)
    return SegmentationData(yaml.names, found, str(yaml.path)), report


def _scan(image: Path, nc: int) -> tuple[ImageRecord | None, LabelFile]:
    try:
        height, width = image_size(image)
    except DataError as error:
        return None, LabelFile(problems=[str(error)])
    labels = read_label_file(find_label(image), height, width, nc)
    return ImageRecord(image, height, width, tuple(labels.records)), labels


def _require(split: str, records: list[ImageRecord], yaml: DatasetYaml, problems: list[str]) -> None:
    """A split must be good for something; only a test split may be without labels."""
    if not records:
        hint = f". {NO_DOWNLOAD}" if yaml.download else ""
        raise DataError(f"{yaml.path}: {split}: none of {len(yaml.splits[split])} images can be used:\n{_first(problems)}{hint}")
    if split != "test" and not any(record.instances for record in records):
        if problems:
            raise DataError(f"{yaml.path}: {split}: no label row can be used:\n{_first(problems)}")
        expected = label_path(records[0].path)
        raise DataError(f"{yaml.path}: {split}: none of {len(records)} images has an object; expected labels such as {expected}")


def _first(problems: list[str]) -> str:
    more = len(problems) - SHOWN
    return "\n".join(problems[:SHOWN]) + (f"\nand {more} more" if more > 0 else "")


def label_path(image: Path) -> Path:
    """Where the labels of an image belong: its last folder called images becomes labels; without one, beside the image."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def find_label(image: Path) -> Path:
    """The label file of an image: in the labels folder, or else beside the image. It need not exist."""
    path, beside = label_path(image), image.with_suffix(".txt")
    return beside if beside != path and not path.exists() and beside.exists() else path
