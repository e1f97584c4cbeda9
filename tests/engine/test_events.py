"""What listeners hear of a training, and that none of them can end it."""

from __future__ import annotations

import csv
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.data.synthetic import write_synthetic
from fiftyone_yoloseg.engine.checkpoint import Checkpoint, load_checkpoint, new_checkpoint
from fiftyone_yoloseg.engine.events import EpochInfo, Listeners, Phase, RunEnd, RunInfo, TrainingListener, calm_phase, default_listeners
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.engine.trainer import PICTURED, Trainer
from fiftyone_yoloseg.errors import SettingsError, UserError
from fiftyone_yoloseg.types import Batch, SegmentationData


class Recorder(TrainingListener):
    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.heard]

    def of(self, kind: str) -> list[Any]:
        return [value for k, value in self.heard if k == kind]

    def on_run_start(self, run: RunInfo) -> None:
        self.heard.append(("start", run))

    def on_batch(self, number: int, batch: Batch) -> None:
        self.heard.append(("batch", (number, batch)))

    def on_phase(self, phase: Phase) -> None:
        self.heard.append(("phase", phase))

    def on_epoch_end(self, epoch: EpochInfo) -> None:
        self.heard.append(("epoch", epoch))

    def on_run_end(self, end: RunEnd) -> None:
        self.heard.append(("end", end))

    def on_run_failed(self, error: BaseException) -> None:
        self.heard.append(("failed", error))


class Broken(TrainingListener):
    """Raises at the end of each epoch."""

    calls = 0

    def on_epoch_end(self, epoch: EpochInfo) -> None:
        self.calls += 1
        raise ZeroDivisionError("of the listener")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    return write_synthetic(tmp_path_factory.mktemp("data"), train=8, val=3)


def options(project: Path, **changes: Any) -> TrainSettings:
    tiny = {"imgsz": 32, "batch": 2, "epochs": 2, "workers": 0, "device": "cpu", "project": project, "close_mosaic": 1, "plots": False}
    return TrainSettings(**{**tiny, **changes})


def fresh(data: SegmentationData) -> Checkpoint:
    return new_checkpoint("yolov8n-seg.yaml", dict(data.names))


