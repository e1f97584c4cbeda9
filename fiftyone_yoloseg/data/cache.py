"""What was read of a dataset's files, kept for the next time in a folder of our own: one SQLite file a dataset.yaml.

A file in place never changes: a scan that read something new writes another one, under a temporary name, and renames it. So readers need no
locks (home folders on network drives have none that work), two scans at once both leave a whole file, and the later one stays.
Nothing in it is executed, each row carries its checksum, and whatever is wrong with the file ends in reading the dataset anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import sqlite3
import struct
import time
import uuid
import zlib
from array import array
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .. import __version__
from .files import cache_folder

log = logging.getLogger(__name__)

KEPT_DAYS = 90
_READERS = ("numpy", "opencv-python-headless", "pillow", "pycocotools")
_BROKEN = (sqlite3.DatabaseError, UnicodeError)
"""What reading a damaged file raises: SQLite's message may quote its bytes, which are no text then."""
_HEAD = struct.Struct("<I33s33s16s4I")
_TABLES = """
CREATE TABLE about (value TEXT);
CREATE TABLE images (id INTEGER PRIMARY KEY, split TEXT NOT NULL, entry BLOB NOT NULL);
"""


class Damaged(Exception):
    """The cache file holds what we did not write."""


class Entry(NamedTuple):
    """What is kept of one image. The prints (33 bytes) and the digest (16) are compared only; problems: without the label file's path."""

    image_print: bytes
    label_print: bytes
    digest: bytes
    height: int
    width: int
    duplicates: int
    objects: int
    instances: bytes
    problems: Sequence[str] = ()

    def to_bytes(self, key: int) -> bytes:
        problems = json.dumps(self.problems).encode() if self.problems else b""
        head = _HEAD.pack(len(problems), self.image_print, self.label_print, self.digest, *self[3:7])
        body = head + problems + self.instances
        return _checksum(key, body) + body


def _entry(key: int, data: object) -> Entry:
    if not isinstance(data, bytes) or data[:4] != _checksum(key, data[4:]):
        raise Damaged("a row is not as it was written")
    problems, image_print, label_print, digest, height, width, duplicates, objects = _HEAD.unpack_from(data, 4)
    at = 4 + _HEAD.size
    text = json.loads(data[at : at + problems]) if problems else ()
    return Entry(image_print, label_print, digest, height, width, duplicates, objects, data[at + problems :], text)


def _checksum(key: int, body: bytes) -> bytes:
    return zlib.crc32(body, key & 0xFFFFFFFF).to_bytes(4, "little")


def entry_key(split: str, image: str) -> int:
    """The row of an image. image: its path from the dataset's root."""
    name = f"{split}\0{image}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


def cache_files() -> list[Path]:
    """The cache files there are; without a folder none."""
    return sorted((cache_folder() / "scans").glob("*.sqlite"))


@functools.cache
def reader_stamp() -> str:
    """Changes with anything that could make the same files read differently: our code, the packages that it reads with."""
    found = hashlib.sha256(__version__.encode())
    package = Path(__file__).parents[1]
    for path in sorted([*package.glob("data/*.py"), *package.glob("geometry/*.py"), package / "types.py"]):
        found.update(path.read_bytes())
    for name in _READERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # another build of OpenCV goes by another name
            found.update(f"{name} {importlib.metadata.version(name)}".encode())
    return found.hexdigest()[:32]


