"""The objects of one image as label rows, each read back and compared with its mask."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...data.label_rows import RowStyle, format_walks, outlines, rle_row
from ...data.yolo_labels import read_rows
from ...geometry import masks
from ...geometry.masks import Crop
from ...geometry.polygons import Walk
from ...geometry.rasterize import paint
from ..objects import ReadObject, Size

CROWD = "a crowd region: YOLO-seg text has no word for it"
TWIN = "the same pixels and class as another object: readers take repeated rows as one"
Scores = list[tuple[float, str]]
"""(IoU, label id)"""


@dataclass(slots=True)
class SampleResult:
    """What became of the labels of one sample.

    objects: usable ones; written: ids and class indices of those that are in the label file. iou: sum over the written ones of the IoU
    between mask and what our reader makes of the row; plain_iou: the same for plain OpenCV fill. inexact, plain_inexact: those below 1.
    dropped: (reason, label id).
    """

    objects: int = 0
    written: list[int] = field(default_factory=list)
    with_holes: int = 0
    with_parts: int = 0
    boxed: int = 0
    iou: float = 0.0
    plain_iou: float = 0.0
    inexact: Scores = field(default_factory=list)
    plain_inexact: Scores = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps([getattr(self, name) for name in self.__slots__], separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> SampleResult:
        return cls(*json.loads(text))


def write_rows(objects: Sequence[ReadObject], size: Size, nc: int, style: RowStyle) -> tuple[str, SampleResult]:
    """The text of a label file, and what it is worth."""
    result = SampleResult(objects=len(objects))
    usable = []
    for o in objects:
        if o.crowd:
            result.dropped.append((CROWD, o.id))
        else:
            usable.append(o)
    walks: list[list[Walk]] = []
    if style.dialect == "rle":
        rows = [[rle_row(o.cls, o.crop, *size)] for o in usable]
    else:
        walks = [outlines(o.crop[0], style) for o in usable]
        rows = format_walks(walks, [(o.cls, o.crop) for o in usable], size, style)
    seen: dict[tuple[str, ...], int] = {}
    for i, (o, own) in enumerate(zip(usable, rows, strict=True)):
        if seen.setdefault(tuple(own), i) != i:
            result.dropped.append((TWIN, o.id))
    text = "".join(f"{row}\n" for own in seen for row in own)
    back = read_rows(text, *size, nc)
    if back.problems or len(back.objects) != len(seen):
        raise AssertionError(f"rows of our own cannot be read back: {len(seen)} objects -> {len(back.objects)}, {back.problems[:1]}")
    for i, found in zip(seen.values(), back.objects, strict=True):
        o = usable[i]
        plain = _simple(walks[i]) if walks else False
        parts, holes = (1, 0) if plain and style.tolerance <= 0 else masks.count_parts(o.crop[0])
        result.written.append(o.cls)
        result.with_parts += parts > 1
        result.with_holes += holes > 0
        result.boxed += o.boxed
        iou = masks.crop_iou(o.crop, found.crop)
        if iou < 1:
            result.inexact.append((iou, o.id))
        result.iou += iou
        if not plain and walks and style.outline == "pixel":
            iou = masks.crop_iou(o.crop, _plain_fill(walks[i], o.crop, size))
        if iou < 1:
            result.plain_inexact.append((iou, o.id))
        result.plain_iou += iou
    return text, result


def read_back(o: ReadObject, size: Size, nc: int, style: RowStyle, plain: bool) -> Crop:
    """What a reader makes of the rows of an object: ours, or with `plain` one that knows nothing of bridges."""
    walks = outlines(o.crop[0], style) if style.dialect != "rle" else []
    if plain and walks and style.outline == "pixel":
        return _plain_fill(walks, o.crop, size)
    rows = format_walks([walks], [(o.cls, o.crop)], size, style)[0] if walks else [rle_row(o.cls, o.crop, *size)]
    return read_rows("\n".join(rows), *size, nc).objects[0].crop


def _simple(walks: Sequence[Walk]) -> bool:
    """Whether there is no bridge, so that every reader fills the same."""
    return len(walks) == 1 and not walks[0][1].any()


def _plain_fill(walks: Sequence[Walk], crop: Crop, size: Size) -> Crop:
    """What a reader without knowledge of bridges fills: OpenCV paints them."""
    corner = np.array(crop[1:], np.int32)
    return masks.union([paint([points + corner], *size) for points, _ in walks])
