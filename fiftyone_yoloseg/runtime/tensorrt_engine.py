"""TensorRT: finding the library, the engine file, and running it on a GPU.

The file is what tools for YOLO engines read: 4 bytes, little endian, the length of the JSON text that follows; then the engine itself.
`tensorrt` and `tensorrt_rtx` have the same interface, but neither runs the other's engines.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import torch

from ..engine.devices import select_device
from ..errors import CheckpointError, MissingDependencyError, SettingsError
from ..nn.head import MASKS
from ..types import RawOutput
from .artifact import OUTPUTS, mismatched
from .metadata import check_shape, decode

LIBRARIES = ("tensorrt", "tensorrt_rtx")
INSTALL = "pip install tensorrt, on a machine with an NVIDIA GPU: its libraries come from NVIDIA's own package index"
BUILDER, SIZE = "builder", "engine_bytes"
"""Keys that an engine file has besides the metadata of all formats: library and version; length of the engine."""


def load_tensorrt(name: str, what: str) -> Any:
    """The library by its name. Raises MissingDependencyError."""
    if importlib.util.find_spec(name) is None:
        package = name.replace("_", "-")
        raise MissingDependencyError(package, what, install=INSTALL if name == "tensorrt" else f"pip install {package}")
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # its bindings are there, the libraries that they need are not
        raise MissingDependencyError(name, what, install=f"{INSTALL} ({str(error).splitlines()[0]})") from None


def write_engine(path: Path, metadata: dict[str, str], plan: bytes, builder: str) -> None:
    """builder: library and version, as in "tensorrt 10.9.0"."""
    header = json.dumps({**metadata, BUILDER: builder, SIZE: str(len(plan))}).encode()
    path.write_bytes(struct.pack("<I", len(header)) + header + plan)


def read_engine(path: Path) -> tuple[dict[str, str], bytes]:
    """The metadata and the engine. Raises CheckpointError if the file is cut off or has no header."""
    data = path.read_bytes()
    length = struct.unpack("<I", data[:4])[0] if len(data) >= 4 else 0
    try:
        metadata = json.loads(data[4 : 4 + length])
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict) or not 0 < length < len(data):
        raise CheckpointError(f"{path}: no engine with metadata; it may be truncated, damaged or made by another tool: export it again")
    plan = data[4 + length :]
    if SIZE in metadata and str(len(plan)) != str(metadata[SIZE]):
        raise CheckpointError(f"{path}: the engine is truncated: {len(plan)} of {metadata[SIZE]} bytes; export it again")
    return metadata, plan


class EngineBackend:
    """Runs an artifact of export(format="engine") on a GPU. Raises CheckpointError if it is anything else, damaged, or of another library."""

    def __init__(self, path: Path, device: str | None = None, threads: int | None = None) -> None:
        metadata, plan = read_engine(path)
        self.path, self.info = path, decode(metadata, path)
        builder = metadata.get(BUILDER, LIBRARIES[0])
        self.device = select_device(device)
        if self.device.type != "cuda":
            raise CheckpointError(
                f"{path}: TensorRT engines run on an NVIDIA GPU only (this one was built by {builder}); "
                f"{'give device=0' if torch.cuda.is_available() else 'here use the .pt it was made from, or export that with format=onnx or openvino'}"
            )
        library = builder.split()[0]
        if library not in LIBRARIES:
            raise CheckpointError(f"{path}: built by {library!r}, which is unknown here; export it again")
        trt = load_tensorrt(library, f"running {path.name}")
        with torch.cuda.device(self.device):
            self.runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
            self.engine = self.runtime.deserialize_cuda_engine(plan)
            self.context = self.engine and self.engine.create_execution_context()
        if not self.context:
            raise CheckpointError(
                f"{path}: {library} {trt.__version__} on {torch.cuda.get_device_name(self.device)} cannot run it; it was built by {builder}. "
                "An engine is for one kind of GPU and one version: export it again on this machine"
            )
        names = {self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)}
        if names != {"images", *OUTPUTS}:
            raise mismatched(path)

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> RawOutput:
        """See types.Backend. Raises SettingsError for a shape that the artifact does not take."""
        check_shape(self.info, images)
        images = images.to(self.device, torch.float32).contiguous()
        with torch.cuda.device(self.device):
            if not self.context.set_input_shape("images", tuple(images.shape)):
                limits = [tuple(shape) for shape in self.engine.get_tensor_profile_shape("images", 0)]
                raise SettingsError(
                    f"{self.path}: takes inputs from {limits[0]} to {limits[2]} (images, channels, height, width), not {tuple(images.shape)}: "
                    "give a smaller batch or imgsz, or export it again with a larger imgsz"
                )
            shapes = [tuple(self.context.get_tensor_shape(name)) for name in OUTPUTS]
            if shapes[0][1] != 4 + len(self.info.names) + MASKS:
                raise mismatched(self.path, "outputs")
            outputs = [torch.empty(shape, dtype=torch.float32, device=self.device) for shape in shapes]
            for name, tensor in zip(("images", *OUTPUTS), (images, *outputs), strict=True):
                self.context.set_tensor_address(name, tensor.data_ptr())
            stream = torch.cuda.current_stream(self.device)
            if not self.context.execute_async_v3(stream.cuda_stream):
                raise CheckpointError(f"{self.path}: TensorRT could not run it; see its messages above")
            stream.synchronize()  # `images` may be freed by the caller from here on
        return RawOutput(*outputs)
