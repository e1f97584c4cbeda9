"""Where the labels of an image are, and whether the two files are still those that were read before."""

from __future__ import annotations

import os
import stat
import struct
import time
from pathlib import Path
from typing import NamedTuple

from .files import DEAD_LINK, FOLDER

SETTLE = 2.0
"""Seconds. A file that changed less than this before it was looked at may change again unseen: clocks of file systems are coarse."""

LEFT_OUT = ". Its image is left out"
"""Ends what is said of a label file that cannot be read: an image is no background because of that."""
NO_PRINT = b"\xff" * 33
_PRINT = struct.Struct("<BQqqQ")
_ABSENT, _OWN, _BESIDE = range(3)
_64_BITS = 2**64 - 1


def label_path(image: Path) -> Path:
    """Where the labels of an image belong: its last folder called images becomes labels; without one, beside the image."""
    return Path(_label_places(os.fspath(image))[0])


def find_label(image: Path) -> Path:
    """The label file of an image: in the labels folder, or else beside the image. It need not exist."""
    path, beside = map(Path, _label_places(os.fspath(image)))
    return beside if beside != path and not path.exists() and beside.exists() else path


def _label_places(image: str) -> tuple[str, str]:
    """In the labels folder, beside the image; the same if there is no images folder."""
    folder, name = os.path.split(image)
    text = os.path.splitext(name)[0] + ".txt"
    before, mark, after = f"{os.sep}{folder}{os.sep}".rpartition(f"{os.sep}images{os.sep}")
    labels = f"{before}{os.sep}labels{os.sep}{after}"[1:] if mark else folder
    return os.path.join(labels, text), os.path.join(folder, text)


class Look(NamedTuple):
    """An image and its label file as the file system shows them, not opened."""

    image: Path
    label: str | None
    """None: there is none, the image is background."""
    image_print: bytes
    label_print: bytes
    settled: tuple[bool, bool]
    """Whether each print can be trusted next time."""
    inodes: tuple[int, int]
    """64 bits that tell image files apart, and label files; 0 for none."""
    problem: str | None = None
    """Why the image cannot be used."""


def look(image: Path, listed: Path | None = None) -> Look:
    """Nothing is opened here, so that no pipe or device can make us wait. listed: its label file where the dataset says which."""
    text = os.fspath(image)
    now = time.time_ns()
    label: str | None
    label, beside = _label_places(text) if listed is None else (os.fspath(listed), os.fspath(listed))
    try:
        seen = os.stat(text)
    except (OSError, ValueError) as error:
        return _useless(image, f"{text}: cannot be read: {_why(error)}")
    if not stat.S_ISREG(seen.st_mode):
        return _useless(image, f"{text}: is not a file; remove it or take it off the list")
    labels, kind = None, _OWN
    try:
        labels = _stat(label)
        if labels is None and beside != label and (labels := _stat(beside)) is not None:
            label, kind = beside, _BESIDE
    except OSError as error:
        return _useless(image, f"{label}: cannot be read: {_why(error)}{LEFT_OUT}")
    if labels is None:
        if os.path.islink(label):
            return _useless(image, f"{label}: {DEAD_LINK}{LEFT_OUT}")
        label, kind = None, _ABSENT
    elif not stat.S_ISREG(labels.st_mode):
        return _useless(image, f"{label}: {FOLDER if stat.S_ISDIR(labels.st_mode) else 'is not a file: move it away'}{LEFT_OUT}")
    return Look(
        image,
        label,
        _print(_OWN, seen),
        _print(kind, labels),
        (_is_settled(seen, now), labels is None or _is_settled(labels, now)),
        (_identity(seen), 0 if labels is None else _identity(labels)),
    )


def _useless(image: Path, problem: str) -> Look:
    return Look(image, None, NO_PRINT, NO_PRINT, (False, False), (0, 0), problem)


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _why(error: OSError | ValueError) -> str:
    return str(getattr(error, "strerror", None) or error)


def _print(kind: int, seen: os.stat_result | None) -> bytes:
    """What changes when a file is written, replaced or renamed: an edit that keeps the size and the time of writing changes ctime."""
    if seen is None:
        return _PRINT.pack(kind, 0, 0, 0, 0)
    return _PRINT.pack(kind, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino & _64_BITS)


def _is_settled(seen: os.stat_result, now: int) -> bool:
    changed = seen.st_mtime_ns if os.name == "nt" else seen.st_ctime_ns  # on Windows ctime is the time of birth
    return changed < now - SETTLE * 1e9


def _identity(seen: os.stat_result) -> int:
    return hash((seen.st_dev, seen.st_ino)) & _64_BITS if seen.st_ino else 0
