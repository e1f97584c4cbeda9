"""Pages that are made from the code are those of this code."""

from __future__ import annotations

import runpy
from pathlib import Path

from fiftyone_yoloseg.config import TrainSettings

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_page_of_settings_is_up_to_date() -> None:
    page = runpy.run_path(str(DOCS / "make_settings.py"))["render"]()
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == page, "run: python docs/make_settings.py"
    for name in TrainSettings.model_fields:
        assert f"\n| `{name}` | " in page
