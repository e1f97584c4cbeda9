"""Whatever a user calls a model -> something that predicts, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import DecodeSettings
from ..errors import CheckpointError

if TYPE_CHECKING:
    from ..engine.checkpoint import Checkpoint
    from ..types import Backend


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model came from. sha256: of its file or folder; None for a model that has none."""

    path: str | None
    sha256: str | None


def open_backend(model: Any, settings: DecodeSettings | None = None) -> tuple[Backend, Source]:
    """model: path of a checkpoint or of an exported artifact, a Checkpoint, or an api.YOLO. Raises CheckpointError."""
    from ..runtime import open_backend, warn_of_floor
    from ..runtime.reports import checkpoint_sha256, file_sha256

    checkpoint = as_checkpoint(model)
    path = checkpoint.path if checkpoint else model_path(model)
    source = Source(str(path), checkpoint_sha256(checkpoint) if checkpoint else file_sha256(path)) if path else Source(None, None)
    settings = settings or DecodeSettings()
    backend = open_backend(checkpoint, path, settings)
    warn_of_floor(backend, settings)
    return backend, source


def as_checkpoint(model: Any) -> Checkpoint | None:
    """The checkpoint behind a model, or None if it is an exported artifact. "yolov8n-seg.yaml" has none to predict with."""
    from ..engine.checkpoint import Checkpoint, load_checkpoint

    if isinstance(model, Checkpoint):
        return model
    held = getattr(model, "checkpoint", None)  # api.YOLO
    if isinstance(held, Checkpoint):
        return held
    path = model_path(model)
    if path is None:
        raise CheckpointError(f"model={model!r}: expected a path, a YOLO or a Checkpoint, not {type(model).__name__}")
    if path.suffix in (".yaml", ".yml"):
        raise CheckpointError(f"model='{model}' is an untrained network: give a trained checkpoint or an exported model")
    if not path.exists():
        raise CheckpointError(f"model='{path}': no such file")
    return load_checkpoint(path) if path.suffix == ".pt" else None


def model_path(model: Any) -> Path | None:
    if isinstance(model, (str, Path)):
        return Path(model).expanduser()
    held = getattr(model, "path", None)
    return Path(held) if isinstance(held, (str, Path)) else None
