"""Every recipe runs from its first line to its last, on little data; what it prints at the end is there. Notebooks are those of the scripts."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path
from typing import Any

import pytest

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SHORT = {"RECIPE_IMAGES": "12", "RECIPE_EPOCHS": "1", "RECIPE_FOLDS": "2", "RECIPE_SEEDS": "1", "RECIPE_SIZES": "4,8"}
LAST_WORDS = {
    "curation_loop": "mask mAP on right labels:",
    "labeling_loop": "| ground_truth |",
    "coco_to_openvino": "objects in 00000.png, drawn in",
    "new_classes": "from random weights: mask mAP",
    "active_learning": "learning curves:",
}


def _maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_notebooks", RECIPES / "make_notebooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_recipe_is_tested_and_listed() -> None:
    names = [path.stem for path in _maker().scripts()]
    assert names == sorted(LAST_WORDS)
    readme = (RECIPES / "README.md").read_text()
    assert [name for name in names if f"({name}.py)" not in readme] == []


@pytest.mark.parametrize("name", LAST_WORDS)
def test_recipe(name: str, fiftyone_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for key, value in SHORT.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(fiftyone_db.config, "default_dataset_dir", str(tmp_path / "fiftyone"))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(RECIPES / f"{name}.py"))
    assert LAST_WORDS[name] in capsys.readouterr().out
    for dataset in fiftyone_db.list_datasets("recipe-*"):
        fiftyone_db.delete_dataset(dataset)


def test_notebooks_are_those_of_the_scripts() -> None:
    maker = _maker()
    for script in maker.scripts():
        assert script.with_suffix(".ipynb").read_text(encoding="utf-8") == maker.text(script), "run recipes/make_notebooks.py"


def test_a_notebook_of_two_cells() -> None:
    import nbformat

    made = _maker().notebook("# %% [markdown]\n# # Title\n#\n# text\n\n# %%\nx = 1\n")
    nbformat.validate(nbformat.from_dict(made))
    assert [(cell["cell_type"], cell["source"]) for cell in made["cells"]] == [("markdown", "# Title\n\ntext"), ("code", "x = 1")]
