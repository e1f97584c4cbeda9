"""Predictions written back to FiftyOne: objects a second, images a second beside the peer's integration, memory. Prints JSON.

uv run python benchmarks/write_back.py objects | peer [rounds] | memory [samples]

objects: 5 x 160 images with the masks of coco_tiny, as predictions: encoded as FiftyOne stores them, written, and both overlapped as `fy.predict` does.
peer: the 160 images of coco_tiny, from file to labels in the database, 640 px: `fy.predict` beside `dataset.apply_model` with the peer's model, each by its own defaults
    and, of the peer, with batches of 8 too; ours also with square inputs as the peer has. The peer and its FiftyOne run in the environment of $YOLOSEG_PEER_PYTHON.
memory: resident megabytes while that many images of 64 x 64 are predicted at 32 px.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import peer
from common import DATA, coco_tiny

from fiftyone_yoloseg import YOLO
from fiftyone_yoloseg.bridge.database import private_database
from fiftyone_yoloseg.bridge.pipeline import ahead
from fiftyone_yoloseg.types import Instances

CHECKPOINT = DATA / "peer" / "yolov8n-seg-shapes.pt"
CONF = (0.25, 0.02)
BATCHES = (None, 8)
PEER = """
import json, sys, time
import fiftyone as fo
from ultralytics import YOLO
checkpoint, files, settings = json.loads(sys.argv[1])
dataset = fo.Dataset()
dataset.add_samples([fo.Sample(filepath=f) for f in files], progress=False)
model = YOLO(checkpoint)
found = []
for i, (conf, batch) in enumerate(settings):
    go = lambda view: view.apply_model(model, label_field=f"p{i}", confidence_thresh=conf, batch_size=batch, progress=False)
    go(dataset.limit(8))
    start = time.perf_counter()
    go(dataset)
    found.append([time.perf_counter() - start, dataset.count(f"p{i}.detections")])
