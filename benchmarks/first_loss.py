"""The four losses of one batch beside the peer's: its checkpoint, 32 images of shapes, no augmentation, learning rate 0. Prints JSON.

uv run python benchmarks/first_loss.py

All images are in one batch, so that neither the order nor the batch-norm statistics can differ. The peer's are read from its results.csv.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import peer
from common import DATA, shapes, write_yolo

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.engine.checkpoint import load_checkpoint
from fiftyone_yoloseg.engine.trainer import train

IMAGES = 32
CHECKPOINT = DATA / "peer" / "yolov8n-seg-shapes.pt"
STILL: dict[str, Any] = dict.fromkeys(
    ("mosaic", "mixup", "copy_paste", "hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr", "flipud", "degrees"), 0.0
) | {"lr0": 0.0, "warmup_epochs": 0, "weight_decay": 0.0, "optimizer": "SGD", "epochs": 1, "imgsz": 192, "batch": IMAGES, "val": False}


def losses(run: Path) -> dict[str, float]:
    row = peer.columns(run / "results.csv")[0]
    return {name: row[f"train/{name}_loss"] for name in ("box", "seg", "cls", "dfl")}


def main() -> None:
    data = shapes()
    few = replace(data, splits={"train": data.splits["train"][:IMAGES], "val": data.splits["val"][:1]})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yaml = write_yolo(few, folder / "data")
        runs = {"peer": peer.train(folder, model=str(CHECKPOINT), data=str(yaml), workers=0, **STILL)}
        for masks in ("exclusive", "independent"):
            settings = TrainSettings(**STILL, instance_masks=masks, plots=False, workers=0, device="cpu", project=folder / masks)
            runs[f"ours, instance_masks={masks}"] = train(load_checkpoint(CHECKPOINT), few, settings).dir
        report = {who: losses(run) for who, run in runs.items()}
    theirs = report["peer"]
    print(json.dumps({who: {k: (v, round(v / theirs[k], 4)) for k, v in own.items()} for who, own in report.items()}, indent=2))


if __name__ == "__main__":
    main()
