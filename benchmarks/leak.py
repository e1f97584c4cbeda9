"""Memory over 200 epochs of a tiny set: resident megabytes after every 20 epochs, and their rise after the first 40. Prints JSON.

uv run python benchmarks/leak.py [epochs]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import psutil

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.data.synthetic import write_synthetic
from fiftyone_yoloseg.engine.checkpoint import new_checkpoint
from fiftyone_yoloseg.engine.train import train

EVERY, SETTLED = 20, 40


def main() -> None:
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    process, resident = psutil.Process(), {}

    def look(share: float, label: str) -> None:
        epoch = int(label.split()[1].split("/")[0])
        if epoch % EVERY == 0:
            resident[epoch] = round(process.memory_info().rss / 1e6, 1)

    with tempfile.TemporaryDirectory() as folder:
        data = write_synthetic(Path(folder) / "data", train=4, val=2)
        settings = TrainSettings(
            epochs=epochs, imgsz=64, batch=2, workers=0, device="cpu", patience=0, copy_paste=0.3, mixup=0.2, project=Path(folder) / "runs"
        )
        train(new_checkpoint("yolov8n-seg.yaml"), data, settings, progress=look)
    settled = [mb for epoch, mb in resident.items() if epoch >= SETTLED]
    print(json.dumps({"rss_mb": resident, "rise_mb": round(settled[-1] - settled[0], 1)}, indent=2))


if __name__ == "__main__":
    main()
