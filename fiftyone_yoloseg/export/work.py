"""One export, from the network to the artifact and its report, in this process."""

from __future__ import annotations

import time
from pathlib import Path

from ..config import ExportSettings
from ..engine.checkpoint import Checkpoint
from ..errors import CheckpointError, ExportError
from ..nn.model import fused
from ..runtime import load_backend
from ..runtime.metadata import encode
from ..runtime.reports import checkpoint_sha256, file_sha256, machine
from ..types import Backend, ModelInfo, ProgressFn
from .base import NOTHING, Exporter, ExportJob, ExportReport
from .place import replace, scratch, size_of, target
from .proof import Proof, prove
from .registry import check_device, check_needs, check_takes, find_exporter, find_format
from .samples import Inputs, Samples, check_calibration


def check_settings(settings: ExportSettings) -> Exporter:
    """The exporter of the one format. Raises SettingsError or MissingDependencyError for what cannot work, whatever the checkpoint and the images are."""
    exporter = find_exporter(settings.format)
    check_takes(settings.format, settings)
    check_device(settings.format, settings, exporter.unverified(settings) is None)
    check_needs(settings.format, settings)
    exporter.check(settings)
    return exporter


def prepare(checkpoint: Checkpoint, settings: ExportSettings, samples: Samples) -> tuple[Exporter, Path]:
    """The exporter, and where its artifact goes. Raises SettingsError or MissingDependencyError for what cannot work."""
    exporter = check_settings(settings)
    if settings.int8 and find_format(settings.format).calibrates:
        check_calibration(samples)
    return exporter, target(checkpoint, settings, exporter.ending(settings))


def export_here(
    checkpoint: Checkpoint,
    settings: ExportSettings,
    samples: Samples | None = None,
    progress: ProgressFn | None = None,
) -> ExportReport:
    """Write the artifact, run it, and compare it with the network; only one that gives the same answers gets its name.

    settings: of one format. Without samples the comparison is on noise.
    Raises SettingsError, MissingDependencyError, or ExportError. An artifact that was there before survives a failed export.
    """
    exporter, path = prepare(checkpoint, settings, samples or Samples())
    with scratch(path) as folder:
        return work(progress or (lambda share, label: None), folder, exporter, path, checkpoint, settings, samples or Samples())


def work(
    tell: ProgressFn,
    folder: Path,
    exporter: Exporter,
    path: Path,
    checkpoint: Checkpoint,
    settings: ExportSettings,
    samples: Samples,
) -> ExportReport:
    """folder: where the artifact is made, on the disk of `path`."""
    start = time.perf_counter()
    imgsz = settings.imgsz or (checkpoint.imgsz, checkpoint.imgsz)
    least_conf = settings.conf if settings.nms else 0.0
    info = ModelInfo(checkpoint.names, imgsz, dynamic=settings.dynamic, batch=settings.batch, least_conf=least_conf)
    metadata = encode(info, size=checkpoint.net.size, half=settings.half, origin=checkpoint.origin, int8=settings.int8)
    job = ExportJob(fused(checkpoint.net), info, settings, metadata, Inputs(samples.calibration, imgsz))
    new, unverified, proves, proof = folder / path.name, exporter.unverified(settings), "", None
    try:
        tell(0.0, f"writing {path.name}")
        exporter.write(job, new)
        if not new.exists():
            raise ExportError(f"the exporter wrote no {path.name}")
        sha256 = file_sha256(new)  # of what is about to be compared
        if unverified is None:
            proof = _prove(_load(new, settings), checkpoint, settings, samples, tell)
        elif (stand_in := exporter.stand_in(job, new)) is not None:
            proves = stand_in.proves
            proof = _prove(stand_in.backend, checkpoint, settings, samples, tell)
        if file_sha256(new) != sha256:
            raise ExportError(f"{path.name} was changed by something else while it was compared: export it again")
        size = size_of(new)
        latency = proof.latency if proof and not unverified else (None, None)
        if proof and proof.empty:
            unverified = unverified or NOTHING
        report = ExportReport(
            path=path,
            format=settings.format,
            imgsz=imgsz,
            batch=settings.batch,
            opset=exporter.opset(settings),
            dynamic=settings.dynamic,
            half=settings.half,
            int8=settings.int8,
            nms=settings.nms,
            verdict="unverified" if unverified else "verified",
            compared_on=proof.parity.compared_on if proof else "",
            max_abs_error=proof.parity.max_abs_error if proof else {},
            mean_abs_error=proof.parity.mean_abs_error if proof else {},
            predictions=proof.parity.predictions if proof else 0,
            predictions_matched=proof.parity.matched if proof else 0,
            seconds=time.perf_counter() - start,
            size_bytes=size,
            sha256=sha256,
            accuracy=proof.accuracy if proof else None,
            latency_ms=latency[0],
            torch_latency_ms=latency[1],
            why=unverified.why if unverified else "",
            how=unverified.how if unverified else "",
            proves=proves,
            checkpoint={
                "path": str(checkpoint.path) if checkpoint.path else None,
                "sha256": checkpoint_sha256(checkpoint),
            },
            machine=machine(),
            device=str(proof.device) if proof else "",
        )
        replace(new, path, report.to_json())
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror or error})") from error
    except (ExportError, CheckpointError) as error:
        raise ExportError(f"export to {path}: {str(error).replace(str(new), path.name)}. Nothing was written") from error
    tell(1.0, f"{path.name}: {report.verdict}")
    return report


def _load(new: Path, settings: ExportSettings) -> Backend:
    try:
        return load_backend(new, settings.device or "cpu")
    except CheckpointError as error:
        raise ExportError(f"the exported model cannot be run here: {error}") from None


def _prove(backend: Backend, checkpoint: Checkpoint, settings: ExportSettings, samples: Samples, tell: ProgressFn) -> Proof:
    return prove(checkpoint.net, backend, samples, settings, lambda share, label: tell(0.4 + 0.6 * share, label))
