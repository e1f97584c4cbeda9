"""Export for the Edge TPU: an 8 bit TensorFlow Lite model that its compiler takes, compiled where that compiler is installed.

The compiler is a program for Linux on x86-64 from its maker's own package source; no package index has it.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ..config import ExportSettings
from ..errors import ExportError, SettingsError
from ..runtime.tflite_backend import TfLiteBackend
from .base import Exporter, ExportJob, StandIn, Unverified
from .tflite_format import append_metadata, convert

COMPILER = "edgetpu_compiler"
COMPILE_SECONDS = 3600
SOURCE = "https://coral.ai/docs/edgetpu/compiler"
NEWEST = {
    "ADD": 2, "CONCATENATION": 2, "CONV_2D": 3, "LOGISTIC": 2, "MAX_POOL_2D": 2, "MUL": 2, "PAD": 2, "QUANTIZE": 2, "RESHAPE": 1, "RESIZE_NEAREST_NEIGHBOR": 2,
    "SOFTMAX": 2, "SPLIT": 2, "TRANSPOSE_CONV": 3,
}  # fmt: skip
"""Operations that the network needs and that the compiler's list has, with the newest version that 8 bit kernels need."""
MAX_RANK = 4


class EdgeTpuExporter(Exporter):
    suffix = "_edgetpu.tflite"

    def __init__(self) -> None:
        self.portable = b""
        """The 8 bit model of the last `write`, which also runs without an Edge TPU."""

    def check(self, settings: ExportSettings) -> None:
        if not settings.int8:
            raise SettingsError(
                "format=edgetpu: an Edge TPU computes with 8 bit integers only; give int8=true, and data=dataset.yaml for the images to calibrate on"
            )

    def ending(self, settings: ExportSettings) -> str:
        return self.suffix if shutil.which(COMPILER) else "_int8.tflite"

    def write(self, job: ExportJob, path: Path) -> None:
        """Without the compiler this is the model that it takes."""
        model = convert(job)
        problems = check_model(model)
        if problems:
            raise ExportError(f"the Edge TPU's compiler would not take this model: {'; '.join(problems)}")
        path.write_bytes(_compiled(model) if shutil.which(COMPILER) else model)
        append_metadata(path, job.metadata)
        self.portable = model

    def unverified(self, settings: ExportSettings) -> Unverified:
        if shutil.which(COMPILER) is None:
            return Unverified(
                f"{COMPILER} is not installed, so the model is ready for the Edge TPU but not compiled for it",
                f"Install it ({SOURCE}; Linux on x86-64) and export again, or run `{COMPILER} -s FILE` there",
            )
        return Unverified(
            "compiled for the Edge TPU, which only a machine with that device can run",
            "Run yoloseg val with this model there, with libedgetpu installed",
        )

    def stand_in(self, job: ExportJob, path: Path) -> StandIn:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.tflite"
            file.write_bytes(self.portable)
            append_metadata(file, job.metadata)
            return StandIn(TfLiteBackend(file, "cpu"), "the same 8 bit model on the CPU")


def check_model(model: bytes) -> list[str]:
    """What of the compiler's published conditions a TFLite model does not meet: 8 bits, few dimensions of fixed size, known operations."""
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    content = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    kinds = {value: name for name, value in vars(schema.TensorType).items() if name.isupper()}
    operations = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
    problems: list[str] = []
    for code in content.operatorCodes:
        # old files hold the kind in a field of one byte
        name = operations[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if name not in NEWEST:
            problems.append(f"operation {name}")
        elif code.version > NEWEST[name]:
            problems.append(f"operation {name} of version {code.version}, at most {NEWEST[name]}")
    for tensor in (t for graph in content.subgraphs for t in graph.tensors):
        name, shape = tensor.name.decode(), [] if tensor.shape is None else list(tensor.shape)
        if kinds[tensor.type] not in ("INT8", "INT32"):
            problems.append(f"tensor {name} is {kinds[tensor.type]}")
        if len(shape) > MAX_RANK or any(size < 1 for size in shape) or _varies(tensor):
            problems.append(f"tensor {name} has the shape {shape}")
    return problems


def _varies(tensor: Any) -> bool:
    return tensor.shapeSignature is not None and any(size < 1 for size in tensor.shapeSignature)


def _compiled(model: bytes) -> bytes:
    """Raises ExportError with the compiler's own words."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(model)
        command = [COMPILER, "-s", "-o", str(folder), str(folder / "model.tflite")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=COMPILE_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ExportError(f"{COMPILER} did not run: {error}") from error
        result = folder / "model_edgetpu.tflite"
        if done.returncode or not result.is_file():
            words = " ".join((done.stderr.strip() or done.stdout.strip() or "no message").split())[-300:]
            raise ExportError(f"{COMPILER} failed with code {done.returncode}: {words}")
        return result.read_bytes()


exporter = EdgeTpuExporter()
