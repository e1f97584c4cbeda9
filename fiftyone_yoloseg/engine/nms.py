"""torchvision's non-maximum suppression without torchvision's package, whose import would take longer than torch's own (4 s on our machine)."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Indices of the boxes to keep, by falling score. boxes: (N, 4) x1 y1 x2 y2. scores: (N,)."""
    keep: Tensor = _operator()(boxes, scores, iou)
    return keep


@cache
def _operator() -> Any:
    spec = importlib.util.find_spec("torchvision")
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    for library in (file for folder in folders for file in sorted(Path(folder).glob("_C*")) if file.suffix in (".so", ".pyd", ".dll")):
        torch.ops.load_library(str(library))
        if hasattr(torch.ops.torchvision, "nms"):
            return torch.ops.torchvision.nms
    import torchvision.ops  # a build of another layout

    return torchvision.ops.nms
