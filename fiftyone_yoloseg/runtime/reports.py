"""The reports that lie beside exported artifacts: their name, and what ties one to a checkpoint and a machine."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from ..engine.checkpoint import Checkpoint, stamp_of

REPORT = ".report.json"


def report_path(path: Path) -> Path:
    """best.onnx -> best.onnx.report.json"""
    return path.with_name(path.name + REPORT)


def file_sha256(path: Path) -> str | None:
    """Of a file, None if there is none; of a folder, such as OpenVINO's: of the names and contents of its files."""
    if path.is_dir():
        lines = [f"{file.relative_to(path).as_posix()} {file_sha256(file)}" for file in sorted(path.rglob("*")) if file.is_file()]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    if not path.is_file():
        return None
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def checkpoint_sha256(checkpoint: Checkpoint) -> str | None:
    """Of the file that the network was read from; None if there is none, or if another one has its name since, as while a training goes on."""
    if checkpoint.path is None or checkpoint.stamp is None:
        return None
    found = file_sha256(checkpoint.path)
    return found if stamp_of(checkpoint.path) == checkpoint.stamp else None


def machine() -> str:
    """Where a latency was measured."""
    name = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:  # not Linux
        name = platform.processor()
    return f"{platform.node()}, {name or platform.machine()}"
