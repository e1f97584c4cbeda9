"""Export to TensorFlow Lite: one file for phones and small computers, in floats, half precision, or 8 bit integers."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ExportError
from ..runtime.artifact import first_line
from ..runtime.tensorflow_runtime import TFLITE_FILE, quiet_stderr, quiet_tensorflow
from .base import Exporter, ExportJob
from .tensorflow_graph import float_function, integer_function, save


class TfLiteExporter(Exporter):
    suffix = ".tflite"

    def write(self, job: ExportJob, path: Path) -> None:
        """half: the weights are stored in half precision.  int8: everything, inputs and outputs too, is in 8 bit integers."""
        path.write_bytes(convert(job))
        append_metadata(path, job.metadata)


def convert(job: ExportJob) -> bytes:
    """The model alone, without metadata. Raises ExportError for what TensorFlow's converter refuses."""
    tf = quiet_tensorflow()
    function = (integer_function if job.settings.int8 else float_function)(job.net, job.info)
    with tempfile.TemporaryDirectory() as folder:
        save(tf, function, Path(folder) / "model")
        # not from_concrete_functions, which loses the names of the outputs
        converter = tf.lite.TFLiteConverter.from_saved_model(str(Path(folder) / "model"))
        if job.settings.half or job.settings.int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if job.settings.half:
            converter.target_spec.supported_types = [tf.float16]
        if job.settings.int8:
            converter.representative_dataset = lambda: _samples(job)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        try:
            with quiet_stderr():
                model: bytes = converter.convert()
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"TensorFlow's converter refused the network ({first_line(error)})") from error
    return model


def append_metadata(path: Path, metadata: dict[str, str]) -> None:
    """As a zip archive behind the model, where TensorFlow Lite keeps files that belong to a model; `unzip` lists them."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        # the time of writing would make two files of one checkpoint differ
        archive.writestr(zipfile.ZipInfo(TFLITE_FILE), json.dumps(metadata))


def _samples(job: ExportJob) -> Iterator[list[npt.NDArray[Any]]]:
    """Batches to calibrate with. Each has a black and a white pixel, so that the input's integers are exactly the 256 values of a picture."""
    for image in job.calibration:
        sample = image.permute(0, 2, 3, 1).numpy().copy()
        sample[:, 0, 0], sample[:, 0, 1] = 0, 1
        yield [np.ascontiguousarray(np.repeat(sample, job.info.batch, 0))]


exporter = TfLiteExporter()
