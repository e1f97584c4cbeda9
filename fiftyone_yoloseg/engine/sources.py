"""What a user may predict on: paths, URLs, folders, globs, videos, arrays, PIL images, and lists of these."""

from __future__ import annotations

import glob
import http.client
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data.images import IMAGE_SUFFIXES, list_images, read_image
from ..errors import DataError
from ..geometry.letterbox import Image

VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts"}
URL_TIMEOUT = 30


@dataclass(frozen=True, slots=True)
class Frame:
    """One image to predict on. image: (H, W, 3) uint8 RGB. name: its path, URL, or a number. frame: of a video, else None."""

    image: Image
    name: str
    frame: int | None = None


def frames(source: Any, vid_stride: int = 1) -> Iterator[Frame | DataError]:
    """Every image of a source, read one by one. Arrays are BGR or grey as OpenCV gives them, PIL images in their own order.

    An image of a folder, glob or list that cannot be read comes as the error, so that the rest goes on; a single one raises it.
    Raises DataError if the source itself is not there or holds no image.
    """
    if isinstance(source, (list, tuple)):
        if not source:
            raise DataError("source is an empty list")
        for i, item in enumerate(source):
            try:
                for frame in frames(item, vid_stride):
                    yield Frame(frame.image, str(i)) if isinstance(frame, Frame) and not isinstance(item, (str, Path)) else frame
            except DataError as error:
                yield error
    elif isinstance(source, np.ndarray):
        yield Frame(_from_array(source), "array")
    elif hasattr(source, "convert") and hasattr(source, "getexif"):  # PIL, without importing it
        from PIL import ImageOps

        name = getattr(source, "filename", "") or "PIL image"
        try:
            image = np.asarray(ImageOps.exif_transpose(source).convert("RGB"), np.uint8)
        except OSError as error:  # PIL decodes late
            raise DataError(f"{name}: cannot be decoded ({error})") from None
        yield Frame(image, str(name))
    elif isinstance(source, (str, Path)):
        yield from _from_text(str(source), vid_stride)
    else:
        raise DataError(f"source is a {type(source).__name__}: give a path, URL, folder, glob, video, array, PIL image, or a list of these")


def image_files(source: Any) -> list[str]:
    """The paths of the images of a file, folder, glob, or list of these, as `frames` names them; nothing is read. Raises DataError for other sources."""
    if isinstance(source, (list, tuple)) and source:
        listed: list[str] = []
        for item in source:
            single = isinstance(item, (str, Path)) and Path(item).suffix.lower() in IMAGE_SUFFIXES
            listed += [str(Path(item).expanduser())] if single else image_files(item)  # one that is not there loses only itself
        return listed
    if (
        not isinstance(source, (str, Path))
        or str(source).startswith(("http://", "https://"))
        or Path(source).suffix.lower() in VIDEO_SUFFIXES
    ):
        raise DataError(
            f"engine=ray takes image files: a path, folder, glob, or a list of these; not {type(source).__name__} {str(source)[:100]!r}"
        )
    files = _files_of(str(source))
    return [str(Path(source).expanduser())] if files is None else [str(file) for file in files]


def _from_text(source: str, vid_stride: int) -> Iterator[Frame | DataError]:
    if source.startswith(("http://", "https://")):
        yield Frame(_from_url(source), source)
        return
    files = _files_of(source)
    path = Path(source).expanduser()
    if files is not None:
        yield from _from_files(files)
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        yield from _from_video(path, vid_stride)
    else:
        yield Frame(read_image(path), str(path))


def _files_of(source: str) -> list[Path] | None:
    """The images of a folder or glob; None for a single file, which is there. Raises DataError."""
    if not source:
        raise DataError("source is an empty text")
    try:
        path = Path(source).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except RuntimeError:  # ~someone who does not exist
        raise DataError(f"{source}: no such file or folder") from None
    except OSError as error:  # a name that is too long
        raise DataError(f"{source[:200]}: {error.strerror}") from None
    if is_folder:
        files = list_images(path)
        if not files:
            raise DataError(f"{path}: no images in this folder (of the types {', '.join(sorted(IMAGE_SUFFIXES))})")
        return files
    if is_file:
        return None
    if glob.has_magic(source):
        found = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
        matches = [p for p in found if p.suffix.lower() in IMAGE_SUFFIXES]
        if not matches:
            raise DataError(f"{source}: no image matches")
        return matches
    raise DataError(f"{source}: no such file or folder")


def _from_files(files: list[Path]) -> Iterator[Frame | DataError]:
    for file in files:
        try:
            yield Frame(read_image(file), str(file))
        except DataError as error:
            yield error


def _from_array(array: np.ndarray) -> Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise DataError(
            f"an array of shape {array.shape} and type {array.dtype} is not an image: give (H, W, 3) uint8, BGR as from cv2.imread"
        )
    if array.ndim == 2 or array.shape[2] == 1:
        return np.ascontiguousarray(np.repeat(array.reshape(*array.shape[:2], 1), 3, 2))
    return np.ascontiguousarray(array[..., 2::-1])


def _from_url(url: str) -> Image:
    try:
        with urllib.request.urlopen(url, timeout=URL_TIMEOUT) as response:
            data = np.frombuffer(response.read(), np.uint8)
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError, a malformed URL a ValueError
        raise DataError(f"{url}: cannot be fetched ({getattr(error, 'reason', error)})") from None
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise DataError(f"{url}: is not an image")
    return np.ascontiguousarray(image[..., ::-1])


def _from_video(path: Path, stride: int) -> Iterator[Frame]:
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened():
            raise DataError(f"{path}: not a video that OpenCV can read")
        number = 0
        while video.grab():
            if number % stride == 0:
                ok, image = video.retrieve()
                if not ok:
                    break
                yield Frame(np.ascontiguousarray(image[..., ::-1]), str(path), number)
            number += 1
        if number == 0:
            raise DataError(f"{path}: a video without frames")
    finally:
        video.release()
