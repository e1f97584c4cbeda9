"""What a training reaches beside the peer with the same budget, scored by the same code. Prints JSON.

uv run python benchmarks/accuracy.py shapes [seed ...]     from scratch: 256 images, 40 epochs, 192 px, batch 8; also seconds an epoch
uv run python benchmarks/accuracy.py finetune [seed ...]   the peer's checkpoint, 64 images of shapes, 10 epochs
uv run python benchmarks/accuracy.py overfit [seed ...]    80 COCO images from scratch at 320 px, scored on themselves at epochs 20, 40, 60
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import peer
from common import DATA, coco_tiny, score, shapes, write_yolo

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.engine.checkpoint import load_checkpoint, new_checkpoint
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.types import SegmentationData

SCRATCH = "yolov8n-seg.yaml"
CHECKPOINT = DATA / "peer" / "yolov8n-seg-shapes.pt"


def both(data: SegmentationData, folder: Path, model: str, seed: int, **settings: Any) -> dict[str, Path]:
    """Train both from the same start with the same settings; returns their run folders."""
    yaml = write_yolo(data, folder / "data")
    start = new_checkpoint(model) if model.endswith(".yaml") else load_checkpoint(Path(model))
    ours = train(start, data, TrainSettings(**settings, seed=seed, plots=False, device="cpu", project=folder / "ours"))
    theirs = peer.train(folder, model=model, data=str(yaml), seed=seed, **settings)
    return {"ours": ours.dir, "peer": theirs}


def compare(data: SegmentationData, model: str, seed: int, **settings: Any) -> dict[str, Any]:
    """Scores of best.pt and last.pt of both on the validation images, and their seconds an epoch, validation included."""
    with tempfile.TemporaryDirectory() as name:
        runs = both(data, Path(name), model, seed, **settings)
        return {
            who: {
                **{kind: score(run / "weights" / f"{kind}.pt", list(data.splits["val"]), settings["imgsz"]) for kind in ("best", "last")},
                "seconds per epoch": round(peer.seconds_per_epoch(run / "results.csv"), 2),
            }
            for who, run in runs.items()
        }


def overfit(seed: int) -> dict[str, Any]:
    """Training-set scores at every 20 epochs."""
    train_images = [r for r in coco_tiny().splits["train"] if r.instances]
    data = SegmentationData(coco_tiny().names, {"train": train_images, "val": train_images[:4]}, "coco_tiny")
    with tempfile.TemporaryDirectory() as name:
        runs = both(data, Path(name), SCRATCH, seed, epochs=60, imgsz=320, batch=8, save_period=20, val=False)
        report: dict[str, Any] = {}
        for who, run in runs.items():
            for epoch in (20, 40, 60):
                report.setdefault(f"epoch {epoch}", {})[who] = score(saved(run, epoch, 60), train_images, 320)["segm"]
        return report


def saved(run: Path, epoch: int, epochs: int) -> Path:
    """The checkpoint of an epoch; the peer counts them from zero."""
    if epoch == epochs:
        return run / "weights" / "last.pt"
    found = [run / "weights" / f"epoch{n}.pt" for n in (epoch, epoch - 1)]
    return next(path for path in found if path.exists())


def mean(runs: list[dict[str, Any]], who: str) -> dict[str, float]:
    """Means over the seeds of the mask mAP of best.pt and last.pt and of the seconds."""
    maps = {kind: sum(r[who][kind]["segm"]["map"] for r in runs) / len(runs) for kind in ("best", "last")}
    return {**maps, "seconds per epoch": sum(r[who]["seconds per epoch"] for r in runs) / len(runs)}


def main() -> None:
    kind, seeds = sys.argv[1], [int(s) for s in sys.argv[2:]] or [0, 1, 2]
    data = shapes()
    runs = {}
    for seed in seeds:
        if kind == "shapes":
            runs[seed] = compare(data, SCRATCH, seed, epochs=40, imgsz=192, batch=8)
        elif kind == "finetune":
            few = replace(data, splits={**data.splits, "train": data.splits["train"][:64]})
            runs[seed] = compare(few, str(CHECKPOINT), seed, epochs=10, imgsz=192, batch=8)
        else:
            runs[seed] = overfit(seed)
        print(json.dumps({"seed": seed, **runs[seed]}), file=sys.stderr, flush=True)
    means = {} if kind == "overfit" else {"mean": {who: mean(list(runs.values()), who) for who in ("ours", "peer")}}
    print(json.dumps({**{f"seed {seed}": run for seed, run in runs.items()}, **means}, indent=2))


if __name__ == "__main__":
    main()
