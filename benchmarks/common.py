"""What the benchmarks share: where the data is, and one scoring for every checkpoint."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from fiftyone_yoloseg.config import PredictSettings
from fiftyone_yoloseg.data.images import read_image
from fiftyone_yoloseg.data.label_rows import format_record
from fiftyone_yoloseg.data.load import load_data
from fiftyone_yoloseg.data.scan import find_label
from fiftyone_yoloseg.engine.checkpoint import load_checkpoint
from fiftyone_yoloseg.engine.metrics import CocoScorer
from fiftyone_yoloseg.engine.predictor import Predictor
from fiftyone_yoloseg.engine.torch_backend import TorchBackend
from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.types import ImageRecord, InstanceRecord, SegmentationData

DATA = Path(os.environ.get("YOLOSEG_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
os.environ.setdefault("FIFTYONE_LOGGING_LEVEL", "ERROR")  # its hints go to stdout, where JSON alone belongs


def shapes() -> SegmentationData:
    """The shapes dataset, its validation masks as the peer's protocol has them: cv2.fillPoly of the rounded label vertices."""
    data = load_data(DATA / "shapes" / "data.yaml", ("train", "val"))
    return replace(data, splits={**data.splits, "val": [_opencv_masks(r) for r in data.splits["val"]]})


def _opencv_masks(record: ImageRecord) -> ImageRecord:
    instances = []
    for line in find_label(record.path).read_text().splitlines():
        cls, *numbers = line.split()
        points = np.array(numbers, float).reshape(-1, 2) * [record.width, record.height]
        bitmap = np.zeros((record.height, record.width), np.uint8)
        cv2.fillPoly(bitmap, [np.round(points).astype(np.int32)], 1)
        mask = masks.from_bitmap(bitmap)
        instances.append(InstanceRecord(int(cls), mask, mask.box))
    return replace(record, instances=tuple(instances))


def score(checkpoint: Path, records: list[ImageRecord], imgsz: int) -> dict[str, Any]:
    """COCO metrics by the protocol of peer/coco_metrics.json: conf 0.001, NMS IoU 0.7, 300 objects, best class of each box."""
    loaded = load_checkpoint(checkpoint)
    backend = TorchBackend(loaded.net, loaded.info, torch.device("cpu"))
    predictor = Predictor(backend, PredictSettings(imgsz=imgsz, conf=0.001, iou=0.7, max_det=300))
    scorer = CocoScorer(loaded.names)
    for record in records:
        scorer.add(record, predictor.instances([read_image(record.path)])[0])
    metrics = scorer.compute()
    return {
        kind: {"map": s.map, "map50": s.map50, "map75": s.map75, "small": s.ap_small, "medium": s.ap_medium}
        for kind, s in (("bbox", metrics.box), ("segm", metrics.seg))
    }


def coco_tiny() -> SegmentationData:
    """80 training and 80 validation images of COCO with their own annotations."""
    return load_data(DATA / "coco_tiny", ("train", "val"))


def write_yolo(data: SegmentationData, folder: Path) -> Path:
    """Records -> a YOLO-seg folder for the peer, with the dataset's own label files where it has them; returns the dataset.yaml.

    Images are linked; crowds are left out, the peer has no word for them.
    """
    for split, records in data.splits.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for record in records:
            (folder / "images" / split / record.path.name).symlink_to(record.path.resolve())
            label = folder / "labels" / split / f"{record.path.stem}.txt"
            if find_label(record.path).exists():
                label.write_text(find_label(record.path).read_text())
                continue
            objects = [r for r in record.instances if not r.crowd]
            rows = [row for r in objects for row in format_record(r, record.height, record.width)]
            label.write_text("".join(f"{row}\n" for row in rows))
    path = folder / "dataset.yaml"
    path.write_text(json.dumps({"path": str(folder), **{s: f"images/{s}" for s in data.splits}, "names": dict(data.names)}))
    return path
