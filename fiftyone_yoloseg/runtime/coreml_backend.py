"""Exported Core ML models in Apple's runtime, on a Mac."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from ..engine.devices import select_device
from ..errors import CheckpointError, MissingDependencyError
from ..nn.head import MASKS
from ..types import RawOutput
from .artifact import OUTPUTS, damaged, mismatched
from .metadata import check_shape, decode

INPUT = "image"


def load_coremltools() -> Any:
    """The module, with fewer warnings. It would import TensorFlow, which takes seconds, only to see whether it is there: that is prevented.

    Raises MissingDependencyError.
    """
    if importlib.util.find_spec("coremltools") is None:
        raise MissingDependencyError("coremltools", "Core ML", "coreml")
    logging.getLogger("coremltools").setLevel(logging.ERROR)  # it warns of every torch that is newer than itself; none is used
    absent = "tensorflow" not in sys.modules
    if absent:
        sys.modules["tensorflow"] = None  # type: ignore[assignment]  # as the import system writes "there is none"
    try:
        return importlib.import_module("coremltools")
    finally:
        if absent:
            del sys.modules["tensorflow"]


def read_model(path: Path, **options: Any) -> Any:
    """A coremltools MLModel. Raises CheckpointError if the artifact is damaged."""
    ct = load_coremltools()
    try:
        return ct.models.MLModel(str(path), **options)
    except Exception as error:  # noqa: BLE001  # coremltools raises whatever protobuf, json and its C++ parts raise
        raise damaged(path, "Core ML", error) from None


class CoreMLBackend:
    """Runs an artifact of export(format="coreml") on a Mac. Raises CheckpointError if it is anything else or damaged, and elsewhere."""

    def __init__(self, path: Path, device: str | None = None, threads: int | None = None) -> None:
        """device: "cpu" for the CPU alone, None for whatever Core ML finds fastest. threads: Core ML decides."""
        if platform.system() != "Darwin":
            raise CheckpointError(
                f"{path}: Core ML models run on a Mac only; here use the .pt it was made from, or export that with format=onnx or openvino"
            )
        if device is not None:
            select_device(device)
        self.path, self.device = path, torch.device("cpu")
        units = load_coremltools().ComputeUnit
        self.model = read_model(path, compute_units=units.ALL if device is None else units.CPU_ONLY)
        self.info = decode(self.model.user_defined_metadata, path)

    def __call__(self, images: torch.Tensor) -> RawOutput:
        """See types.Backend. Raises SettingsError for a shape that a static artifact does not take."""
        from PIL import Image

        check_shape(self.info, images)
        pixels = (images[0].permute(1, 2, 0).cpu() * 255).round().to(torch.uint8)
        found = self.model.predict({INPUT: Image.fromarray(pixels.numpy())})
        pred, protos = (torch.from_numpy(found[name]).float() for name in OUTPUTS)
        if pred.shape[1] != 4 + len(self.info.names) + MASKS:
            raise mismatched(self.path, "outputs")
        return RawOutput(pred, protos)
