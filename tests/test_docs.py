"""Pages that are made from the code are those of this code."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fiftyone_yoloseg.config import TrainSettings

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / "docs"


def test_the_page_of_settings_is_up_to_date() -> None:
    page = runpy.run_path(str(DOCS / "make_settings.py"))["render"]()
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == page, "run: python docs/make_settings.py"
    for name in TrainSettings.model_fields:
        assert f"\n| `{name}` | " in page


def test_the_page_of_errors_is_up_to_date() -> None:
    page = runpy.run_path(str(DOCS / "make_errors.py"))["render"]()
    assert (DOCS / "errors.md").read_text(encoding="utf-8") == page, "run: python docs/make_errors.py"
    assert "| `SettingsError` | data: which dataset? Give data=dataset.yaml, or a COCO folder |" in page


def test_the_page_of_operators_is_up_to_date(fiftyone_db: Any, tmp_path: Path) -> None:
    page = runpy.run_path(str(DOCS / "make_operators.py"))["render"](tmp_path)
    assert (DOCS / "operators.md").read_text(encoding="utf-8") == page, "run: python docs/make_operators.py"
    for name in ("check", "train", "loop"):
        assert f"\n`@yoloseg/fiftyone/{name}`, risk " in page


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Every link leads somewhere (mkdocs is strict), and every page has its place in the menu."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=REPO, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1"})
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "quickstart" / "index.html").is_file()
    menu = re.findall(r"[\w-]+\.md", yaml.safe_dump(yaml.safe_load((REPO / "mkdocs.yml").read_text())["nav"]))
    assert sorted(menu) == sorted(path.name for path in DOCS.glob("*.md"))


def test_the_quick_start_runs(
    fiftyone_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fiftyone_db.config, "default_dataset_dir", str(tmp_path / "fiftyone"))
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "quickstart.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, "quickstart.md", "exec"), {})
    assert 0 <= float(capsys.readouterr().out.split()[-1]) <= 1
    fiftyone_db.delete_dataset("quickstart")
