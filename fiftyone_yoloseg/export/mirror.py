"""The network once more, over any framework's operations: one walk for every export that is not made by torch itself.

Converters come and go with torch's versions and leave their traces in the graph. The network needs a dozen operations, so an
export here is those operations in the target's own words plus this walk. The parity check after each export proves the mirror.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

from torch import Tensor, nn

from ..nn.blocks import SPPF, C2f, Conv
from ..nn.model import YOLOv8Seg

T = TypeVar("T")


class Ops(Protocol[T]):
    """Operations of a target framework on feature maps. `name` is the layer's place in the state dict, e.g. "model.0.conv"."""

    def conv(self, name: str, x: T, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> T: ...

    def conv_transpose(self, name: str, x: T, weight: Tensor, bias: Tensor | None, stride: int) -> T:
        """No padding."""
        ...

    def silu(self, name: str, x: T) -> T: ...

    def add(self, name: str, x: T, y: T) -> T: ...

    def concat(self, name: str, parts: Sequence[T]) -> T:
        """Along the channels."""
        ...

    def halves(self, name: str, x: T, channels: int) -> tuple[T, T]:
        """The first `channels` channels, and the other `channels`."""
        ...

    def max_pool(self, name: str, x: T, kernel: int, padding: int) -> T:
        """Stride 1."""
        ...

    def upsample(self, name: str, x: T) -> T:
        """Twice the height and width, nearest."""
        ...


@dataclass(frozen=True, slots=True)
class Features(Generic[T]):
    """What the head's convolutions return, for the strides 8, 16 and 32.

    boxes: 64 channels each.  scores: nc channels, logits.  coefficients: 32 channels.  protos: 32 channels at stride 4.
    """

    boxes: list[T]
    scores: list[T]
    coefficients: list[T]
    protos: T


def features(net: YOLOv8Seg, ops: Ops[T], images: T) -> Features[T]:
    """Walk a fused network from the images to the head's feature maps. See nn/model.py, which this repeats line by line."""

    def layer(i: int, x: T) -> T:
        module, name = net.model[i], f"model.{i}"
        if isinstance(module, C2f):
            return _c2f(ops, name, module, x)
        if isinstance(module, SPPF):
            return _sppf(ops, name, module, x)
        return _conv(ops, name, cast(Conv, module), x)

    p2 = layer(2, layer(1, layer(0, images)))
    p3 = layer(4, layer(3, p2))
    p4 = layer(6, layer(5, p3))
    p5 = layer(9, layer(8, layer(7, p4)))
    up4 = layer(12, ops.concat("model.11", [ops.upsample("model.10", p5), p4]))
    n3 = layer(15, ops.concat("model.14", [ops.upsample("model.13", up4), p3]))
    n4 = layer(18, ops.concat("model.17", [layer(16, n3), up4]))
    n5 = layer(21, ops.concat("model.20", [layer(19, n4), p5]))

    head, levels = net.head, (n3, n4, n5)

    def towers(name: str, modules: nn.ModuleList) -> list[T]:
        return [
            _tower(ops, f"model.22.{name}.{i}", cast(nn.Sequential, m), x) for i, (m, x) in enumerate(zip(modules, levels, strict=True))
        ]

    proto, name = head.proto, "model.22.proto"
    up = proto.upsample
    y = ops.conv_transpose(f"{name}.upsample", _conv(ops, f"{name}.cv1", proto.cv1, n3), up.weight, up.bias, up.stride[0])
    protos = _conv(ops, f"{name}.cv3", proto.cv3, _conv(ops, f"{name}.cv2", proto.cv2, y))
    return Features(towers("cv2", head.cv2), towers("cv3", head.cv3), towers("cv4", head.cv4), protos)


def _plain_conv(ops: Ops[T], name: str, conv: nn.Conv2d, x: T) -> T:
    return ops.conv(name, x, conv.weight, conv.bias, conv.stride[0], cast(tuple[int, int], conv.padding)[0])


def _conv(ops: Ops[T], name: str, unit: Conv, x: T) -> T:
    return ops.silu(f"{name}.act", _plain_conv(ops, f"{name}.conv", unit.conv, x))


def _tower(ops: Ops[T], name: str, tower: nn.Sequential, x: T) -> T:
    for i in (0, 1):
        x = _conv(ops, f"{name}.{i}", cast(Conv, tower[i]), x)
    return _plain_conv(ops, f"{name}.2", cast(nn.Conv2d, tower[2]), x)


def _c2f(ops: Ops[T], name: str, block: C2f, x: T) -> T:
    hidden = block.cv1.conv.out_channels // 2
    pieces = [*ops.halves(f"{name}.chunk", _conv(ops, f"{name}.cv1", block.cv1, x), hidden)]
    for i, bottleneck in enumerate(block.m):
        own = f"{name}.m.{i}"
        y = _conv(ops, f"{own}.cv2", cast(Conv, bottleneck.cv2), _conv(ops, f"{own}.cv1", cast(Conv, bottleneck.cv1), pieces[-1]))
        pieces.append(ops.add(f"{own}.add", pieces[-1], y) if bottleneck.residual else y)
    return _conv(ops, f"{name}.cv2", block.cv2, ops.concat(f"{name}.cat", pieces))


def _sppf(ops: Ops[T], name: str, block: SPPF, x: T) -> T:
    kernel, padding = cast(int, block.m.kernel_size), cast(int, block.m.padding)
    pieces = [_conv(ops, f"{name}.cv1", block.cv1, x)]
    for i in range(3):
        pieces.append(ops.max_pool(f"{name}.m.{i}", pieces[-1], kernel, padding))
    return _conv(ops, f"{name}.cv2", block.cv2, ops.concat(f"{name}.cat", pieces))
