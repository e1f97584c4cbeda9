"""Images in the converted folder: copied, linked, or only listed. The sources are read, never changed."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
from pathlib import Path
from typing import Literal

Media = Literal["copy", "symlink", "reference"]
_TARGET_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


class SourceError(Exception):
    """One image cannot be used; the others can."""


def place(source: Path, target: Path, media: Media) -> None:
    """Raises SourceError if the source cannot be read, OSError if the target cannot be written."""
    if media == "reference":
        return
    if media == "symlink":
        target.symlink_to(source.absolute())
        return
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        if error.errno in _TARGET_ERRORS or error.filename == str(target):
            raise
        target.unlink(missing_ok=True)
        raise SourceError(f"{source}: cannot be copied: {error.strerror or error}") from None


def link(old: Path, new: Path) -> None:
    """Give a file of the earlier folder a second name in the new one; a copy where the file system has no links."""
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError as error:
        if error.errno in _TARGET_ERRORS:
            raise
        shutil.copy2(old, new, follow_symlinks=False)


def same_content(a: Path, b: Path) -> bool:
    """Byte by byte; False if one cannot be read."""
    try:
        return filecmp.cmp(a, b, shallow=False)
    except OSError:
        return False


class Names:
    """File names that are unique in a split, also where case is ignored; images that share a stem would share a label file."""

    def __init__(self) -> None:
        self._used: dict[str, set[int]] = {}

    def unique(self, split: str, path: str) -> str:
        """The file's name, with a number where another file of the split has the same stem."""
        used = self._used.setdefault(split, set())  # hashes, for a million names
        stem, suffix = os.path.splitext(Path(path).name)
        name, n = stem, 2
        while (key := hash(name.casefold())) in used:
            name, n = f"{stem}-{n}", n + 1
        used.add(key)
        return name + suffix
