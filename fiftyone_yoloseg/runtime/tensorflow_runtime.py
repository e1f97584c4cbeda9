"""TensorFlow, imported late, quiet and on the CPU, for those who run and write its formats."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import MissingDependencyError
from ..nn.head import MASKS
from ..types import ModelInfo, RawOutput
from .artifact import OUTPUTS, mismatched, only_cpu
from .metadata import check_shape

INPUT = "images"
"""Name of the input tensor in SavedModel, GraphDef, TensorFlow.js and the TFLite model in floats."""
METADATA_NODE = "fiftyone_yoloseg_metadata"
"""The string constant of a GraphDef that holds the metadata: it cannot be lost as a second file can."""
EXTRA = "assets.extra/metadata.json"
"""Where in a SavedModel the metadata lies: `assets.extra` is the folder that TensorFlow leaves to its users."""
TFLITE_FILE = "metadata.json"
"""Its name in the archive behind a TFLite model."""
INT8_OUTPUTS = ("distances", "scores", "coefficients", "protos")
"""Outputs of a TFLite model in 8 bits."""


def need_tensorflow(what: str) -> None:
    """Raises MissingDependencyError, without importing it: that takes seconds."""
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingDependencyError("tensorflow", what, "tf")


def quiet_tensorflow(threads: int | None = None) -> Any:
    """The module, with so many threads, or as many as torch has. Its logs are for its makers, so only what the user asks for by TF_CPP_MIN_LOG_LEVEL is shown."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_stderr():
        tf = importlib.import_module("tensorflow")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        tf.config.set_visible_devices([], "GPU")  # it would take all of the GPU's memory, which is torch's
        tf.config.threading.set_intra_op_parallelism_threads(threads or torch.get_num_threads())
    except RuntimeError:  # the caller's own program has used TensorFlow already: its choices stand
        logging.getLogger(__name__).debug("TensorFlow is in use already; its threads and devices are left as they are")
    return tf


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hide what C++ libraries write to the terminal while they are loaded, which no setting of theirs prevents. Exceptions come through."""
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def graph_function(tf: Any, graph: Any) -> Any:
    """A callable of a GraphDef: images -> output0, output1. Raises what TensorFlow raises for a graph that makes no sense."""
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    return wrapped.prune(f"{INPUT}:0", [f"{name}:0" for name in OUTPUTS])


class TensorFlowBackend(ABC):
    """What SavedModel, GraphDef and TensorFlow.js have in common: a function from images (B, H, W, 3) to the two outputs."""

    kind: str

    def __init__(self, path: Path, device: str | None = None, threads: int | None = None) -> None:
        self.path, self.device = path, only_cpu(device, self.kind)
        need_tensorflow(f"running a {self.kind} model")
        self.tf = quiet_tensorflow(threads)
        self.info, self.function = self.load()

    @abstractmethod
    def load(self) -> tuple[ModelInfo, Any]:
        """What it says of itself, and the function. Raises CheckpointError if the artifact is anything else or damaged."""

    def __call__(self, images: torch.Tensor) -> RawOutput:
        """See types.Backend. Raises SettingsError for a shape that a static artifact does not take."""
        check_shape(self.info, images)
        with self.tf.device("/CPU:0"):
            pred, protos = self.function(self.tf.constant(images.cpu().permute(0, 2, 3, 1).contiguous().numpy()))
        if pred.shape[1] != 4 + len(self.info.names) + MASKS:
            raise mismatched(self.path, "outputs")
        return RawOutput(torch.from_numpy(pred.numpy()), torch.from_numpy(protos.numpy()).permute(0, 3, 1, 2).contiguous())
