"""Export to TensorFlow.js: a folder that a web page loads with tf.loadGraphModel, written without the converter of that name.

The files: `model.json` with the graph, its signature and the metadata, and the constants' values, one behind the other, in pieces of 4 MB.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ExportError
from ..runtime.artifact import OUTPUTS
from ..runtime.tensorflow_runtime import INPUT, quiet_tensorflow
from .base import Exporter, ExportJob
from .tensorflow_graph import float_function, graph_def

SHARD = 4 << 20
"""Bytes. Browsers keep files of this size in their caches."""
SMALL = 1024
"""Constants of fewer values stay exact with half."""


class TfJsExporter(Exporter):
    suffix = "_web_model"

    def write(self, job: ExportJob, path: Path) -> None:
        """half: the weights are stored in half precision, and computed with in full."""
        from google.protobuf.json_format import MessageToDict

        function = float_function(job.net, job.info)
        graph = graph_def(function)
        weights, content = _take_constants(graph, job.settings.half)
        shards = [content[i : i + SHARD] for i in range(0, len(content), SHARD)]
        names = [f"group1-shard{i}of{len(shards)}.bin" for i in range(1, len(shards) + 1)]
        concrete = function.get_concrete_function()
        described = {INPUT: concrete.inputs[0], **concrete.structured_outputs}
        signature = {
            "inputs": {INPUT: _tensor(INPUT, described[INPUT])},
            "outputs": {name: _tensor(name, described[name]) for name in OUTPUTS},
        }
        model = {
            "format": "graph-model",
            "generatedBy": quiet_tensorflow().__version__,
            "convertedBy": f"fiftyone-yoloseg {job.metadata['version']}",
            "signature": signature,
            "userDefinedMetadata": job.metadata,
            "modelTopology": MessageToDict(graph),
            "weightsManifest": [{"paths": names, "weights": weights}],
        }
        path.mkdir()
        for name, shard in zip(names, shards, strict=True):
            (path / name).write_bytes(shard)
        (path / "model.json").write_text(json.dumps(model, sort_keys=True), encoding="utf-8")


def _take_constants(graph: Any, half: bool) -> tuple[list[dict[str, Any]], bytes]:
    """Move the values out of the graph: their descriptions in the order of the bytes, and the bytes."""
    tf = quiet_tensorflow()
    described, content = [], []
    for node in graph.node:
        if node.op != "Const":
            continue
        value: npt.NDArray[Any] = tf.make_ndarray(node.attr["value"].tensor)
        if value.dtype not in (np.float32, np.int32):
            raise ExportError(f"the constant {node.name} is {value.dtype}, which TensorFlow.js does not have")
        entry: dict[str, Any] = {"name": node.name, "shape": list(value.shape), "dtype": value.dtype.name}
        if half and value.dtype == np.float32 and value.size >= SMALL and value.ndim == 4:
            entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
            value = value.astype(np.float16)
        node.attr["value"].tensor.ClearField("tensor_content")
        for field in ("float_val", "int_val"):
            node.attr["value"].tensor.ClearField(field)
        described.append(entry)
        content.append(value.astype(value.dtype.newbyteorder("<")).tobytes())
    return described, b"".join(content)


def _tensor(name: str, tensor: Any) -> dict[str, Any]:
    sizes = [{"size": str(-1 if size is None else size)} for size in tensor.shape.as_list()]
    return {"name": f"{name}:0", "dtype": "DT_FLOAT", "tensorShape": {"dim": sizes}}


exporter = TfJsExporter()
