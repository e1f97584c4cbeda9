"""What plots cost a training: trainings with and without them, in turns, in one process. `python benchmarks/plots.py [epochs] [imgsz] [images] [size]`.

Prints JSON: seconds of each run, the seconds that each kind of plot took in those with plots, their share of the shortest of these, and of a run of the usual
length. The difference of the runs is noisy; the seconds inside the listeners are less so.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import shapes

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.engine.checkpoint import new_checkpoint
from fiftyone_yoloseg.engine.events import TrainingListener
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.types import SegmentationData

USUAL, RESULTS = 100, 0.005
"""Epochs of a run as most are, and the share of its time that results.png may be drawn anew in (`engine.plots`)."""
EVENTS = ("on_run_start", "on_batch", "on_phase", "on_epoch_end", "on_run_end", "on_run_failed")


def timed(listener: TrainingListener, spent: Counter[str]) -> TrainingListener:
    """The listener, whose events add their seconds to `spent` under its name."""

    def measured(event: Callable[..., None], name: str) -> Callable[..., None]:
        def call(*given: Any) -> None:
            begun = time.perf_counter()
            event(*given)
            spent[name] += time.perf_counter() - begun

        return call

    for event in EVENTS:
        setattr(listener, event, measured(getattr(listener, event), type(listener).__name__))
    return listener


def one(data: SegmentationData, folder: Path, plots: bool, epochs: int, imgsz: int, size: str) -> float:
    """Seconds of one training."""
    settings = TrainSettings(
        epochs=epochs, imgsz=imgsz, batch=8, device="cpu", plots=plots, project=folder, deterministic=False, close_mosaic=epochs // 3
    )
    begun = time.perf_counter()
    train(new_checkpoint(f"yolov8{size}-seg.yaml", dict(data.names)), data, settings)
    return time.perf_counter() - begun


def main(epochs: int = 8, imgsz: int = 192, images: int = 0, size: str = "n") -> None:
    logging.getLogger("fiftyone_yoloseg").setLevel(logging.ERROR)
    data, spent = shapes(), Counter[str]()
    if images:
        data = replace(data, splits={name: records[: images if name == "train" else images // 4] for name, records in data.splits.items()})
    begun = time.perf_counter()
    from fiftyone_yoloseg.engine import plots

    loading, original = time.perf_counter() - begun, plots.plot_listeners
    plots.plot_listeners = lambda: [timed(listener, spent) for listener in original()]
    runs: dict[str, list[float]] = {"off": [], "on": []}
    with tempfile.TemporaryDirectory() as folder:
        for with_plots in (False, True, True, False):
            runs["on" if with_plots else "off"].append(one(data, Path(folder), with_plots, epochs, imgsz, size))
    drawing = {name: round(seconds / 2, 3) for name, seconds in spent.items()}
    whole, drawn, epoch = min(runs["on"]), sum(drawing.values()), min(runs["off"]) / epochs
    each = drawing.get("PinnedPictures", 0.0) / epochs
    usual = loading + drawn - each * epochs + USUAL * each
    report = {
        "epochs": epochs,
        "imgsz": imgsz,
        "model": size,
        "images": {name: len(records) for name, records in data.splits.items()},
        "seconds": {name: [round(s, 1) for s in values] for name, values in runs.items()},
        "seconds_an_epoch": round(epoch, 2),
        "loading_matplotlib": round(loading, 2),
        "drawing": drawing,
        "share_of_the_run": round((drawn + loading) / whole, 4),
        "difference_of_the_runs": round(whole / min(runs["off"]) - 1, 4),
        f"share_of_{USUAL}_epochs": round(usual / (USUAL * epoch) + RESULTS, 4),
        "pinned_share_of_an_epoch": round(each / epoch, 4),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), *sys.argv[4:5])
