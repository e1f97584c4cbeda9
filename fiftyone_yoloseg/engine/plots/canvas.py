"""What all figures share: colours that colour-blind people tell apart, axes, PNG files. No state of pyplot, no backend is touched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from ...data.files import write_bytes
from ...types import Names
from ..pinned import LARGEST
from .fonts import dress_text, font_for

# Okabe and Ito, "Color Universal Design" (2008)
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, YELLOW = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442"
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, YELLOW)
GREY = "#767676"
MOST = 30
"""Classes shown one by one; the others are counted together."""
_DPI = 100
_PNG, _JPEG = [(cv2.IMWRITE_PNG_COMPRESSION, 3)], [(cv2.IMWRITE_JPEG_QUALITY, quality) for quality in (88, 75, 55, 30, 10)]


def figure(width: int, height: int, title: str) -> Figure:
    """A figure of so many pixels; constrained layout keeps texts apart."""
    made = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    made.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)  # inches
    FigureCanvasAgg(made)
    made.suptitle(title, fontsize=12, x=0.01, ha="left", fontweight="bold")
    return made


def dress(axes: Axes, title: str, x: str, y: str, *, grid: bool = True) -> None:
    """Title, axis labels with units, and quiet lines."""
    axes.set_title(title, fontsize=10.5, loc="left")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(color="#e4e4e4", linewidth=0.7)


def save(made: Figure, path: Path) -> None:
    """As PNG, whole or not at all. Drawn once: savefig would draw it a first time to lay it out, and then again."""
    for text in made.findobj(Text):
        dress_text(text)
    assert isinstance(made.canvas, FigureCanvasAgg)
    canvas: Any = made.canvas
    canvas.draw()
    save_pixels(np.asarray(canvas.buffer_rgba())[..., :3], path)


def save_pixels(image: npt.NDArray[np.uint8], path: Path) -> None:
    """(H, W, 3) RGB as PNG, or by the ending of the path as JPEG of at most LARGEST bytes; whole or not at all."""
    bgr, jpeg = cv2.cvtColor(image, cv2.COLOR_RGB2BGR), path.suffix == ".jpg"
    for option in _JPEG if jpeg else _PNG:
        ok, data = cv2.imencode(path.suffix, bgr, option)
        if not ok:
            raise ValueError(f"{path}: a picture of {image.shape[1]} x {image.shape[0]} pixels cannot be encoded as {path.suffix}")
        if len(data) <= LARGEST:
            break
    write_bytes(path, data.tobytes())


def short(name: str, length: int = 18) -> str:
    """One line of at most so many characters."""
    name = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return name if len(name) <= length else name[: length - 1] + "…"


def class_name(names: Names, index: int) -> str:
    """A short name as it can be shown: "class 3" where no font has its characters, instead of a row of boxes."""
    name = short(names[index])
    return name if font_for(name) else f"class {index}"


def plain(name: str) -> str:
    """A short name as matplotlib will show it: no formula between dollars, and no underscore first, which hides it from legends."""
    name = short(name).replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def largest(counts: npt.NDArray[np.int64], most: int = MOST) -> tuple[list[int], list[int]]:
    """Indices to show, and the others. Up to `most` classes: all in their order; of more, the `most` most frequent, falling."""
    if len(counts) <= most:
        return list(range(len(counts))), []
    order = np.argsort(-counts, kind="stable").tolist()
    return order[:most], order[most:]


def class_labels(names: Names, shown: Sequence[int], others: Sequence[int]) -> list[str]:
    return [plain(class_name(names, i)) for i in shown] + ([f"{len(others)} others"] if others else [])
