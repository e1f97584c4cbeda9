"""Our network as an ONNX graph, written node by node: same nodes on every torch version, readable names, nothing to clean up.

Input: images (B, 3, H, W) float32 RGB in [0, 1]. Outputs as existing YOLOv8-seg clients expect them: output0 (B, 4 + nc + 32, A),
output1 (B, 32, H/4, W/4), both float32. With half, the convolutions and their weights are float16; boxes are still computed in float32,
because float16 cannot tell neighbouring pixels apart beyond 2048 and half pixels beyond 1024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from ..nn.head import MASKS, REG_MAX, STRIDES, make_anchors
from ..nn.model import YOLOv8Seg
from .mirror import Features, features
from .onnx_nms import append

Array = npt.NDArray[Any]


class Suppression(NamedTuple):
    """Settings of NMS inside the graph, see `ExportSettings`."""

    conf: float
    iou: float
    max_det: int


class OnnxOps:
    """`mirror.Ops` for ONNX: values are names, every call appends a node."""

    def __init__(self, half: bool, opset: int) -> None:
        self.opset = opset
        self.dtype: Any = np.float16 if half else np.float32
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}

    def node(self, kind: str, name: str, inputs: Sequence[str], outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Append a node; returns its first output, which has the node's name unless given."""
        outputs = list(outputs) or [name]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=name, **attributes))
        return outputs[0]

    def constant(self, name: str, value: Array) -> str:
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def integers(self, *values: int) -> str:
        return self.constant("int64." + "_".join(map(str, values)), np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        return self.constant(f"float32.{value:g}", np.array(value, np.float32))

    def _weight(self, name: str, value: Tensor) -> str:
        return self.constant(name, value.detach().cpu().numpy().astype(self.dtype))

    def _weights(self, name: str, weight: Tensor, bias: Tensor | None) -> list[str]:
        return [self._weight(f"{name}.weight", weight)] + ([self._weight(f"{name}.bias", bias)] if bias is not None else [])

    def conv(self, name: str, x: str, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> str:
        kernel = list(weight.shape[2:])
        inputs = [x, *self._weights(name, weight, bias)]
        return self.node("Conv", name, inputs, kernel_shape=kernel, strides=[stride] * 2, pads=[padding] * 4)

    def conv_transpose(self, name: str, x: str, weight: Tensor, bias: Tensor | None, stride: int) -> str:
        inputs = [x, *self._weights(name, weight, bias)]
        return self.node("ConvTranspose", name, inputs, kernel_shape=list(weight.shape[2:]), strides=[stride] * 2)

    def silu(self, name: str, x: str) -> str:
        return self.node("Mul", name, [x, self.node("Sigmoid", f"{name}.sigmoid", [x])])

    def add(self, name: str, x: str, y: str) -> str:
        return self.node("Add", name, [x, y])

    def concat(self, name: str, parts: Sequence[str]) -> str:
        return self.node("Concat", name, parts, axis=1)

    def halves(self, name: str, x: str, channels: int) -> tuple[str, str]:
        outputs = f"{name}.0", f"{name}.1"
        self.node("Split", name, [x, self.integers(channels, channels)], outputs, axis=1)
        return outputs

    def max_pool(self, name: str, x: str, kernel: int, padding: int) -> str:
        return self.node("MaxPool", name, [x], kernel_shape=[kernel] * 2, pads=[padding] * 4, strides=[1, 1])

    def upsample(self, name: str, x: str) -> str:
        scales = self.constant("upsample.scales", np.array([1, 1, 2, 2], np.float32))
        attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", name, [x, "", scales], **attributes)


def build(
    net: YOLOv8Seg,
    *,
    imgsz: tuple[int, int],
    batch: int,
    dynamic: bool,
    half: bool,
    opset: int,
    metadata: Mapping[str, str],
    nms: Suppression | None = None,
) -> onnx.ModelProto:
    """The ONNX model of a fused network. imgsz: (height, width) of a static graph; `dynamic` takes any batch and multiples of 32.

    nms: with non-maximum suppression and masks inside, see `onnx_nms` for the outputs.
    """
    ops = OnnxOps(half, opset)
    images = ops.node("Cast", "images.half", ["images"], to=TensorProto.FLOAT16) if half else "images"
    found = features(net, ops, images)
    anchors, strides = _dynamic_anchors(ops, found) if dynamic else _static_anchors(ops, imgsz)
    parts = _decode(ops, net, found, anchors, strides, half)
    if half:
        ops.node("Cast", "output1", [found.protos], to=TensorProto.FLOAT)
    else:
        _rename_output(ops, found.protos, "output1")

    height, width = imgsz
    outputs = ["output0", "output1"]
    count = sum((height // s) * (width // s) for s in STRIDES)
    shapes: dict[str, list[int | str]] = {
        "images": ["batch", 3, "height", "width"] if dynamic else [batch, 3, height, width],
        "output0": ["batch", 4 + net.nc + MASKS, "anchors"] if dynamic else [batch, 4 + net.nc + MASKS, count],
        "output1": ["batch", MASKS, "mask_height", "mask_width"] if dynamic else [batch, MASKS, height // 4, width // 4],
    }
    if nms is None:
        ops.node("Concat", "output0", parts, axis=1)
    else:
        append(ops, parts, net.nc, conf=nms.conf, iou=nms.iou, max_det=nms.max_det, imgsz=None if dynamic else imgsz, anchors=count)
        places: int | str = "objects" if dynamic else min(nms.max_det, count)
        shapes["output0"] = [shapes["images"][0], places, 6 + MASKS]
        shapes["masks"] = [shapes["images"][0], places, *shapes["output1"][2:]]
        outputs.append("masks")
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.UINT8 if name == "masks" else TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    graph = helper.make_graph(ops.nodes, "yolov8-seg", [values["images"]], [values[name] for name in outputs], [*ops.weights.values()])
    imports = [helper.make_opsetid("", opset)]
    # the oldest file version that has this operator set, so that older runtimes can read it
    model = helper.make_model(
        graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports), producer_name="fiftyone-yoloseg"
    )
    model.producer_version = metadata.get("version", "")
    helper.set_model_props(model, dict(metadata))
    return model


def _rename_output(ops: OnnxOps, old: str, new: str) -> None:
    """Give the last value of the graph, which nothing reads, its public name."""
    node = next(n for n in reversed(ops.nodes) if old in n.output)
    node.output[list(node.output).index(old)] = new


def _static_anchors(ops: OnnxOps, imgsz: tuple[int, int]) -> tuple[str, str]:
    """Cell centres (1, 2, A) in input pixels and strides (1, 1, A), as constants."""
    centres, strides = make_anchors([(imgsz[0] // s, imgsz[1] // s) for s in STRIDES], torch.device("cpu"))
    return ops.constant("anchors", centres.T[None].numpy()), ops.constant("strides", strides.T[None].numpy())


def _dynamic_anchors(ops: OnnxOps, found: Features[str]) -> tuple[str, str]:
    """The same, computed from the sizes of the feature maps."""
    zero, centres, strides = ops.scalar(0), [], []
    for stride, level in zip(STRIDES, found.boxes, strict=True):
        name, step = f"anchors.{stride}", ops.scalar(stride)
        shape = ops.node("Shape", f"{name}.shape", [level])
        axes = {}
        for axis, index, view in (("y", 2, (1, 1, -1, 1)), ("x", 3, (1, 1, 1, -1))):
            cells = ops.node("Gather", f"{name}.{axis}.cells", [shape, ops.constant(f"index.{index}", np.array(index, np.int64))], axis=0)
            # counted in integers: TensorRT knows no other range of a length that it computes
            steps = [ops.constant(f"index.{i}", np.array(i, np.int64)) for i in (0, 1)]
            line = ops.node("Range", f"{name}.{axis}.line", [steps[0], cells, steps[1]])
            line = ops.node("Cast", f"{name}.{axis}.line.float", [line], to=TensorProto.FLOAT)
            line = ops.node("Mul", f"{name}.{axis}.pixels", [line, step])
            line = ops.node("Add", f"{name}.{axis}.centre", [line, ops.scalar(stride / 2)])
            axes[axis] = ops.node("Reshape", f"{name}.{axis}.view", [line, ops.integers(*view)])
        grids = []
        for axis, other in (("x", "y"), ("y", "x")):
            spread = ops.node("Mul", f"{name}.{other}.zero", [axes[other], zero])
            grids.append(ops.node("Add", f"{name}.{axis}.grid", [axes[axis], spread]))
        grid = ops.node("Concat", f"{name}.grid", grids, axis=1)
        centre = ops.node("Reshape", name, [grid, ops.integers(1, 2, -1)])
        first = ops.node("Slice", f"{name}.first", [centre, ops.integers(0), ops.integers(1), ops.integers(1)])
        centres.append(centre)
        strides.append(ops.node("Add", f"strides.{stride}", [ops.node("Mul", f"strides.{stride}.zero", [first, zero]), step]))
    return ops.node("Concat", "anchors", centres, axis=2), ops.node("Concat", "strides", strides, axis=2)


def _decode(ops: OnnxOps, net: YOLOv8Seg, found: Features[str], anchors: str, strides: str, half: bool) -> list[str]:
    """Everything after the head's convolutions, up to the parts of output0: boxes, scores, coefficients. See SegmentationHead.decode."""

    def join(name: str, levels: list[str], channels: int) -> str:
        flat = [ops.node("Reshape", f"{name}.{s}", [x, ops.integers(0, channels, -1)]) for s, x in zip(STRIDES, levels, strict=True)]
        joined = ops.node("Concat", name, flat, axis=2)
        return ops.node("Cast", f"{name}.float", [joined], to=TensorProto.FLOAT) if half else joined

    bins = ops.node("Reshape", "dfl.bins", [join("distances", found.boxes, 4 * REG_MAX), ops.integers(0, 4, REG_MAX, -1)])
    bins = ops.node("Transpose", "dfl.transpose", [bins], perm=[0, 2, 1, 3])
    shares = ops.node("Softmax", "dfl.softmax", [bins], axis=1)
    weight = ops.constant("model.22.dfl.conv.weight", net.head.dfl.conv.weight.detach().cpu().numpy())
    mean = ops.node("Conv", "dfl.conv", [shares, weight], kernel_shape=[1, 1])
    distances = ops.node("Mul", "dfl.pixels", [ops.node("Reshape", "dfl.sides", [mean, ops.integers(0, 4, -1)]), strides])
    left_top, right_bottom = "boxes.left_top", "boxes.right_bottom"
    ops.node("Split", "boxes.split", [distances, ops.integers(2, 2)], [left_top, right_bottom], axis=1)
    shift = ops.node("Mul", "boxes.shift", [ops.node("Sub", "boxes.difference", [right_bottom, left_top]), ops.scalar(0.5)])
    centre = ops.node("Add", "boxes.centre", [anchors, shift])
    size = ops.node("Add", "boxes.size", [left_top, right_bottom])
    scores = ops.node("Sigmoid", "scores.sigmoid", [join("scores", found.scores, net.nc)])
    boxes = ops.node("Concat", "boxes", [centre, size], axis=1)
    return [boxes, scores, join("coefficients", found.coefficients, MASKS)]
