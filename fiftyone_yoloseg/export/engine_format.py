"""Export to TensorRT: an engine for one kind of NVIDIA GPU, built from our ONNX graph.

Written against the interface that `tensorrt` (8.5 and later, also those that know strongly typed networks only) and `tensorrt_rtx` share.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import onnx
import torch

from ..config import ExportSettings
from ..errors import ExportError, MissingDependencyError, SettingsError
from ..runtime.tensorrt_engine import INSTALL, LIBRARIES, load_tensorrt, read_engine, write_engine
from ..types import ModelInfo
from .base import Exporter, ExportJob, StandIn, Unverified
from .onnx_format import graph_of
from .onnx_int8 import quantize

WHAT = "export to TensorRT"
MAX_BATCH, MAX_SCALE = 16, 2  # validation asks for batches of 16
"""A dynamic engine takes up to so many images of up to so many times imgsz: TensorRT wants to know, and reserves memory for it."""


class EngineExporter(Exporter):
    suffix = ".engine"
    graph: onnx.ModelProto | None = None
    """What the engine was built from, kept for `stand_in`: to calibrate once more would cost minutes."""

    def check(self, settings: ExportSettings) -> None:
        _library()
        if torch.cuda.is_available() and (settings.device or "cpu") == "cpu":
            raise SettingsError("format=engine: an engine is built for the GPU that it will run on: give device=0")

    def write(self, job: ExportJob, path: Path) -> None:
        trt = load_tensorrt(_library(), WHAT)
        self.graph = _graph(job)
        lossy = "FP16" if job.settings.half else "INT8" if job.settings.int8 else None
        plan = build_engine(trt, self.graph.SerializeToString(), job.info, lossy)
        write_engine(path, job.metadata, plan, f"{trt.__name__} {trt.__version__}")

    def unverified(self, settings: ExportSettings) -> Unverified | None:
        if torch.cuda.is_available():
            return None
        return Unverified(
            "there is no NVIDIA GPU here, so the engine was not run; it was built by TensorRT-RTX, which needs none for that, "
            "and plain TensorRT cannot run it",
            "On the GPU's machine, pip install tensorrt (its libraries come from NVIDIA's own package index) and yoloseg export model=best.pt "
            "format=engine device=0, which compares it; on one with TensorRT-RTX, validate this file: yoloseg val model=best.engine "
            "data=dataset.yaml device=0",
        )

    def stand_in(self, job: ExportJob, path: Path) -> StandIn | None:
        read_engine(path)
        if self.graph is None or importlib.util.find_spec("onnxruntime") is None:
            return None
        from ..runtime.onnx_backend import OnnxBackend

        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder) / "model.onnx"
            onnx.save_model(self.graph, str(graph))
            return StandIn(OnnxBackend(graph, "cpu"), "the ONNX graph that the engine was built from, in ONNX Runtime")


def build_engine(trt: Any, graph: bytes, info: ModelInfo, lossy: str | None = None) -> bytes:
    """The serialised engine of an ONNX graph. trt: the module. lossy: "FP16" or "INT8", if the graph has such parts.

    Raises ExportError with what TensorRT says.
    """
    messages: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc, unused-ignore, name-defined]
        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                messages.append(message.strip())

    logger = Logger()
    builder = trt.Builder(logger)
    if not builder:
        raise ExportError(f"TensorRT does not start: {_said(messages)}")
    kinds, flags = trt.NetworkDefinitionCreationFlag, trt.BuilderFlag
    # types as the graph says; older versions choose them, and have to be told what else they may use
    typed = hasattr(kinds, "STRONGLY_TYPED")
    wanted = kinds.STRONGLY_TYPED if typed else getattr(kinds, "EXPLICIT_BATCH", None)
    network = builder.create_network(0 if wanted is None else 1 << int(wanted))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        reasons = [str(parser.get_error(i)) for i in range(parser.num_errors)] or messages
        raise ExportError(f"TensorRT cannot read the ONNX graph: {_said(reasons)}")
    config = builder.create_builder_config()
    if lossy and not typed:
        config.set_flag(getattr(flags, lossy))
    if not lossy and hasattr(flags, "TF32"):
        config.clear_flag(flags.TF32)  # it would cost three digits of precision
    if info.dynamic:
        (height, width), profile = info.imgsz, builder.create_optimization_profile()
        largest = (MAX_BATCH, 3, MAX_SCALE * height, MAX_SCALE * width)
        profile.set_shape("images", (1, 3, info.stride, info.stride), (1, 3, height, width), largest)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"TensorRT cannot build the engine: {_said(messages)}")
    return bytes(plan)


def _said(messages: list[str]) -> str:
    return " ".join((messages or ["no reason was given"])[-1].split())[:300]


def _graph(job: ExportJob) -> onnx.ModelProto:
    model = graph_of(job)
    if not job.settings.int8:
        return model
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save_model(model, str(source))
        quantize(source, target, job.calibration, job.info.batch, tensorrt=True)
        return onnx.load(str(target))


def _library() -> str:
    """TensorRT where there is a GPU, without which it builds nothing; else TensorRT-RTX. Raises MissingDependencyError."""
    for name in LIBRARIES if torch.cuda.is_available() else LIBRARIES[1:]:
        if importlib.util.find_spec(name) is not None:
            return name
    raise MissingDependencyError("tensorrt", WHAT, install=f"{INSTALL}. Or export with format=onnx here, and build the engine there")


exporter = EngineExporter()
