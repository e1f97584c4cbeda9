"""Export to OpenVINO: a folder that its runtime reads, made from our ONNX graph. The fastest way on most CPUs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..runtime.metadata import OPENVINO_FILE
from .base import Exporter, ExportJob
from .onnx_format import exporter as onnx_exporter


class OpenVinoExporter(Exporter):
    suffix = "_openvino_model"

    def write(self, job: ExportJob, path: Path) -> None:
        """half: the weights are stored in half precision; how it computes is the device's choice."""
        import openvino

        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder) / "model.onnx"
            onnx_exporter.write(job.with_settings(half=False, simplify=False), graph)
            model = openvino.Core().read_model(graph)  # openvino.convert_model would report home
            for key, value in job.metadata.items():
                model.set_rt_info(value, ["model_info", key])
            path.mkdir()
            openvino.save_model(model, path / OPENVINO_FILE, compress_to_fp16=job.settings.half)


exporter = OpenVinoExporter()
