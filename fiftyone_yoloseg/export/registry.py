"""The export formats by name."""

from __future__ import annotations

import difflib
import importlib

from ..errors import ExportError, SettingsError
from .base import Exporter

FORMATS: dict[str, str | None] = {
    "onnx": "onnx_format",
    "torchscript": "torchscript_format",
    "openvino": "openvino_format",
    "engine": None,
    "coreml": None,
    "saved_model": None,
    "pb": None,
    "tflite": None,
    "edgetpu": None,
    "tfjs": None,
    "paddle": None,
}
"""Format name -> module of this package; None: planned, not built yet."""


def available() -> list[str]:
    """Names of the formats that this version exports."""
    return [name for name, module in FORMATS.items() if module]


def find_exporter(name: str) -> Exporter:
    """The exporter of a format. Raises SettingsError for an unknown name, ExportError for a format that is not built yet."""
    if name not in FORMATS:
        near = difflib.get_close_matches(name.lower(), FORMATS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise SettingsError(f"format={name!r} is unknown: {hint}This version exports: {', '.join(available())}")
    module = FORMATS[name]
    if module is None:
        raise ExportError(f"format={name!r} is planned but not built yet. This version exports: {', '.join(available())}")
    exporter: Exporter = importlib.import_module(f".{module}", __package__).exporter
    return exporter
