"""TensorFlow Lite models in LiteRT, its runtime of today."""

from __future__ import annotations

import importlib
import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import CheckpointError, MissingDependencyError
from ..nn.head import MASKS, STRIDES, make_anchors
from ..types import ModelInfo, RawOutput
from .artifact import OUTPUTS, damaged, mismatched, only_cpu
from .metadata import check_shape, decode
from .tensorflow_runtime import INPUT, INT8_OUTPUTS, TFLITE_FILE, quiet_stderr

KIND = "TensorFlow Lite"
EDGETPU_OP = b"edgetpu-custom-op"
EDGETPU_LIBRARY = "libedgetpu.so.1"


class TfLiteBackend:
    """Runs an artifact of export(format="tflite"), or of format="edgetpu" where there is an Edge TPU. Raises CheckpointError if the file is anything else or damaged."""

    def __init__(self, path: Path, device: str | None = None, threads: int | None = None) -> None:
        if importlib.util.find_spec("ai_edge_litert") is None:
            raise MissingDependencyError("ai_edge_litert", f"running a {KIND} model", "tf")
        self.path, self.device = path, only_cpu(device, KIND)
        self.info = decode(_metadata(path), path)
        self.runner = _runner(path, threads or torch.get_num_threads())
        self.inputs, self.outputs = self.runner.get_input_details(), self.runner.get_output_details()
        joined, channels = set(self.outputs) == set(OUTPUTS), 4 + len(self.info.names) + MASKS
        if set(self.inputs) != {INPUT} or not (
            (joined and self.outputs["output0"]["shape"][1] == channels)
            or (set(self.outputs) == set(INT8_OUTPUTS) and self.outputs["scores"]["shape"][2] == len(self.info.names))
        ):
            raise mismatched(path)
        self.grid = None if joined else _grid(self.info)

    def __call__(self, images: Tensor) -> RawOutput:
        """See types.Backend. Raises SettingsError for a shape that a static artifact does not take."""
        check_shape(self.info, images)
        given = _stored(images.cpu().permute(0, 2, 3, 1).contiguous().numpy(), self.inputs[INPUT])
        # copies: the interpreter writes the next answers into the same memory
        found = {name: _real(value, self.outputs[name]) for name, value in self.runner(**{INPUT: given}).items()}
        if self.grid is None:
            return RawOutput(found["output0"], found["output1"].permute(0, 3, 1, 2).contiguous())
        centres, strides = self.grid
        left_top, right_bottom = (found["distances"] * strides).chunk(2, 2)
        boxes = torch.cat((centres + (right_bottom - left_top) / 2, left_top + right_bottom), 2)
        pred = torch.cat((boxes, found["scores"], found["coefficients"]), 2).transpose(1, 2).contiguous()
        return RawOutput(pred, found["protos"].permute(0, 3, 1, 2).contiguous())


def _metadata(path: Path) -> dict[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            metadata: dict[str, str] = json.loads(archive.read(TFLITE_FILE))
            return metadata
    except KeyError:
        return {}
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        if path.read_bytes()[4:8] == b"TFL3":
            raise CheckpointError(
                f"{path}: no metadata behind the model: it is truncated, or was not exported by fiftyone-yoloseg; export it again from its .pt"
            ) from None
        raise damaged(path, KIND, error) from None


def _runner(path: Path, threads: int) -> Any:
    with quiet_stderr():
        litert = importlib.import_module("ai_edge_litert.interpreter")
    delegates = []
    if EDGETPU_OP in path.read_bytes():
        try:
            delegates = [litert.load_delegate(EDGETPU_LIBRARY)]
        except (ValueError, OSError):
            raise CheckpointError(
                f"{path}: compiled for the Edge TPU, and its runtime ({EDGETPU_LIBRARY}) or the device is not here; run the .tflite model instead"
            ) from None
    try:
        with quiet_stderr():
            interpreter = litert.Interpreter(model_path=str(path), num_threads=threads, experimental_delegates=delegates)
            return interpreter.get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise damaged(path, KIND, error) from None


def _grid(info: ModelInfo) -> tuple[Tensor, Tensor]:
    """Cell centres (A, 2) in input pixels, strides (A, 1)."""
    return make_anchors([(info.imgsz[0] // s, info.imgsz[1] // s) for s in STRIDES], torch.device("cpu"))


def _stored(value: npt.NDArray[np.float32], detail: dict[str, Any]) -> npt.NDArray[Any]:
    """Real numbers as the tensor holds them."""
    scale, zero = detail["quantization"]
    if not scale:
        return value
    limits = np.iinfo(detail["dtype"])
    stored: npt.NDArray[Any] = np.clip(np.rint(value / scale + zero), limits.min, limits.max).astype(detail["dtype"])
    return stored


def _real(value: npt.NDArray[Any], detail: dict[str, Any]) -> Tensor:
    scale, zero = detail["quantization"]
    if not scale:
        return torch.from_numpy(value.copy())
    real: Tensor = (torch.from_numpy(value).float() - zero) * scale
    return real
