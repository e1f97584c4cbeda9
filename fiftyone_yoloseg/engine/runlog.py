"""The run folder: its name, its settings, and one row of results an epoch."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..data.files import write_text
from ..errors import SettingsError

COLUMNS = [
    "epoch",
    "time",
    *(f"train/{name}_loss" for name in ("box", "seg", "cls", "dfl")),
    *(f"metrics/{name}({letter})" for letter in "BM" for name in ("precision", "recall", "mAP50", "mAP50-95")),
    *(f"val/{name}_loss" for name in ("box", "seg", "cls", "dfl")),
    *(f"lr/pg{group}" for group in range(3)),
]


def new_run_folder(project: Path, name: str, exist_ok: bool = False) -> Path:
    """`project/name`, or `project/name2`, `name3`, ... where that exists. Raises SettingsError if nothing can be written there."""
    try:
        project.mkdir(parents=True, exist_ok=True)
        for number in range(1, 100_000):
            folder = project / (name if number == 1 else f"{name}{number}")
            try:
                folder.mkdir(exist_ok=exist_ok)
            except FileExistsError:
                continue
            return folder.absolute()
    except OSError as error:
        raise SettingsError(f"project={project}: cannot write there ({error.strerror})") from None
    raise SettingsError(f"project={project}: too many runs named {name!r}")


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    write_text(path, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def read_results(path: Path) -> dict[str, list[float]]:
    """The columns of a results.csv, one value an epoch, NaN where a cell is empty; no values before the first epoch. Raises OSError."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    return {name: [float(row[name] or "nan") for row in rows] for name in reader.fieldnames or ()}


class ResultsCsv:
    """results.csv. Rows from `first_epoch` on are dropped when a run goes on, so that no epoch stands there twice.

    write: false where another process of the training writes it.
    """

    def __init__(self, path: Path, first_epoch: int = 1, write: bool = True) -> None:
        self.path, self.write = path, write
        rows = []
        if path.exists() and first_epoch > 1:
            with path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < first_epoch]
        self._rows: list[Mapping[str, Any]] = list(rows)
        self._write()

    def add(self, row: Mapping[str, Any]) -> None:
        self._rows.append({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        self._write()

    def _write(self) -> None:
        if not self.write:
            return
        lines = [",".join(COLUMNS)] + [",".join(str(row.get(column, "")) for column in COLUMNS) for row in self._rows]
        write_text(self.path, "\n".join(lines) + "\n")


class Pace:
    """Mean time of a step. The first one of a session includes the start of the loaders, and counts only if there is no other."""

    def __init__(self) -> None:
        self.count, self.total, self.first = 0, 0.0, 0.0

    def add(self, seconds: float) -> None:
        if self.count == 0:
            self.first = seconds
        else:
            self.total += seconds
        self.count += 1

    @property
    def seconds(self) -> float:
        return self.total / (self.count - 1) if self.count > 1 else self.first
