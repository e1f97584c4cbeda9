"""The whole chain - loading, assignment, losses, optimizer, averaging, decoding, metrics - learns four images by heart."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import torch

from fiftyone_yoloseg.config import TrainSettings, ValSettings
from fiftyone_yoloseg.data.images import read_image
from fiftyone_yoloseg.engine.checkpoint import load_checkpoint, new_checkpoint
from fiftyone_yoloseg.engine.torch_backend import TorchBackend
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.engine.validator import validate
from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.nn.model import YOLOv8Seg
from fiftyone_yoloseg.types import ImageRecord, InstanceRecord, SegmentationData

NAMES = {0: "disc", 1: "square"}


def draw(path: Path, disc: tuple[int, int, int], square: tuple[int, int, int]) -> ImageRecord:
    """One disc (x, y, radius) and one square (x, y, side) on grey noise."""
    image = np.random.default_rng(len(path.name)).integers(90, 120, (96, 96, 3), dtype=np.uint8)
    instances = []
    for cls, (x, y, r) in enumerate((disc, square)):
        bitmap = np.zeros((96, 96), np.uint8)
        if cls == 0:
            cv2.circle(bitmap, (x, y), r, 1, -1)
        else:
            bitmap[y : y + r, x : x + r] = 1
        image[bitmap > 0] = ((230, 60, 40), (30, 80, 220))[cls]
        mask = masks.from_bitmap(bitmap)
        instances.append(InstanceRecord(cls, mask, mask.box))
    cv2.imwrite(str(path), image)
    return ImageRecord(path, 96, 96, tuple(instances))


def settled(net: YOLOv8Seg, images: list[ImageRecord]) -> YOLOv8Seg:
    """With the batch-norm statistics of its images: their running means take 100 steps and more to catch up with so short a training."""
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.5
    batch = torch.from_numpy(np.stack([read_image(r.path) for r in images])).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        for _ in range(20):
            net.train()(batch)
    return net.eval()


def test_four_images_can_be_learnt_by_heart(tmp_path: Path) -> None:
    four = [
        draw(tmp_path / "a.png", (28, 30, 20), (56, 50, 34)),
        draw(tmp_path / "b.png", (66, 28, 22), (6, 52, 36)),
        draw(tmp_path / "c.png", (30, 66, 24), (54, 6, 38)),
        draw(tmp_path / "d.png", (68, 68, 20), (8, 8, 40)),
    ]
    still = {"mosaic": 0, "translate": 0, "scale": 0, "fliplr": 0, "hsv_h": 0, "hsv_s": 0, "hsv_v": 0, "close_mosaic": 0}
    plan = {"optimizer": "AdamW", "lr0": 0.005, "lrf": 0.05, "momentum": 0.9, "warmup_epochs": 0, "nbs": 4, "epochs": 8, "batch": 4}
    settings = TrainSettings(**still, **plan, imgsz=96, val=False, workers=0, device="cpu", project=tmp_path / "runs")  # type: ignore[arg-type]
    # each image eight times an epoch, because the end of an epoch costs more than a step
    data = SegmentationData(NAMES, {"train": four * 8, "val": four})
    result = train(new_checkpoint("yolov8n-seg.yaml", NAMES), data, settings)
    best = load_checkpoint(result.best)
    backend = TorchBackend(settled(best.net, four), best.info, torch.device("cpu"))
    metrics = validate(backend, four, NAMES, ValSettings(workers=0))
    assert metrics.seg.map > 0.5 and metrics.box.map > 0.5, (metrics.box.map, metrics.seg.map)
    with (result.dir / "results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for name, share in (("box", 0.5), ("seg", 0.5), ("cls", 0.5), ("dfl", 0.95)):
        assert float(table[-1][f"train/{name}_loss"]) < share * float(table[0][f"train/{name}_loss"])