print("FOUND", json.dumps(found))
"""


def make_dataset(files: list[str]) -> Any:
    import fiftyone as fo

    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=file) for file in files], progress=False)
    return dataset


def objects() -> dict[str, Any]:
    from fiftyone_yoloseg.bridge import predict as writer
    from fiftyone_yoloseg.bridge.provenance import Author, declare, now

    data = coco_tiny()
    records = [r for split in data.splits.values() for r in split]
    found = [
        Instances(
            r.height, r.width, np.array([i.box for i in r.instances], np.float32).reshape(-1, 4), np.full(len(r.instances), 0.5, np.float32),
            np.array([i.cls for i in r.instances], np.int64), [i.mask for i in r.instances],
        )
        for r in records
    ]  # fmt: skip
    dataset = make_dataset([str(r.path) for r in records])
    author, files = Author("0123456789ab", "run", now()), [str(r.path) for r in records]
    count = sum(map(len, found))

    def batches(field: str) -> Iterator[tuple[list[tuple[str, str]], list[Instances]]]:
        declare(dataset, field)
        samples = list(zip(dataset.values("id"), files, strict=True))
        for at in range(0, len(samples), 8):
            yield samples[at : at + 8], found[at : at + 8]

    def encode(batch: Any) -> Any:
        return writer._encode(*batch, data.names, author)

    seconds: dict[str, list[float]] = {"encoded": [], "written": [], "encoded and written": []}
    for i in range(5):
        start = time.perf_counter()
        encoded = [encode(batch) for batch in batches(f"a{i}")]
        seconds["encoded"].append(time.perf_counter() - start)
        start = time.perf_counter()
        for batch in encoded:
            writer._write(dataset, f"a{i}", batch, "k.r", False)
        seconds["written"].append(time.perf_counter() - start)
        start, field = time.perf_counter(), f"b{i}"
        for _ in ahead(ahead(batches(field), encode), lambda batch: writer._write(dataset, field, batch, "k.r", False)):  # noqa: B023
            pass
        seconds["encoded and written"].append(time.perf_counter() - start)
    assert dataset.count("b4.detections") == count
    size = np.mean([len(label["mask"]) for batch in encoded for labels in batch.labels.values() for label in labels])
    return {"objects": count, "mean mask bytes": round(float(size)), "objects/s": {k: round(count / min(v)) for k, v in seconds.items()}}


def ours(files: list[str], conf: float, **settings: Any) -> tuple[float, int]:
    import fiftyone_yoloseg as fy

    dataset, model = make_dataset(files), YOLO(CHECKPOINT)
    fy.predict(dataset.limit(8), model, conf=conf, device="cpu", **settings)
    start = time.perf_counter()
    fy.predict(dataset, model, conf=conf, device="cpu", **settings)
    return time.perf_counter() - start, dataset.count("predictions.detections")


def theirs(files: list[str], database: Path) -> dict[tuple[float, int | None], tuple[float, int]]:
    """(confidence, batch size) -> seconds, objects."""
    database.mkdir(exist_ok=True)
    # our own database's address must not reach the peer's process
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FIFTYONE_")} | {"FIFTYONE_DATABASE_DIR": str(database)}
    settings = [(conf, batch) for conf in CONF for batch in BATCHES]
    command = [*peer.python(), "-c", PEER, json.dumps([str(CHECKPOINT), files, settings])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    line = next((line for line in done.stdout.splitlines() if line.startswith("FOUND ")), None)
    if line is None:
        sys.exit(f"the peer failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return {setting: tuple(row) for setting, row in zip(settings, json.loads(line.removeprefix("FOUND ")), strict=True)}


def beside_the_peer(rounds: int, folder: Path) -> dict[str, Any]:
    files = [str(path) for split in ("train2017", "val2017") for path in sorted((DATA / "coco_tiny" / split).glob("*.jpg"))]
    runs: dict[float, dict[str, list[tuple[float, int]]]] = {conf: {} for conf in CONF}
    for _ in range(rounds):
        for (conf, batch), row in theirs(files, folder / "peer").items():
            runs[conf].setdefault("peer" if batch is None else f"peer, batch {batch}", []).append(row)
        for conf in CONF:
            runs[conf].setdefault("ours", []).append(ours(files, conf))
            runs[conf].setdefault("ours, square inputs", []).append(ours(files, conf, rect=False))
    report: dict[str, Any] = {"images": len(files)}
    for conf, rows in runs.items():
        rates = {name: len(files) / min(s for s, _ in values) for name, values in rows.items()}
        best = max(rate for name, rate in rates.items() if name.startswith("peer"))
        report[f"conf {conf}"] = {
            "objects": {name: values[0][1] for name, values in rows.items()},
            "images/s": {name: round(rate, 2) for name, rate in rates.items()},
            "times the faster peer": {name: round(rate / best, 2) for name, rate in rates.items() if name.startswith("ours")},
        }
    return report


def memory(samples: int, folder: Path) -> dict[str, Any]:
    import psutil

    import fiftyone_yoloseg as fy

    rng = np.random.default_rng(0)
    for i in range(200):
        image = np.full((64, 64, 3), 90, np.uint8) + rng.integers(0, 40, (64, 64, 3), dtype=np.uint8)
        cv2.circle(image, tuple(map(int, rng.integers(16, 48, 2))), 14, tuple(map(int, rng.integers(0, 255, 3))), -1)
        cv2.imwrite(str(folder / f"{i}.png"), image)
    files = []
    for i in range(samples):
        files.append(str(folder / f"sample{i}.png"))
        os.link(folder / f"{i % 200}.png", files[-1])
    dataset = make_dataset(files)
    process, resident, reached = psutil.Process(), {}, 0

    def look(share: float, label: str) -> None:
        nonlocal reached
        if share * samples >= reached:
            resident[reached] = round(process.memory_info().rss / 1e6, 1)
            reached += samples // 20

    start = time.perf_counter()
    report = fy.predict(dataset, CHECKPOINT, imgsz=32, conf=0.01, batch=32, device="cpu", progress=look)
    seconds = time.perf_counter() - start
    settled = [mb for n, mb in resident.items() if n >= samples // 10]
    return {
        "samples": report.images, "objects": report.objects, "seconds": round(seconds, 1), "images/s": round(samples / seconds, 1), "rss_mb": resident,
        "rise_mb after the first tenth": round(settled[-1] - settled[0], 1),
    }  # fmt: skip


def main() -> None:
    what, number = sys.argv[1] if len(sys.argv) > 1 else "objects", int(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as folder, private_database():
        if what == "objects":
            report = objects()
        elif what == "peer":
            report = beside_the_peer(number or 1, Path(folder))
        elif what == "memory":
            report = memory(number or 20_000, Path(folder))
        else:
            sys.exit(__doc__)
    print(json.dumps({what: report}, indent=2))


if __name__ == "__main__":
    main()
