"""What the tests of training share: tiny runs, where they stop, and equality to the last bit."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fiftyone_yoloseg.config import PredictSettings, TrainSettings
from fiftyone_yoloseg.data.images import read_image
from fiftyone_yoloseg.engine.checkpoint import Checkpoint, new_checkpoint
from fiftyone_yoloseg.engine.predictor import Predictor
from fiftyone_yoloseg.engine.torch_backend import TorchBackend
from fiftyone_yoloseg.types import ImageRecord, InstanceRecord, SegmentationData


def options(project: Path, **changes: Any) -> TrainSettings:
    """8 images in batches of 4: two steps an epoch."""
    tiny = {"imgsz": 32, "batch": 4, "epochs": 2, "workers": 0, "device": "cpu", "project": project, "close_mosaic": 1, "plots": False}
    return TrainSettings(**{**tiny, **changes})


def fresh(data: SegmentationData) -> Checkpoint:
    return new_checkpoint("yolov8n-seg.yaml", dict(data.names))


class At:
    """Does `what` in that epoch after so many of its batches in this session: `train(..., **At(2, 1).stop)` stops there."""

    def __init__(self, epoch: int, batches: int, what: Callable[[], Any] | None = None) -> None:
        self.epoch, self.batches, self.what, self.seen = epoch, batches, what, 0

    def progress(self, share: float, label: str) -> None:
        if int(label.split()[1].split("/")[0]) == self.epoch:
            self.seen += 1
            if self.seen == self.batches and self.what:
                self.what()

    @property
    def stop(self) -> dict[str, Any]:
        return {"progress": self.progress, "should_stop": lambda: self.seen >= self.batches}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def untimed(folder: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "time"} for row in rows(folder)]


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, through dicts and lists."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def saved(path: Path) -> dict[str, Any]:
    """A checkpoint as it lies on disk, without what differs between two equal runs: their time."""
    content: dict[str, Any] = torch.load(path, weights_only=True)
    if content["train"]:
        content["train"].pop("seconds")
    return {k: content[k] for k in ("model", "train", "metrics", "names")}


def found_again(checkpoint: Checkpoint, records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Images labelled with some of what the network finds in them, so that it has something to be right about."""
    predictor = Predictor(TorchBackend(checkpoint.net, checkpoint.info, torch.device("cpu")), PredictSettings(conf=0.2))
    labelled = []
    for i, record in enumerate(records):
        (found,) = predictor.instances([read_image(record.path)])
        kept = [InstanceRecord(int(c), m, m.box) for c, m in list(zip(found.classes, found.masks, strict=True))[i % 3 :: 2] if m.w and m.h]
        labelled.append(replace(record, instances=tuple(kept)))
    assert sum(len(r.instances) for r in labelled) > 5
    return labelled
