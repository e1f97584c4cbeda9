"""What every logger sends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..events import RunInfo


def settings_of(run: RunInfo) -> dict[str, Any]:
    """JSON-able settings, and how much data there is."""
    sizes = {"train_images": len(run.training), "val_images": len(run.validation), "classes": len(run.names)}
    return {**run.settings.model_dump(mode="json"), **sizes}


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The losses, metrics and learning rates of an epoch, by their names in results.csv."""
    return {name: float(value) for name, value in row.items() if name != "epoch"}


def pictures_of(folder: Path) -> dict[str, Path]:
    """The plots of a run: name -> PNG."""
    return {path.stem: path for path in sorted(folder.glob("*.png"))}
