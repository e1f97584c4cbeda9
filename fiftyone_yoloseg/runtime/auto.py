"""runtime="auto": which export of a checkpoint is the fastest on this machine.

Nothing is measured here: every export has measured itself beside torch, and its report says so. Only artifacts count that lie beside the checkpoint, are the very
files that were compared, were made from exactly this checkpoint, were verified in full precision, take the input that prediction gives, and were timed on this machine.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch

from ..config import DecodeSettings, PredictSettings
from ..engine.checkpoint import Checkpoint
from .reports import REPORT, checkpoint_sha256, file_sha256, machine

log = logging.getLogger(__name__)


def fastest(checkpoint: Checkpoint, settings: DecodeSettings, device: torch.device) -> Path | None:
    """The artifact to run in the place of torch, None for torch. Says in the log what it chose."""
    path = checkpoint.path
    if device.type != "cpu" or path is None:
        return None
    found: list[tuple[float, Path, dict[str, Any]]] = []
    own, here = checkpoint_sha256(checkpoint), machine()
    for file in sorted(path.parent.glob(f"*{REPORT}")):
        report = _read(file)
        artifact = file.with_name(file.name.removesuffix(REPORT))
        if report is None or not artifact.exists() or not _fits(report, settings, checkpoint, own, here):
            continue
        ratio = report["latency_ms"] / report["torch_latency_ms"]  # beside torch, as each may have been timed with another size of input
        if ratio < 1:
            found.append((ratio, artifact, report))
    for _, artifact, report in sorted(found, key=lambda f: f[0]):
        if file_sha256(artifact) == report["sha256"]:
            log.info(
                "runtime=auto: %s, %.1f ms a batch where torch takes %.1f", artifact.name, report["latency_ms"], report["torch_latency_ms"]
            )
            return artifact
    log.info(
        "runtime=auto: torch; no faster verified export of %s made on this machine lies beside it (yoloseg export dynamic=true)", path.name
    )
    return None


def _fits(report: dict[str, Any], settings: DecodeSettings, checkpoint: Checkpoint, own: str | None, here: str) -> bool:
    """Whether it gives the answers that torch would give to the same call."""
    whole = not (report["half"] or report["int8"] or report["nms"])
    size = getattr(settings, "imgsz", None) or (checkpoint.imgsz, checkpoint.imgsz)
    padded = isinstance(settings, PredictSettings) and settings.rect  # to the nearest multiple of 32, which differs from image to image
    takes = report["dynamic"] or (tuple(report["imgsz"]) == tuple(size) and not padded)
    same = own is not None and report["checkpoint"]["sha256"] == own and report["machine"] == here and report["device"] == "cpu"
    return bool(report["verdict"] == "verified" and report["latency_ms"] and whole and takes and same)


def _read(file: Path) -> dict[str, Any] | None:
    """None for a file that is no report of ours, or of an older version."""
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        wanted = {
            "verdict",
            "sha256",
            "half",
            "int8",
            "nms",
            "imgsz",
            "dynamic",
            "checkpoint",
            "machine",
            "device",
            "latency_ms",
            "torch_latency_ms",
        }
        return report if isinstance(report, dict) and wanted <= report.keys() and isinstance(report["checkpoint"], dict) else None
    except (OSError, ValueError):
        return None
