"""YOLO-seg label files: one object a row, coordinates as shares of the image's width and height.

Polygon row: class x1 y1 ... xn yn, n >= 3.  Box row: class cx cy w h, read as a rectangle.  Both may be in one file.
Run lengths: class rle height width counts, with the compressed counts of COCO.
With confidences (prediction files), one more number ends the row. `label_rows` writes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..geometry import masks
from ..geometry.masks import Crop
from ..geometry.rasterize import OwnOutline, foreign_to_crop, own_outlines, paint, tangled
from ..types import InstanceRecord
from .files import read_text
from .label_text import RLE, Floats, parse_fixed

OUTSIDE = 0.01
"""Coordinates may be this far outside of [0, 1] and are clipped; farther ones are errors."""
_PREDICTIONS = "if the last number is a confidence, import the file as predictions"
Box = tuple[float, float, float, float]


@dataclass(slots=True)
class LabelFile:
    """What a label file holds. problems: "file:line: what is wrong: what to do" for each row left out. duplicates: repeated rows dropped."""

    records: list[InstanceRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    duplicates: int = 0


@dataclass(slots=True)
class RowObject:
    """One object of a label file. line: its first row, from 1. crop: its pixels. box: x1, y1, x2, y2 in image pixels if a row states it."""

    line: int
    cls: int
    crop: Crop
    box: Box | None = None
    confidence: float | None = None


@dataclass(slots=True)
class Rows:
    """The objects of a label file, what is wrong with it as (line, what), and how many repeated rows were dropped."""

    objects: list[RowObject] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)
    duplicates: int = 0


class _RowError(ValueError):
    """What is wrong with one row, and what to do."""


@dataclass(slots=True)
class _Row:
    """values: coordinates as shares of the image size; or rle: the pixels that the row holds."""

    line: int
    cls: int
    values: Floats
    confidence: float | None = None
    rle: Crop | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for rows that say the same."""
        return self.cls, self.confidence, self.values.tobytes(), self.rle and (self.rle[0].tobytes(), *self.rle[1:])


def read_label_file(path: Path | str, height: int, width: int, nc: int, *, confidences: bool = False, strict: bool = False) -> LabelFile:
    """Objects of one image of (height, width) pixels with classes 0..nc-1. A missing or empty file is a background image.

    Bad rows are left out and reported in `problems`; with `strict` the first one raises DataError.
    confidences: a row with one number more than its shape needs ends in a confidence.
    """
    path = Path(path)
    try:
        text = read_text(path)
    except DataError as error:
        if isinstance(error.__cause__, FileNotFoundError) and not path.is_symlink():
            return LabelFile()
        if strict:
            raise
        return LabelFile(problems=[str(error)])
    return parse_label_file(path, text, height, width, nc, confidences=confidences, strict=strict)


def parse_label_file(
    path: Path | str, text: str, height: int, width: int, nc: int, *, confidences: bool = False, strict: bool = False
) -> LabelFile:
    """As `read_label_file`, of its text. path: for messages, and for the ids of the records."""
    path = Path(path)
    rows = read_rows(text, height, width, nc, confidences=confidences)
    problems = [f"{path}:{line}: {what}" for line, what in rows.problems]
    if problems and strict:
        raise DataError(problems[0])
    records = []
    for o in rows.objects:
        mask = masks.from_bitmap(*o.crop)
        records.append(InstanceRecord(o.cls, mask, o.box or mask.box, source_id=f"{path.name}:{o.line}", confidence=o.confidence))
    return LabelFile(records, problems, rows.duplicates)


