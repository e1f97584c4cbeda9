"""Resuming: equal bit by bit to a run without interruption, whenever and however it was interrupted."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import At, fresh, options, rows, same, saved, untimed

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.engine.checkpoint import load_checkpoint, save_checkpoint
from fiftyone_yoloseg.engine.events import TrainResult
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.errors import CheckpointError, DataError, SettingsError
from fiftyone_yoloseg.types import SegmentationData

ON = TrainSettings(resume=True, device="cpu")
PLAN: dict[str, Any] = {"optimizer": "SGD", "epochs": 5, "batch": 2, "nbs": 8, "warmup_epochs": 0, "lr0": 1e-3, "close_mosaic": 2}
"""Four steps an epoch, one update of the weights for four of them, so that gradients wait when a run is stopped between."""


def resume(last: Path, data: SegmentationData, **how: Any) -> TrainResult:
    return train(load_checkpoint(last), data, ON, **how)


def test_stopping_anywhere_changes_nothing(shapes_data: SegmentationData, tmp_path: Path) -> None:
    """In the first epoch, with gradients waiting, and in a validation; then all of the state is compared with a straight run's."""
    data = shapes_data
    straight = train(fresh(data), data, options(tmp_path / "a", **PLAN), **At(4, 3).stop)
    first = train(fresh(data), data, options(tmp_path / "b", **PLAN), **At(1, 2).stop)
    assert (first.stopped, first.epochs, first.best_epoch, first.metrics) == (True, 0, 0, None) and first.best.is_file()
    state = torch.load(first.last, weights_only=True)["train"]
    assert (state["epoch"], state["step"], state["pending"]) == (0, 2, 2) and len(state["gradients"]) > 100
    assert rows(first.dir) == []

    epoch_2, not_at_once = At(2, 4), iter([False])  # not after its last batch, but when asked next
    in_validation = {"progress": epoch_2.progress, "should_stop": lambda: epoch_2.seen >= 4 and next(not_at_once, True)}
    second = resume(first.last, data, **in_validation)
    assert next(not_at_once, None) is None
    assert (second.stopped, second.epochs) == (True, 1) and torch.load(second.last, weights_only=True)["train"]["step"] == 4
    third = resume(first.last, data, **At(4, 3).stop)
    assert (third.epochs, third.dir, straight.epochs) == (3, straight.dir.parent.parent / "b" / "train", 3)
    assert same(saved(straight.last), saved(third.last)), "weights, average, optimizer, counters, gradients, generator, data"
    assert same(saved(straight.best), saved(third.best))
    # both go on to the end
    ends = [resume(r.last, data) for r in (straight, third)]
    assert all((e.epochs, e.stopped) == (5, False) for e in ends)
    assert all(same(saved(a), saved(b)) for a, b in ((ends[0].last, ends[1].last), (ends[0].best, ends[1].best)))
    assert untimed(ends[0].dir) == untimed(ends[1].dir) and [r["epoch"] for r in rows(ends[1].dir)] == list("12345")
    times = [float(r["time"]) for r in rows(ends[1].dir)]
    assert times == sorted(times)


DRIVER = """
import os, sys
from pathlib import Path
import torch
from small_runs import fresh, options
from fiftyone_yoloseg.data.synthetic import write_synthetic
from fiftyone_yoloseg.engine.train import train

folder, project, how = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
data = write_synthetic(folder, train=8, val=3)
original = torch.save
def killed_while_writing(content, path):
    original(content, path)
    if content["train"] and content["train"]["epoch"] == 2:
        Path(path).write_bytes(Path(path).read_bytes()[:100_000])
        os.kill(os.getpid(), 9)
if how == "while saving":
    torch.save = killed_while_writing
train(fresh(data), data, options(project, epochs=6), progress=lambda share, label: print(label, flush=True))
"""


