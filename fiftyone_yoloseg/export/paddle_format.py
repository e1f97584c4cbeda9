"""Export to PaddlePaddle: the network once more in Paddle's own operations, as a folder that Paddle Inference reads."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..nn.head import MASKS, REG_MAX, STRIDES, make_anchors
from ..nn.model import YOLOv8Seg
from ..runtime.paddle_backend import METADATA_FILE, PROGRAM, load_paddle
from .base import Exporter, ExportJob
from .mirror import Features, features


class PaddleOps:
    """`mirror.Ops` for Paddle, which has the same layout as torch. parameters: the weights by name, made when they are first used."""

    def __init__(self, paddle: Any) -> None:
        self.paddle, self.functional = paddle, paddle.nn.functional
        self.parameters: dict[str, Any] = {}

    def weight(self, name: str, value: Tensor | None) -> Any:
        if value is not None and name not in self.parameters:
            initial = self.paddle.nn.initializer.Assign(value.detach().cpu().numpy())
            self.parameters[name] = self.paddle.create_parameter(list(value.shape), "float32", default_initializer=initial)
        return self.parameters.get(name)

    def conv(self, name: str, x: Any, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Any:
        weights = self.weight(f"{name}.weight", weight), self.weight(f"{name}.bias", bias)
        return self.functional.conv2d(x, *weights, stride=stride, padding=padding)

    def conv_transpose(self, name: str, x: Any, weight: Tensor, bias: Tensor | None, stride: int) -> Any:
        weights = self.weight(f"{name}.weight", weight), self.weight(f"{name}.bias", bias)
        return self.functional.conv2d_transpose(x, *weights, stride=stride)

    def silu(self, name: str, x: Any) -> Any:
        return self.functional.silu(x)

    def add(self, name: str, x: Any, y: Any) -> Any:
        return x + y

    def concat(self, name: str, parts: Sequence[Any]) -> Any:
        return self.paddle.concat(list(parts), 1)

    def halves(self, name: str, x: Any, channels: int) -> tuple[Any, Any]:
        first, second = self.paddle.split(x, [channels, channels], 1)
        return first, second

    def max_pool(self, name: str, x: Any, kernel: int, padding: int) -> Any:
        return self.functional.max_pool2d(x, kernel, 1, padding)

    def upsample(self, name: str, x: Any) -> Any:
        # not interpolate: oneDNN, which Paddle uses unless told otherwise, cannot run it (paddlepaddle 3.3)
        return self.paddle.repeat_interleave(self.paddle.repeat_interleave(x, 2, 2), 2, 3)


class PaddleExporter(Exporter):
    suffix = "_paddle_model"

    def write(self, job: ExportJob, path: Path) -> None:
        paddle = load_paddle()
        paddle.set_device("cpu")
        info = job.info
        shape = [-1, 3, -1, -1] if info.dynamic else [info.batch, 3, *info.imgsz]
        path.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = _layer(paddle, job)
            paddle.jit.save(layer, str(path / PROGRAM), input_spec=[paddle.static.InputSpec(shape, "float32", "images")])
        (path / METADATA_FILE).write_text(json.dumps(job.metadata), encoding="utf-8")


def _layer(paddle: Any, job: ExportJob) -> Any:
    """The network as a paddle.nn.Layer with its weights."""
    ops = PaddleOps(paddle)

    @paddle.jit.not_to_static  # type: ignore[untyped-decorator]  # its loops and tests are about the network, not about values: run them, don't translate them
    def answer(images: Any, dynamic: bool) -> tuple[Any, Any]:
        found = features(job.net, ops, images)
        anchors, strides = _dynamic_anchors(paddle, found) if dynamic else _static_anchors(paddle, job.info.imgsz)
        return _decode(paddle, ops, job.net, found, anchors, strides), found.protos

    class Network(paddle.nn.Layer):  # type: ignore[misc, name-defined, unused-ignore]
        def forward(self, images: Any) -> tuple[Any, Any]:  # the argument's name is the input's
            outputs: tuple[Any, Any] = answer(images, job.info.dynamic)
            return outputs

    layer = Network()
    layer.eval()
    with paddle.no_grad():
        answer(paddle.zeros([1, 3, *job.info.imgsz]), False)  # makes the weights
    for name, value in ops.parameters.items():
        layer.add_parameter(name.replace(".", "_"), value)
    return layer


def _static_anchors(paddle: Any, imgsz: tuple[int, int]) -> tuple[Any, Any]:
    """Cell centres (1, 2, A) in input pixels and strides (1, 1, A)."""
    centres, strides = make_anchors([(imgsz[0] // s, imgsz[1] // s) for s in STRIDES], torch.device("cpu"))
    return paddle.to_tensor(centres.T[None].numpy()), paddle.to_tensor(strides.T[None].numpy())


def _dynamic_anchors(paddle: Any, found: Features[Any]) -> tuple[Any, Any]:
    """The same, computed from the sizes of the feature maps."""
    centres, strides = [], []
    for stride, level in zip(STRIDES, found.boxes, strict=True):
        shape = paddle.shape(level)
        y, x = ((paddle.arange(0, shape[axis], 1, dtype="int64").astype("float32") + 0.5) * stride for axis in (2, 3))
        y, x = paddle.meshgrid(y, x)
        centres.append(paddle.stack([x.flatten(), y.flatten()]).unsqueeze(0))
        strides.append(paddle.full_like(x.flatten(), stride).unsqueeze(0).unsqueeze(0))
    return paddle.concat(centres, 2), paddle.concat(strides, 2)


def _decode(paddle: Any, ops: PaddleOps, net: YOLOv8Seg, found: Features[Any], anchors: Any, strides: Any) -> Any:
    """Everything after the head's convolutions, up to output0. See SegmentationHead.decode."""

    def join(levels: list[Any], channels: int) -> Any:
        return paddle.concat([x.reshape([0, channels, -1]) for x in levels], 2)

    bins = join(found.boxes, 4 * REG_MAX).reshape([0, 4, REG_MAX, -1]).transpose([0, 2, 1, 3])
    shares = ops.functional.softmax(bins, 1)
    weight = ops.weight("model.22.dfl.conv.weight", net.head.dfl.conv.weight)
    distances = ops.functional.conv2d(shares, weight).reshape([0, 4, -1]) * strides
    left_top, right_bottom = paddle.split(distances, [2, 2], 1)
    centre = anchors + (right_bottom - left_top) / 2
    scores = ops.functional.sigmoid(join(found.scores, net.nc))
    return paddle.concat([centre, left_top + right_bottom, scores, join(found.coefficients, MASKS)], 1)


exporter = PaddleExporter()
