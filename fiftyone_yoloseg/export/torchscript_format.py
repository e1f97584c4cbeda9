"""Export to TorchScript: one file that any torch, also C++'s, runs without our code."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import ExportSettings
from ..errors import SettingsError
from ..nn.head import HeadOutput
from ..nn.model import YOLOv8Seg
from ..runtime.metadata import TORCHSCRIPT_FILE
from .base import Exporter, ExportJob


class TorchScriptExporter(Exporter):
    suffix = ".torchscript"

    def check(self, settings: ExportSettings) -> None:
        if settings.half and (settings.device or "cpu") == "cpu":
            raise SettingsError(
                "half=true with format=torchscript: torch computes in half precision on a GPU only; give device=0, or leave half out"
            )

    def write(self, job: ExportJob, path: Path) -> None:
        # rows and columns differ, and there are two images: a size that is written into the trace by mistake shows in the comparison
        batch = 2 if job.info.dynamic else job.info.batch
        example = torch.zeros(batch, 3, *job.info.imgsz)
        net = _Plain(job.net, torch.float16 if job.settings.half else torch.float32).eval()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch recommends torch.export, which C++ and older versions cannot run
            traced = torch.jit.trace(net, example, check_trace=False)
            torch.jit.save(traced, str(path), _extra_files={TORCHSCRIPT_FILE: json.dumps(job.metadata)})


class _Plain(nn.Module):
    """float32 images -> the two tensors, float32. The network computes in `dtype`, boxes are decoded in float32: half a pixel is lost else."""

    def __init__(self, net: YOLOv8Seg, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.dtype = net.to(dtype), dtype

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        out = self.net.heads(images.to(self.dtype))
        raw = self.net.head.decode(HeadOutput(*(t.float() for t in out)))
        return raw.pred, raw.protos


exporter = TorchScriptExporter()
