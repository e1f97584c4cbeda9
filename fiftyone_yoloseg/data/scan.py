"""A dataset.yaml as records: every image measured, every label row rasterised, everything that cannot be used reported."""

from __future__ import annotations

import logging
import os
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..types import ImageRecord, ProgressFn, SegmentationData
from .cache import Damaged, Entry, ScanCache, entry_key
from .dataset_yaml import NO_DOWNLOAD, DatasetYaml, read_dataset_yaml
from .packed import PackedInstances
from .places import NO_PRINT, Look, find_label, label_path, look
from .reading import Facts, Readers, Reading, Task, ahead

__all__ = ["ScanReport", "find_label", "label_path", "load_dataset", "scan_dataset"]

log = logging.getLogger(__name__)

SHOWN = 10
"""Problems named in one message."""
CHUNK = 64
"""Images looked at and read in one piece."""
LOOKERS = 8
"""Threads that ask for the state of files: on a network drive they wait most of the time."""


@dataclass(slots=True)
class ScanReport:
    """What a scan found. backgrounds: images without objects. duplicates: repeated rows. problems: one line each, with its place.

    cached: images whose label rows were not parsed, because the cache knew them.
    """

    images: int = 0
    objects: int = 0
    backgrounds: int = 0
    duplicates: int = 0
    problems: list[str] = field(default_factory=list)
    cached: int = 0

    def summary(self) -> str:
        parts = [f"{self.images} images", f"{self.objects} objects", f"{self.backgrounds} backgrounds"]
        if self.cached:
            parts.append(f"{self.cached} images from the cache")
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
    path: Path | str, *, splits: Sequence[str] | None = None, progress: ProgressFn | None = None, cache: bool = True
) -> tuple[SegmentationData, ScanReport]:
    """As `load_dataset`, with the report. Image bodies are not decoded here.

    cache: take what did not change since the last scan from our own cache folder, and write there what is new (docs/cache.md).
    """
    yaml = read_dataset_yaml(path, splits)
    if not cache:
        return _Scan(yaml, None, progress).run()
    kept = ScanCache(yaml.path, len(yaml.names))
    try:
        return _Scan(yaml, kept, progress).run()
    except Damaged as error:
        kept.forget(error)
        return _Scan(yaml, kept, progress).run()


@dataclass(slots=True)
class _Piece:
    """A chunk of images on its way: looked at, looked up, being read. The entries are those that are known to hold still."""

    looks: list[Look]
    keys: list[int]
    entries: dict[int, Entry]
    unread: list[int]
    reading: Future[list[Reading]] | None

    def result(self) -> tuple[_Piece, list[Reading]]:
        try:
            return self, self.reading.result() if self.reading is not None else []
        except BrokenProcessPool:
            first, last = self.looks[self.unread[0]].image, self.looks[self.unread[-1]].image
            raise DataError(
                f"{first}: a process that read the files from here to {last.name} was killed: memory ran out, or one of them makes"
                " a decoder crash. Free memory, or take these files away by halves to find it"
            ) from None


