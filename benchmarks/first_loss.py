"""The four losses of one batch beside the peer's: its checkpoint, 32 images of shapes, no augmentation, learning rate 1e-12. Prints JSON.

uv run python benchmarks/first_loss.py

All images are in one batch, so that neither the order nor the batch-norm statistics can differ. The peer's are read from its results.csv.
Ours are computed as they are, and again with the choices undone, one after the other, that docs/metrics.md explains: boxes that reach to the far
edge of the last pixel, not to its index; soft mask targets on every cell that the box touches; labels that are placed where the picture's pixels are.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import peer
import torch
from common import DATA, shapes, write_yolo
from torch import Tensor
from torch.nn import functional as F

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.data.loaders import train_loader
from fiftyone_yoloseg.data.scan import find_label
from fiftyone_yoloseg.engine.checkpoint import load_checkpoint
from fiftyone_yoloseg.geometry import letterbox
from fiftyone_yoloseg.nn import loss
from fiftyone_yoloseg.types import Batch, ImageRecord

IMAGES, SIDE = 32, 192
CHECKPOINT = DATA / "peer" / "yolov8n-seg-shapes.pt"
STILL: dict[str, Any] = dict.fromkeys(
    ("mosaic", "mixup", "copy_paste", "hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr", "flipud", "degrees"), 0.0
) | {"lr0": 1e-12, "warmup_epochs": 0, "weight_decay": 0.0, "optimizer": "SGD", "epochs": 1, "imgsz": SIDE, "batch": IMAGES, "val": False}


def recipe_mask_loss(
    coefficients: Tensor, protos: Tensor, image: Tensor, gt: Tensor, batch: Batch, count: int | Tensor | None = None
) -> Tensor:
    """The mask loss as the 2023 recipe has it: 0 or 1 a cell, cells whose index is inside the box."""
    cells = batch.boxes[gt] / 4
    target = (batch.masks[gt] >= 128).float()
    bce = F.binary_cross_entropy_with_logits(torch.einsum("pc,pchw->phw", coefficients, protos[image]), target, reduction="none")
    x, y = torch.arange(bce.shape[2])[None, None], torch.arange(bce.shape[1])[None, :, None]
    x1, y1, x2, y2 = (side[:, None, None] for side in cells.T)
    inside = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
    area = (cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1])
    return ((bce * inside).sum((1, 2)) / area).mean()


def outlines(record: ImageRecord, rounded: bool) -> list[np.ndarray[Any, Any]]:
    """The rows of a label file in input pixels. rounded: as the picture is placed, in whole pixels; else by one ratio and half of what is left."""
    size = record.height, record.width
    placed = letterbox.fit(size, (SIDE, SIDE))
    scale, offset = np.array(placed.scale), np.array([placed.left, placed.top], float)
    if not rounded:
        scale, offset = np.full(2, SIDE / max(size)), (SIDE - np.array(placed.resized[::-1])) / 2
    rows = (line.split()[1:] for line in find_label(record.path).read_text().splitlines())
    return [np.array(row, float).reshape(-1, 2) * [record.width, record.height] * scale + offset for row in rows]


def recipe_labels(records: list[ImageRecord], rounded: bool) -> tuple[Tensor, Tensor]:
    """(N, 4) boxes around the outlines, and (N, 48, 48) uint8 masks: polygons filled at the training size with truncated vertices, reduced to a quarter,
    bilinear on bytes; a cell that several objects cover goes to the smallest."""
    boxes, out = [], []
    for record in records:
        rows = outlines(record, rounded)
        full = [cv2.fillPoly(np.zeros((SIDE, SIDE), np.uint8), [points.astype(np.int32)], (1,)) for points in rows]
        masks = [cv2.resize(mask, (SIDE // 4, SIDE // 4), interpolation=cv2.INTER_LINEAR) for mask in full]
        owner = np.full((SIDE // 4, SIDE // 4), -1)
        for i in sorted(range(len(masks)), key=lambda i: -int(masks[i].sum())):
            owner[masks[i] > 0] = i
        boxes += [np.concatenate([points.min(0), points.max(0)]) for points in rows]
        out += [(owner == i).astype(np.uint8) for i in range(len(masks))]
    return torch.from_numpy(np.stack(boxes)).float(), torch.from_numpy(np.stack(out)) * 255


def main() -> None:
    data = shapes()
    few = replace(data, splits={"train": data.splits["train"][:IMAGES], "val": data.splits["val"][:1]})
    settings = TrainSettings(**STILL, instance_masks="independent")
    net = load_checkpoint(CHECKPOINT).net.train()
    loader, sampler = train_loader(list(few.splits["train"]), settings)
    batch = next(iter(loader))
    with torch.no_grad():
        out = net.heads(batch.images.float() / 255)
    scales = [settings.imgsz / max(r.height, r.width) for r in few.splits["train"]]  # all of one size
    batches = {
        "as it is": batch,
        "boxes to the last pixel's index": replace(batch, boxes=batch.boxes - torch.tensor([0, 0, 1, 1]) * scales[0]),
    }
    criterion, report = loss.SegmentationLoss(net.head), {}
    for name, wanted in batches.items():
        report[name] = criterion(out, wanted)._asdict()
    loss._mask_loss = recipe_mask_loss
    drawn = next(iter(sampler))
    records = [few.splits["train"][draw.image] for draw in drawn]
    short = replace(batches["boxes to the last pixel's index"], masks=recipe_labels(records, rounded=True)[1])
    report["the same, and the recipe's mask targets"] = criterion(out, short)._asdict()
    boxes, masks = recipe_labels(records, rounded=False)
    report["the same, and labels placed as the recipe places them"] = criterion(out, replace(batch, boxes=boxes, masks=masks))._asdict()
    with tempfile.TemporaryDirectory() as folder:
        yaml = write_yolo(few, Path(folder) / "data")
        row = peer.columns(peer.train(Path(folder), model=str(CHECKPOINT), data=str(yaml), workers=0, **STILL) / "results.csv")[0]
    theirs = {name: row[f"train/{name}_loss"] for name in ("box", "seg", "cls", "dfl")}
    ratios = {who: {k: round(float(v) / theirs[k], 4) for k, v in own.items()} for who, own in report.items()}
    ours = {k: round(float(v), 5) for k, v in report["as it is"].items()}
    print(json.dumps({"peer": theirs, "ours": ours, "ours / peer": ratios}, indent=2))


if __name__ == "__main__":
    main()
