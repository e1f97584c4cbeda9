"""The form of every operator and every tab of the panel: what is looked at, and what may not be in them. The test and the pictures of the docs go through both."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from app import App

FORMS = {
    "check": "check the data",
    "convert": "convert to a folder",
    "import_labels": "import a folder",
    "train": "train",
    "validate": "validate",
    "predict": "predict",
    "evaluate": "evaluate",
    "compare": "compare two models",
    "error_types": "kinds of errors",
    "find_label_errors": "find label errors",
    "select_to_label": "select what to label",
    "review": "review",
    "export": "export a model",
    "manage_runs": "manage runs",
    "loop": "train, predict, evaluate, export",
}
"""Operator -> what its label says after "YOLO-seg: "."""
TABS = {"Runs": "Rename, delete", "Compare": "First run", "Evaluation": "Click a cell", "Export": "No export yet|same answers"}
"""Tab -> what is in it."""
_RAW = re.compile(r"undefined|\[object|\bNaN\b|\bNone\b|\{\{|@yoloseg/|Traceback")
_CUT = """root => [...root.querySelectorAll('p, span, button, label, td, th, h6, [role=combobox]')]
    .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth && getComputedStyle(e).overflowX !== 'visible')
    .map(e => e.innerText.slice(0, 80))"""
_WIDE = """root => [root, ...root.querySelectorAll('div, pre')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
    .filter(e => e === root || e.tagName === 'PRE' || ['auto', 'scroll'].includes(getComputedStyle(e).overflowX))
    .map(e => `${e.scrollWidth} of ${e.clientWidth} pixels: ${e.className}`)"""


def open_forms(app: App, look: Callable[[str], None], folder: Path, names: tuple[str, ...] = tuple(FORMS)) -> None:
    """look: called with the operator's name while its form is open. folder: what the form of the import is filled with."""
    for name in names:
        app.open_operator(FORMS[name])
        if name == "import_labels":
            app.type("Folder", str(folder))
            app.sees(re.compile("^Images: "))
        app.page.wait_for_timeout(700)  # for the window to appear, and its answers to come
        look(name)
        app.close("Cancel")


def open_tabs(app: App, look: Callable[[str], None]) -> None:
    """look: called with the tab's name while it is shown."""
    app.open_panel()
    for tab, text in TABS.items():
        app.tab(tab)
        app.sees(re.compile(text))
        app.page.wait_for_timeout(1500)  # for plots to be drawn
        look(tab)
    app.close_panel()


def faults(app: App, where: str) -> list[str]:
    """Texts that are cut, or that only a programmer understands. where: a CSS selector."""
    root = app.page.locator(where).last
    raw = [f"raw: {line}" for line in root.inner_text().splitlines() if _RAW.search(line)]
    cut = [f"cut: {text}" for text in root.evaluate(_CUT)]
    return raw + cut + [f"wider than its place: {what}" for what in root.evaluate(_WIDE)]
