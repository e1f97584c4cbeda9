"""Where an artifact goes, and how it gets there: complete or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config import ExportSettings
from ..engine.checkpoint import Checkpoint
from ..errors import ExportError, SettingsError
from ..runtime.reports import report_path


def target(checkpoint: Checkpoint, settings: ExportSettings, ending: str) -> Path:
    """Beside the checkpoint, or where the user wants it. Raises SettingsError."""
    own = checkpoint.path or Path(f"yolov8{checkpoint.net.size}-seg.pt")
    path = settings.output
    if path is None:
        return own.with_name(own.stem + ending)
    named = path.name.endswith(ending) and path.name != ending
    if path.is_dir() and not named:
        return path / (own.stem + ending)
    if not named or path.is_dir() != _is_folder(ending) and path.exists():
        raise SettingsError(f"output={path}: must be a folder that exists, or a name that ends in {ending}")
    return path


def _is_folder(ending: str) -> bool:
    return "." not in ending or ending == ".mlpackage"


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A folder beside the artifact-to-be, removed in the end with all that is in it. Raises ExportError if it cannot be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.stem}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror or error}); give output=<a folder that you may write to>") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace(new: Path, path: Path, facts: dict[str, Any]) -> None:
    """Put the artifact in its place, and its report beside it. An old report never lies beside a new artifact."""
    report = new.with_name(report_path(path).name)
    report.write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    report_path(path).unlink(missing_ok=True)
    _replace(new, path)
    os.replace(report, report_path(path))


def _replace(new: Path, path: Path) -> None:
    """A folder that was there is removed only when the new one stands."""
    if not path.is_dir():
        os.replace(new, path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size
