"""What can be known of an image file without decoding it: its size, whether it is whole, and a hash of its bytes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .images import image_size

_REMOTE = re.compile(r"(?:^|/)(s3a?|gs|gcs|https?|ftp|az|abfss?|wasbs?|hdfs):/", re.IGNORECASE)  # Path makes one slash of two
_WHOLE = 32 << 20  # bytes of a file that are held at once
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """An image file. size: (height, width) as decoded, None if it cannot be used; length: in bytes; digest: hash of its bytes.

    kind, problem: the kind of finding, and what is wrong; both empty for a good file.
    """

    size: tuple[int, int] | None = None
    length: int = 0
    digest: bytes = b""
    kind: str = ""
    problem: str = ""


def look_at(path: str) -> FileFacts:
    """Never raises for a file that cannot be used; it says what is wrong instead."""
    if found := _REMOTE.search(path):
        return FileFacts(kind="remote_images", problem=f"{found[1]}: is not on this machine")
    try:
        length, digest, start = _read(path)
    except FileNotFoundError:
        return FileFacts(kind="missing_images", problem="no such file")
    except OSError as error:
        return FileFacts(kind="unreadable_images", problem=error.strerror or str(error))
    try:
        size = image_size(path)
    except DataError as error:
        return FileFacts(length=length, digest=digest, kind="unreadable_images", problem=str(error).removeprefix(f"{path}: "))
    if len(start) == length and cut_off(start):
        return FileFacts(size, length, digest, "cut_off_images", "ends too early")
    return FileFacts(size, length, digest)


def _read(path: str) -> tuple[int, bytes, bytes]:
    """Length, hash and the first bytes - all bytes, unless the file is very long."""
    digest = hashlib.blake2b(digest_size=16)
    with open(Path(path), "rb") as file:
        start = file.read(_WHOLE)
        digest.update(start)
        length = len(start)
        while length >= _WHOLE and (chunk := file.read(1 << 20)):
            digest.update(chunk)
            length += len(chunk)
    return length, digest.digest(), start


def cut_off(data: bytes) -> bool:
    """Whether a JPEG, PNG or WebP lacks its end, as after a broken download. What follows the end, such as a phone's video, is no matter."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in data
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if not data.startswith(b"\xff\xd8"):
        return False
    place = 2
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):  # over the headers, which may hold a JPEG of their own
        if data[place + 1] == _START_OF_SCAN:
            return data.find(_END_OF_IMAGE, place) < 0
        place += 1 if data[place + 1] == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return place >= len(data)
