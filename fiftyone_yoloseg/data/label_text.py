"""Numbers of label rows as text and back, many at a time.

Coordinates are written with a fixed number of decimals, so that a row is a table of characters: outlines of pixels are looked up in
tables of ready text, and such rows are read by arithmetic on the characters. Any other text is left to Python's own parser.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..geometry.polygons import MARK, OFFSET, Outline, Walk

Floats = npt.NDArray[np.float64]
RLE = "rle"
"""The word after the class in a row of run lengths."""
_SPACE, _DOT, _ZERO = np.frombuffer(b" .0", np.uint8)


def decimals(height: int, width: int) -> int:
    """Decimals that keep a vertex within 0.005 pixels of its place, as our reader needs; six up to 10,000 pixels."""
    return max(6, math.ceil(math.log10(max(height, width, 1))) + 2)


def walks_text(walks: Sequence[Walk], corners: Sequence[tuple[int, int]], size: tuple[int, int], outline: Outline,
               continues: Sequence[bool]) -> list[bytes]:  # fmt: skip
    """Coordinates of outlines in an image of `size` (height, width), one text a walk, each number after a space.

    corners: x, y of the crop that each walk belongs to. continues: whether it is another part of the object before it.
    """
    if not walks:
        return []
    height, width = size
    digits = decimals(height, width)
    if outline == "edge":
        columns, rows = _table(width, digits, (0.0,), 1), _table(height, digits, (0.0,), 1)
    else:
        columns, rows = _table(width, digits, (OFFSET, OFFSET + MARK, OFFSET - MARK), 0), _table(height, digits, (OFFSET, OFFSET + MARK), 0)
    lengths = np.array([len(points) for points, _ in walks])
    entries = np.concatenate([points for points, _ in walks]) + np.repeat(np.array(corners, np.int32), lengths, 0)
    if outline == "pixel":
        entries[:, 0] += np.concatenate([marks for _, marks in walks]) % 3 * np.int32(width)  # a mark of -1 is in the table's third part
        entries[np.cumsum(lengths) - lengths, 1] += np.array(continues, np.int32) * height
    entries[:, 1] += len(columns)
    data, step = np.concatenate([columns, rows]).take(entries, 0).tobytes(), 2 * (digits + 3)
    ends = (np.cumsum(lengths) * step).tolist()
    return [data[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@functools.lru_cache(maxsize=256)
def _table(size: int, digits: int, offsets: tuple[float, ...], more: int) -> npt.NDArray[np.uint8]:
    """Text of (i + offset) / size for i in 0..size-1+more, one offset after the other: (n, digits + 3) characters."""
    shares = np.concatenate([(np.arange(size + more) + offset) / size for offset in offsets])
    number = np.rint(shares * 10**digits).astype(np.int64)
    text = np.empty((len(number), digits + 3), np.uint8)
    text[:, 0], text[:, 2] = _SPACE, _DOT
    for place in range(digits):
        number, digit = np.divmod(number, 10)
        text[:, digits + 2 - place] = digit + _ZERO
    text[:, 1] = number + _ZERO
    return text


def parse_fixed(rows: Sequence[bytes]) -> tuple[Floats, list[int]] | None:
    """All numbers of rows such as b"0.250000 1.000000", and how many each row has: one digit, a point, and equally many decimals in all.

    None if any row is otherwise.
    """
    digits = rows[0].find(b" ") - 2 if rows else 1
    if not 0 < digits < 15:
        return None
    step = digits + 3
    lengths = [len(row) + 1 for row in rows]
    if any(length % step for length in lengths):
        return None
    text = np.frombuffer(b" ".join([b"", *rows]), np.uint8).reshape(-1, step)
    values = text[:, [1, *range(3, step)]] - _ZERO  # what is below "0" wraps around to large numbers
    if np.any(text[:, 0] != _SPACE) or np.any(text[:, 2] != _DOT) or (values.size and values.max() > 9):
        return None
    # floats hold whole numbers of 15 digits exactly, and their quotient is rounded once, as a parser rounds the decimal: the same to the last bit
    return values.astype(np.float64) @ 10.0 ** np.arange(digits, -1, -1) / 10**digits, [length // step for length in lengths]
