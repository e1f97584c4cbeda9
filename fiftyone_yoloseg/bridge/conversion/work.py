"""Samples -> their images and label files: the part of a conversion that other processes can take over. They need no FiftyOne."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ...data.label_rows import RowStyle
from ...errors import UserError
from ..objects import Maskless, RawSample, Reader, Size, file_size
from .manifest import Entry, file_print, label_digest, written_print
from .media import Media, SourceError, link, place, same_content
from .rows import SampleResult, write_rows

WORTH_PROCESSES = 500
"""Samples below which a conversion is done before processes have started and paid for themselves."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What is the same for all samples. folder: where to write. out: the folder of the last conversion, whose images were placed in the same
    way if same_media. index: label -> class index. shaping: all that shapes rows, as bytes to hash."""

    folder: Path
    out: Path
    media: Media
    same_media: bool
    index: Mapping[str, int]
    nc: int
    maskless: Maskless
    style: RowStyle
    shaping: bytes


class Task(NamedTuple):
    """A sample, its split and file name in the folder, and what the last conversion wrote for it."""

    sample: RawSample
    split: str
    name: str
    old: Entry | None


@dataclass(slots=True)
class Done:
    """entry: None for a sample that cannot be used, for this reason. kept: whether image and labels are those of the last conversion.
    known: whether that one had the sample."""

    sample_id: str
    entry: Entry | None = None
    result: SampleResult = field(default_factory=SampleResult)
    kept: bool = False
    known: bool = False
    reason: str = ""


def work(tasks: Sequence[Task], setup: Setup) -> list[Done]:
    """One for each task, in order. Raises OSError where the folder cannot be written."""
    reader = Reader(setup.index, setup.maskless)
    return [_do(task, setup, reader) for task in tasks]


def _do(task: Task, setup: Setup, reader: Reader) -> Done:
    sample, split, name, old = task
    try:
        current = file_print(sample.path)
    except OSError:
        current = ""  # reading its size will say what is wrong
    same = old is not None and (old.source, old.print) == (sample.path, current)
    size = (old.height, old.width) if same and old is not None else file_size(sample.path)
    if isinstance(size, UserError):
        return Done(sample.id, reason=str(size))
    image = setup.folder / "images" / split / name
    label = setup.folder / "labels" / split / f"{Path(name).stem}.txt"
    try:
        image_kept = _image(Path(sample.path), image, old, same, setup)
    except SourceError as error:
        return Done(sample.id, reason=str(error))
    label_kept, result, digest = _label(sample, size, label, old, setup, reader)
    image_print = written_print(image) if setup.media == "copy" else ""
    entry = Entry(sample.id, sample.path, current, *size, split, name, image_print, written_print(label), digest, result.to_json())
    return Done(sample.id, entry, result, image_kept and label_kept, old is not None)


def _image(source: Path, target: Path, old: Entry | None, same: bool, setup: Setup) -> bool:
    """Put the image in its place; whether it is the one of the last conversion."""
    if old is not None and setup.same_media and setup.media == "copy":
        before = setup.out / "images" / old.split / old.name
        if is_print(before, old.image_print) and (same or same_content(before, source)):
            link(before, target)
            return True
        same = False
    place(source, target, setup.media)
    return same and setup.same_media


def _label(
    sample: RawSample, size: Size, target: Path, old: Entry | None, setup: Setup, reader: Reader
) -> tuple[bool, SampleResult, bytes]:
    """Write or take over the label file; whether it was taken over, what it is worth, and the digest of its labels."""
    digest = label_digest(sample, *size, setup.shaping)
    if old is not None and old.digest == digest:
        before = setup.out / "labels" / old.split / f"{Path(old.name).stem}.txt"
        if is_print(before, old.label_print):
            link(before, target)
            return True, SampleResult.from_json(old.result), digest
    objects, problems = reader.read(sample, size)
    text, result = write_rows(objects, size, setup.nc, setup.style)
    result.dropped += [(problem.reason, problem.label_id or "") for problem in problems]
    target.write_bytes(text.encode())
    return False, result, digest


def is_print(path: Path, wanted: str) -> bool:
    """Whether a file of ours is still as we wrote it."""
    try:
        return written_print(path) == wanted
    except OSError:
        return False
