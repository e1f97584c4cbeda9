"""FiftyOne's boxes, masks and polylines, as they are stored, -> pixels.

FiftyOne stores boxes as (left, top, width, height) in [0, 1] and an object's mask as an array that fills its box.
We place such a mask on exactly the pixels it was cropped from. Nothing here needs FiftyOne itself: processes that convert do without it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from zlib_ng import zlib_ng  # of zlib's streams the same bytes, masks in a sixth of its time

from ..geometry import masks
from ..geometry.masks import Crop
from ..geometry.rasterize import polygon_to_crop

RelativeBox = Sequence[float]
"""FiftyOne's (left, top, width, height), shares of the image."""
_EPS = 1e-6


def pixel_box(box: RelativeBox, height: int, width: int) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 in image pixels, clipped to the image."""
    x, y, w, h = box
    return (
        min(max(x * width, 0.0), float(width)),
        min(max(y * height, 0.0), float(height)),
        min(max((x + w) * width, 0.0), float(width)),
        min(max((y + h) * height, 0.0), float(height)),
    )


def mask_crop(mask: npt.NDArray[Any], box: RelativeBox, height: int, width: int) -> Crop:
    """The pixels of a FiftyOne instance mask, trimmed; a crop of size 0 if none is inside the image.

    mask: (h, w) or (h, w, channels), non-zero inside. A mask that has the size of its box in pixels, whichever way that
    box was rounded when it was cropped, keeps its pixels; one of another size is stretched to the box (nearest
    neighbour), as the App draws it. Parts outside the image are cut off.
    """
    bits, x, y = place_mask(mask, box, height, width)
    return masks.trim(np.ascontiguousarray(bits), x, y)


def place_mask(mask: npt.NDArray[Any], box: RelativeBox, height: int, width: int) -> Crop:
    """As `mask_crop`, but not trimmed and in the memory order of `mask`: to count pixels neither is needed, and both take longer than counting."""
    if mask.ndim == 3:
        mask = mask[:, :, 0]
    bits = (mask if mask.dtype == np.bool_ else mask != 0).view(np.uint8)
    if not bits.size:
        return bits, 0, 0
    x, w = _extent(box[0] * width, (box[0] + box[2]) * width, bits.shape[1])
    y, h = _extent(box[1] * height, (box[1] + box[3]) * height, bits.shape[0])
    # a box that is absurdly large must not become an absurdly large bitmap: map only the pixels inside the image
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if x1 >= x2 or y1 >= y2:
        return bits[:0], 0, 0
    if (h, w) == bits.shape:
        return bits[y1 - y : y2 - y, x1 - x : x2 - x], x1, y1
    columns = ((np.arange(x1, x2) - x + 0.5) * (bits.shape[1] / w)).astype(np.intp)
    rows = ((np.arange(y1, y2) - y + 0.5) * (bits.shape[0] / h)).astype(np.intp)
    return bits[np.ix_(rows, columns)], x1, y1


def _extent(start: float, end: float, size: int) -> tuple[int, int]:
    """First pixel and number of pixels, along one axis, of a mask with `size` cells in the box start..end (pixels)."""
    first, last = round(start), round(end)
    if size == last - first or size == round(end - start):
        return first, size
    outer, inner = math.ceil(end - _EPS), math.floor(end + _EPS)
    floor = math.floor(start + _EPS)
    if size in (outer - floor, inner - floor):  # cropped with floor/ceil, or with int() on both sides
        return floor, size
    return first, max(last - first, 1)


def polygon_crop(points: Sequence[Sequence[Sequence[float]]], height: int, width: int) -> Crop:
    """The pixels of a filled FiftyOne polyline, trimmed: all its shapes together, even-odd, so that a shape inside another is a hole.

    points: shapes of (x, y) in [0, 1].
    """
    rings = [polygon_to_crop(np.asarray(shape, np.float64) * (width, height), height, width) for shape in points if len(shape) >= 3]
    if not rings:
        return np.zeros((0, 0), np.uint8), 0, 0
    if len(rings) == 1:
        return masks.trim(*rings[0])
    full = np.zeros((height, width), np.uint8)
    for bits, x, y in rings:
        full[y : y + bits.shape[0], x : x + bits.shape[1]] ^= bits
    return masks.trim(full, 0, 0)


def box_crop(box: RelativeBox, height: int, width: int) -> Crop:
    """The full rectangle of a box, for labels that have no mask."""
    x1, y1, x2, y2 = (round(v) for v in pixel_box(box, height, width))
    return np.ones((max(y2 - y1, 0), max(x2 - x1, 0)), np.uint8), x1, y1


def read_mask(path: str) -> npt.NDArray[np.uint8]:
    """A mask image of FiftyOne's `mask_path`, (h, w) of 0 and 1. Raises ValueError that says what is wrong with it."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ValueError(f"mask file {path}: {error.strerror}") from None
    mask = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if mask is None:
        raise ValueError(f"mask file {path} is not an image")
    return np.asarray((mask if mask.ndim == 2 else mask[:, :, 0]) != 0, np.uint8)


_NPY = re.compile(rb"\{'descr': '(\|b1|\|u1)', 'fortran_order': (False|True), 'shape': \((\d+), (\d+)\), \} *\n")
_NPY_START = b"\x93NUMPY\x01\x00"


def encode_mask(mask: npt.NDArray[np.bool_]) -> bytes:
    """A (h, w) mask as FiftyOne stores arrays, for `decode_mask`.

    Only runs of one value are looked for: of the masks of COCO this takes less time than zlib's level 3, for streams three quarters of its size.
    """
    header = b"{'descr': '|b1', 'fortran_order': False, 'shape': (%d, %d), }" % mask.shape
    header += b" " * (-(len(_NPY_START) + 3 + len(header)) % 64) + b"\n"  # the data begins at a multiple of 64
    runs = zlib_ng.compressobj(1, zlib_ng.DEFLATED, zlib_ng.MAX_WBITS, zlib_ng.DEF_MEM_LEVEL, zlib_ng.Z_RLE)
    start = runs.compress(_NPY_START + len(header).to_bytes(2, "little") + header)
    return start + runs.compress(np.ascontiguousarray(mask).data) + runs.flush()


def decode_mask(data: bytes) -> npt.NDArray[Any]:
    """FiftyOne's stored array: a compressed .npy file. Raises ValueError if it is not one."""
    try:
        raw = zlib_ng.decompress(data)
    except zlib_ng.error as error:  # type: ignore[misc]  # its stub calls the class an object
        raise ValueError(f"its mask is damaged: {error}") from None
    # the usual kind is read without numpy's parser, which takes longer than all the rest
    if raw.startswith(_NPY_START) and (found := _NPY.match(raw, 10)):
        height, width = int(found[3]), int(found[4])
        if len(raw) == found.end() + height * width:
            flat = np.frombuffer(raw, np.bool_ if found[1] == b"|b1" else np.uint8, offset=found.end())
            return flat.reshape(height, width, order="F" if found[2] == b"True" else "C")
    array = np.load(BytesIO(raw))
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3):
        raise ValueError("its mask is not an image")
    return array
