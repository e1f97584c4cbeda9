"""Export to TensorFlow's SavedModel: a folder for TensorFlow, TensorFlow Serving and its converters."""

from __future__ import annotations

import json
from pathlib import Path

from ..runtime.tensorflow_runtime import EXTRA, quiet_tensorflow
from .base import Exporter, ExportJob
from .tensorflow_graph import float_function, save


class SavedModelExporter(Exporter):
    suffix = "_saved_model"

    def write(self, job: ExportJob, path: Path) -> None:
        save(quiet_tensorflow(), float_function(job.net, job.info), path)
        (path / EXTRA).parent.mkdir()
        (path / EXTRA).write_text(json.dumps(job.metadata, indent=1), encoding="utf-8")


exporter = SavedModelExporter()