def read_rows(text: str, height: int, width: int, nc: int, *, confidences: bool = False) -> Rows:
    """As `read_label_file`, from its text. Rows that hold the parts of one object are put together again."""
    out = Rows()
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line and not line.isspace()]
    rows = _uniform_rows(lines, nc)
    if rows is None:
        rows = []
        for number, line in lines:
            try:
                if "\0" in line:
                    raise _RowError("holds zero bytes, as files do that were being written when a computer crashed: write it anew")
                rows.append(_parse(line.split(), number, height, width, nc, confidences))
            except _RowError as error:
                out.problems.append((number, str(error)))
    seen: set[tuple[object, ...]] = set()
    for group, outlines in _groups(rows, _own_outlines(rows, height, width)):
        key = tuple(row.key for row in group)
        if key in seen:
            out.duplicates += len(group)
            continue
        seen.add(key)
        try:
            parts = [_object(row, outline, height, width) for row, outline in zip(group, outlines, strict=True)]
        except _RowError as error:
            out.problems.append((group[0].line, str(error)))
            continue
        parts[0].crop = masks.union([part.crop for part in parts])
        out.objects.append(parts[0])
    out.problems.sort()
    return out


def _uniform_rows(lines: Sequence[tuple[int, str]], nc: int) -> list[_Row] | None:
    """The rows of a file as we write it, all at once; None for any other file, or if anything is wrong with it."""
    heads, tails = [], []
    for _, line in lines:
        head, _, tail = line.partition(" ")
        if not (tail and line.isascii() and head.isdigit() and len(head) < 10 and int(head) < nc):
            return None
        heads.append(int(head))
        tails.append(tail.encode())
    parsed = parse_fixed(tails)
    if parsed is None:
        return None
    values, counts = parsed
    if any(n % 2 or n < 4 for n in counts) or (len(values) and values.max() > 1):
        return None
    ends = list(accumulate(counts))
    return [_Row(lines[i][0], heads[i], values[end - counts[i] : end]) for i, end in enumerate(ends)]


def _groups(rows: Sequence[_Row], outlines: Sequence[OwnOutline | None]) -> list[tuple[list[_Row], list[OwnOutline | None]]]:
    """The rows of each object, and their outlines."""
    groups: list[tuple[list[_Row], list[OwnOutline | None]]] = []
    for row, outline in zip(rows, outlines, strict=True):
        if outline is not None and outline.continues and groups and groups[-1][0][0].cls == row.cls:
            groups[-1][0].append(row)
            groups[-1][1].append(outline)
        else:
            groups.append(([row], [outline]))
    return groups


