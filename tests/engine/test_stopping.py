"""Every way to ask a training to stop, and what it leaves behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import At, fresh, options, rows

from fiftyone_yoloseg.engine.checkpoint import load_checkpoint
from fiftyone_yoloseg.engine.stopping import StopRequests
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.types import SegmentationData


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_after_the_batch(
    shapes_data: SegmentationData, tmp_path: Path, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.getsignal(number)
    with caplog.at_level(logging.INFO):
        result = train(fresh(shapes_data), shapes_data, options(tmp_path, epochs=9), progress=At(2, 1, lambda: send(number)).progress)
    assert (result.stopped, result.epochs, result.best_epoch) == (True, 1, 1) and result.metrics is not None
    assert torch.load(result.last, weights_only=True)["train"]["step"] == 1 and load_checkpoint(result.best).train is None
    assert signal.getsignal(number) is before
    told = "\n".join(r.getMessage() for r in caplog.records)
    assert f"stopped ({number.name}) in epoch 2 after 1 of 2 batches" in told
    assert f"yoloseg train resume=true model={result.last}" in told


def test_several_sigterms_are_one_request(shapes_data: SegmentationData, tmp_path: Path) -> None:
    def twice() -> None:
        send(signal.SIGTERM)
        send(signal.SIGTERM)

    assert train(fresh(shapes_data), shapes_data, options(tmp_path, epochs=9), progress=At(1, 2, twice).progress).stopped


def test_ctrl_c_twice_ends_at_once(shapes_data: SegmentationData, tmp_path: Path) -> None:
    def twice() -> None:
        send(signal.SIGINT)
        send(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(fresh(shapes_data), shapes_data, options(tmp_path, epochs=9), progress=At(2, 1, twice).progress)
    state = load_checkpoint(tmp_path / "train/weights/last.pt").train
    assert state is not None and (state["epoch"], state["step"]) == (1, 0), "the files are those of the last finished epoch"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_file_stops_and_is_used_up(shapes_data: SegmentationData, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "stop").touch()  # left from an earlier session: no request to this one
    at = At(2, 2, (tmp_path / "train" / "stop").touch)
    result = train(fresh(shapes_data), shapes_data, options(tmp_path, epochs=9, exist_ok=True), progress=at.progress)
    assert (result.stopped, result.epochs) == (True, 1) and not (result.dir / "stop").exists()


def test_the_first_epoch_leaves_something_to_go_on_from(
    shapes_data: SegmentationData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        result = train(fresh(shapes_data), shapes_data, options(tmp_path), should_stop=lambda: True)
    assert (result.stopped, result.epochs, result.best_epoch, result.metrics) == (True, 0, 0, None)
    assert torch.load(result.last, weights_only=True)["train"]["step"] == 1
    assert torch.load(result.best, weights_only=True)["metrics"] == {} and load_checkpoint(result.best).names == dict(shapes_data.names)
    assert any("no epoch is complete: best.pt holds the weights as they are" in r.getMessage() for r in caplog.records)


def test_a_stop_while_the_best_is_validated_again_keeps_a_finished_run(shapes_data: SegmentationData, tmp_path: Path) -> None:
    last = At(1, 2)
    answers = iter([False, False, True])  # after the last batch, in the validation of the epoch, in that of best.pt

    def ask() -> bool:
        return last.seen >= 2 and next(answers)

    one_batch = {**shapes_data.splits, "val": shapes_data.splits["val"][:1]}
    data = SegmentationData(shapes_data.names, one_batch, "")
    result = train(fresh(data), data, options(tmp_path, epochs=1), progress=last.progress, should_stop=ask)
    assert next(answers, None) is None and not result.stopped and result.metrics is not None
    assert load_checkpoint(result.last).train is None


def test_outside_the_main_thread_signals_are_left_alone(tmp_path: Path) -> None:
    seen: list[Any] = []

    def work() -> None:
        before = signal.getsignal(signal.SIGINT)
        with StopRequests(tmp_path, lambda: False) as stop:
            seen.append((signal.getsignal(signal.SIGINT) is before, stop()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(True, False)]


def test_ctrl_c_on_the_command_line(tiny_dataset: Path, tmp_path: Path) -> None:
    """To the whole process group, as a terminal does it: the loader processes must not die of it. Exit code 0, and how to go on."""
    command = [
        sys.executable,
        "-m",
        "fiftyone_yoloseg",
        "train",
        f"data={tiny_dataset}",
        "epochs=1000",
        "imgsz=32",
        "batch=2",
        "workers=1",
        "device=cpu",
    ]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
    with subprocess.Popen(
        command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as p:
        assert p.stderr is not None and p.stdout is not None
        for line in p.stderr:
            if "epoch 1/1000" in line:
                os.killpg(p.pid, signal.SIGINT)
                break
        err, out = p.stderr.read(), p.stdout.read()
        assert p.wait(120) == 0, err
    last = tmp_path / "runs/segment/train/weights/last.pt"
    assert f"go on with: yoloseg train resume=true model={last}" in out and "Traceback" not in err
    assert load_checkpoint(last).train is not None and len(rows(last.parent.parent)) >= 1
