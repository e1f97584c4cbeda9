"""Trainings that look as if they had happened: for tests of what shows them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from fiftyone_yoloseg.bridge import run_registry
from fiftyone_yoloseg.bridge import runs as memory
from fiftyone_yoloseg.engine.runlog import COLUMNS, ResultsCsv


def add_run(dataset: Any, folder: Path, name: str, epochs: int = 100, done: int | None = None, **facts: Any) -> None:
    """A run with a results.csv of `done` epochs, whose mask mAP rises towards 0.5."""
    done, run, rng = epochs if done is None else done, folder / name, np.random.default_rng(len(name))
    (run / "weights").mkdir(parents=True)
    for file in ("args.yaml", "weights/best.pt", "weights/last.pt"):
        (run / file).write_text("")
    results = ResultsCsv(run / "results.csv")
    rows = []
    for epoch in range(1, done + 1):
        rise, noise = 0.5 * (1 - math.exp(-epoch / 25)), 0.01 * rng.standard_normal()
        row = dict.fromkeys(COLUMNS, 0.01) | {"epoch": epoch, "time": 20.0 * epoch}
        row |= {c: 3 * math.exp(-epoch / 30) + 0.6 + noise for c in COLUMNS if c.endswith("_loss")}
        row |= {c: max(0.0, (rise + noise) * (1.1 if "(B)" in c else 1)) for c in COLUMNS if c.startswith("metrics/")}
        rows.append(row)
    results._rows = rows[:-1]  # write the file once, not once a row
    if rows:
        results.add(rows[-1])
    best = max(rows, key=lambda row: row[run_registry.KEY], default={})
    known = {
        "trained_on_field": "ground_truth", "dir": str(run), "best": str(run / "weights/best.pt"), "last": str(run / "weights/last.pt"),
        "classes": ["a", "b"], "images": {"train": 80, "val": 20}, "split": "tags", "val": "tags", "model": "yolov8n-seg.yaml",
        "origin": "random weights", "job": None, "settings": {"epochs": epochs, "imgsz": 320, "name": name}, "epochs": epochs,
        "epochs_done": done, "state": "done", "best_epoch": int(best["epoch"]) if best.get(run_registry.KEY) else None, "calm": {"epoch": epochs - 9, "what": "no mosaic"} if epochs > 10 else None,
        "metrics": {k: v for k, v in best.items() if k.startswith("metrics/")},
    }  # fmt: skip
    key = memory.remember(dataset, "train", name, **{**known, **facts})
    ids = dataset.values("id")
    half = len(ids) // 2
    dataset.save_run_results(key, dataset.init_run_results(key, samples_by_split={"train": ids[:half], "val": ids[half:]}))
