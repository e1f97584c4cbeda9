"""The gate against the peer: its trained checkpoint in our network gives its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_iou

from fiftyone_yoloseg.config import PredictSettings
from fiftyone_yoloseg.data.images import read_image
from fiftyone_yoloseg.engine.checkpoint import load_checkpoint
from fiftyone_yoloseg.engine.foreign import read_foreign
from fiftyone_yoloseg.engine.predictor import Predictor
from fiftyone_yoloseg.engine.torch_backend import TorchBackend
from fiftyone_yoloseg.geometry.masks import area, from_coco_rle, iou
from fiftyone_yoloseg.nn.model import YOLOv8Seg, fused
from fiftyone_yoloseg.types import Instances


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


def _matches(found: Instances, want: dict[str, Any]) -> list[str]:
    """What is missing among our predictions, one line each."""
    missing = []
    for box, conf, cls, rle in zip(want["boxes"], want["conf"], want["cls"], want["masks"], strict=True):
        ious = box_iou(torch.tensor([box]), torch.from_numpy(found.boxes))[0]
        best = int(ious.argmax())
        mask = from_coco_rle(rle)
        overlap = float(iou([mask], [found.masks[best]])[0, 0])
        problems = {
            "box IoU": (ious[best].item(), ious[best] > 0.99),
            "class": (int(found.classes[best]), found.classes[best] == cls),
            "confidence": (float(found.confidences[best]) - conf, abs(found.confidences[best] - conf) < 1e-3),
            "mask IoU": (overlap, overlap > 0.97 or area(mask) <= 100),
        }
        missing += [f"{box}: {name} {value}" for name, (value, ok) in problems.items() if not ok]
    return missing


def test_every_prediction_of_the_peer_is_found_again(test_data: Path) -> None:
    checkpoint = load_checkpoint(test_data / "peer" / "yolov8n-seg-shapes.pt")
    wanted = json.loads((test_data / "peer" / "predictions.json").read_text())
    predictor = Predictor(
        TorchBackend(checkpoint.net, checkpoint.info, torch.device("cpu")), PredictSettings(imgsz=192, conf=0.25, iou=0.7)
    )
    assert len(wanted) == 12
    for name, want in wanted.items():
        (found,) = predictor.instances([read_image(test_data / "shapes" / "images" / "val" / name)])
        assert [found.height, found.width] == want["shape"]
        assert len(found) == len(want["boxes"]), name
        assert not (missing := _matches(found, want)), (name, missing)
