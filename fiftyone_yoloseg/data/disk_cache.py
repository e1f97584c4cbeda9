"""Decoded images on disk, as .npy files in the user's cache folder: never beside the user's images.

A file's name holds the image's path (hashed), the working size, and the image file's size and time: an image that was changed
is not found any more, and what was kept of it is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import SettingsError
from ..geometry.letterbox import Image, fit
from ..types import ImageRecord
from . import files

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where decoded images are kept. Raises SettingsError if nothing can be written there."""
    folder = files.cache_folder() / "images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{uuid.uuid4().hex}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SettingsError(
            f"cache=disk: cannot write in {folder} ({error.strerror}): set {files.CACHE_VARIABLE} to another folder, or use cache=ram"
        ) from None
    return folder


class DiskCache:
    """budget: bytes that may still be written."""

    def __init__(self, folder: Path, size: int, budget: int) -> None:
        self.folder, self.size, self.budget = folder, size, budget

    def file_of(self, image: Path) -> Path:
        """Raises OSError if there is no such image."""
        status = image.stat()
        key = _key(image, self.size)
        return self.folder / key[:2] / f"{key}-{status.st_size}-{status.st_mtime_ns}.npy"

    def get(self, image: Path, shape: tuple[int, int]) -> Image | None:
        """The (h, w, 3) image of this shape; None if it is not there, or damaged."""
        try:
            kept = np.load(self.file_of(image))
        except (OSError, ValueError, EOFError):  # absent, or cut short by a full disk: it is decoded anew, and replaced
            return None
        return kept if kept.shape == (*shape, 3) and kept.dtype == np.uint8 else None

    def put(self, image: Path, decoded: Image) -> None:
        """Keep an image if the budget allows. A disk that is full ends the caching, not the training."""
        if decoded.nbytes > self.budget:
            return
        file = self.file_of(image)
        temporary = file.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            file.parent.mkdir(exist_ok=True)
            for stale in file.parent.glob(f"{_key(image, self.size)}-*.npy"):
                stale.unlink(missing_ok=True)
            with temporary.open("xb") as out:
                np.save(out, decoded)
            os.replace(temporary, file)
            self.budget -= decoded.nbytes
        except OSError as error:
            log.warning("the image cache in %s takes no more images: %s", self.folder, error.strerror or error)
            self.budget = 0
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def make_room(folder: Path, records: Sequence[ImageRecord], size: int, budget: int) -> int:
    """Remove what other data has left, the oldest first, as far as these records need its place. Returns the bytes that may be written."""
    own = {_key(record.path, size) for record in records}
    kept, others = 0, []
    for file in folder.glob("??/*.npy"):
        with contextlib.suppress(FileNotFoundError):  # another run makes room, too
            status = file.stat()
            if file.name.partition("-")[0] in own:
                kept += status.st_size
            else:
                others.append((status.st_mtime, status.st_size, file))
    needed = max(sum(3 * h * w for h, w in (working_shape(r, size) for r in records)) - kept, 0)
    rest = sum(length for _, length, _ in others)
    for _, length, file in sorted(others, key=lambda other: other[0]):
        if kept + rest + needed <= budget:
            break
        file.unlink(missing_ok=True)
        rest -= length
    return max(budget - kept - rest, 0)


def working_shape(record: ImageRecord, size: int) -> tuple[int, int]:
    """(height, width) of an image whose long side is resized to `size`."""
    return fit((record.height, record.width), (size, size)).resized


def _key(image: Path, size: int) -> str:
    return hashlib.sha256(f"{size}\0{image.absolute()}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
