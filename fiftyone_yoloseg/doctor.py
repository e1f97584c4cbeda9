"""What is installed here and what works: for bug reports and for a first look."""

from __future__ import annotations

import importlib.util
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import __version__
from .data.files import cache_folder

PACKAGES = (
    "fiftyone",
    "torch",
    "torchvision",
    "numpy",
    "opencv-python-headless",
    "pycocotools",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "onnxslim",
    "pydantic",
    "matplotlib",
    "tensorboard",
    "mlflow",
    "wandb",
)


def report() -> dict[str, Any]:
    """JSON-able facts about this environment."""
    import torch

    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "fiftyone-yoloseg": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": gpus,
        "packages": packages,
        "database": _database(),
        "cache": _cache(),
    }


def _cache() -> dict[str, Any]:
    """The folder of what can be made again, which may be removed, and its size in MB."""
    folder = cache_folder()
    size = sum(_size(Path(parent, name)) for parent, _, names in os.walk(folder) for name in names)
    return {"folder": str(folder), "MB": round(size / 1e6, 1)}


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # another process has just removed it
        return 0


def _database() -> str:
    """Whether FiftyOne's MongoDB can run; it is not started here."""
    if importlib.util.find_spec("fiftyone") is None:
        return "fiftyone is not installed"
    from .bridge.database import mongod_problem

    return mongod_problem() or "ok"
