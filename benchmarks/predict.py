"""Images a second of prediction beside the peer: 640 px, batch 1, conf 0.25, from file to masks, the 160 images of coco_tiny. Prints JSON.

uv run python benchmarks/predict.py [rounds]

The same weights everywhere (the peer's shapes checkpoint); ours in torch, OpenVINO and ONNX Runtime, the peer in torch. Rounds alternate; the best of each counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peer
from common import DATA

from fiftyone_yoloseg import YOLO

CHECKPOINT = DATA / "peer" / "yolov8n-seg-shapes.pt"
PEER = """
import json, sys, time
from ultralytics import YOLO
model, files = YOLO(sys.argv[1]), json.loads(sys.argv[2])
def go(files):
    for file in files:
        model.predict(file, imgsz=640, conf=0.25, device="cpu", verbose=False)
go(files[:5])
start = time.perf_counter()
go(files)
print("SECONDS", time.perf_counter() - start)
"""


def theirs(files: list[str]) -> float:
    done = subprocess.run([*peer.python(), "-c", PEER, str(CHECKPOINT), json.dumps(files)], capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("SECONDS ")), None)
    if line is None:
        sys.exit(f"the peer failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return float(line.split()[1])


def ours(model: YOLO, files: list[str]) -> float:
    for file in files[:5]:
        model(file, imgsz=640, conf=0.25, device="cpu")
    start = time.perf_counter()
    for file in files:
        model(file, imgsz=640, conf=0.25, device="cpu")
    return time.perf_counter() - start


def main(rounds: int) -> None:
    files = [str(path) for split in ("train2017", "val2017") for path in sorted((DATA / "coco_tiny" / split).glob("*.jpg"))]
    with tempfile.TemporaryDirectory() as folder:
        models = {"torch": YOLO(CHECKPOINT)}
        for kind in ("openvino", "onnx"):
            models[kind] = YOLO(YOLO(CHECKPOINT).export(format=kind, imgsz=640, dynamic=True, output=Path(folder)))
        seconds: dict[str, list[float]] = {"peer, torch": []} | {f"ours, {name}": [] for name in models}
        for _ in range(rounds):
            seconds["peer, torch"].append(theirs(files))
            for name, model in models.items():
                seconds[f"ours, {name}"].append(ours(model, files))
    rates = {name: len(files) / min(values) for name, values in seconds.items()}
    print(
        json.dumps(
            {
                "images": len(files),
                "images/s": {name: round(rate, 2) for name, rate in rates.items()},
                "times the peer": {name: round(rate / rates["peer, torch"], 2) for name, rate in rates.items()},
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
