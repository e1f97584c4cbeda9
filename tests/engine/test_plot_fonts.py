"""Names in any script: in a font that has them if there is one, else by their number; never as a row of boxes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from fiftyone_yoloseg.engine.plots import canvas, confusion, fonts, pictures

NAMES = {0: "東京", 1: "Größe"}


@pytest.fixture
def only_usual_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A system without any other font."""
    monkeypatch.setattr(fontManager, "ttflist", [f for f in fontManager.ttflist if f.name == "DejaVu Sans"])
    fonts.font_for.cache_clear()
    yield
    fonts.font_for.cache_clear()


@pytest.fixture
def chinese_font(only_usual_fonts: None, tmp_path: Path) -> str:
    """A font whose every character is a filled square, with ASCII and two Chinese characters."""
    characters = [*range(33, 127), *map(ord, "東京")]
    names = [f"u{c:04X}" for c in characters]
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    order = [".notdef", "space", *names]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(order)
    font.setupCharacterMap({32: "space", **dict(zip(characters, names, strict=True))})
    font.setupGlyf({name: TTGlyphPen(None).glyph() if name == "space" else pen.glyph() for name in order})
    font.setupHorizontalMetrics(dict.fromkeys(order, (1000, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "squares.ttf")
    fontManager.addfont(tmp_path / "squares.ttf")
    fonts.font_for.cache_clear()
    return str(tmp_path / "squares.ttf")


def draw(folder: Path) -> None:
    """A chart and a picture. matplotlib warns of each character that it cannot draw."""
    counts = np.diag([3, 4, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        confusion.plot_confusion(counts, NAMES, 0.5, folder / "chart.png", normalized=False)
    shape = pictures.Shape(np.full((9, 9), 255, np.uint8), "#0072B2", canvas.class_name(NAMES, 0))
    pictures.save_sheet(
        [pictures.Section("Names", [pictures.Tile([pictures.draw(np.zeros((90, 90, 3), np.uint8), [shape], 90)])], 1)], folder / "p.png"
    )


def test_without_a_font_for_it_a_class_goes_by_its_number(only_usual_fonts: None, tmp_path: Path) -> None:
    assert fonts.font_for("東京") is None and fonts.font_for("Größe Ж α") == fonts.usual_font()
    assert canvas.class_labels(NAMES, [0, 1], []) == ["class 0", "Größe"]
    draw(tmp_path)


def test_a_font_of_the_system_is_used_where_it_is_needed(chinese_font: str, tmp_path: Path) -> None:
    assert fonts.font_for("東京 0.5") == chinese_font and fonts.font_for("cat") == fonts.usual_font() and fonts.font_for("東é") is None
    assert canvas.class_labels(NAMES, [0, 1], []) == ["東京", "Größe"]
    draw(tmp_path)


def test_a_font_that_cannot_be_read_is_passed_over(only_usual_fonts: None, tmp_path: Path) -> None:
    entry = fontManager.ttflist[0].__class__(fname=str(tmp_path / "gone.ttf"), name="Gone")
    broken = fontManager.ttflist[0].__class__(fname=str(tmp_path / "broken.ttf"), name="Broken")
    Path(broken.fname).write_bytes(b"no font")
    fontManager.ttflist += [entry, broken]
    assert fonts.font_for("東京") is None
