"""A YOLO-seg folder -> a FiftyOne dataset: exact masks or polylines, every row that cannot be read named with file and line."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import fiftyone as fo

from ..config import ImportSettings, parse
from ..console import show_log
from ..data.images import image_size
from ..data.scan import find_label
from ..data.yolo_labels import read_label_file
from ..errors import DataError, Stopped, UserError
from ..types import ImageRecord, ProgressFn
from . import runs
from .database import ensure_database
from .import_source import Item, Plan, Source, make_plan, open_source
from .import_target import LABEL_TYPES, check_field, free_name, new_dataset, open_target
from .labels import record_to_detections, record_to_polylines

log = logging.getLogger(__name__)
INFO = "yoloseg_imports"
"""Key of `dataset.info`: what was imported into each label field, and the first problems."""
SHOWN = 20
"""Problems that are printed."""
_KEPT, _REMEMBERED = 1000, 100
_CHUNK = 32


@dataclass(slots=True)
class ImportReport:
    """What an import did.

    images: usable images of each split; {} for a bare folder of label files. shared: images that several splits list - one
    sample with the tags of all. objects: labels written. backgrounds: images without objects. duplicates: repeated rows left
    out. added, matched: samples that are new, and samples of the dataset that got labels. problems: one line for each row or file
    that was left out, with its place, the first 1,000 of `problem_count`. unmatched: label files that belong to no sample.
    """

    source: Path
    dataset: str
    created: bool
    label_field: str
    form: str
    images: dict[str, int] = field(default_factory=dict)
    shared: int = 0
    objects: int = 0
    backgrounds: int = 0
    duplicates: int = 0
    added: int = 0
    matched: int = 0
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0
    unmatched: list[Path] = field(default_factory=list)

    def note_problems(self, problems: Sequence[str]) -> None:
        self.problem_count += len(problems)
        self.problems += problems[: _KEPT - len(self.problems)]

    def summary(self) -> str:
        """One line."""
        splits = ", ".join(f"{n} {split}" for split, n in self.images.items())
        parts = [
            f"{self.objects} objects as {self.form} in {self.added + self.matched} images" + (f" ({splits})" if splits else ""),
            f"{'new ' if self.created else ''}dataset '{self.dataset}', field '{self.label_field}'",
            f"{self.added} samples added" + (f", {self.matched} matched" if self.matched else ""),
        ]
        counts = {
            "images without objects": self.backgrounds,
            "images in more than one split": self.shared,
            "repeated rows left out": self.duplicates,
            "problems": self.problem_count,
            "label files without a sample": len(self.unmatched),
        }
        return "; ".join([*parts, *(f"{n} {what}" for what, n in counts.items() if n)])

    def details(self) -> list[str]:
        """The problems and the label files without a sample, one line each, so many as a person reads."""
        return _first("left out: ", self.problems, self.problem_count) + _first("no sample for: ", self.unmatched, len(self.unmatched))

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "source": str(self.source), "unmatched": [str(p) for p in self.unmatched]}


def _first(what: str, lines: Sequence[object], total: int) -> list[str]:
    rest = total - min(len(lines), SHOWN)
    return [f"{what}{line}" for line in lines[:SHOWN]] + ([f"... and {rest} more"] if rest else [])


def import_labels(
    source: str | Path,
    dataset: Any = None,
    *,
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> Any:
    """Read YOLO-seg labels into FiftyOne and return the dataset; what was read and what was left out is logged.

    See `import_report` for arguments and errors.
    """
    show_log()
    report = import_report(source, dataset, progress=progress, should_stop=should_stop, **settings)
    log.info("%s", report.summary())
    for line in report.details():
        log.warning("%s", line)
    return fo.load_dataset(report.dataset)


def import_report(
    source: str | Path,
    dataset: Any = None,
    *,
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> ImportReport:
    """Read YOLO-seg labels into a FiftyOne dataset, as Detections with exact masks or as Polylines whose shapes are parts and holes.

    source: a dataset.yaml or its folder; or a bare folder of label files, which are matched by the image's stem to samples of
    `dataset`. dataset: an existing one (itself or its name), whose samples are matched by file path while other images are
    added; a name that does not exist yet; or None, a new one called as the folder. settings: see `ImportSettings`.
    New samples are tagged with their splits and have their size as metadata; of a matched sample only the label field changes.

    A new dataset appears whole or not at all. Raises UserError for unusable input and for labels that would be lost, before
    anything is written; with bad_rows="error" all is read before that too, and refused if any row or file cannot be used.
    Raises Stopped if stopped, saying what an existing dataset has got by then.
    """
    wanted = parse(ImportSettings, settings)
    found = open_source(source, wanted.classes, wanted.splits)
    ensure_database()
    target = open_target(dataset)
    if not found.images and target is None:
        raise DataError(f"{found.path}: is a folder of label files without a dataset.yaml: give dataset=, the one that has their images")
    plan = make_plan(found, target)
    check_field(target, wanted, plan)
    name = target.name if target is not None else dataset or free_name(found.folder)
    job = _Import(found, plan, wanted, ImportReport(found.path, name, target is None, wanted.label_field, wanted.form), should_stop)
    step = progress or (lambda share, label: None)
    checked = 0.0
    if wanted.bad_rows == "error":
        checked = 0.5
        job.check(lambda share, label: step(checked * share, label))

    def write_step(share: float, label: str) -> None:
        step(checked + (1 - checked) * share, label)

    if target is not None:
        job.write_into(target, write_step)
    else:
        with new_dataset(name, found.names) as created:
            job.write(created, write_step)
    step(1.0, job.report.summary())
    return job.report


@dataclass(frozen=True, slots=True)
class _Read:
    """One image and its labels. record: None where the image cannot be read. labelled: whether its labels could be read."""

    record: ImageRecord | None = None
    labelled: bool = False
    duplicates: int = 0
    problems: Sequence[str] = ()


@dataclass(slots=True)
class _Import:
    source: Source
    plan: Plan
    settings: ImportSettings
    report: ImportReport
    should_stop: Callable[[], bool] | None

    def check(self, progress: ProgressFn) -> None:
        """Read everything once without writing. Raises DataError with the problems."""
        problems, done, total = list(self.plan.problems), 0, len(self.plan.items)
        for reads in self._read():
            self._stop(f"stopped while checking, after {done} of {total} images; nothing was written")
            progress(done / total, f"checking: {done} of {total} images, {len(problems)} problems")
            problems += [p for read in reads for p in read.problems]
            done += len(reads)
        if problems:
            raise DataError(self._refusal(problems, len(problems), "nothing was written"))

    def _refusal(self, problems: Sequence[str], total: int, rest: str) -> str:
        return "\n".join([f"{self.source.path}: {total} rows or files cannot be used, and {rest}:", *_first("", problems, total)])

    def write_into(self, dataset: Any, progress: ProgressFn) -> None:
        """Write to an existing dataset. If this ends early, what was written stays, and the error or the log says what that is."""
        try:
            self.write(dataset, progress)
        except BaseException as error:
            if not isinstance(error, UserError):
                log.error("the import ended early: %s", self._written())
            raise

    def _written(self) -> str:
        report = self.report
        if report.created:
            return "the new dataset was removed"
        return f"'{report.dataset}' has got {report.added} new samples, and labels in '{report.label_field}' of {report.matched} others"

    def write(self, dataset: Any, progress: ProgressFn) -> None:
        """Read and write chunk by chunk. Raises DataError if no image can be used, before it has changed anything."""
        report, items, done = self.report, self.plan.items, 0
        report.unmatched = self.plan.unmatched
        report.note_problems(self.plan.problems)
        report.images = dict.fromkeys(self.source.images, 0)
        for reads in self._read():
            self._stop(f"stopped after {done} of {len(items)} images; {self._written()}")
            progress(done / len(items), f"{done} of {len(items)} images, {report.objects} objects")
            self._write_chunk(dataset, items[done : done + len(reads)], reads)
            done += len(reads)
        if not report.added + report.matched:
            raise DataError(self._refusal(report.problems, report.problem_count, "no image is left"))
        self._remember(dataset)

    def _write_chunk(self, dataset: Any, items: Sequence[Item], reads: Sequence[_Read]) -> None:
        report = self.report
        make = record_to_detections if report.form == "masks" else record_to_polylines
        new: list[fo.Sample] = []
        labels: dict[str, Any] = {}
        for item, read in zip(items, reads, strict=True):
            report.note_problems(read.problems)
            record = read.record
            if record is None or (item.sample is not None and not read.labelled):
                continue  # an unreadable file says nothing about the labels that a sample may have
            # not in the threads that read: FiftyOne's label objects are slow Python, and would only compete with the writing
            label = make(record, self.source.names) if read.labelled else None
            if item.sample is None:
                metadata = fo.ImageMetadata(width=record.width, height=record.height)
                sample = fo.Sample(filepath=str(item.image), tags=list(item.splits), metadata=metadata)
                sample[report.label_field] = label
                new.append(sample)
            else:
                labels[item.sample] = label
            for split in item.splits:
                report.images[split] += 1
            report.shared += len(item.splits) > 1
            report.objects += len(record.instances)
            report.backgrounds += read.labelled and not record.instances
            report.duplicates += read.duplicates
        if self.settings.bad_rows == "error" and report.problem_count:  # a file has changed since the check
            raise DataError(self._refusal(report.problems, report.problem_count, self._written()))
        if (new or labels) and dataset.get_field(report.label_field) is None:
            dataset.add_sample_field(report.label_field, fo.EmbeddedDocumentField, embedded_doc_type=LABEL_TYPES[report.form][0])
        if new:
            dataset.add_samples(new, progress=False)
            report.added += len(new)
        if labels:
            dataset.set_values(report.label_field, labels, key_field="id")
            report.matched += len(labels)

    def _remember(self, dataset: Any) -> None:
        """Class names of the field, the report in `dataset.info`, and for predictions a run that says where they come from."""
        report, names = self.report, list(self.source.names.values())
        known = list(dataset.classes.get(report.label_field, ()))
        dataset.classes = {**dataset.classes, report.label_field: known + [n for n in names if n not in known]}
        facts = report.to_dict() | {"problems": report.problems[:_REMEMBERED]}
        facts["unmatched"] = facts["unmatched"][:_REMEMBERED]
        dataset.info = {**dataset.info, INFO: {**dataset.info.get(INFO, {}), report.label_field: facts}}
        dataset.save()
        if self.settings.predictions:
            runs.remember(dataset, "predict", report.label_field, imported=str(self.source.path), classes=names)

    def _stop(self, message: str) -> None:
        if self.should_stop and self.should_stop():
            raise Stopped(message)

    def _read(self) -> Iterator[list[_Read]]:
        """Chunk by chunk; the next one is read while the caller works on this one."""
        items = self.plan.items
        with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 2)) as pool:
            ahead = [pool.submit(self._read_one, item) for item in items[:_CHUNK]]
            for start in range(_CHUNK, len(items) + _CHUNK, _CHUNK):
                chunk, ahead = ahead, [pool.submit(self._read_one, item) for item in items[start : start + _CHUNK]]
                yield [future.result() for future in chunk]

    def _read_one(self, item: Item) -> _Read:
        try:
            height, width = image_size(item.image)
        except DataError as error:
            return _Read(problems=[str(error)])
        label, nc = item.label or find_label(item.image), len(self.source.names)
        file = read_label_file(label, height, width, nc, confidences=self.settings.predictions)
        record = ImageRecord(item.image, height, width, tuple(file.records))
        return _Read(record, bool(file.records or not file.problems), file.duplicates, file.problems)
