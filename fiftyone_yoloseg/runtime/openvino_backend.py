"""Exported OpenVINO models in OpenVINO's runtime, on the CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, MissingDependencyError, SettingsError
from ..nn.head import MASKS
from ..types import RawOutput
from .artifact import OUTPUTS, damaged, last_line, mismatched, only_cpu
from .metadata import OPENVINO_FILE, check_shape, decode

KIND = "OpenVINO"


class OpenVinoBackend:
    """Runs an artifact of export(format="openvino"). Raises CheckpointError if the folder is anything else or damaged."""

    def __init__(self, path: Path, device: str | None = None, threads: int | None = None, providers: Sequence[str] | None = None) -> None:
        if importlib.util.find_spec("openvino") is None:
            raise MissingDependencyError("openvino", "running an OpenVINO model", "openvino")
        self.device = only_cpu(device, KIND)
        model = _read(path)
        self.info = decode(_metadata(model), path)
        outputs = {name: output.partial_shape for output in model.outputs for name in output.names}
        channels = 4 + len(self.info.names) + MASKS
        if not set(OUTPUTS) <= set(outputs) or outputs["output0"][1] != channels:
            raise mismatched(path)
        self.compiled = _compiled(model, threads, providers or ["CPU"])

    def __call__(self, images: torch.Tensor) -> RawOutput:
        """See types.Backend. Raises SettingsError for a shape that a static artifact does not take."""
        check_shape(self.info, images)
        results = self.compiled(images.cpu().contiguous().numpy())
        # a copy: OpenVINO writes the next answers into the same memory
        return RawOutput(*(torch.from_numpy(results[name].copy()) for name in OUTPUTS))


def _read(path: Path) -> Any:
    import openvino

    file = path / OPENVINO_FILE
    if not file.is_file() or not file.with_suffix(".bin").is_file():
        raise CheckpointError(f"{path}: {OPENVINO_FILE} or its .bin file is missing; export it again")
    try:
        return openvino.Core().read_model(file)
    except RuntimeError as error:
        raise damaged(path, KIND, last_line(error)) from None


def _metadata(model: Any) -> dict[str, str]:
    if not model.has_rt_info(["model_info"]):
        return {}
    return {key: str(getattr(value, "value", value)) for key, value in model.get_rt_info(["model_info"]).value.items()}


def _compiled(model: Any, threads: int | None, devices: Sequence[str]) -> Any:
    """devices: OpenVINO's names, in order of preference. Raises SettingsError for one that is not there."""
    import openvino

    core = openvino.Core()
    if wrong := [name for name in devices if name.split(".")[0] not in {d.split(".")[0] for d in core.available_devices}]:
        raise SettingsError(f"providers={wrong[0]}: OpenVINO finds {', '.join(core.available_devices)} here")
    # full precision, whatever the processor would prefer: the answers are those that the export was compared with
    wanted: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if list(devices) == ["CPU"]:
        wanted["INFERENCE_NUM_THREADS"] = threads or torch.get_num_threads()
    return core.compile_model(model, devices[0] if len(devices) == 1 else "AUTO:" + ",".join(devices), wanted)
