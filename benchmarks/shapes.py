"""Training from scratch on `shapes` (40 epochs, 192 px, batch 8), scored beside the peer's checkpoint by the same code. Prints JSON.

uv run python benchmarks/shapes.py [seed ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from common import DATA, score, shapes

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.console import progress_bar
from fiftyone_yoloseg.engine.checkpoint import new_checkpoint
from fiftyone_yoloseg.engine.trainer import train


def main() -> None:
    data = shapes()
    val = list(data.splits["val"])
    report: dict[str, object] = {
        "peer": score(DATA / "peer" / "yolov8n-seg-shapes.pt", val, 192),
        "peer's own figures": json.loads((DATA / "peer" / "coco_metrics.json").read_text()),
    }
    for seed in [int(s) for s in sys.argv[1:]] or [0]:
        with tempfile.TemporaryDirectory() as folder, progress_bar(f"seed {seed}") as progress:
            settings = TrainSettings(epochs=40, imgsz=192, batch=8, seed=seed, project=Path(folder))
            result = train(new_checkpoint("yolov8n-seg.yaml"), data, settings, progress=progress)
            scores = {name: score(path, val, 192) for name, path in (("best", result.best), ("last", result.last))}
            report[f"ours, seed {seed}"] = {**scores, "best_epoch": result.best_epoch, "seconds_per_step": result.seconds_per_step}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
