"""Which font can show a name. matplotlib's own has Latin, Greek, Cyrillic, Arabic and more, but no Chinese; the system may have one that does."""

from __future__ import annotations

import functools
import logging
from collections.abc import Set
from pathlib import Path

from matplotlib.font_manager import findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

log = logging.getLogger(__name__)
_PICTURES = ("emoji", "last resort")  # fonts of coloured pictures cannot be drawn, or have a box for everything


def usual_font() -> str:
    """The file of the font that all plots are in."""
    return str(findfont("DejaVu Sans"))


@functools.lru_cache(maxsize=4096)
def font_for(text: str) -> str | None:
    """The file of a font with every character of a text: the usual one, else one of the system; None: there is none."""
    wanted = {ord(c) for c in text if not c.isspace()}
    if wanted <= _characters(usual_font()):
        return usual_font()
    for entry in sorted(fontManager.ttflist, key=lambda f: (f.style != "normal", f.weight not in (400, "normal", "regular"), f.fname)):
        if not any(word in entry.name.lower() for word in _PICTURES) and wanted <= _characters(entry.fname):
            return entry.fname
    return None


@functools.cache
def _characters(file: str) -> Set[int]:
    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError) as error:  # removed since the list was made, or of a kind that matplotlib cannot read
        log.debug("the font %s cannot be read: %s", Path(file).name, error)
        return frozenset()


def dress_text(text: Text) -> None:
    """Give a text of a figure the font that it needs."""
    if (file := font_for(text.get_text())) and file != usual_font():
        properties = text.get_fontproperties().copy()
        properties.set_file(file)
        text.set_fontproperties(properties)