class _Scan:
    """One scan of a dataset.yaml, with a cache or without."""

    def __init__(self, yaml: DatasetYaml, cache: ScanCache | None, progress: ProgressFn | None) -> None:
        self.yaml, self.cache, self.progress = yaml, cache, progress
        self.report = ScanReport()
        self.total, self.done, self.begun = sum(map(len, yaml.splits.values())), 0, 0
        root = os.fspath(yaml.root)
        self.root = "" if root == os.curdir else root.rstrip(os.sep) + os.sep
        self.inodes: dict[str, npt.NDArray[np.uint64]] = {}
        self.listed: dict[Path, str] | None = None

    def run(self) -> tuple[SegmentationData, ScanReport]:
        found: dict[str, list[ImageRecord]] = {}
        complete = False
        try:
            with ThreadPoolExecutor(LOOKERS) as lookers, Readers(len(self.yaml.names)) as readers:
                for split in self.yaml.splits:
                    found[split] = self._split(split, lookers, readers)
            complete = True
        finally:
            if self.cache is not None:
                self.cache.finish(self.yaml.splits, complete=complete)
        self.report.problems += self._shared_images()
        return SegmentationData(self.yaml.names, found, str(self.yaml.path)), self.report

    def _split(self, split: str, lookers: ThreadPoolExecutor, readers: Readers) -> list[ImageRecord]:
        images, report = self.yaml.splits[split], self.report
        records: list[ImageRecord] = []
        before = len(report.problems)
        inodes = array("Q"), array("Q")
        chunks = (images[at : at + CHUNK] for at in range(0, len(images), CHUNK))
        looked = ahead(
            lambda chunk: lookers.submit(lambda: [look(image, self.yaml.labels.get(image)) for image in chunk]), chunks, 2 * LOOKERS
        )
        for piece, readings in ahead(lambda looks: self._begin(split, looks, readers), looked, 32):
            for one in piece.looks:
                inodes[0].append(one.inodes[0])
                inodes[1].append(one.inodes[1])
            records += self._records(split, piece, readings)
            self.done += len(piece.looks)
            if self.progress is not None:
                self.progress(self.done / self.total, f"{split}: {len(records)} images")
        report.problems += self._shared_labels(images, np.frombuffer(inodes[1], np.uint64))
        self.inodes[split] = np.frombuffer(inodes[0], np.uint64)
        _require(split, records, self.yaml, report.problems[before:])
        report.images += len(records)
        report.objects += sum(len(r.instances) for r in records)
        report.backgrounds += sum(not r.instances for r in records)
        return records

    def _begin(self, split: str, looks: list[Look], readers: Readers) -> _Piece:
        keys: list[int] = []
        entries: dict[int, Entry] = {}
        if self.cache is not None:
            keys = [entry_key(split, os.fspath(one.image).removeprefix(self.root)) for one in looks]
            entries = self.cache.lookup(keys)
        tasks, unread = [], []
        for i, one in enumerate(looks):
            entry = entries.get(keys[i]) if keys else None
            if one.problem is None and (entry is None or (entry.image_print, entry.label_print) != (one.image_print, one.label_print)):
                unread.append(i)
                tasks.append(Task(os.fspath(one.image), one.label, entry and Facts(entry.height, entry.width, entry.digest)))
        before, self.begun = self.begun, self.begun + len(looks)
        return _Piece(looks, keys, entries, unread, readers.submit(tasks, before, self.total - self.begun) if tasks else None)

    def _records(self, split: str, piece: _Piece, readings: list[Reading]) -> Iterator[ImageRecord]:
        report, read = self.report, dict(zip(piece.unread, readings, strict=True))
        for i, one in enumerate(piece.looks):
            if one.problem is not None:
                self.listed = self.yaml.places() if self.listed is None else self.listed
                place = self.listed.get(one.image)
                report.problems.append(f"{place}: {one.problem}; correct or remove this line" if place else one.problem)
                continue
            entry = piece.entries.get(piece.keys[i]) if piece.keys else None
            if (reading := read.get(i)) is not None:
                if reading.facts is None:
                    report.problems += reading.problems
                    continue
                same = entry if reading.instances is None else None
                entry = _entry(one, reading.facts, reading, same)
                if self.cache is not None:
                    self.cache.put(split, piece.keys[i], entry)
                report.cached += same is not None
            else:
                report.cached += 1
            assert entry is not None
            report.problems += [f"{one.label}{text}" for text in entry.problems]
            report.duplicates += entry.duplicates
            yield ImageRecord(one.image, entry.height, entry.width, PackedInstances(entry.objects, entry.instances))

    def _shared_labels(self, images: Sequence[Path], inodes: npt.NDArray[np.uint64]) -> Iterator[str]:
        """One problem for each further image with the label file of another: a.jpg and a.png, or one line twice in a list of labels."""
        order = np.argsort(inodes, kind="stable")
        inodes, listed = inodes[order], self.yaml.labels
        for at in np.flatnonzero((inodes[1:] == inodes[:-1]) & (inodes[1:] != 0)).tolist():
            first, second = images[order[at]], images[order[at + 1]]
            label, other = (listed.get(image) or find_label(image) for image in (first, second))
            if os.fspath(label).casefold() == os.fspath(other).casefold():  # else one is a link to the other, which somebody made
                remedy = "correct the list of label files" if first in listed else "rename one of them, and give it its own labels"
                yield f"{label}: is the label file of {first.name} and of {second.name}: {remedy}"

    def _shared_images(self) -> Iterator[str]:
        """One problem for each pair of splits with an image in common: the same file, by whatever path."""
        splits = list(self.inodes)
        for i, a in enumerate(splits):
            for b in splits[i + 1 :]:
                common, at, _ = np.intersect1d(self.inodes[a], self.inodes[b], return_indices=True)
                if same := [self.yaml.splits[a][k] for k in sorted(at[common != 0].tolist())]:
                    yield (
                        f"{self.yaml.path}: {a} and {b} have {len(same)} images in common, such as {same[0]}:"
                        f" what is measured on {b} says little; list each image in one split"
                    )


def _entry(one: Look, facts: Facts, reading: Reading, same: Entry | None) -> Entry:
    """What to keep of an image that was read; `same` as what is known of it."""
    image, label = (p if settled else NO_PRINT for p, settled in zip((one.image_print, one.label_print), one.settled, strict=True))
    if same is not None:
        return same._replace(image_print=image, label_print=label)
    packed = reading.instances
    assert packed is not None
    problems = [text.removeprefix(one.label or "") for text in reading.problems]
    return Entry(image, label, facts.digest, facts.height, facts.width, reading.duplicates, packed.number, packed.data, problems)


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
