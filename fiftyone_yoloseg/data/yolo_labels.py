"""YOLO-seg label files: one object a row, coordinates as shares of the image's width and height.

Polygon row: class x1 y1 ... xn yn, n >= 3.  Box row: class cx cy w h, read as a rectangle.  Both may be in one file.
With confidences (prediction files), one more number ends the row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..geometry import masks
from ..geometry.polygons import mask_to_polygon
from ..geometry.rasterize import polygon_to_mask
from ..types import CropMask, InstanceRecord
from .files import read_text, write_text

OUTSIDE = 0.01
"""Coordinates may be this far outside of [0, 1] and are clipped; farther ones are errors."""


@dataclass(slots=True)
class LabelFile:
    """What a label file holds. problems: "file:line: what" for each row left out. duplicates: repeated rows dropped."""

    records: list[InstanceRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    duplicates: int = 0


class _RowError(ValueError):
    """What is wrong with one row."""


def read_label_file(path: Path | str, height: int, width: int, nc: int, *, confidences: bool = False, strict: bool = False) -> LabelFile:
    """Objects of one image of (height, width) pixels with classes 0..nc-1. A missing or empty file is a background image.

    Bad rows are left out and reported in `problems`; with `strict` the first one raises DataError.
    confidences: a row with one number more than its shape needs ends in a confidence.
    """
    path = Path(path)
    out = LabelFile()
    try:
        text = read_text(path)
    except DataError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return out
        if strict:
            raise
        out.problems.append(str(error))
        return out
    seen: set[tuple[float | None, ...]] = set()
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            cls, values, confidence = _parse(fields, nc, confidences)
            key = (cls, confidence, *values.tolist())
            if key in seen:
                out.duplicates += 1
                continue
            seen.add(key)
            mask, box = _shape(values, height, width)
        except _RowError as error:
            out.problems.append(f"{path}:{number}: {error}")
            if strict:
                raise DataError(out.problems[-1]) from None
            continue
        out.records.append(InstanceRecord(cls, mask, box, source_id=f"{path.name}:{number}", confidence=confidence))
    return out


def _parse(fields: list[str], nc: int, confidences: bool) -> tuple[int, npt.NDArray[np.float64], float | None]:
    """Class, coordinates and confidence of a row."""
    try:
        numbers = np.array(fields, np.float64)
    except ValueError:
        word = next(f for f in fields if not _is_number(f))
        raise _RowError(f"{word[:40]!r} is not a number") from None
    if not np.isfinite(numbers).all():
        raise _RowError("holds a number that is not finite (nan or inf)")
    if not numbers[0].is_integer():
        raise _RowError(f"class {fields[0][:40]} is not a whole number")
    cls, values, confidence = int(numbers[0]), numbers[1:], None
    if not 0 <= cls < nc:
        raise _RowError(f"class {fields[0][:40]} is not in 0..{nc - 1}")
    if confidences and len(values) % 2 and len(values) >= 5:
        values, confidence = values[:-1], float(values[-1])
        if not 0 <= confidence <= 1:
            raise _RowError(f"confidence {confidence:g} is not in [0, 1]")
    if len(values) < 4:
        raise _RowError(f"has {len(values)} coordinates; a box needs 4, a polygon 6 or more")
    if len(values) % 2:
        raise _RowError(f"has an odd number of coordinates ({len(values)})")
    if values.min() < -OUTSIDE or values.max() > 1 + OUTSIDE:
        worst = values[np.argmax(np.abs(values - 0.5))]
        hint = "; coordinates must be shares of the image size, not pixels" if worst > 2 else ""
        raise _RowError(f"coordinate {worst:g} is not in [0, 1]{hint}")
    return cls, values, confidence


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shape(values: npt.NDArray[np.float64], height: int, width: int) -> tuple[CropMask, tuple[float, float, float, float]]:
    if len(values) == 4:
        return _rectangle(values, height, width)
    mask = polygon_to_mask(np.clip(values, 0, 1).reshape(-1, 2) * [width, height], height, width)
    return mask, mask.box


def _rectangle(values: npt.NDArray[np.float64], height: int, width: int) -> tuple[CropMask, tuple[float, float, float, float]]:
    """Mask and box of cx, cy, w, h: the pixels whose centres are inside, at least one."""
    cx, cy, w, h = values.tolist()
    if w <= 0 or h <= 0:
        raise _RowError(f"is a box without area (w {w:g}, h {h:g})")
    edges = np.array([[cx - w / 2, cy - h / 2], [cx + w / 2, cy + h / 2]]) * [width, height]
    (x1, y1), (x2, y2) = np.clip(edges, 0, [width, height]).tolist()
    left, top = min(math.floor(x1 + 0.5), width - 1), min(math.floor(y1 + 0.5), height - 1)
    right, bottom = max(math.floor(x2 + 0.5), left + 1), max(math.floor(y2 + 0.5), top + 1)
    return masks.from_bitmap(np.ones((bottom - top, right - left), np.uint8), left, top), (x1, y1, x2, y2)


def format_row(record: InstanceRecord, height: int, width: int, *, tolerance: float = 0.0, confidence: bool = False) -> str:
    """The polygon row of an object, without line end; `read_label_file` gives the same mask back if tolerance (pixels) is 0.

    confidence: write the record's confidence as the last number, for prediction files only. Raises DataError for an object without any pixel.
    """
    polygon = mask_to_polygon(record.mask, tolerance=tolerance)
    if len(polygon) == 0:
        raise DataError(f"object {record.source_id or '(no id)'} of class {record.cls} has no pixel: it cannot be a label row")
    number = f" %.{decimals(height, width)}f"
    row = f"{record.cls}" + (number * polygon.size) % tuple((polygon / [width, height]).ravel().tolist())
    return row if not confidence or record.confidence is None else f"{row} {record.confidence:.6f}"


def decimals(height: int, width: int) -> int:
    """Decimals that keep a vertex within 0.005 pixels of its place, as our reader needs; six up to 10,000 pixels."""
    return max(6, math.ceil(math.log10(max(height, width, 1))) + 2)


def write_label_file(
    path: Path | str, records: Iterable[InstanceRecord], height: int, width: int, *, tolerance: float = 0.0, confidence: bool = False
) -> None:
    """Write the objects of one image of (height, width) pixels, whole or not at all. No objects: an empty file.

    The format has no word for crowds: leave them out, or they become objects.
    """
    rows = [format_row(record, height, width, tolerance=tolerance, confidence=confidence) for record in records]
    write_text(Path(path), "".join(row + "\n" for row in rows))
