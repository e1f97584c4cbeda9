"""The form of every operator and every tab of the panel, in dark and light: no text is cut, no key is shown raw, nothing is wrong in the console."""

from __future__ import annotations

from pathlib import Path

import forms
import pytest
from app import DIALOG, PANEL, App, Server, write_shapes
from fiftyone.operators.types import Places

from fiftyone_yoloseg.plugin.operators import OPERATORS

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


def test_forms_and_tabs(app: App, server: Server, test_data: Path, tmp_path: Path) -> None:
    listed = [o for o in OPERATORS if not o().config.unlisted and getattr(o, "place", None) != Places.SAMPLES_VIEWER_ACTIONS]
    assert {f"YOLO-seg: {label}" for label in forms.FORMS.values()} == {
        o().config.label for o in listed
    }  # beside a sample there are others
    wrong: list[str] = []
    folder = write_shapes(tmp_path / "more", 2, 1)

    def look(where: str, prefix: str, name: str) -> None:
        app.shot(f"{prefix}-{name}", of=where)
        wrong.extend(f"{prefix} {name}: {fault}" for fault in forms.faults(app, where))

    app.go(server.make("evaluated", "evaluated", test_data / "coco_tiny"))
    app.complaints.clear()
    forms.open_forms(app, lambda name: look(DIALOG, "form", name), folder)
    forms.open_tabs(app, lambda name: look(PANEL, "tab", name))
    app.theme("Light")
    forms.open_tabs(app, lambda name: look(PANEL, "light-tab", name))
    forms.open_forms(app, lambda name: look(DIALOG, "light-form", name), folder, ("train", "evaluate", "review"))
    app.theme("Dark")
    assert wrong == []
    assert app.complaints == []
