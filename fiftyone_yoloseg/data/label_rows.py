"""Objects -> rows of YOLO-seg label files, whose format `yolo_labels` describes and reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import DataError, SettingsError
from ..geometry import masks
from ..geometry.masks import Bitmap, Crop
from ..geometry.polygons import Outline, Walk, bitmap_outlines
from ..types import InstanceRecord
from .files import write_text
from .label_text import RLE, walks_text

Dialect = Literal["bridge", "rows", "rle"]


@dataclass(frozen=True, slots=True)
class RowStyle:
    """How objects become rows.

    dialect: "bridge", one polygon an object, its parts and holes joined; "rows", one polygon a part; "rle", run lengths.
    outline: "pixel", border pixels; "edge", pixel corners, for readers that fill as COCO does. tolerance: see `mask_to_polygon`.
    Raises SettingsError for what cannot be combined.
    """

    dialect: Dialect = "bridge"
    outline: Outline = "pixel"
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.dialect not in ("bridge", "rows", "rle"):
            raise SettingsError(f"dialect={self.dialect!r}: use bridge, rows or rle")
        if self.outline not in ("pixel", "edge"):
            raise SettingsError(f"outline={self.outline!r}: use pixel or edge")
        if not 0 <= self.tolerance < math.inf:
            raise SettingsError(f"tolerance={self.tolerance}: must be 0 or more pixels")
        if self.dialect == "rle" and (self.outline != "pixel" or self.tolerance > 0):
            raise SettingsError("dialect=rle holds the pixels themselves: leave outline and tolerance as they are")
        if self.dialect == "rows" and self.outline == "edge":
            raise SettingsError(
                "dialect=rows with outline=edge: nothing in such rows would tell which belong to one object; use outline=pixel"
            )


EXACT = RowStyle()


def outlines(bits: Bitmap, style: RowStyle) -> list[Walk]:
    """The closed walks that are the rows of an object in a polygon dialect."""
    return bitmap_outlines(bits, tolerance=style.tolerance, outline=style.outline, split=style.dialect == "rows")


def format_walks(
    walks: Sequence[Sequence[Walk]], objects: Sequence[tuple[int, Crop]], size: tuple[int, int], style: RowStyle
) -> list[list[str]]:
    """`outlines` of (class, pixels) of the objects of an image of `size` (height, width) -> the rows of each, without line ends."""
    corners = [(x, y) for own, (_, (_, x, y)) in zip(walks, objects, strict=True) for _ in own]
    continues = [i > 0 for own in walks for i in range(len(own))]
    texts = iter(walks_text([walk for own in walks for walk in own], corners, size, style.outline, continues))
    return [[f"{cls}{next(texts).decode()}" for _ in own] for own, (cls, _) in zip(walks, objects, strict=True)]


def format_objects(objects: Sequence[tuple[int, Crop]], height: int, width: int, style: RowStyle = EXACT) -> list[list[str]]:
    """(class, pixels) of the objects of one image -> the rows of each, without line ends. Each must have a pixel in the image.

    `read_rows` gives the same pixels back if the style's tolerance is 0.
    """
    if style.dialect == "rle":
        return [[rle_row(cls, crop, height, width)] for cls, crop in objects]
    return format_walks([outlines(bits, style) for _, (bits, _, _) in objects], objects, (height, width), style)


def rle_row(cls: int, crop: Crop, height: int, width: int) -> str:
    counts = masks.to_coco_rle(masks.from_bitmap(*crop), height, width)["counts"]
    return f"{cls} {RLE} {height} {width} {counts.decode()}"


def format_record(record: InstanceRecord, height: int, width: int, style: RowStyle = EXACT, *, confidence: bool = False) -> list[str]:
    """The rows of an object, without line ends.

    confidence: end each row with the record's confidence, for prediction files only. Raises DataError for an object without any pixel.
    """
    if record.mask.w == 0:
        raise DataError(f"object {record.source_id or '(no id)'} of class {record.cls} has no pixel: it cannot be a label row")
    crop = masks.crop_bitmap(record.mask), record.mask.x, record.mask.y
    rows = format_objects([(record.cls, crop)], height, width, style)[0]
    return rows if not confidence or record.confidence is None else [f"{row} {record.confidence:.6f}" for row in rows]


def write_label_file(
    path: Path | str, records: Iterable[InstanceRecord], height: int, width: int, style: RowStyle = EXACT, *, confidence: bool = False
) -> None:
    """Write the objects of one image of (height, width) pixels, whole or not at all. No objects: an empty file.

    The format has no word for crowds: leave them out, or they become objects.
    """
    rows = [row for record in records for row in format_record(record, height, width, style, confidence=confidence)]
    write_text(Path(path), "".join(row + "\n" for row in rows))
