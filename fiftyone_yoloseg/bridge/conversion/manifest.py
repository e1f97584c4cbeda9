"""What a conversion wrote for each sample, so that the next one into the same folder repeats only what has changed.

An SQLite file in the folder: it is read sample by sample, whatever their number.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import bson

from ..objects import RawSample

FILE = "conversion.sqlite"
_VERSION = 1
_COLUMNS = "id, source, print, height, width, split, name, image_print, label_print, digest, result"


class Entry(NamedTuple):
    """source: path of the image and its `print`. name: file name in the folder. image_print, label_print: of the files written.
    digest: of the labels and of all that shapes their rows. result: `SampleResult` as JSON."""

    id: str
    source: str
    print: str
    height: int
    width: int
    split: str
    name: str
    image_print: str
    label_print: str
    digest: bytes
    result: str


class Manifest:
    """Entries by sample id. `Manifest(path)` makes a new file, `Manifest.earlier(folder)` opens what is there."""

    def __init__(self, path: Path | str = ":memory:") -> None:
        self._db = sqlite3.connect(path)
        self._db.executescript(
            f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA user_version = {_VERSION};"
            f"CREATE TABLE entries ({_COLUMNS.replace('id,', 'id TEXT PRIMARY KEY,', 1)}) WITHOUT ROWID;"
        )

    @classmethod
    def earlier(cls, folder: Path) -> Manifest:
        """The manifest of an earlier conversion, read only; an empty one where there is none that can be used."""
        manifest = cls.__new__(cls)
        try:
            if not (folder / FILE).is_file():
                raise sqlite3.DatabaseError
            manifest._db = sqlite3.connect(f"file:{quote(str(folder / FILE))}?mode=ro", uri=True)
            if manifest._db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                raise sqlite3.DatabaseError
            manifest._db.execute(f"SELECT {_COLUMNS} FROM entries LIMIT 1").fetchone()
            return manifest
        except sqlite3.DatabaseError:  # damaged or of another version: then everything is written anew
            return cls()

    def get(self, sample_id: str) -> Entry | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM entries WHERE id = ?", (sample_id,)).fetchone()
        return Entry(*row) if row else None

    def add(self, entries: Iterable[Entry]) -> None:
        self._db.executemany(f"INSERT INTO entries ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)", entries)

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM entries").fetchone()[0])

    def close(self) -> None:
        self._db.commit()
        self._db.close()


def file_print(path: Path | str) -> str:
    """Changes whenever a file's content is written, and costs no reading. Raises OSError."""
    status = os.stat(path)
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"


def written_print(path: Path | str) -> str:
    """As `file_print`, of a file of ours: linking it elsewhere, which touches its ctime, is no change."""
    status = os.stat(path)
    return f"{status.st_size}:{status.st_mtime_ns}"


def label_digest(sample: RawSample, height: int, width: int, settings: bytes) -> bytes:
    """Hash of the labels of a sample, their mask files included, of the image size and the settings."""
    digest = hashlib.blake2b(settings, digest_size=16)
    digest.update(bson.encode({"size": [height, width], "labels": sample.labels}))
    for label in sample.labels:
        if label.get("mask_path") and label.get("mask") is None:
            try:
                digest.update(Path(label["mask_path"]).read_bytes())
            except OSError as error:
                digest.update(str(error).encode())
    return digest.digest()