def _own_outlines(rows: Sequence[_Row], height: int, width: int) -> list[OwnOutline | None]:
    """Of each row, what it is if it is our pixel outline."""
    polygons = [i for i, row in enumerate(rows) if row.rle is None and len(row.values) >= 6]
    out: list[OwnOutline | None] = [None] * len(rows)
    if polygons:
        points = np.concatenate([rows[i].values for i in polygons]).reshape(-1, 2) * [width, height]
        for i, outline in zip(polygons, own_outlines(points, [len(rows[i].values) // 2 for i in polygons]), strict=True):
            out[i] = outline
    return out


def _object(row: _Row, outline: OwnOutline | None, height: int, width: int) -> RowObject:
    if row.rle is not None:
        return RowObject(row.line, row.cls, row.rle, confidence=row.confidence)
    if len(row.values) > 1000 and tangled(row.values.reshape(-1, 2) * [width, height], height):
        raise _RowError("has an outline that crosses itself without end: draw it anew, or remove it")
    if outline is not None:
        return RowObject(row.line, row.cls, paint(outline.rings, height, width), confidence=row.confidence)
    if len(row.values) == 4:
        crop, box = _rectangle(row.values, height, width)
        return RowObject(row.line, row.cls, crop, box, row.confidence)
    points = np.clip(row.values, 0, 1).reshape(-1, 2) * [width, height]
    return RowObject(row.line, row.cls, foreign_to_crop(points, height, width), confidence=row.confidence)


def _parse(fields: list[str], line: int, height: int, width: int, nc: int, confidences: bool) -> _Row:
    """Any row, checked."""
    rle = None
    if len(fields) > 1 and fields[1] == RLE:
        fields, rle = _parse_rle(fields, height, width)
    numbers = _numbers(fields)
    if not np.isfinite(numbers).all():
        raise _RowError("holds a number that is not finite (nan, inf, or too large): draw the object anew, or remove the row")
    if not numbers[0].is_integer():
        raise _RowError(f"class {fields[0][:40]} is not a whole number: a row begins with the number of its class")
    cls, values, confidence = int(numbers[0]), numbers[1:], None
    if not 0 <= cls < nc:
        raise _RowError(f"class {fields[0][:40]} is not in 0..{nc - 1}: correct it, or add its name to the names")
    if confidences and (len(values) == 1 if rle else len(values) % 2 and len(values) >= 5):
        values, confidence = values[:-1], float(values[-1])
        if not 0 <= confidence <= 1:
            raise _RowError(f"confidence {confidence:g} is not in [0, 1]: correct it, or leave it out")
    if rle is not None:
        if len(values):
            raise _RowError(f"has {len(values)} numbers after its run lengths: remove them; {_PREDICTIONS}")
        return _Row(line, cls, values, confidence, rle)
    if len(values) < 4:
        raise _RowError(f"has {len(values)} coordinates, but a box needs 4 and a polygon 6 or more: complete the row, or remove it")
    if len(values) % 2:
        raise _RowError(f"has an odd number of coordinates ({len(values)}): complete the row, or remove it; {_PREDICTIONS}")
    if values.min() < -OUTSIDE or values.max() > 1 + OUTSIDE:
        worst = values[np.argmax(np.abs(values - 0.5))]
        hint = "divide pixels by the image's width and height" if worst > 2 else "cut the outline at the border of the image"
        raise _RowError(f"coordinate {worst:g} is not in [0, 1]: {hint}")
    return _Row(line, cls, values, confidence)


def _parse_rle(fields: list[str], height: int, width: int) -> tuple[list[str], Crop]:
    """A row of run lengths -> its other fields, and the pixels."""
    if len(fields) < 5:
        raise _RowError("is cut off: write it anew, as `class rle height width counts`")
    size = [int(n) if n.is_integer() else n for n in _numbers(fields[2:4]).tolist()]
    try:
        mask = masks.from_checked_rle({"size": size, "counts": fields[4]}, height, width)
    except ValueError as error:
        raise _RowError(f"{error}: write it anew from the object's mask") from None
    return [fields[0], *fields[5:]], (masks.crop_bitmap(mask), mask.x, mask.y)


def _numbers(fields: Sequence[str]) -> Floats:
    """Of what Python takes for a number, only what every reader does: no digits of other scripts, no 1_000."""
    try:
        text = "".join(fields)
        if text.isascii() and "_" not in text:
            return np.array(fields, np.float64)
    except ValueError:
        pass
    word = next(field for field in fields if not _is_number(field))
    raise _RowError(f"{word[:40]!r} is not a number: a row is the number of a class and coordinates, with spaces between them")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def _rectangle(values: Floats, height: int, width: int) -> tuple[Crop, Box]:
    """Pixels and box of cx, cy, w, h: the pixels whose centres are inside, at least one."""
    cx, cy, w, h = values.tolist()
    if w <= 0 or h <= 0:
        raise _RowError(f"is a box without area (w {w:g}, h {h:g}): give it a width and a height, or remove it")
    edges = np.array([[cx - w / 2, cy - h / 2], [cx + w / 2, cy + h / 2]]) * [width, height]
    (x1, y1), (x2, y2) = np.clip(edges, 0, [width, height]).tolist()
    if x1 >= x2 or y1 >= y2:
        raise _RowError("is a box outside the image: move it, or remove it")
    left, top = min(math.floor(x1 + 0.5), width - 1), min(math.floor(y1 + 0.5), height - 1)
    right, bottom = max(math.floor(x2 + 0.5), left + 1), max(math.floor(y2 + 0.5), top + 1)
    return (np.ones((bottom - top, right - left), np.uint8), left, top), (x1, y1, x2, y2)