def killed(tmp_path: Path, how: str, at: int = 0, wait: float = 0.0) -> Path:
    """The run folder of a process that ended by SIGKILL: by itself, or by ours so long after that step."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    here = Path(__file__).resolve()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parents[2]), str(here.parent)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path / "images"), str(tmp_path / "killed"), how]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for step, _ in enumerate(process.stdout, 1):
            if step == at:
                time.sleep(wait)
                process.kill()
                break
        assert process.wait(60) == -signal.SIGKILL
    return tmp_path / "killed" / "train"


@pytest.mark.parametrize("how", ["at random", "while saving"])
def test_a_killed_process(shapes_data: SegmentationData, tmp_path: Path, one_thread: None, how: str) -> None:
    at, wait = (random.randint(3, 9), random.uniform(0, 0.3)) if how == "at random" else (0, 0.0)  # epochs 2 to 5
    moment = f"{how}: step {at}, {wait:.3f} s"
    folder = killed(tmp_path, how, at, wait)
    last = folder / "weights" / "last.pt"
    if how == "while saving":
        assert len(list(last.parent.glob(".last.pt.*.tmp"))) == 1 and load_checkpoint(last).train["epoch"] == 1  # type: ignore[index]
        assert [r["epoch"] for r in rows(folder)] == ["1", "2"], "the table is ahead of the checkpoint"
    straight = train(fresh(shapes_data), shapes_data, options(tmp_path / "straight", epochs=6), **At(6, 1).stop)
    resumed = resume(last, shapes_data, **At(6, 1).stop)
    assert (straight.epochs, resumed.epochs) == (5, 5), moment
    assert same(saved(straight.last), saved(resumed.last)) and same(saved(straight.best), saved(resumed.best)), moment
    assert untimed(straight.dir) == untimed(folder) and [r["epoch"] for r in rows(folder)] == list("12345"), moment
    times = [float(r["time"]) for r in rows(folder)]
    assert times == sorted(times), moment
    assert not [p for p in folder.rglob("*") if p.name.endswith(".tmp")], "what was half written is gone"


@pytest.fixture(scope="module")
def stopped(shapes_data: SegmentationData, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(fresh(shapes_data), shapes_data, options(tmp_path_factory.mktemp("runs"), epochs=3), **At(2, 1).stop)


def test_other_images_are_another_run(shapes_data: SegmentationData, stopped: TrainResult) -> None:
    training = list(shapes_data.splits["train"])
    before = stopped.last.read_bytes()
    for other in (training[:-1], [*training, training[0]], training[::-1], [replace(training[0], width=9), *training[1:]]):
        with pytest.raises(DataError, match=r"training images are not those of this run \(8 then, \d now.*without resume"):
            resume(stopped.last, replace(shapes_data, splits={**shapes_data.splits, "train": other}))
    assert stopped.last.read_bytes() == before


def test_mended_labels_and_other_validation_images_are_said(
    shapes_data: SegmentationData, stopped: TrainResult, caplog: pytest.LogCaptureFixture
) -> None:
    training, validation = list(shapes_data.splits["train"]), list(shapes_data.splits["val"])
    mended = replace(
        shapes_data, splits={"train": [replace(training[0], instances=training[1].instances), *training[1:]], "val": validation[:2]}
    )
    before = stopped.last.read_bytes()
    with caplog.at_level(logging.WARNING):
        resume(stopped.last, mended, **At(2, 1).stop)
    assert any("training labels have changed" in r.message for r in caplog.records)
    assert any("validation images or labels have changed" in r.message for r in caplog.records)
    caplog.clear()
    stopped.last.write_bytes(before)
    with caplog.at_level(logging.WARNING):
        resume(stopped.last, shapes_data, **At(2, 1).stop)
    assert not caplog.records
    stopped.last.write_bytes(before)


def test_settings_of_a_resumed_run(shapes_data: SegmentationData, stopped: TrainResult) -> None:
    before = stopped.last.read_bytes()
    with pytest.raises(SettingsError, match=r"leave out epochs=9 \(the run has 3\), lr0=0.5 \(the run has 0.01\)"):
        train(load_checkpoint(stopped.last), shapes_data, TrainSettings(resume=True, epochs=9, lr0=0.5, imgsz=32))
    free = TrainSettings(resume=True, device="cpu", workers=0, cache=False, epochs=3, project="elsewhere")
    result = train(load_checkpoint(stopped.last), shapes_data, free, **At(2, 1).stop)
    assert result.dir == stopped.dir and load_checkpoint(result.last).train_args["cache"] is False
    stopped.last.write_bytes(before)


def test_a_finished_run_says_so(shapes_data: SegmentationData, stopped: TrainResult, tmp_path: Path) -> None:
    done = train(fresh(shapes_data), shapes_data, options(tmp_path, epochs=1))
    with pytest.raises(CheckpointError) as error:
        resume(done.last, shapes_data)
    assert "this run has finished" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match=r"best\.pt: nothing to resume; give the last\.pt"):
        resume(stopped.best, shapes_data)
    done.last.unlink()
    with pytest.raises(CheckpointError, match="ended before its first epoch was complete"):
        resume(done.last, shapes_data)


def test_a_state_that_is_incomplete(shapes_data: SegmentationData, stopped: TrainResult, tmp_path: Path) -> None:
    c = load_checkpoint(stopped.last)
    assert c.train is not None
    (tmp_path / "run" / "weights").mkdir(parents=True)
    last = tmp_path / "run" / "weights" / "last.pt"
    state = {k: v for k, v in c.train.items() if k not in ("rng", "gradients")}
    save_checkpoint(last, c.net, names=c.names, imgsz=32, train_args=c.train_args, origin="", train=state)
    with pytest.raises(CheckpointError, match="its state lacks gradients, rng: it was written by another version"):
        resume(last, shapes_data)
