"""Training images a second beside the peer: networks n and s, at 320 and 640 px, on real images (coco_tiny train). Prints JSON.

uv run python benchmarks/throughput.py [images] [epochs]

Both at their defaults for this machine; the peer also without loader processes, and its better figure counts. Data loading, mosaic and the
update of the weights are included, validation is not; the first epoch is left out.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import peer
from common import coco_tiny, write_yolo

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.engine.checkpoint import new_checkpoint
from fiftyone_yoloseg.engine.train import train

BATCH = 8


def main() -> None:
    images, epochs = (int(v) for v in (sys.argv[1:] + ["32", "3"][len(sys.argv) - 1 :]))
    data = coco_tiny()
    data = replace(data, splits={"train": data.splits["train"][:images], "val": data.splits["val"][:1]})
    report = {}
    for size in (320, 640):
        for scale in "ns":
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                yaml = write_yolo(data, folder / "data")
                common = {"epochs": epochs, "imgsz": size, "batch": BATCH, "val": False, "optimizer": "SGD", "save": False}
                rates = {}
                for workers in ("default", 0):
                    more = {} if workers == "default" else {"workers": workers}
                    run = peer.train(folder, model=f"yolov8{scale}-seg.yaml", data=str(yaml), name=f"peer-{workers}", **common, **more)
                    rates[f"peer, workers {workers}"] = images / peer.seconds_per_epoch(run.parent / f"peer-{workers}" / "results.csv")
                del common["save"]
                settings = TrainSettings(**common, plots=False, device="cpu", project=folder / "ours")
                result = train(new_checkpoint(f"yolov8{scale}-seg.yaml"), data, settings)
                rates["ours"] = images / peer.seconds_per_epoch(result.dir / "results.csv")
                best = max(rate for name, rate in rates.items() if name != "ours")
                report[f"{scale} {size}"] = {**{k: round(v, 3) for k, v in rates.items()}, "ratio": round(rates["ours"] / best, 2)}
                print(json.dumps(report[f"{scale} {size}"]), file=sys.stderr)
    print(json.dumps({"images": images, "batch": BATCH, "images/s": report}, indent=2))


if __name__ == "__main__":
    main()
