"""Export to a frozen TensorFlow graph: one file, for programs that read a GraphDef."""

from __future__ import annotations

import json
from pathlib import Path

from ..runtime.tensorflow_runtime import METADATA_NODE, quiet_tensorflow
from .base import Exporter, ExportJob
from .tensorflow_graph import float_function, graph_def


class GraphDefExporter(Exporter):
    suffix = ".pb"

    def write(self, job: ExportJob, path: Path) -> None:
        """The metadata is a string constant of the graph that nothing reads: a second file would be lost in the first copy."""
        tf = quiet_tensorflow()
        graph = graph_def(float_function(job.net, job.info))
        node = graph.node.add(name=METADATA_NODE, op="Const")
        node.attr["dtype"].type = tf.string.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(json.dumps(job.metadata)))
        path.write_bytes(graph.SerializeToString(deterministic=True))


exporter = GraphDefExporter()
