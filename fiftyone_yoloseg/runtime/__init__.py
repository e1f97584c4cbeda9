"""Exported artifacts, run behind the same interface as the torch model."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path

from ..config import DecodeSettings
from ..engine.checkpoint import Checkpoint
from ..errors import CheckpointError, MissingDependencyError, SettingsError
from ..types import Backend

log = logging.getLogger(__name__)
_BACKENDS = {
    ".onnx": ("onnx_backend", "OnnxBackend"),
    ".torchscript": ("torchscript_backend", "TorchScriptBackend"),
    "_openvino_model": ("openvino_backend", "OpenVinoBackend"),
    "_saved_model": ("saved_model_backend", "SavedModelBackend"),
    ".pb": ("graph_def_backend", "GraphDefBackend"),
    ".tflite": ("tflite_backend", "TfLiteBackend"),
    "_web_model": ("graph_def_backend", "TfJsBackend"),
    "_paddle_model": ("paddle_backend", "PaddleBackend"),
    ".mlpackage": ("coreml_backend", "CoreMLBackend"),
    ".mlmodel": ("coreml_backend", "CoreMLBackend"),
    ".engine": ("tensorrt_engine", "EngineBackend"),
}
"""How the names of artifacts end -> module, class. An ending that ends in another one comes before it."""
_WITH_PROVIDERS = (".onnx", "_openvino_model")


def open_backend(checkpoint: Checkpoint | None, path: Path | None, settings: DecodeSettings) -> Backend:
    """What predicts: the network of a checkpoint, in torch or with runtime="auto" in the fastest runtime; or the artifact at `path`.

    Raises as `load_backend`, and SettingsError for settings that mean nothing for the model.
    """
    if checkpoint is None:
        assert path is not None
        if settings.runtime == "auto" or settings.half:
            wrong = "runtime=auto" if settings.runtime == "auto" else "half=true"
            raise SettingsError(f"{wrong}: is for checkpoints; {path.name} is exported, and runs as it was exported: leave it out")
        return load_backend(path, settings.device, settings.threads, settings.providers)
    if settings.providers:
        raise SettingsError(f"providers={','.join(settings.providers)}: is for exported models; a checkpoint runs in torch, on device=")
    import torch

    from ..engine.devices import select_device
    from ..engine.torch_backend import TorchBackend
    from .auto import fastest

    device = select_device(settings.device)
    if settings.runtime == "auto" and (artifact := fastest(checkpoint, settings, device)) is not None:
        try:
            return load_backend(artifact, "cpu", settings.threads)
        except (CheckpointError, MissingDependencyError) as error:
            log.warning("runtime=auto: torch after all: %s", error)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)  # torch has one number for the whole process
    return TorchBackend(checkpoint.net, checkpoint.info, device, settings.half)


def warn_of_floor(backend: Backend, settings: DecodeSettings) -> None:
    """Say so if an artifact with NMS inside has left out objects that the settings ask for."""
    if settings.conf < backend.info.least_conf:
        log.warning(
            "conf=%g: the model was exported with nms=true and conf=%g, and finds nothing below that",
            settings.conf,
            backend.info.least_conf,
        )


def load_backend(
    path: str | Path, device: str | None = None, threads: int | None = None, providers: Sequence[str] | None = None
) -> Backend:
    """The backend for an artifact that export() wrote, chosen by the end of its name.

    device: as in the settings; None: the best there is.  threads: None: as many as torch has.  providers: of ONNX Runtime and OpenVINO only.
    Raises CheckpointError (missing, unknown, damaged, another task, not ours), MissingDependencyError or SettingsError (device, providers).
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
    if providers and ending not in _WITH_PROVIDERS:
        raise SettingsError(f"providers={','.join(providers)}: is for ONNX and OpenVINO models; leave it out for {path.name}")
    options = {"providers": providers} if providers else {}
    backend: Backend = getattr(importlib.import_module(f".{module}", __name__), name)(path, device, threads, **options)
    return backend
