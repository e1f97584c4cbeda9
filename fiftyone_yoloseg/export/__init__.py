"""Export of a checkpoint to other runtimes, each artifact compared with the network before anybody gets it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from ..config import ExportSettings
from ..engine.checkpoint import Checkpoint
from ..errors import CheckpointError, ExportError, SettingsError
from ..geometry.letterbox import Image
from ..nn.model import fused
from ..runtime import load_backend
from ..runtime.metadata import encode
from ..types import ModelInfo, ProgressFn
from .base import Exporter, ExportJob, ExportReport
from .parity import compare
from .registry import check_needs, check_takes, find_exporter

__all__ = ["ExportReport", "export", "export_here"]


def export_here(
    checkpoint: Checkpoint,
    settings: ExportSettings,
    images: Sequence[Image] | None = None,
    progress: ProgressFn | None = None,
) -> ExportReport:
    """Write the artifact, run it, and compare it with the network; only one that gives the same answers gets its name.

    images: (H, W, 3) uint8 RGB to compare on (the first 8 are used); noise if there are none.
    Raises SettingsError, MissingDependencyError, or ExportError. An artifact that was there before survives a failed export.
    """
    start, tell = time.perf_counter(), progress or (lambda share, label: None)
    exporter = find_exporter(settings.format)
    check_takes(settings.format, settings)
    check_needs(settings.format, settings)
    exporter.check(settings)
    path = _target(checkpoint, settings, exporter)
    imgsz = settings.imgsz or (checkpoint.imgsz, checkpoint.imgsz)
    info = ModelInfo(checkpoint.names, imgsz, dynamic=settings.dynamic, batch=settings.batch)
    metadata = encode(info, size=checkpoint.net.size, half=settings.half, origin=checkpoint.origin)

    # the ending stays, because the runtimes go by it
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{exporter.suffix}")
    try:
        tell(0.0, f"writing {path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        exporter.write(ExportJob(fused(checkpoint.net), info, settings, metadata), temporary)
        tell(0.5, f"comparing {path.name} with the network")
        try:
            backend = load_backend(temporary, settings.device or "cpu")
        except CheckpointError as error:
            raise ExportError(f"the exported model cannot be run here: {str(error).replace(str(temporary), path.name)}") from None
        parity = compare(checkpoint.net, backend, images)
        parity.check(settings.tolerance, settings.half)
        del backend  # it may hold the file open
        size = sum(f.stat().st_size for f in temporary.rglob("*") if f.is_file()) if temporary.is_dir() else temporary.stat().st_size
        _replace(temporary, path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror or error})") from error
    except ExportError as error:
        raise ExportError(f"export to {path}: {error}. Nothing was written") from error
    finally:
        _remove(temporary)
    tell(1.0, f"{path.name} gives the same answers as the network")
    return ExportReport(
        path=path,
        format=settings.format,
        imgsz=imgsz,
        batch=settings.batch,
        opset=exporter.opset(settings),
        dynamic=settings.dynamic,
        half=settings.half,
        int8=settings.int8,
        nms=settings.nms,
        verdict="verified",
        compared_on=parity.compared_on,
        max_abs_error=parity.max_abs_error,
        mean_abs_error=parity.mean_abs_error,
        predictions=parity.predictions,
        predictions_matched=parity.matched,
        seconds=time.perf_counter() - start,
        size_bytes=size,
    )


export = export_here


def _target(checkpoint: Checkpoint, settings: ExportSettings, exporter: Exporter) -> Path:
    """Beside the checkpoint, or where the user wants it."""
    own = checkpoint.path or Path(f"yolov8{checkpoint.net.size}-seg.pt")
    path = settings.output
    if path is None:
        return own.with_name(own.stem + exporter.suffix)
    named = path.name.endswith(exporter.suffix) and path.name != exporter.suffix
    if path.is_dir() and not named:
        return path / (own.stem + exporter.suffix)
    if not named or path.is_dir() != _is_folder(exporter) and path.exists():
        raise SettingsError(f"output={path}: must be a folder that exists, or a name that ends in {exporter.suffix}")
    return path


def _is_folder(exporter: Exporter) -> bool:
    return not exporter.suffix.startswith(".")


def _replace(new: Path, path: Path) -> None:
    """Put the artifact in its place; a folder that was there is removed only when the new one stands."""
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
    shutil.rmtree(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
