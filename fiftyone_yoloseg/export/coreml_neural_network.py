"""The layers of a saved .mlmodel, interpreted with torch. See coreml_interpreter.py. Fields: the format's public NeuralNetwork.proto."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ExportError
from ..runtime.coreml_backend import INPUT

CHANNELS = -3
"""The axis of layers that have no choice."""


class NeuralNetwork:
    """spec: a NeuralNetwork message. Weights are unpacked once, to float32."""

    def __init__(self, spec: Any) -> None:
        self.scale = spec.preprocessing[0].scaler.channelScale if len(spec.preprocessing) else 1.0
        self.layers = [(layer, layer.WhichOneof("layer")) for layer in spec.layers]
        unknown = sorted({kind for _, kind in self.layers} - set(_LAYERS))
        if unknown:
            raise ExportError(f"the interpreter of Core ML neural networks does not know the layers {', '.join(unknown)}")
        self.weights = [_weights(getattr(layer, kind), kind) for layer, kind in self.layers]

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """(1, 3, H, W) float32, 0..255 -> the values of all layers by name."""
        values = {INPUT: image * self.scale}
        for (layer, kind), weights in zip(self.layers, self.weights, strict=True):
            results = _LAYERS[kind](getattr(layer, kind), [values[name] for name in layer.input], weights)
            values.update(zip(layer.output, results if isinstance(results, tuple) else (results,), strict=True))
        return values


def _weights(message: Any, kind: str) -> list[Tensor]:
    """The layer's weights as torch wants them."""
    if kind == "convolution":
        first, second = message.kernelChannels, message.outputChannels
        # transposed convolutions have the input's channels first, in Core ML and in torch
        shape = (first, second // message.nGroups) if message.isDeconvolution else (second, first)
        bias = [_unpacked(message.bias, [second])] if message.hasBias else []
        return [_unpacked(message.weights, [*shape, *message.kernelSize]), *bias]
    return [_unpacked(message.data, list(message.shape))] if kind == "loadConstantND" else []


def _unpacked(message: Any, shape: list[int]) -> Tensor:
    if len(message.floatValue):
        values = np.asarray(message.floatValue, np.float32)
    elif message.float16Value:
        values = np.frombuffer(message.float16Value, np.float16).astype(np.float32)
    else:
        quantised = message.quantization
        if quantised.numberOfBits != 8 or not quantised.HasField("linearQuantization"):
            raise ExportError(f"the interpreter of Core ML neural networks does not know weights of {quantised.numberOfBits} bits")
        scale, bias = (np.asarray(v, np.float32)[:, None] for v in (quantised.linearQuantization.scale, quantised.linearQuantization.bias))
        values = np.frombuffer(message.rawValue, np.uint8).reshape(len(scale), -1) * scale + bias
    return torch.from_numpy(np.ascontiguousarray(values).reshape(shape))


def _convolution(message: Any, x: list[Tensor], weights: list[Tensor]) -> Tensor:
    stride = list(message.stride) or [1, 1]
    bias = weights[1] if message.hasBias else None
    if message.isDeconvolution:
        return functional.conv_transpose2d(x[0], weights[0], bias, stride, 0, 0, message.nGroups)
    return functional.conv2d(functional.pad(x[0], _sides(message)), weights[0], bias, stride, 0, 1, message.nGroups)


def _pooling(message: Any, x: list[Tensor], _: list[Tensor]) -> Tensor:
    if message.type != 0:
        raise ExportError("the interpreter of Core ML neural networks knows max pooling only")
    padded = functional.pad(x[0], _sides(message), value=-torch.inf)
    return functional.max_pool2d(padded, list(message.kernelSize), list(message.stride))


def _sides(message: Any) -> list[int]:
    """Padding as torch wants it: left, right, top, bottom."""
    borders = message.valid.paddingAmounts.borderAmounts
    if not len(borders):
        return [0, 0, 0, 0]
    top, left = borders
    return [left.startEdgeSize, left.endEdgeSize, top.startEdgeSize, top.endEdgeSize]


def _activation(message: Any, x: list[Tensor], _: list[Tensor]) -> Tensor:
    kind = message.WhichOneof("NonlinearityType")
    if kind == "linear":
        scaled: Tensor = x[0] * message.linear.alpha + message.linear.beta
        return scaled
    if kind != "sigmoid":
        raise ExportError(f"the interpreter of Core ML neural networks does not know the activation {kind}")
    return x[0].sigmoid()


def _upsample(message: Any, x: list[Tensor], _: list[Tensor]) -> Tensor:
    return functional.interpolate(x[0], scale_factor=[float(f) for f in message.scalingFactor], mode="nearest")


def _concat(message: Any, x: list[Tensor], _: list[Tensor]) -> Tensor:
    return torch.cat(x, message.axis)


def _split(message: Any, x: list[Tensor], _: list[Tensor]) -> Sequence[Tensor]:
    sizes = list(message.splitSizes) or x[0].shape[message.axis] // message.numSplits
    return torch.split(x[0], sizes, message.axis)


_LAYERS: dict[str, Callable[[Any, list[Tensor], list[Tensor]], Any]] = {
    "convolution": _convolution,
    "pooling": _pooling,
    "activation": _activation,
    "upsample": _upsample,
    "concat": lambda _, x, __: torch.cat(x, CHANNELS),
    "concatND": _concat,
    "splitND": _split,
    "add": lambda message, x, _: x[0] + (x[1] if len(x) > 1 else message.alpha),
    "multiply": lambda message, x, _: x[0] * (x[1] if len(x) > 1 else message.alpha),
    "addBroadcastable": lambda _, x, __: x[0] + x[1],
    "subtractBroadcastable": lambda _, x, __: x[0] - x[1],
    "multiplyBroadcastable": lambda _, x, __: x[0] * x[1],
    "loadConstantND": lambda _, __, weights: weights[0],
    "reshapeStatic": lambda message, x, _: x[0].reshape(list(message.targetShape)),
    "copy": lambda _, x, __: x[0],
    "transpose": lambda message, x, _: x[0].permute(list(message.axes)),
    "softmax": lambda _, x, __: x[0].softmax(CHANNELS),
    "softmaxND": lambda message, x, _: x[0].softmax(message.axis),
}
