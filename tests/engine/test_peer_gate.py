"""The gate against the peer: its trained checkpoint in our network gives its answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fiftyone_yoloseg.engine.foreign import read_foreign
from fiftyone_yoloseg.nn.model import YOLOv8Seg, fused


def test_raw_forward(test_data: Path) -> None:
    peer = test_data / "peer"
    found = read_foreign(peer / "yolov8n-seg-shapes.pt")
    net = YOLOv8Seg(found.nc, found.size).eval()
    net.load_state_dict(found.state, strict=True)
    saved = np.load(peer / "raw_forward.npz")
    pred, protos = torch.from_numpy(saved["pred"]), torch.from_numpy(saved["proto"])
    images = torch.from_numpy(saved["input"]).float() / 255
    for candidate in (net, fused(net)):
        with torch.inference_mode():
            out = candidate(images)
        assert out.pred.shape == pred.shape and out.protos.shape == protos.shape
        assert (out.pred[:, :4] - pred[:, :4]).abs().max() < 1e-2  # pixels
        assert (out.pred[:, 4:] - pred[:, 4:]).abs().max() < 1e-4
        assert (out.protos - protos).abs().max() < 1e-4
