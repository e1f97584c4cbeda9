"""Reading images and finding them. Nothing here ever writes to an image or its folder."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, TiffImagePlugin

from ..errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".mpo", ".pgm", ".ppm", ".gif"})
_ORIENTATION = 274
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_JPEG_HEAD = 1 << 14
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_JPEG_PASSED = frozenset({0xE0, *range(0xE2, 0xF0), 0xFE, 0xDB, 0xC4, 0xDD})  # applications' own but EXIF and XMP, comment, tables
_JPEG_SCAN = 0xDA
_USUAL_PIXELS = 50_000_000


def read_image(path: Path | str) -> npt.NDArray[np.uint8]:
    """(H, W, 3) RGB uint8, turned as EXIF says. Grey is repeated, alpha dropped, 16 bits scaled to 8.

    Raises DataError naming the file if it is missing, unreadable or not an image.
    """
    try:
        data = np.fromfile(path, np.uint8)  # not cv2.imread: on Windows it cannot open non-ASCII names
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if data.size == 0:
        raise DataError(f"{path}: is an empty file, not an image")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise DataError(f"{path}: cannot be decoded: {error.err or error}") from None
    if image is None:
        return _read_with_pillow(path)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _read_with_pillow(path: Path | str) -> npt.NDArray[np.uint8]:
    """What OpenCV cannot decode."""
    try:
        with Image.open(path) as image:
            if image.mode in ("F", "I"):
                raise ValueError(f"32-bit samples, mode {image.mode}: store it with 8 or 16 bits")
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: is not an image that can be decoded ({error})") from None


def image_size(path: Path | str) -> tuple[int, int]:
    """(height, width) as `read_image` would return it, from the header only. Raises DataError naming the file."""
    if size := _plain_jpeg_size(path):
        return size
    try:
        with Image.open(path) as image:
            width, height = image.size
            orientation = image.getexif().get(_ORIENTATION, 1)
            if isinstance(image, TiffImagePlugin.TiffImageFile):  # some versions of Pillow turn the size of a TIFF themselves, some do not
                tags = image.tag_v2
                width, height = int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])
    except Image.DecompressionBombError:  # Pillow refuses very large images even for their size
        height, width = read_image(path).shape[:2]
        return height, width
    except (OSError, ValueError, SyntaxError, KeyError) as error:
        strerror = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"{path}: cannot be read: {strerror}" if strerror else f"{path}: is not an image") from None
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def _plain_jpeg_size(path: Path | str) -> tuple[int, int] | None:
    """Of a JPEG as most are, that nothing turns; None for any other file, which Pillow is left to judge."""
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(_JPEG_HEAD)
    except (OSError, ValueError):
        return None
    size, at = None, 2
    while head.startswith(b"\xff\xd8\xff") and at + 10 <= len(head) and head[at] == 0xFF:
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        if marker == _JPEG_SCAN:
            return size if at + 2 + length <= len(head) else None
        if marker in _JPEG_FRAMES and size is None:
            bits, height, width, channels = struct.unpack_from(">BHHB", head, at + 4)
            if bits != 8 or channels not in (1, 3, 4) or not 0 < height * width < _USUAL_PIXELS:
                return None
            size = height, width
        elif marker not in _JPEG_PASSED:
            return None
        at += 2 + length
    return None


def list_images(folder: Path | str) -> list[Path]:
    """All image files below a folder, as `list_files`."""
    return list_files(folder, IMAGE_SUFFIXES)


def list_files(folder: Path | str, suffixes: Collection[str]) -> list[Path]:
    """All files below a folder with one of these suffixes, sorted; hidden files left out, symlinks followed, loops entered once.

    Raises DataError if a folder is missing or cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error

    found: list[Path] = []
    entered: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders.sort(key=lambda name: (os.path.islink(os.path.join(parent, name)), name))  # a real folder before a link to it
        found += [Path(parent, name) for name in files if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes]
    return sorted(found)
