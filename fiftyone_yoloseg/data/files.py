"""Files that are written whole or not at all, the cache folder, and folders that one process at a time may write."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import filelock
import platformdirs

from ..errors import DataError

CACHE_VARIABLE = "YOLOSEG_CACHE_DIR"
FOLDER = "is a folder, not a file: move it away"
DEAD_LINK = "is a link to a file that is not there: mend the link, or remove it"


def cache_folder() -> Path:
    """Where this package keeps what it can make again: by the environment variable above, or the system's cache folder. It need not exist."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_path("fiftyone-yoloseg")).expanduser().absolute()


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes of this user. The lock is a file in the cache folder and ends with the process.

    Raises DataError at once if another holds it.
    """
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:24]
    locks = cache_folder() / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(locks / f"{name}.lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise DataError(f"'{folder}' is being written by another process: wait until it has ended, or give another folder") from None
    except OSError as error:
        raise DataError(f"{locks}: cannot be written: {error.strerror or error}; set {CACHE_VARIABLE} to a folder that can") from error
    try:
        yield
    finally:
        lock.release()


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write under a temporary name beside `path`, then rename it. Makes the folder. Raises DataError if that fails."""
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # after a success there is nothing left to remove
            temporary.unlink()


def read_text(path: Path) -> str:
    """UTF-8 text, with or without a BOM; every line end is \\n. Raises DataError naming the file."""
    try:
        data = Path(path).read_bytes()
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(f"{path}: is UTF-16 text: save it as UTF-8") from None
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start + 1}): save it as UTF-8, or take it away") from None
    except IsADirectoryError as error:
        raise DataError(f"{path}: {FOLDER}") from error
    except OSError as error:
        dead = isinstance(error, FileNotFoundError) and os.path.islink(path)
        raise DataError(f"{path}: {DEAD_LINK if dead else f'cannot be read: {error.strerror or error}'}") from error
