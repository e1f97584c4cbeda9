"""Reports for people: one HTML file with its pictures in it, that loads nothing and runs nothing, and pictures of objects."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape

import cv2
import numpy as np
import numpy.typing as npt

from ..geometry import masks
from ..geometry.masks import Bitmap, Crop

Colour = tuple[int, int, int]
"""RGB, 0..255."""
Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in image pixels, the ends not included."""
Image = npt.NDArray[np.uint8]
SIDE = 320
_NUMBER = re.compile(r"[+\-\u2212]?[\d.]+ ?%?")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .55rem; border-bottom: 1px solid #ddd; text-align: left }
td.number { text-align: right; font-variant-numeric: tabular-nums } figure { display: inline-block; margin: .5rem; vertical-align: top }
figcaption { font-size: 13px; overflow-wrap: anywhere } i { display: inline-block; width: .8em; height: .8em; margin-right: .3em }
div.wide { overflow-x: auto } figure img + img { margin-left: 4px } p.about { color: #777; margin-top: -.6rem }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } td, th { border-color: #444 } p.about { color: #999 } }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page. parts: HTML of its body; the title becomes its heading."""
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    return f"<!doctype html><html><head>{head}</head><body><h1>{escape(title)}</h1>{''.join(parts)}</body></html>\n"


def bullets(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Numbers are aligned to the right."""
    cells = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{cells}</tr>{body}</table></div>'


def legend(meanings: Sequence[tuple[Colour, str]]) -> str:
    return "<p>" + " &nbsp; ".join(f'<i style="background: rgb{colour}"></i>{escape(text)}' for colour, text in meanings) + "</p>"


def figure(pictures: Sequence[str], caption: Sequence[str], width: int = SIDE) -> str:
    """pictures: as of `encoded`, side by side.  caption: its lines.  width: of each picture, in CSS pixels."""
    shown = "".join(f'<img src="{picture}" width="{width}">' for picture in pictures)
    lines = "<br>".join(escape(line) for line in caption)
    wide = len(pictures) * width + 4 * (len(pictures) - 1)
    return f'<figure style="width: {wide}px">{shown}<figcaption>{lines}</figcaption></figure>'


def surroundings(image: Image, crops: Sequence[Crop], margin: int) -> Box:
    """The part of an image that shows crops with a margin of so many pixels."""
    height, width = image.shape[:2]
    bits, x, y = masks.union(crops)
    return max(x - margin, 0), max(y - margin, 0), min(x + bits.shape[1] + margin, width), min(y + bits.shape[0] + margin, height)


def framed(box: Box, image: Image, least: int, aspect: float = 4 / 3) -> Box:
    """A part of an image, grown to that aspect and to a height of `least` pixels or more, as far as the image goes."""
    x1, y1, x2, y2 = box
    tall = max(y2 - y1, (x2 - x1) / aspect, least)
    (left, right), (top, bottom) = (
        _grown(low, high, round(size), limit)
        for low, high, size, limit in ((x1, x2, tall * aspect, image.shape[1]), (y1, y2, tall, image.shape[0]))
    )
    return left, top, right, bottom


def _grown(low: int, high: int, size: int, limit: int) -> tuple[int, int]:
    """An interval of that size, or of all that there is, with the given one in its middle where that can be."""
    size = min(max(size, high - low), limit)
    start = min(max((low + high - size) // 2, 0), limit - size)
    return start, start + size


def window(crop: Crop, box: Box) -> npt.NDArray[np.bool_]:
    """The pixels of a crop in a part of the image that holds all of it."""
    bits, x, y = crop
    out = np.zeros((box[3] - box[1], box[2] - box[0]), np.bool_)
    out[y - box[1] : y - box[1] + bits.shape[0], x - box[0] : x - box[0] + bits.shape[1]] = bits != 0
    return out


def enlarged(pixels: Image, side: int = SIDE, *, smooth: bool = False) -> Image:
    """So that the longer side has `side` pixels; where it grows, single pixels stay visible unless it shall be smooth."""
    scale = side / max(pixels.shape[:2])
    grows = cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST
    size = max(round(pixels.shape[1] * scale), 1), max(round(pixels.shape[0] * scale), 1)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else grows), np.uint8)


def outlined(pixels: Image, mask: Bitmap, colour: Colour, thickness: int = 2) -> Image:
    """A picture with the outline of a mask of its size drawn on a dark rim."""
    out = pixels.copy()
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, contours, -1, (0, 0, 0), thickness + 2, cv2.LINE_AA)
    cv2.drawContours(out, contours, -1, colour, thickness, cv2.LINE_AA)
    return out


def encoded(pixels: Image, kind: str = ".png") -> str:
    """An RGB picture as the address of an image. kind: .png, or .jpg for photos."""
    content = base64.b64encode(cv2.imencode(kind, pixels[:, :, ::-1])[1].tobytes()).decode()
    return f"data:image/{'jpeg' if kind == '.jpg' else 'png'};base64,{content}"


def folded(title: str, part: str) -> str:
    """A part of a page that is shown once its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>{part}</details>"


def _cell(value: str) -> str:
    return f'<td class="number">{value}</td>' if _NUMBER.fullmatch(value) else f"<td>{escape(value)}</td>"
