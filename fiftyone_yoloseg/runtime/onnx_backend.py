"""Exported ONNX models in ONNX Runtime."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..engine.devices import select_device
from ..errors import CheckpointError, MissingDependencyError, SettingsError
from ..nn.head import MASKS
from ..types import RawOutput
from .artifact import OUTPUTS, damaged, first_line, mismatched
from .metadata import check_shape, decode


class OnnxBackend:
    """Runs an artifact of export(format="onnx"). Raises CheckpointError if the file is anything else or damaged."""

    def __init__(self, path: Path, device: str | None = None, threads: int | None = None, providers: Sequence[str] | None = None) -> None:
        if importlib.util.find_spec("onnxruntime") is None:
            raise MissingDependencyError("onnxruntime", "running an ONNX model", "onnx")
        self.device, chosen = _named(providers) if providers else providers_for(device)
        self.session = _session(path, chosen, threads)
        if self.device.type != "cpu" and self.session.get_providers()[0] == "CPUExecutionProvider":
            self.device = torch.device("cpu")  # ONNX Runtime has CUDA, but its libraries do not load here
        self.info = decode(self.session.get_modelmeta().custom_metadata_map, path)
        inputs, outputs = self.session.get_inputs(), {o.name: o.shape for o in self.session.get_outputs()}
        self.nms = self.info.least_conf > 0 or "masks" in outputs
        names, channels = ([*OUTPUTS, "masks"], 6 + MASKS) if self.nms else ([*OUTPUTS], 4 + len(self.info.names) + MASKS)
        if [i.name for i in inputs] != ["images"] or list(outputs) != names or outputs["output0"][2 if self.nms else 1] != channels:
            raise mismatched(path)

    def __call__(self, images: torch.Tensor) -> RawOutput:
        """See types.Backend. Raises SettingsError for a shape that a static artifact does not take."""
        check_shape(self.info, images)
        pred, protos = (torch.from_numpy(a).to(self.device) for a in self.session.run(OUTPUTS, {"images": images.cpu().numpy()}))
        return RawOutput(_as_raw(pred, len(self.info.names)) if self.nms else pred, protos)


def _as_raw(found: torch.Tensor, classes: int) -> torch.Tensor:
    """(B, N, 6 + 32) objects of an artifact with NMS inside, see `export.onnx_nms` -> (B, 4 + classes + 32, N) as from any artifact.

    Each object has a probability for its own class only, so that another NMS with the same or a larger IoU finds nothing to do.
    """
    corners, score, cls, coefficients = found[..., :4], found[..., 4:5], found[..., 5].long(), found[..., 6:]
    centre, size = (corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]
    scores = torch.nn.functional.one_hot(cls.clamp(0, classes - 1), classes) * score
    return torch.cat((centre, size, scores, coefficients), 2).transpose(1, 2)


def providers_for(device: str | None) -> tuple[torch.device, list[Any]]:
    """Where to run, and ONNX Runtime's name for it. A GPU that only torch can use is an error only if it was asked for."""
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]

    chosen = select_device(device)
    if chosen.type == "cuda":
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            # TF32 would cost three digits of precision
            return chosen, [("CUDAExecutionProvider", {"device_id": chosen.index or 0, "use_tf32": 0}), "CPUExecutionProvider"]
        if device is not None:
            raise SettingsError(
                f"device={device}: the installed onnxruntime has no CUDA; use device=cpu, or pip install onnxruntime-gpu in its place"
            )
    return torch.device("cpu"), ["CPUExecutionProvider"]


def _named(providers: Sequence[str]) -> tuple[torch.device, list[Any]]:
    """Providers as the user names them. Raises SettingsError for one that is not there."""
    import onnxruntime

    there = onnxruntime.get_available_providers()
    if wrong := [name for name in providers if name not in there]:
        raise SettingsError(f"providers={wrong[0]}: the installed onnxruntime has {', '.join(there)}")
    return torch.device("cpu"), [(name, {"use_tf32": 0}) if name == "CUDAExecutionProvider" else name for name in providers]


def _session(path: Path, providers: list[Any], threads: int | None) -> Any:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors  # type: ignore[import-untyped, unused-ignore]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or torch.get_num_threads()  # what the user, or a container's limit, set for torch holds here too
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except (
        errors.InvalidProtobuf,
        errors.InvalidGraph,
        errors.InvalidArgument,
        errors.Fail,
        errors.NoModel,
        errors.RuntimeException,
    ) as error:
        raise damaged(path, "ONNX", error) from None
    except errors.NotImplemented as error:
        raise CheckpointError(f"{path}: the installed onnxruntime {onnxruntime.__version__} cannot run it ({first_line(error)})") from None
