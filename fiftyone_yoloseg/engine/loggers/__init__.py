"""Services that follow a training: TensorBoard, MLflow, Weights & Biases. Each is an extra of its own, loaded when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence

from ...errors import MissingDependencyError
from ..events import TrainingListener

_CLASSES = {"tensorboard": "TensorBoardLogger", "mlflow": "MlflowLogger", "wandb": "WandbLogger"}
"""Name of the logger, which is also its package, its extra and its module here -> its class."""


def open_loggers(names: Sequence[str]) -> list[TrainingListener]:
    """One listener a name. Raises MissingDependencyError with what to type."""
    loggers = []
    for name in dict.fromkeys(names):
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(name, f"loggers={name}", name)
        module = importlib.import_module(f"{__name__}.{name}_logger")
        loggers.append(getattr(module, _CLASSES[name])())
    return loggers
