"""What an exported artifact says of itself: text keys that existing YOLOv8-seg clients read, and one JSON value of ours.

Every format stores the same mapping in its own place for metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import CheckpointError, SettingsError
from ..geometry.letterbox import PAD_VALUE
from ..types import ModelInfo

KEY = "fiftyone_yoloseg"
TORCHSCRIPT_FILE, OPENVINO_FILE = "config.txt", "model.xml"
"""Where in the artifact the metadata lies, or what holds it."""
FORMAT_VERSION = 1
LETTERBOX = {"pad_value": PAD_VALUE, "centered": True, "scale_up": True, "interpolation": "linear", "color": "RGB", "divide_by": 255}


def encode(info: ModelInfo, *, size: str, half: bool, origin: str, int8: bool = False) -> dict[str, str]:
    """The mapping to store. size: n, s, m, l or x.  origin: where the weights come from."""
    own = {
        "format_version": FORMAT_VERSION,
        "task": "segment",
        "names": [info.names[i] for i in range(len(info.names))],
        "imgsz": list(info.imgsz),
        "stride": info.stride,
        "dynamic": info.dynamic,
        "batch": info.batch,
        "size": size,
        "half": half,
        "int8": int8,
        "least_conf": info.least_conf,
        "letterbox": LETTERBOX,
        "origin": origin,
    }
    return {
        "description": f"YOLOv8{size}-seg instance segmentation",
        "author": "fiftyone-yoloseg",
        "version": __version__,
        "task": "segment",
        "names": repr(dict(info.names)),  # clients read it with ast.literal_eval
        "stride": str(info.stride),
        "imgsz": str(list(info.imgsz)),
        "batch": str(info.batch),
        "letterbox": json.dumps(LETTERBOX),
        KEY: json.dumps(own),
    }


def decode(mapping: Mapping[str, str], path: Path) -> ModelInfo:
    """Read the mapping back. Raises CheckpointError if the artifact is not one of ours or of another task."""
    task = mapping.get("task")
    if task is not None and task != "segment":
        raise CheckpointError(f"{path}: a model for the task {task!r}; only segmentation models can be used")
    if KEY not in mapping:
        raise CheckpointError(
            f"{path}: not exported by fiftyone-yoloseg (no {KEY!r} metadata), so its class names and input are unknown: export it again from its .pt"
        )
    try:
        return _info(json.loads(mapping[KEY]), path)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its metadata is damaged ({type(error).__name__}: {error}); export it again") from None


def check_shape(info: ModelInfo, images: torch.Tensor) -> None:
    """Raises SettingsError for an input, (B, 3, H, W), that a static artifact does not take."""
    wanted = (info.batch, 3, *info.imgsz)
    if not info.dynamic and tuple(images.shape) != wanted:
        raise SettingsError(
            f"this exported model takes input of shape {wanted} only, not {tuple(images.shape)}; export again with dynamic=true"
        )


def _info(own: dict[str, Any], path: Path) -> ModelInfo:
    if own["format_version"] > FORMAT_VERSION:
        raise CheckpointError(f"{path}: exported by a newer fiftyone-yoloseg: pip install -U fiftyone-yoloseg")
    if own["task"] != "segment":
        raise CheckpointError(f"{path}: a model for the task {own['task']!r}; only segmentation models can be used")
    height, width = map(int, own["imgsz"])
    names, stride, batch = own["names"], int(own["stride"]), int(own["batch"])
    if (
        not names
        or not all(isinstance(n, str) for n in names)
        or min(height, width, stride, batch) < 1
        or height % stride
        or width % stride
    ):
        raise ValueError("names, imgsz, stride or batch make no sense")
    least_conf = float(own.get("least_conf", 0.0))  # files of 0.1 do not have it
    return ModelInfo(dict(enumerate(names)), (height, width), stride, bool(own["dynamic"]), batch, least_conf)
