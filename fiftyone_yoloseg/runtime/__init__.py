"""Exported artifacts, run behind the same interface as the torch model."""

from __future__ import annotations

import importlib
from pathlib import Path

from ..errors import CheckpointError
from ..types import Backend

_BACKENDS = {
    ".onnx": ("onnx_backend", "OnnxBackend"),
    ".torchscript": ("torchscript_backend", "TorchScriptBackend"),
    "_openvino_model": ("openvino_backend", "OpenVinoBackend"),
}
"""How the names of artifacts end -> module, class."""


def load_backend(path: str | Path, device: str | None = None) -> Backend:
    """The backend for an artifact that export() wrote, chosen by the end of its name. device: as in the settings; None: the best there is.

    Raises CheckpointError (missing, unknown, damaged, another task, not ours), MissingDependencyError or SettingsError (device).
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file")
    if path.suffix == ".pt":
        raise CheckpointError(f"{path}: a checkpoint, not an exported artifact; load it with YOLO({str(path)!r})")
    ending = next((e for e in _BACKENDS if path.name.endswith(e)), None)
    if ending is None:
        raise CheckpointError(f"{path}: no backend for {path.suffix or 'files without a suffix'}; known: {', '.join(_BACKENDS)}")
    if path.is_file() and path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    module, name = _BACKENDS[ending]
    backend: Backend = getattr(importlib.import_module(f".{module}", __name__), name)(path, device)
    return backend
