"""Export to OpenVINO: a folder that its runtime reads, made from our ONNX graph. The fastest way on most CPUs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ..runtime.metadata import OPENVINO_FILE
from .base import Exporter, ExportJob
from .onnx_format import exporter as onnx_exporter

FLOAT_PARTS = ("dfl", "boxes", "scores", "anchors", "strides", "distances", "coefficients", "output")
"""How the names of nodes after the head's convolutions begin."""


class OpenVinoExporter(Exporter):
    suffix = "_openvino_model"

    def write(self, job: ExportJob, path: Path) -> None:
        """half: the weights are stored in half precision; how it computes is the device's choice."""
        import openvino

        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder) / "model.onnx"
            onnx_exporter.write(job.with_settings(half=False, int8=False, simplify=False), graph)
            model = openvino.Core().read_model(graph)  # openvino.convert_model would report home
            if job.settings.int8:
                model = _quantized(model, job)
            for key, value in job.metadata.items():
                model.set_rt_info(value, ["model_info", key])
            path.mkdir()
            openvino.save_model(model, path / OPENVINO_FILE, compress_to_fp16=job.settings.half)


def _quantized(model: Any, job: ExportJob) -> Any:
    """The convolutions in 8 bits; boxes, probabilities and anchors are computed in float, see `onnx_int8`."""
    import nncf  # type: ignore[import-untyped, unused-ignore]

    batch = job.info.batch
    data = nncf.Dataset(list(range(len(job.calibration))), lambda i: job.calibration[i].expand(batch, -1, -1, -1).contiguous().numpy())
    return nncf.quantize(
        model,
        data,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(job.calibration),
        ignored_scope=nncf.IgnoredScope(patterns=[f"^{name}" for name in FLOAT_PARTS], validate=False),
    )


exporter = OpenVinoExporter()
