"""What the backends have in common: names of the outputs, and what is said of artifacts and devices that they cannot use."""

from __future__ import annotations

from pathlib import Path

import torch

from ..engine.devices import select_device
from ..errors import CheckpointError, SettingsError

OUTPUTS = ("output0", "output1")
"""Names of the two outputs in every format that names them."""


def only_cpu(device: str | None, kind: str) -> torch.device:
    """Raises SettingsError if another device than the CPU is asked for."""
    if device is not None and select_device(device).type != "cpu":
        raise SettingsError(f"device={device}: {kind} models run on the CPU here; use device=cpu, or the ONNX model on a GPU")
    return torch.device("cpu")


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def last_line(error: Exception) -> str:
    """Where a runtime puts its stack trace before the reason."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1][:200]


def damaged(path: Path, kind: str, reason: Exception | str) -> CheckpointError:
    """To be raised for an artifact that its runtime does not read."""
    reason = first_line(reason) if isinstance(reason, Exception) else reason
    return CheckpointError(f"{path}: not a readable {kind} model; it may be truncated or damaged ({reason})")


def mismatched(path: Path, what: str = "inputs and outputs") -> CheckpointError:
    """To be raised for an artifact that its runtime reads, and that is not the model that it says it is."""
    return CheckpointError(f"{path}: its {what} are not those that its metadata describes; export it again")
