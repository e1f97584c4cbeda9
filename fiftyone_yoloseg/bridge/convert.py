"""A FiftyOne view -> a YOLO-seg folder: images, label files, dataset.yaml, and a report that proves that no shape was lost.

Every row is read back and rasterised again, so that the report's IoU is what a reader of the files gets. Samples pass through one by one:
memory does not grow with their number. What has not changed since the folder's last conversion is taken over.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..config import ConvertSettings, parse
from ..data.dataset_yaml import write_dataset_yaml
from ..data.files import folder_lock, write_text
from ..data.yolo_labels import RowStyle
from ..errors import DataError, FidelityError, Stopped, UserError
from ..types import ProgressFn
from .conversion import manifest as records
from .conversion.manifest import Entry, Manifest, file_print, label_digest, written_print
from .conversion.media import Names, SourceError, link, place, same_content
from .conversion.pages import write_pages
from .conversion.report import ConversionReport
from .conversion.rows import SampleResult, write_rows
from .conversion.scores import store_scores
from .plan import Plan, make_plan
from .raw import RawSample
from .read import Reader, Size, file_size
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
    out = Path(out_dir).expanduser().absolute()
    options = SplitOptions(
        split, wanted.val_fraction, wanted.test_fraction, stratify=wanted.stratify, group_by=wanted.group_by, seed=wanted.seed
    )
    view = in_slice(view, wanted.group_slice)
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


@dataclass(slots=True)
class _Item:
    """A sample on its way. print: of its image file. old: what the last conversion wrote for it."""

    split: str
    sample: RawSample
    print: str
    old: Entry | None
    size: Size | UserError
    name: str = ""
    image: Future[bool] | None = None


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
        self.style = RowStyle(settings.dialect, settings.outline, settings.tolerance)
        names = list(plan.names.values())
        self.report = ConversionReport(
            out, out / "dataset.yaml", dict.fromkeys(plan.counts, 0), names, plan.how, objects_per_class=dict.fromkeys(names, 0)
        )
        self.report.notes += plan.notes
        self.unusable: list[tuple[str, str]] = []  # (sample id, reason)
        self.reader, self.names = Reader(plan.index, settings.maskless), Names()
        self.earlier, self.manifest = Manifest.earlier(out), Manifest(folder / records.FILE)
        self.before, self.known = len(self.earlier), 0
        self.same_media = _media_of(out) == settings.media
        shaping = {"index": plan.index, "nc": len(names), **settings.model_dump(include={"dialect", "outline", "tolerance", "maskless"})}
        self.shaping = json.dumps(shaping, sort_keys=True).encode()
        for split in plan.counts:
            for kind in ("labels",) if settings.media == "reference" else ("images", "labels"):
                (folder / kind / split).mkdir(parents=True)

    def run(self) -> ConversionReport:
        report, done = self.report, 0
        stream = self.plan.raw()
        with ThreadPoolExecutor(2) as pool:
            while chunk := list(islice(stream, _CHUNK)):
                self._stop_if_asked(done)
                self.progress(0.98 * done / self.plan.samples, f"{done} of {self.plan.samples} images, {report.rows} objects")
                entries = self._chunk(chunk, pool)
                self.manifest.add(entries)
                if self.settings.media == "reference":
                    _append_lists(self.folder, entries)
                done += len(chunk)
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
        write_pages(self.plan, self.reader, report, self.style, self.folder)
        write_text(self.folder / MARKER, json.dumps({**report.to_dict(), "media": self.settings.media}, indent=1, ensure_ascii=False))
        self.manifest.close()
        self.progress(1.0, f"{report.rows} objects in {done} images, mean IoU {report.mean_iou:.4f}")
        return report

    def _stop_if_asked(self, done: int) -> None:
        if self.should_stop():
            raise Stopped(f"stopped after {done} of {self.plan.samples} images; nothing was written")

    def _chunk(self, chunk: list[tuple[str, RawSample]], pool: ThreadPoolExecutor) -> list[Entry]:
        """Convert some samples; their images are copied while their labels are written."""
        items = [self._look(split, sample) for split, sample in chunk]
        for item, size in zip(items, pool.map(_size, items), strict=True):
            item.size = size
            if isinstance(size, UserError):
                self.unusable.append((item.sample.id, str(size)))
            else:
                item.name = self.names.unique(item.split, item.sample.path)
                item.image = pool.submit(self._place, item)
        entries = []
        for item in items:
            if isinstance(item.size, UserError):
                continue
            digest = label_digest(item.sample, *item.size, self.shaping)
            kept, result = self._labels(item, item.size, digest)
            assert item.image is not None
            try:
                kept &= item.image.result()
            except SourceError as error:
                self._label(item).unlink()
                self.unusable.append((item.sample.id, str(error)))
                continue
            self.report.add(item.split, item.sample.id, result)
            self.known += item.old is not None
            self.report.unchanged += kept
            self.report.written += not kept
            image = self.folder / "images" / item.split / item.name
            entries.append(
                Entry(
                    item.sample.id, item.sample.path, item.print, *item.size, item.split, item.name,
                    written_print(image) if self.settings.media == "copy" else "", written_print(self._label(item)), digest, result.to_json(),
                )
            )  # fmt: skip
        return entries

    def _look(self, split: str, sample: RawSample) -> _Item:
        try:
            current = file_print(sample.path)
        except OSError:
            current = ""  # reading its size will say what is wrong
        return _Item(split, sample, current, self.earlier.get(sample.id) if self.before else None, (0, 0))

    def _label(self, item: _Item) -> Path:
        return self.folder / "labels" / item.split / f"{Path(item.name).stem}.txt"

    def _labels(self, item: _Item, size: Size, digest: bytes) -> tuple[bool, SampleResult]:
        """Write or take over the label file; whether it was taken over, and what it is worth."""
        target, old = self._label(item), item.old
        if old is not None and old.digest == digest:
            before = self.out / "labels" / old.split / f"{Path(old.name).stem}.txt"
            if _is_print(before, old.label_print):
                link(before, target)
                return True, SampleResult.from_json(old.result)
        objects, problems = self.reader.read(item.sample, size)
        text, result = write_rows(objects, size, len(self.plan.names), self.style)
        result.dropped += [(problem.reason, problem.label_id or "") for problem in problems]
        target.write_bytes(text.encode())
        return False, result

    def _place(self, item: _Item) -> bool:
        """Put the image in its place; whether it is the one of the last conversion."""
        source, target, old = Path(item.sample.path), self.folder / "images" / item.split / item.name, item.old
        unchanged = old is not None and self.same_media and (old.source, old.print) == (item.sample.path, item.print)
        if old is not None and self.same_media and self.settings.media == "copy":
            before = self.out / "images" / old.split / old.name
            if _is_print(before, old.image_print) and (unchanged or same_content(before, source)):
                link(before, target)
                return True
            unchanged = False
        place(source, target, self.settings.media)
        return unchanged

    def _check_fidelity(self) -> None:
        report, needed = self.report, self.settings.require_iou
        if needed is not None and report.min_iou < needed:
            below = [f"sample {sample}, label {label}: {iou:.4f}" for iou, sample, label in report.worst if iou < needed]
            raise FidelityError(
                f"objects come back from their rows with an IoU below require_iou={needed}: {'; '.join(below[:5])}. "
                "Use a smaller tolerance (0 is exact), or a lower require_iou; nothing was written"
            )


def _size(item: _Item) -> Size | UserError:
    if item.old is not None and item.print and (item.old.source, item.old.print) == (item.sample.path, item.print):
        return item.old.height, item.old.width
    return file_size(item.sample.path)


def _is_print(path: Path, wanted: str) -> bool:
    """Whether a file of ours is still as we wrote it."""
    try:
        return written_print(path) == wanted
    except OSError:
        return False


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
    for partial in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


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
