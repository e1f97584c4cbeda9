"""TensorFlow SavedModels in TensorFlow."""

from __future__ import annotations

import json
from typing import Any

from ..errors import CheckpointError
from ..types import ModelInfo
from .artifact import OUTPUTS, damaged, mismatched
from .metadata import decode
from .tensorflow_runtime import EXTRA, TensorFlowBackend


class SavedModelBackend(TensorFlowBackend):
    """Runs an artifact of export(format="saved_model"). Raises CheckpointError if the folder is anything else or damaged."""

    kind = "TensorFlow SavedModel"

    def load(self) -> tuple[ModelInfo, Any]:
        path = self.path
        if not (path / "saved_model.pb").is_file():
            raise CheckpointError(f"{path}: saved_model.pb is missing; export it again")
        try:
            metadata = json.loads((path / EXTRA).read_text(encoding="utf-8")) if (path / EXTRA).is_file() else {}
        except ValueError as error:
            raise damaged(path, self.kind, error) from None
        info = decode(metadata, path)
        errors = self.tf.errors
        try:
            model = self.tf.saved_model.load(str(path))
        except (OSError, ValueError, RuntimeError, errors.OpError) as error:
            raise damaged(path, self.kind, error) from None
        signature = getattr(model, "signatures", {}).get("serving_default")
        if signature is None or set(signature.structured_outputs) != set(OUTPUTS):
            raise mismatched(path)

        def call(images: Any) -> tuple[Any, ...]:
            found = signature(images=images)
            return tuple(found[name] for name in OUTPUTS)

        return info, call
