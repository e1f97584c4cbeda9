"""Make the notebooks of the recipes: `uv run python recipes/make_notebooks.py`. The scripts are the source; a test compares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def scripts() -> list[Path]:
    """The recipes: scripts that are divided into cells."""
    return [path for path in sorted(FOLDER.glob("*.py")) if path.read_text(encoding="utf-8").startswith("# %%")]


def notebook(script: str) -> dict[str, Any]:
    """The notebook of a script whose cells begin with "# %%" (code) or "# %% [markdown]" (text behind "# "), as nbformat 4.5 defines it."""
    cells: list[dict[str, Any]] = []
    for number, part in enumerate(script.split("# %%")[1:]):
        head, _, body = part.partition("\n")
        body = body.strip("\n")
        cell: dict[str, Any] = {"cell_type": "code", "id": f"cell-{number}", "metadata": {}, "source": body}
        if head.strip() == "[markdown]":
            cell |= {"cell_type": "markdown", "source": "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines())}
        else:
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def text(script: Path) -> str:
    return json.dumps(notebook(script.read_text(encoding="utf-8")), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path in scripts():
        path.with_suffix(".ipynb").write_text(text(path), encoding="utf-8")
        print(path.with_suffix(".ipynb"))
