"""Export to ONNX: one file, checked, for ONNX Runtime, OpenCV's dnn and every tool that reads YOLOv8-seg ONNX."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import onnx

from ..config import ExportSettings
from ..errors import ExportError, SettingsError
from ..runtime.onnx_backend import providers_for
from .base import Exporter, ExportJob
from .onnx_graph import Suppression, build
from .onnx_int8 import quantize

SUFFIX = ".onnx"
DEFAULT_OPSET = 17  # runs in every ONNX Runtime and OpenCV of the last years
MIN_OPSET = 13


class OnnxExporter(Exporter):
    suffix = SUFFIX

    def check(self, settings: ExportSettings) -> None:
        if settings.device is not None:
            providers_for(settings.device)  # raises for a GPU that the installed onnxruntime cannot use
        newest = onnx.defs.onnx_opset_version()
        if settings.opset is not None and not MIN_OPSET <= settings.opset <= newest:
            raise SettingsError(
                f"opset={settings.opset}: choose one from {MIN_OPSET} to {newest} (onnx {onnx.__version__} is installed), or leave it out for {DEFAULT_OPSET}"
            )

    def opset(self, settings: ExportSettings) -> int:
        return settings.opset or DEFAULT_OPSET

    def write(self, job: ExportJob, path: Path) -> None:
        settings, info = job.settings, job.info
        model = graph_of(job, self.opset(settings))
        if settings.simplify:
            model = _simplified(model)
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"the ONNX graph is not valid: {str(error).strip().splitlines()[0]}") from error
        if not settings.int8:
            onnx.save_model(model, str(path))
            return
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "float.onnx"
            onnx.save_model(onnx.shape_inference.infer_shapes(model), str(whole))
            quantize(whole, path, job.calibration, info.batch)


def graph_of(job: ExportJob, opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """The graph of a job, in float32 or with half=true in float16."""
    settings, info = job.settings, job.info
    return build(
        job.net,
        imgsz=info.imgsz,
        batch=info.batch,
        dynamic=info.dynamic,
        half=settings.half,
        opset=opset,
        metadata=job.metadata,
        nms=Suppression(settings.conf, settings.iou, settings.max_det) if settings.nms else None,
    )


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    if importlib.util.find_spec("onnxslim") is None:  # our graph has nothing to spare, so this is no loss
        return model
    import onnxslim  # type: ignore[import-untyped, unused-ignore]

    slim: onnx.ModelProto = onnxslim.slim(model)
    return slim


exporter = OnnxExporter()
