"""The reports that lie beside exported artifacts: their name, and what ties one to a checkpoint and a machine."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

REPORT = ".report.json"


def report_path(path: Path) -> Path:
    """best.onnx -> best.onnx.report.json"""
    return path.with_name(path.name + REPORT)


def sha256(path: Path | None) -> str | None:
    """Of a checkpoint's file, None if it has none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else None


def machine() -> str:
    """Where a latency was measured."""
    name = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:  # not Linux
        name = platform.processor()
    return f"{platform.node()}, {name or platform.machine()}"
