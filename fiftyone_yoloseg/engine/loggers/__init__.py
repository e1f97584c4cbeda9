"""Services that follow a training: TensorBoard, MLflow, Weights & Biases. Each is an extra of its own, loaded when it is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

from ...errors import MissingDependencyError
from ..events import TrainingListener
from .mlflow_logger import MlflowLogger
from .tensorboard_logger import TensorBoardLogger
from .wandb_logger import WandbLogger

_LOGGERS: dict[str, Callable[[], TrainingListener]] = {"tensorboard": TensorBoardLogger, "mlflow": MlflowLogger, "wandb": WandbLogger}
"""By the name of the logger, which is also that of its package and of its extra."""


def open_loggers(names: Sequence[str]) -> list[TrainingListener]:
    """One listener a name. Raises MissingDependencyError with what to type."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(name, f"loggers={name}", name)
    return [_LOGGERS[name]() for name in dict.fromkeys(names)]