class ScanCache:
    """The cache of one dataset.yaml with `nc` classes. Use it in one thread; end with `finish`. No method fails on the cache's account,
    but for `lookup`, which raises Damaged: then `forget` it and begin again."""

    def __init__(self, origin: Path, nc: int) -> None:
        place = os.fspath(origin.parent.resolve() / origin.name)  # of a link its own place: paths in it start there
        self.about = json.dumps({"origin": place, "stamp": reader_stamp(), "nc": nc})
        self.path = cache_folder() / "scans" / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.sqlite"
        self._temporary = self.path.with_name(f".{uuid.uuid4().hex}.tmp")
        self._asked, self._found = array("q"), 0
        self._new: sqlite3.Connection | None = None
        self._writable = True
        self._old: sqlite3.Connection | None = None
        try:
            self._old = _open(self.path, self.about)
        except Damaged as error:
            self.forget(error)

    def lookup(self, keys: Sequence[int]) -> dict[int, Entry]:
        """The entries there are. Raises Damaged."""
        self._asked.extend(keys)
        if self._old is None:
            return {}
        try:
            rows = self._old.execute(f"SELECT id, entry FROM images WHERE id IN ({','.join('?' * len(keys))})", keys).fetchall()
        except _BROKEN as error:
            raise Damaged(str(error)) from error
        self._found += len(rows)
        return {key: _entry(key, data) for key, data in rows}

    def put(self, split: str, key: int, entry: Entry) -> None:
        if not self._writable:
            return
        try:
            if self._new is None:
                self._new = self._create()
            self._new.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?)", (key, split, entry.to_bytes(key)))
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def finish(self, splits: Collection[str], *, complete: bool) -> None:
        """Keep what was put. splits: those scanned; if the scan was complete, what was not asked for is there no more and leaves."""
        try:
            if self._new is not None or (complete and self._removed(splits)):
                self._new = self._new or self._create()
                self._merge(self._new, splits if complete else ())
                self._close()
                os.replace(self._temporary, self.path)
                _clean(self.path)
            elif self._old is not None:
                os.utime(self.path)
        except (sqlite3.Error, UnicodeError, OSError) as error:
            self._give_up(error)
        finally:
            self._close()

    def forget(self, why: Damaged) -> None:
        """The cache file is no good: away with it, in one log line."""
        self._close()
        self._old, self._asked, self._found = None, array("q"), 0
        log.warning("The cache file %s is damaged (%s): the dataset is read anew", self.path, why)
        with contextlib.suppress(OSError):  # if it stays, the new file is renamed over it
            self.path.unlink()
            self._temporary.unlink()

    def _create(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = sqlite3.connect(self._temporary, isolation_level=None, uri=True)
        new.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -8000;" + _TABLES)
        new.execute("INSERT INTO about VALUES (?)", (self.about,))
        new.execute("BEGIN")
        return new

    def _removed(self, splits: Collection[str]) -> bool:
        """Whether the file has rows of images that were not asked for."""
        if self._old is None:
            return False
        marks = ",".join("?" * len(splits))
        (count,) = self._old.execute(f"SELECT count(*) FROM images WHERE split IN ({marks})", tuple(splits)).fetchone()
        return bool(count > self._found)

    def _merge(self, new: sqlite3.Connection, complete: Collection[str]) -> None:
        """Take over what is still good in the file that is in place now: another scan may have put it there meanwhile."""
        new.execute("COMMIT")
        try:
            if current := _open(self.path, self.about):
                current.close()
                new.execute("CREATE TEMP TABLE asked (id INTEGER PRIMARY KEY)")
                new.executemany("INSERT OR IGNORE INTO asked VALUES (?)", ((key,) for key in self._asked))
                new.execute("ATTACH ? AS old", (_uri(self.path),))
                marks = ",".join("?" * len(complete))
                new.execute(
                    f"INSERT OR IGNORE INTO images SELECT * FROM old.images WHERE split NOT IN ({marks}) OR id IN (SELECT id FROM asked)",
                    tuple(complete),
                )
                new.execute("DETACH old")
        except (*_BROKEN, Damaged) as error:
            log.warning("The cache file %s is damaged (%s): it is replaced", self.path, error)
        new.execute("CREATE INDEX by_split ON images (split)")

    def _close(self) -> None:
        for connection in (self._old, self._new):
            if connection is not None:
                connection.close()
        self._new = None

    def _give_up(self, error: Exception) -> None:
        log.warning("The cache %s cannot be written (%s): the next scan reads the files again", self.path.parent, error)
        self._writable = False
        if self._new is not None:
            self._new.close()
            self._new = None
        with contextlib.suppress(OSError):  # it may never have been made
            self._temporary.unlink()


def _uri(path: Path) -> str:
    return f"{path.absolute().as_uri()}?mode=ro&immutable=1"


def _open(path: Path, about: str | None) -> sqlite3.Connection | None:
    """A file that says `about` of itself, None if there is none. Raises Damaged."""
    if not path.is_file():
        return None
    try:
        connection = sqlite3.connect(_uri(path), uri=True, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise Damaged(str(error)) from error
    try:
        row = connection.execute("SELECT value FROM about").fetchone()
    except _BROKEN as error:
        connection.close()
        raise Damaged(str(error)) from error
    if row == (about,):
        return connection
    connection.close()
    return None


def _clean(keep: Path) -> None:
    """Remove caches of datasets that are gone or were not used for long, and what killed scans left."""
    now = time.time()
    for path, used in _ages(keep.parent):
        days = (now - used) / 86400
        if path != keep and (days > (1 if path.suffix == ".tmp" else KEPT_DAYS) or (path.suffix == ".sqlite" and not _origin_exists(path))):
            with contextlib.suppress(OSError):  # another scan was faster, or is reading it (Windows): next time
                path.unlink()


def _ages(folder: Path) -> Iterator[tuple[Path, float]]:
    for path in folder.iterdir():
        if path.suffix in (".sqlite", ".tmp"):
            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                yield path, path.stat().st_mtime


def _origin_exists(path: Path) -> bool:
    """False also for a file that does not say where it comes from."""
    try:
        with contextlib.closing(sqlite3.connect(_uri(path), uri=True)) as connection:
            (about,) = connection.execute("SELECT value FROM about").fetchone()
        return Path(json.loads(about)["origin"]).exists()
    except (sqlite3.Error, OSError, ValueError, TypeError, KeyError):
        return False
