"""Sheets of images with masks drawn. Images are drawn with OpenCV, texts with Pillow, names in a font that has them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from .canvas import save_pixels, short
from .fonts import font_for, usual_font

Image = npt.NDArray[np.uint8]
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels
_ALPHA, _GAP, _TITLE, _CAPTION, _FONT = 0.4, 6, 34, 20, 12  # share; pixels


@dataclass(frozen=True, slots=True)
class Shape:
    """An object to draw. cover: (h, w) uint8 at any resolution, 0..255, stretched over the whole image. colour: "#rrggbb"."""

    cover: Image
    colour: str
    text: str


def rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def draw(image: Image, shapes: Sequence[Shape], side: int) -> Image:
    """(side, side, 3) RGB: the image, scaled to fit and centred on white, with its shapes; the largest lie below."""
    scale = side / max(image.shape[:2])
    height, width = (max(round(n * scale), 1) for n in image.shape[:2])
    out = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8)
    placed: list[Rectangle] = []
    texts: list[tuple[tuple[int, int], Shape]] = []
    bits = [cv2.resize(shape.cover, (width, height), interpolation=cv2.INTER_LINEAR) > 127 for shape in shapes]
    for shape, inside in sorted(zip(shapes, bits, strict=True), key=lambda pair: -int(np.count_nonzero(pair[1]))):
        x, y, w, h = cv2.boundingRect(inside.view(np.uint8))
        if not w:
            continue
        colour, crop, under = rgb(shape.colour), inside[y : y + h, x : x + w], out[y : y + h, x : x + w]
        under[crop] = (under[crop] * (1 - _ALPHA) + np.array(colour) * _ALPHA).astype(np.uint8)
        outline, _ = cv2.findContours(crop.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x, y))
        cv2.drawContours(out, outline, -1, colour, 2, cv2.LINE_AA)
        if shape.text and (place := _place(shape.text, (x, y, x + w, y + h), width, height, placed)):
            texts.append((place, shape))
    sheet = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    sheet[top : top + height, left : left + width] = _write(out, texts)
    return sheet


def _place(text: str, box: Rectangle, width: int, height: int, placed: list[Rectangle]) -> tuple[int, int] | None:
    """Where the name of an object can stand without covering another one: above its box, inside it, or below. None: nowhere."""
    w, h = round(_font(text).getlength(text)) + 4, _FONT + 4
    for x, y in ((box[0], box[1] - h), (box[0], box[1]), (box[0], box[1] + h), (box[2] - w, box[3] - h), (box[0], box[3])):
        left, top = max(min(x, width - w), 0), max(min(y, height - h), 0)
        if not any(left < b[2] and b[0] < left + w and top < b[3] and b[1] < top + h for b in placed):
            placed.append((left, top, left + w, top + h))
            return left, top
    return None


def _write(image: Image, texts: Sequence[tuple[tuple[int, int], Shape]]) -> Image:
    if not texts:
        return image
    canvas = Pillow.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    for (x, y), shape in texts:
        colour = rgb(shape.colour)
        dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 140
        pen.rectangle((x, y, x + round(_font(shape.text).getlength(shape.text)) + 3, y + _FONT + 3), fill=colour)
        pen.text((x + 2, y + 1), shape.text, fill=(255, 255, 255) if dark else (0, 0, 0), font=_font(shape.text))
    return np.asarray(canvas)


@dataclass(frozen=True, slots=True)
class Tile:
    """One or more pictures side by side, of equal size, and a line below."""

    pictures: Sequence[Image]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A headline and rows of tiles."""

    title: str
    tiles: Sequence[Tile]
    columns: int


def save_sheet(sections: Sequence[Section], path: Path) -> None:
    """Sections below each other, as one picture, PNG or JPEG by the ending of the path."""
    rows = [_section(section) for section in sections]
    width = max(row.shape[1] for row in rows)
    sheet = np.full((sum(len(row) for row in rows), width, 3), 255, np.uint8)
    top = 0
    for row in rows:
        sheet[top : top + len(row), : row.shape[1]] = row
        top += len(row)
    save_pixels(sheet, path)


def _section(section: Section) -> Image:
    side, each = section.tiles[0].pictures[0].shape[0], len(section.tiles[0].pictures)
    captions = _CAPTION if any(tile.caption for tile in section.tiles) else 0
    step_x, step_y = each * side + (each + 1) * _GAP, side + captions + _GAP
    columns = min(section.columns, len(section.tiles))
    height = _TITLE + -(-len(section.tiles) // columns) * step_y
    width = max(columns * step_x + _GAP, round(_font(section.title, 15).getlength(section.title)) + 2 * _GAP)
    canvas = Pillow.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((_GAP, 8), section.title, fill="black", font=_font(section.title, 15))
    for n, tile in enumerate(section.tiles):
        x, y = n % columns * step_x + _GAP, _TITLE + n // columns * step_y
        for i, picture in enumerate(tile.pictures):
            canvas.paste(Pillow.fromarray(picture), (x + i * (side + 2), y))
        caption = _fit(tile.caption, each * side)
        pen.text((x, y + side + 2), caption, fill="black", font=_font(caption))
    return np.asarray(canvas)


def _fit(text: str, width: int) -> str:
    while len(text) > 1 and _font(text).getlength(text) > width:
        text = short(text, len(text) - 1)
    return text


def _font(text: str, size: int = _FONT) -> ImageFont.FreeTypeFont:
    return _font_file(font_for(text) or usual_font(), size)


@functools.cache
def _font_file(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)
