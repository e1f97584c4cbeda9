"""A saved Core ML file, interpreted with torch where Apple's runtime is not: the saved operations over the saved weights, in float32.

This proves the program and its weights. It says nothing of Apple's runtime, of its GPU or its Neural Engine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import CheckpointError, ExportError
from ..runtime.artifact import OUTPUTS
from ..runtime.coreml_backend import INPUT, read_model
from ..runtime.metadata import check_shape, decode
from ..types import RawOutput


class InterpretedCoreML:
    """A Backend: an ML program or, in the older .mlmodel, a neural network. Raises CheckpointError if the file is damaged."""

    device = torch.device("cpu")

    def __init__(self, path: Path) -> None:
        model = read_model(path, skip_model_load=True)
        self.info = decode(model.user_defined_metadata, path)
        spec = model.get_spec()
        if spec.WhichOneof("Type") == "neuralNetwork":
            from .coreml_neural_network import NeuralNetwork

            self.run: Callable[[Tensor], dict[str, Tensor]] = NeuralNetwork(spec.neuralNetwork)
        else:
            self.run = Program(_program(path, spec, model.weights_dir))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> RawOutput:
        check_shape(self.info, images)
        found = self.run(images * 255)  # as the pixels of a picture
        return RawOutput(*(found[name].float() for name in OUTPUTS))


class Program:
    """An ML program. Weights are unpacked once."""

    def __init__(self, program: Any) -> None:
        """program: of coremltools."""
        from coremltools.converters.mil.mil.types import builtin_to_string  # type: ignore[import-untyped, unused-ignore]

        self.operations = list(program.functions["main"].operations)
        self.half = {v.name for op in self.operations for v in op.outputs if builtin_to_string(v.dtype) == "fp16"}
        self.constants: dict[str, Any] = {}
        unknown = sorted({op.op_type for op in self.operations} - set(_OPERATIONS) - {"const"} - _PACKED)
        if unknown:
            raise ExportError(f"the interpreter of Core ML programs does not know the operations {', '.join(unknown)}")
        for op in self.operations:
            if op.op_type in _PACKED:
                self.constants[op.outputs[0].name] = torch.from_numpy(np.asarray(op.materialized_val_inference()))

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """(1, 3, H, W) float32, 0..255 -> the values of all operations by name."""
        values: dict[str, Any] = {INPUT: image}

        def value(given: Any) -> Any:
            if isinstance(given, (list, tuple)):
                return [value(part) for part in given]
            if given.name in values:
                return values[given.name]
            if given.name not in self.constants:
                self.constants[given.name] = _constant(given.val)
            return self.constants[given.name]

        for op in self.operations:
            if op.op_type == "const" or op.op_type in _PACKED:
                continue
            results = _OPERATIONS[op.op_type]({name: value(given) for name, given in op.inputs.items()})
            for var, result in zip(op.outputs, results if isinstance(results, tuple) else (results,), strict=True):
                # half is half: what a device cannot keep is lost here too
                values[var.name] = result.half().float() if var.name in self.half else result
        return values


def _program(path: Path, spec: Any, weights_dir: str) -> Any:
    """The program in coremltools' own form, which its saved form is for. Raises CheckpointError if the weights are damaged."""
    from coremltools.converters.mil.frontend.milproto.load import load  # type: ignore[import-untyped, unused-ignore]

    try:
        return load(spec, specification_version=spec.specificationVersion, file_weights_dir=weights_dir)
    except Exception as error:  # noqa: BLE001  # whatever its C++ part raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path}: its program or weights cannot be read; it may be truncated or damaged ({reason})") from None


def _constant(value: Any) -> Any:
    """Floats as tensors, everything else as Python's own."""
    array = np.asarray(value)
    if array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float32))
    return array.tolist()


def _conv(x: dict[str, Any]) -> Tensor:
    padded = functional.pad(x["x"], _sides(x)) if x.get("pad_type") == "custom" else x["x"]
    return functional.conv2d(padded, x["weight"].float(), x.get("bias"), x.get("strides", 1), 0, x.get("dilations", 1), x.get("groups", 1))


def _conv_transpose(x: dict[str, Any]) -> Tensor:
    return functional.conv_transpose2d(x["x"], x["weight"].float(), x.get("bias"), x.get("strides", 1))


def _max_pool(x: dict[str, Any]) -> Tensor:
    padded = functional.pad(x["x"], _sides(x), value=-torch.inf)
    return functional.max_pool2d(padded, x["kernel_sizes"], x["strides"])


def _sides(x: dict[str, Any]) -> list[int]:
    """Core ML: top, bottom, left, right. torch: left, right, top, bottom."""
    top, bottom, left, right = x.get("pad", (0, 0, 0, 0))
    return [left, right, top, bottom]


def _upsample(x: dict[str, Any]) -> Tensor:
    factors = (int(x["scale_factor_height"]), int(x["scale_factor_width"]))
    return functional.interpolate(x["x"], scale_factor=factors, mode="nearest")


_OPERATIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "max_pool": _max_pool,
    "upsample_nearest_neighbor": _upsample,
    "sigmoid": lambda x: x["x"].sigmoid(),
    "silu": lambda x: functional.silu(x["x"]),
    "add": lambda x: x["x"] + x["y"],
    "sub": lambda x: x["x"] - x["y"],
    "mul": lambda x: x["x"] * x["y"],
    "concat": lambda x: torch.cat(x["values"], x["axis"]),
    "split": lambda x: torch.split(x["x"], x["split_sizes"], x["axis"]),
    "reshape": lambda x: x["x"].reshape(x["shape"]),
    "transpose": lambda x: x["x"].permute(x["perm"]),
    "softmax": lambda x: x["x"].softmax(x["axis"]),
    "cast": lambda x: x["x"],  # the type of its result says what is lost
    "identity": lambda x: x["x"],
}
_PACKED = {"constexpr_affine_dequantize", "constexpr_blockwise_shift_scale"}
"""Weights in 8 bits, unpacked by coremltools."""
