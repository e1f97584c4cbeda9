"""Exported TorchScript models."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch

from ..engine.devices import select_device
from ..nn.head import MASKS
from ..types import RawOutput
from .artifact import damaged, mismatched
from .metadata import TORCHSCRIPT_FILE, check_shape, decode


class TorchScriptBackend:
    """Runs an artifact of export(format="torchscript"). Raises CheckpointError if the file is anything else or damaged."""

    def __init__(self, path: Path, device: str | None = None, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)  # torch has one number for the whole process
        self.path, self.device = path, select_device(device)
        extra = {TORCHSCRIPT_FILE: ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.net = torch.jit.load(str(path), map_location=self.device, _extra_files=extra)
        except (RuntimeError, ValueError) as error:
            raise damaged(path, "TorchScript", error) from None
        try:
            mapping = json.loads(extra[TORCHSCRIPT_FILE] or "{}")
        except ValueError:
            mapping = {}
        self.info = decode(mapping if isinstance(mapping, dict) else {}, path)

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> RawOutput:
        """See types.Backend. Raises SettingsError for a shape that a static artifact does not take."""
        check_shape(self.info, images)
        output = self.net(images.to(self.device))
        if not (isinstance(output, tuple) and len(output) == 2 and output[0].shape[1] == 4 + len(self.info.names) + MASKS):
            raise mismatched(self.path, "outputs")
        return RawOutput(*output)