def test_what_is_heard_of_a_run(data: SegmentationData, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ears, broken, late = Recorder(), Broken(), Recorder()
    result = train(fresh(data), data, options(tmp_path), listeners=[ears, broken, late])
    assert ears.kinds == ["start", *["batch"] * PICTURED, "epoch", "phase", "epoch", "end"] == late.kinds
    (run,), (end,) = ears.of("start"), ears.of("end")
    assert (run.dir, run.names, run.first_epoch, len(run.training), len(run.validation)) == (result.dir, data.names, 1, 8, 3)
    assert [number for number, _ in ears.of("batch")] == [0, 1, 2]
    assert all(batch.images.shape == (2, 3, 32, 32) and batch.images.dtype == torch.uint8 for _, batch in ears.of("batch"))
    assert ears.of("phase") == [Phase(2, "no mosaic")]
    epochs = ears.of("epoch")
    assert [(e.epoch, e.epochs) for e in epochs] == [(1, 2), (2, 2)] and epochs[result.best_epoch - 1].best
    with (result.dir / "results.csv").open(newline="") as file:
        for row, epoch in zip(csv.DictReader(file), epochs, strict=True):
            assert {k: float(v) for k, v in row.items() if k != "time"} == pytest.approx(
                {k: v for k, v in epoch.row.items() if k != "fitness"}, rel=1e-5
            )
            assert epoch.metrics.fitness == epoch.row["fitness"]
    assert end.result is result and sorted(end.found) == [0, 1, 2] and end.found[0].height == data.splits["val"][0].height
    # the broken one was heard of once, and no more
    failures = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert broken.calls == 1 and len(failures) == 1
    assert "Broken failed" in failures[0].getMessage() and failures[0].exc_info and failures[0].exc_info[0] is ZeroDivisionError


def test_a_run_that_goes_on(data: SegmentationData, tmp_path: Path) -> None:
    first, second = Recorder(), Recorder()
    asked = iter(range(100))
    stopped = train(
        fresh(data), data, options(tmp_path, epochs=4, close_mosaic=3), listeners=[first], should_stop=lambda: next(asked) >= 10
    )
    assert first.kinds == ["start", *["batch"] * PICTURED, "epoch", "phase", "epoch", "end"] and first.of("end")[0].result.stopped
    train(load_checkpoint(stopped.last), data, TrainSettings(resume=True, device="cpu"), listeners=[second])
    assert second.kinds == ["start", "phase", "epoch", "epoch", "end"], "no batches of a later epoch; the phase is told again"
    assert second.of("start")[0].first_epoch == 3 and second.of("phase") == [Phase(2, "no mosaic")] == first.of("phase")
    assert [e.epoch for e in second.of("epoch")] == [3, 4]


def test_runs_that_break(data: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ears = Recorder()
    stopped = train(fresh(data), data, options(tmp_path / "a"), listeners=[ears], should_stop=lambda: True)
    assert stopped.stopped and ears.kinds == ["start", "batch", "end"] and ears.of("end")[0].found == {}

    def interrupt(share: float, label: str) -> None:
        raise KeyboardInterrupt

    ears = Recorder()
    with pytest.raises(KeyboardInterrupt):
        train(fresh(data), data, options(tmp_path / "b"), listeners=[ears], progress=interrupt)
    assert ears.kinds == ["start", "batch", "failed"]

    ears = Recorder()
    backward = Trainer._backward
    monkeypatch.setattr(Trainer, "_backward", lambda self, batch: backward(self, batch) * math.nan)
    with pytest.raises(UserError, match="the loss became"):
        train(fresh(data), data, options(tmp_path / "c"), listeners=[ears])
    assert ears.kinds == ["start", "batch", "failed"] and "the loss became" in str(ears.heard[-1][1])

    ears = Recorder()
    with pytest.raises(SettingsError, match="device"):
        train(fresh(data), data, options(tmp_path / "d", device="abacus"), listeners=[ears])
    assert ears.kinds == [], "who was not told of a start is not told of an end"


def test_what_is_no_listener_is_refused_before_anything_is_written(data: SegmentationData, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"listeners: .*print.* is no TrainingListener"):
        train(fresh(data), data, options(tmp_path / "runs"), listeners=[print])  # type: ignore[list-item]
    assert not (tmp_path / "runs").exists()


def test_a_listener_that_does_nothing_hears_all() -> None:
    everything = Listeners([TrainingListener()])
    for name in [n for n in vars(TrainingListener) if n.startswith("on_")]:
        assert hasattr(everything, name) and name in vars(Listeners), f"{name} is not passed on"


@pytest.mark.parametrize(
    ("settings", "phase"),
    [
        ({"epochs": 30}, Phase(21, "no mosaic")),
        ({"epochs": 30, "mixup": 0.1, "copy_paste": 0.1}, Phase(21, "no mosaic, mixup, copy-paste")),
        ({"epochs": 30, "mosaic": 0}, None),
        ({"epochs": 30, "close_mosaic": 0}, None),
        ({"epochs": 10}, None),
        ({"epochs": 11}, Phase(2, "no mosaic")),
    ],
)
def test_the_calm_phase(settings: dict[str, Any], phase: Phase | None) -> None:
    assert calm_phase(TrainSettings(**settings)) == phase


def test_the_settings_choose_listeners() -> None:
    assert default_listeners(TrainSettings(plots=False)) == []
    assert [type(x).__name__ for x in default_listeners(TrainSettings())] == [
        "LabelPlot",
        "BatchPlots",
        "ResultsPlot",
        "PinnedPictures",
        "ValidationPlots",
    ]
