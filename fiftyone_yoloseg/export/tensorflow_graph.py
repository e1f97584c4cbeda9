"""Our network in TensorFlow's words, channels last: the source of SavedModel, GraphDef, TFLite, Edge TPU and TensorFlow.js.

Input: images (B, H, W, 3) float32 RGB in [0, 1]. Outputs: output0 (B, 4 + nc + 32, A) as in the ONNX model, output1 (B, H/4, W/4, 32).
For 8 bits, `integer_function` has other outputs: see there. Each operation is the one that TFLite has with the lowest version and without
transposing; the weights are constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..nn.head import MASKS, REG_MAX, STRIDES, make_anchors
from ..nn.model import YOLOv8Seg
from ..runtime.artifact import OUTPUTS
from ..runtime.tensorflow_runtime import INPUT, INT8_OUTPUTS, quiet_tensorflow
from ..types import ModelInfo
from .mirror import Features, features

DFL_SHIFT = 0.875
"""Added to the bins 0..15 and taken off their mean: 15.875 = 127/8, so that 8-bit weights hold every bin exactly."""


class TfOps:
    """`mirror.Ops` for TensorFlow, (B, H, W, C)."""

    def __init__(self, tf: Any) -> None:
        self.tf = tf

    def _constant(self, value: Tensor) -> Any:
        return self.tf.constant(np.ascontiguousarray(value.detach().cpu().numpy()), self.tf.float32)

    def _biased(self, x: Any, bias: Tensor | None) -> Any:
        return x if bias is None else self.tf.nn.bias_add(x, self._constant(bias))

    def conv(self, name: str, x: Any, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Any:
        if stride > 1:  # SAME would pad on one side only
            x = self.tf.pad(x, [[0, 0], [padding] * 2, [padding] * 2, [0, 0]])
        y = self.tf.nn.conv2d(x, self._constant(weight.permute(2, 3, 1, 0)), stride, "VALID" if stride > 1 else "SAME")
        return self._biased(y, bias)

    def conv_transpose(self, name: str, x: Any, weight: Tensor, bias: Tensor | None, stride: int) -> Any:
        batch, height, width = self.sizes(x)
        shape = [batch, height * stride, width * stride, weight.shape[1]]
        y = self.tf.nn.conv2d_transpose(x, self._constant(weight.permute(2, 3, 1, 0)), shape, stride, "VALID")
        return self._biased(y, bias)

    def silu(self, name: str, x: Any) -> Any:
        return x * self.tf.sigmoid(x)

    def add(self, name: str, x: Any, y: Any) -> Any:
        return x + y

    def concat(self, name: str, parts: Sequence[Any]) -> Any:
        return self.tf.concat(parts, -1)

    def halves(self, name: str, x: Any, channels: int) -> tuple[Any, Any]:
        first, second = self.tf.split(x, 2, -1)
        return first, second

    def max_pool(self, name: str, x: Any, kernel: int, padding: int) -> Any:
        return self.tf.nn.max_pool2d(x, kernel, 1, "SAME")

    def upsample(self, name: str, x: Any) -> Any:
        _, height, width = self.sizes(x)
        # not tf.image.resize: its half-pixel form is the same for twice the size, but a newer operation in TFLite
        return self.tf.raw_ops.ResizeNearestNeighbor(images=x, size=[2 * height, 2 * width], half_pixel_centers=False)

    def sizes(self, x: Any) -> list[Any]:
        """Batch, height, width: numbers where they are known, else tensors."""
        known = x.shape[:3].as_list()
        if None not in known:
            return known  # type: ignore[no-any-return]
        shape = self.tf.shape(x)
        return [shape[i] if size is None else size for i, size in enumerate(known)]


def float_function(net: YOLOv8Seg, info: ModelInfo) -> Any:
    """The tf.function of a fused network with outputs output0, output1."""
    tf = quiet_tensorflow()

    def call(images: Any) -> dict[str, Any]:
        ops = TfOps(tf)
        found = features(net, ops, images)
        centres, strides = _anchors(tf, ops, found, info)
        distances, scores, coefficients = _rows(tf, ops, net, found)
        left_top, right_bottom = tf.split(distances * strides, 2, -1)
        centre, size = centres + (right_bottom - left_top) * 0.5, left_top + right_bottom
        pred = tf.transpose(tf.concat([centre, size, scores, coefficients], -1), [0, 2, 1])
        return {name: tf.identity(value, name=name) for name, value in zip(OUTPUTS, (pred, found.protos), strict=True)}

    return tf.function(call, input_signature=[_signature(tf, info)], autograph=False)


def integer_function(net: YOLOv8Seg, info: ModelInfo) -> Any:
    """The tf.function to be turned into 8 bits, with outputs that share no scale, else the wide range of one ruins the others.

    distances (B, A, 4): to left, top, right, bottom, in cells of each level.  scores (B, A, nc), coefficients (B, A, 32), protos (B, H/4, W/4, 32).
    Whoever runs it adds the cells' centres, which are known to the pixel: 8 bits hold a place in the image to 1/256 of its size only
    (shapes val, 192x256: mask mAP 0.597 this way, 0.563 with boxes in shares of the image, 0.596 in torch).
    """
    tf = quiet_tensorflow()

    def call(images: Any) -> dict[str, Any]:
        ops = TfOps(tf)
        found = features(net, ops, images)
        return dict(zip(INT8_OUTPUTS, (*_rows(tf, ops, net, found), found.protos), strict=True))

    return tf.function(call, input_signature=[_signature(tf, info)], autograph=False)


def save(tf: Any, function: Any, folder: Path) -> None:
    """Write a SavedModel with the function as its serving signature."""
    module = tf.Module()
    module.call = function
    tf.saved_model.save(module, str(folder), signatures={"serving_default": function})


def graph_def(function: Any) -> Any:
    """The GraphDef of a `float_function`: the placeholder `images`, constants, `output0` and `output1`, no function calls."""
    tf = quiet_tensorflow()
    graph = function.get_concrete_function().graph.as_graph_def()
    return tf.compat.v1.graph_util.extract_sub_graph(graph, list(OUTPUTS))


def _signature(tf: Any, info: ModelInfo) -> Any:
    shape = [None] * 3 if info.dynamic else [info.batch, *info.imgsz]
    return tf.TensorSpec([*shape, 3], tf.float32, INPUT)


def _rows(tf: Any, ops: TfOps, net: YOLOv8Seg, found: Features[Any]) -> tuple[Any, Any, Any]:
    """Distances in cells (B, A, 4), probabilities (B, A, nc), coefficients (B, A, 32)."""

    def join(levels: list[Any], channels: int) -> Any:
        flat = []
        for x in levels:
            batch, height, width = ops.sizes(x)
            flat.append(tf.reshape(x, [batch, height * width, channels]))
        return tf.concat(flat, 1)

    raw = join(found.boxes, 4 * REG_MAX)
    batch, count = raw.shape[0], raw.shape[1]
    if batch is None or count is None:
        batch, count = tf.shape(raw)[0], tf.shape(raw)[1]
    shares = tf.nn.softmax(tf.reshape(raw, [batch, count, 4, REG_MAX]))
    weight = net.head.dfl.conv.weight.detach().view(1, 1, REG_MAX, 1) + DFL_SHIFT
    mean = tf.nn.bias_add(tf.nn.conv2d(shares, tf.constant(weight.numpy()), 1, "SAME"), [-DFL_SHIFT])
    return tf.reshape(mean, [batch, count, 4]), tf.sigmoid(join(found.scores, net.nc)), join(found.coefficients, MASKS)


def _anchors(tf: Any, ops: TfOps, found: Features[Any], info: ModelInfo) -> tuple[Any, Any]:
    """Cell centres (1, A, 2) in input pixels, strides (1, A, 1); constants where the size is fixed."""
    if not info.dynamic:
        centres, strides = make_anchors([(info.imgsz[0] // s, info.imgsz[1] // s) for s in STRIDES], torch.device("cpu"))
        return tf.constant(centres[None].numpy()), tf.constant(strides[None].numpy())
    points, steps = [], []
    for stride, level in zip(STRIDES, found.boxes, strict=True):
        _, height, width = ops.sizes(level)
        x, y = tf.meshgrid(*((tf.cast(tf.range(n), tf.float32) + 0.5) * stride for n in (width, height)))
        points.append(tf.reshape(tf.stack([x, y], -1), [1, height * width, 2]))
        steps.append(tf.fill([1, height * width, 1], float(stride)))
    return tf.concat(points, 1), tf.concat(steps, 1)
