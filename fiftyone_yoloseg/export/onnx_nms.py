"""Non-maximum suppression and masks as the last nodes of the ONNX graph.

Outputs, N = max_det places an image, filled from the front by falling confidence, zeros behind:
output0 (B, N, 6 + 32) float32: x1 y1 x2 y2 in input pixels, confidence, class, 32 mask coefficients.
output1 (B, 32, H/4, W/4) float32: the prototypes.
masks (B, N, H/4, W/4) uint8: 1 where coefficients x prototypes > 0 and the centre of the cell is in the box.
The rules are those of `engine.decode`: a box counts for its best class, confidence > conf, boxes of one class with an IoU > iou compete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from ..nn.head import MASKS

if TYPE_CHECKING:
    from .onnx_graph import OnnxOps

INPUT_PIXELS_PER_CELL = 4


def append(
    ops: OnnxOps, parts: Sequence[str], nc: int, *, conf: float, iou: float, max_det: int, imgsz: tuple[int, int] | None, anchors: int
) -> None:
    """Add the nodes. parts: the values with the boxes (B, 4, A) cx cy w h, the scores (B, nc, A) and the coefficients (B, 32, A), float32; they also read "output1".

    imgsz, anchors: (height, width) of the input and A; imgsz=None: dynamic.
    """
    node, whole = ops.node, ops.integers
    cxcywh, scores, coefficients = parts
    boxes = node("Transpose", "nms.boxes", [cxcywh], perm=[0, 2, 1])  # (B, A, 4)
    best = node("ArgMax", "nms.best", [scores], axis=1, keepdims=1)  # (B, 1, A)
    classes = ops.constant("nms.classes", np.arange(nc, dtype=np.int64).reshape(1, nc, 1))
    own = node("Where", "nms.scores", [node("Equal", "nms.is_best", [classes, best]), scores, ops.scalar(0)])
    limits = [ops.constant("nms.conf", np.array([conf], np.float32)), ops.constant("nms.iou", np.array([iou], np.float32))]
    order = [boxes, own, ops.constant("nms.max", np.array([max_det], np.int64)), limits[1], limits[0]]
    kept = node("NonMaxSuppression", "nms.kept", order, center_point_box=1)  # (K, 3): image, class, anchor
    # back to (B, A): the confidence of what is kept, zero elsewhere; each anchor is kept for one class at most
    place = node("Gather", "nms.place", [kept, whole(0, 2)], axis=1)
    confidence = node("ReduceMax", "nms.confidence", [own], axes=[1], keepdims=0) if ops.opset < 18 else \
        node("ReduceMax", "nms.confidence", [own, whole(1)], keepdims=0)  # fmt: skip
    values = node("GatherND", "nms.values", [confidence, place])
    nothing = node("Mul", "nms.nothing", [confidence, ops.scalar(0)])
    chosen = node("ScatterND", "nms.chosen", [nothing, place, values])
    if imgsz is None:
        shape = node("Shape", "nms.shape", [chosen])
        most = node("Min", "nms.most", [whole(max_det), node("Gather", "nms.anchors", [shape, whole(1)], axis=0)])
    else:
        most = whole(min(max_det, anchors))
    node("TopK", "nms.top", [chosen, most], ["nms.top_confidence", "nms.top_anchor"], axis=1)  # (B, N) each
    index = node("Unsqueeze", "nms.index", ["nms.top_anchor", whole(2)])  # (B, N, 1)
    score = node("Unsqueeze", "nms.score", ["nms.top_confidence", whole(2)])
    live = node("Cast", "nms.live", [node("Greater", "nms.is_live", [score, ops.scalar(0)])], to=TensorProto.FLOAT)

    def pick(name: str, values: str, width: int) -> str:
        """(B, A, width) -> (B, N, width), zeros in places without an object."""
        wide = node("Tile", f"nms.{name}.index", [index, whole(1, 1, width)])
        return node("Mul", f"nms.{name}", [node("GatherElements", f"nms.{name}.all", [values, wide], axis=1), live])

    centre_size = pick("found", boxes, 4)
    node("Split", "nms.split", [centre_size, whole(2, 2)], ["nms.centre", "nms.size"], axis=2)
    reach = node("Mul", "nms.reach", ["nms.size", ops.scalar(0.5)])
    first, last = node("Sub", "nms.first", ["nms.centre", reach]), node("Add", "nms.last", ["nms.centre", reach])
    names = node("Cast", "nms.class", [node("Transpose", "nms.best.last", [best], perm=[0, 2, 1])], to=TensorProto.FLOAT)
    weights = pick("coefficients", node("Transpose", "nms.coefficients.last", [coefficients], perm=[0, 2, 1]), MASKS)
    node("Concat", "output0", [first, last, score, pick("names", names, 1), weights], axis=2)
    _masks(ops, weights, first, last, imgsz)


def _masks(ops: OnnxOps, weights: str, first: str, last: str, imgsz: tuple[int, int] | None) -> None:
    """first, last: (B, N, 2) x y of the corners in input pixels."""
    node, whole = ops.node, ops.integers
    flat = node("Reshape", "masks.protos", ["output1", whole(0, MASKS, -1)])
    shape = node("Shape", "masks.protos.shape", ["output1"])
    inside = []
    for axis, column, place, view in (("y", 1, 2, (1, 1, -1, 1)), ("x", 0, 3, (1, 1, 1, -1))):
        centres = _centres(ops, axis, shape, place, view, imgsz)
        corner = {}
        for name, values in (("first", first), ("last", last)):
            one = node("Gather", f"masks.{axis}.{name}.value", [values, whole(column)], axis=2)  # (B, N, 1)
            corner[name] = node("Unsqueeze", f"masks.{axis}.{name}", [one, whole(3)])  # (B, N, 1, 1)
        inside.append(node("Greater", f"masks.{axis}.after", [centres, corner["first"]]))
        inside.append(node("Less", f"masks.{axis}.before", [centres, corner["last"]]))
    logits = node("MatMul", "masks.logits.flat", [weights, flat])  # (B, N, H/4 * W/4)
    counts = node("Gather", "masks.size", [shape, whole(2, 3)], axis=0)
    logits = node("Reshape", "masks.logits", [logits, node("Concat", "masks.shape", [whole(0, 0), counts], axis=0)])
    result = node("Greater", "masks.positive", [logits, ops.scalar(0)])
    for i, part in enumerate(inside):
        result = node("And", f"masks.and.{i}", [result, part])
    node("Cast", "masks", [result], to=TensorProto.UINT8)


def _centres(ops: OnnxOps, axis: str, shape: str, place: int, view: tuple[int, ...], imgsz: tuple[int, int] | None) -> str:
    """Centres of the cells along an axis in input pixels; shape: the value with the shape of the prototypes, place: where the axis is in it."""
    if imgsz is not None:
        line = np.arange(INPUT_PIXELS_PER_CELL / 2, imgsz[place - 2], INPUT_PIXELS_PER_CELL, dtype=np.float32)
        return ops.constant(f"masks.{axis}.centres", line.reshape(view))
    node, cell = ops.node, ops.scalar(INPUT_PIXELS_PER_CELL)
    count = node("Gather", f"masks.{axis}.count", [shape, ops.constant(f"index.{place}", np.array(place, np.int64))], axis=0)
    end = node("Mul", f"masks.{axis}.end", [node("Cast", f"masks.{axis}.cells", [count], to=TensorProto.FLOAT), cell])
    line_ = node("Range", f"masks.{axis}.line", [ops.scalar(INPUT_PIXELS_PER_CELL / 2), end, cell])
    return node("Reshape", f"masks.{axis}.centres", [line_, ops.integers(*view)])
