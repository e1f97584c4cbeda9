"""Frozen TensorFlow graphs, in one file or as a TensorFlow.js model, in TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..types import ModelInfo
from .artifact import damaged
from .metadata import decode
from .tensorflow_runtime import METADATA_NODE, TensorFlowBackend, graph_function


class GraphDefBackend(TensorFlowBackend):
    """Runs an artifact of export(format="pb"). Raises CheckpointError if the file is anything else or damaged."""

    kind = "TensorFlow GraphDef"

    def load(self) -> tuple[ModelInfo, Any]:
        from google.protobuf.message import DecodeError

        graph = self.tf.compat.v1.GraphDef()
        try:
            graph.ParseFromString(self.path.read_bytes())
            node = next((n for n in graph.node if n.name == METADATA_NODE), None)
            metadata = {} if node is None else json.loads(node.attr["value"].tensor.string_val[0])
        except (DecodeError, ValueError, IndexError) as error:
            raise damaged(self.path, self.kind, error) from None
        return decode(metadata, self.path), self.callable(graph)

    def callable(self, graph: Any) -> Any:
        try:
            return graph_function(self.tf, graph)
        except (ValueError, KeyError, self.tf.errors.OpError) as error:
            raise damaged(self.path, self.kind, error) from None


class TfJsBackend(GraphDefBackend):
    """Runs an artifact of export(format="tfjs"): the graph and its constants are put together again. Raises CheckpointError."""

    kind = "TensorFlow.js"

    def load(self) -> tuple[ModelInfo, Any]:
        from google.protobuf.json_format import ParseDict, ParseError

        file = self.path / "model.json"
        if not file.is_file():
            raise CheckpointError(f"{self.path}: model.json is missing; export it again")
        graph = self.tf.compat.v1.GraphDef()
        try:
            model = json.loads(file.read_text(encoding="utf-8"))
            info = decode(model.get("userDefinedMetadata", {}), self.path)
            ParseDict(model["modelTopology"], graph)
            values = {name: value for group in model["weightsManifest"] for name, value in self.weights(group)}
            for node in graph.node:
                if node.op == "Const":
                    node.attr["value"].tensor.CopyFrom(self.tf.make_tensor_proto(values[node.name]))
        except (ParseError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(self.path, self.kind, error) from None
        return info, self.callable(graph)

    def weights(self, group: dict[str, Any]) -> list[tuple[str, Any]]:
        """Names and arrays. Raises CheckpointError for a file that is missing, ValueError where bytes are."""
        files = [self.path / Path(name).name for name in group["paths"]]
        if missing := [f.name for f in files if not f.is_file()]:
            raise CheckpointError(f"{self.path}: {missing[0]} is missing; export it again")
        content, start, found = b"".join(f.read_bytes() for f in files), 0, []
        for entry in group["weights"]:
            stored = np.dtype(entry.get("quantization", entry)["dtype"]).newbyteorder("<")
            count = int(np.prod(entry["shape"], dtype=np.int64))
            value = np.frombuffer(content, stored, count, start).reshape(entry["shape"])
            start += value.nbytes
            found.append((entry["name"], value.astype(entry["dtype"])))
        if start != len(content):
            raise ValueError(f"{len(content)} bytes of weights, {start} described")
        return found
