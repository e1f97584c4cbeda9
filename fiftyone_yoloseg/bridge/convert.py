"""A FiftyOne view -> a YOLO-seg folder: images, label files, dataset.yaml, and a report that proves that no shape was lost.

Every row is read back and rasterised again, so that the report's IoU is what a reader of the files gets. Samples pass through one by one:
memory does not grow with their number. What has not changed since the folder's last conversion is taken over.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..config import ConvertSettings, parse
from ..data.dataset_yaml import write_dataset_yaml
from ..data.files import folder_lock, write_text
from ..data.label_rows import RowStyle
from ..data.processes import Workers
from ..errors import DataError, FidelityError, SettingsError, Stopped
from ..types import ProgressFn
from .conversion import manifest as records
from .conversion.manifest import Entry, Manifest
from .conversion.media import Names
from .conversion.pages import write_pages
from .conversion.report import ConversionReport
from .conversion.scores import store_scores
from .conversion.work import WORTH_PROCESSES, Done, Setup, Task, work
from .label_attributes import OWN
from .objects import RawSample, Reader
from .paces import note
from .plan import Plan, make_plan
from .splits import SplitOptions
from .views import in_slice

MARKER = "conversion.json"
_CHUNK = 64


def convert(
    view: Any,
    out_dir: str | Path,
    label_field: str = "ground_truth",
    *,
    split: Any = "auto",
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> ConversionReport:
    """Write a view as images/<split>/, labels/<split>/ and dataset.yaml under `out_dir`.

    split: see `SplitOptions`; besides the rules of `ConvertSettings` a view or a mapping of split names to views. settings: see
    `ConvertSettings`. The folder appears whole or not at all; one that an earlier conversion wrote is replaced, and what has not changed
    since is taken over. Crowd regions cannot be said in YOLO-seg text and are left out (see `.dropped`).
    Raises DataError for unusable input or an `out_dir` that holds anything else, FidelityError if `require_iou` is not reached, Stopped if
    stopped; nothing was written then.
    """
    wanted = parse(ConvertSettings, {**settings, "label_field": label_field, **({"split": split} if isinstance(split, str) else {})})
    if wanted.iou_attribute in OWN:
        raise SettingsError(
            f"iou_attribute='{wanted.iou_attribute}': is an attribute of every label, which would be lost; choose another name"
        )
    out = Path(out_dir).expanduser().absolute()
    options = SplitOptions(
        split, wanted.val_fraction, wanted.test_fraction, stratify=wanted.stratify, group_by=wanted.group_by, seed=wanted.seed
    )
    view, begun = in_slice(view, wanted.group_slice), time.monotonic()
    with folder_lock(out):
        _clean_up(out)
        check_target(out)
        plan = make_plan(view, label_field, options, classes=wanted.classes, remap=wanted.remap, maskless=wanted.maskless)
        temporary = out.with_name(f".{out.name}.{os.getpid()}.partial")
        try:
            temporary.mkdir(parents=True)
            conversion = _Conversion(plan, wanted, temporary, out, progress or (lambda share, label: None), should_stop or (lambda: False))
            report = conversion.run()
            _replace(temporary, out)
        except OSError as error:
            raise DataError(f"out_dir='{out}': cannot be written: {error.strerror or error}; nothing was changed there") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if not report.unchanged:  # for the estimates of forms
            note("convert", report.written, time.monotonic() - begun, model=wanted.media)
        if wanted.iou_attribute:
            report.notes.append(store_scores(plan, out, wanted.iou_attribute, wanted.iou_threshold))
    return report


def check_target(out: Path) -> None:
    """Raises DataError unless `out` is new, empty, or an earlier conversion."""
    if out.is_dir():
        if any(out.iterdir()) and not (out / MARKER).is_file():
            raise DataError(f"out_dir='{out}' is not empty and was not written by an earlier conversion: give another folder")
    elif out.exists() or out.is_symlink():
        raise DataError(f"out_dir='{out}' is not a folder")


class _Conversion:
    """The state of one conversion into the folder `folder`, which becomes `out`."""

    def __init__(
        self,
        plan: Plan,
        settings: ConvertSettings,
        folder: Path,
        out: Path,
        progress: ProgressFn,
        should_stop: Callable[[], bool],
    ) -> None:
        self.plan, self.settings, self.folder, self.out = plan, settings, folder, out
        self.progress, self.should_stop = progress, should_stop
        names = list(plan.names.values())
        self.report = ConversionReport(
            out, out / "dataset.yaml", dict.fromkeys(plan.counts, 0), names, plan.how, objects_per_class=dict.fromkeys(names, 0)
        )
        self.report.notes += plan.notes
        self.unusable: list[tuple[str, str]] = []  # (sample id, reason)
        self.names, self.earlier, self.manifest = Names(), Manifest.earlier(out), Manifest(folder / records.FILE)
        self.before, self.known = len(self.earlier), 0
        shaping = {"index": plan.index, "nc": len(names), **settings.model_dump(include={"dialect", "outline", "tolerance", "maskless"})}
        self.setup = Setup(
            folder, out, settings.media, _media_of(out) == settings.media, plan.index, len(names), settings.maskless,
            RowStyle(settings.dialect, settings.outline, settings.tolerance), json.dumps(shaping, sort_keys=True).encode(),
        )  # fmt: skip
        for split in plan.counts:
            for kind in ("labels",) if settings.media == "reference" else ("images", "labels"):
                (folder / kind / split).mkdir(parents=True)

    def run(self) -> ConversionReport:
        report, done = self.report, 0
        stream = self.plan.raw()
        chunks = iter(lambda: [self._task(split, sample) for split, sample in islice(stream, _CHUNK)], [])
        with Workers("converted samples", worth=self.plan.samples >= WORTH_PROCESSES) as workers:
            for _, finished in workers.each(partial(work, setup=self.setup), ((None, chunk) for chunk in chunks)):
                self._stop_if_asked(done)
                self._count(finished)
                done += len(finished)
                self.progress(0.98 * done / self.plan.samples, f"{done} of {self.plan.samples} images, {report.rows} objects")
        self._stop_if_asked(done)
        if empty := [split for split, n in report.images.items() if not n]:
            sample, reason = self.unusable[0]
            raise DataError(f"no sample for {empty[0]} can be read, the first that cannot: sample {sample}: {reason}; nothing was written")
        report.dropped = [*self.unusable, *report.dropped]
        report.removed = self.before - self.known
        self._check_fidelity()
        entry = "{}.txt" if self.settings.media == "reference" else "images/{}"
        labels = {split: f"{split}.labels.txt" for split in report.images} if self.settings.media == "reference" else None
        write_dataset_yaml(
            self.folder / "dataset.yaml", self.plan.names, {split: entry.format(split) for split in report.images}, labels=labels
        )
        write_pages(self.plan, Reader(self.plan.index, self.settings.maskless), report, self.setup.style, self.folder)
        write_text(self.folder / MARKER, json.dumps({**report.to_dict(), "media": self.settings.media}, indent=1, ensure_ascii=False))
        self.manifest.close()
        self.progress(1.0, f"{report.rows} objects in {done} images, mean IoU {report.mean_iou:.4f}")
        return report

    def _stop_if_asked(self, done: int) -> None:
        if self.should_stop():
            raise Stopped(f"stopped after {done} of {self.plan.samples} images; nothing was written")

    def _task(self, split: str, sample: RawSample) -> Task:
        name = self.names.unique(split, sample.path)
        return Task(sample, split, name, self.earlier.get(sample.id) if self.before else None)

    def _count(self, finished: Sequence[Done]) -> None:
        entries = []
        for done in finished:
            if done.entry is None:
                self.unusable.append((done.sample_id, done.reason))
                continue
            entries.append(done.entry)
            self.report.add(done.entry.split, done.sample_id, done.result)
            self.known += done.known
            self.report.unchanged += done.kept
            self.report.written += not done.kept
        self.manifest.add(entries)
        if self.settings.media == "reference":
            _append_lists(self.folder, entries)

    def _check_fidelity(self) -> None:
        report, needed = self.report, self.settings.require_iou
        if needed is not None and report.min_iou < needed:
            below = [f"sample {sample}, label {label}: {iou:.4f}" for iou, sample, label in report.worst if iou < needed]
            raise FidelityError(
                f"objects come back from their rows with an IoU below require_iou={needed}: {'; '.join(below[:5])}. "
                "Use a smaller tolerance (0 is exact), or a lower require_iou; nothing was written"
            )


def _media_of(out: Path) -> str | None:
    """How the earlier conversion placed its images."""
    try:
        media: str | None = json.loads((out / MARKER).read_text(encoding="utf-8")).get("media")
        return media
    except (OSError, ValueError):
        return None


def _append_lists(folder: Path, entries: list[Entry]) -> None:
    """The images of each split, and beside them their label files, line by line."""
    for entry in entries:
        with (folder / f"{entry.split}.txt").open("a", encoding="utf-8") as images:
            images.write(f"{entry.source}\n")
        with (folder / f"{entry.split}.labels.txt").open("a", encoding="utf-8") as labels:
            labels.write(f"labels/{entry.split}/{Path(entry.name).stem}.txt\n")


def _clean_up(out: Path) -> None:
    """Mend what a conversion that was killed has left beside the folder. Only called while no other one runs."""
    for old in out.parent.glob(f".{glob.escape(out.name)}.*.old"):
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(out)
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)


def _replace(temporary: Path, out: Path) -> None:
    """Put the finished folder in its place; an earlier conversion is removed only when the new one stands."""
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        out.rename(old)
    try:
        temporary.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
