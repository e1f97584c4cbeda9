"""Several processes train as one: the same gradients, metrics and decisions; one that fails ends them all. (On CPUs, by gloo: GPUs have not been here.)"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ranks
import torch
from small_runs import At, found_again, fresh, options, rows

from fiftyone_yoloseg.config import TrainSettings, parse
from fiftyone_yoloseg.data.synthetic import write_synthetic
from fiftyone_yoloseg.engine.checkpoint import Checkpoint, load_checkpoint
from fiftyone_yoloseg.engine.devices import device_names, loader_workers, select_device
from fiftyone_yoloseg.engine.distributed import World, by_torchrun, check_batch, joined
from fiftyone_yoloseg.engine.events import EpochInfo, RunEnd, RunInfo, TrainingListener
from fiftyone_yoloseg.engine.launch import launch
from fiftyone_yoloseg.engine.pinned import pictures_of
from fiftyone_yoloseg.engine.plots import PinnedPictures
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.errors import DataError, ProcessError, SettingsError
from fiftyone_yoloseg.types import Batch, SegmentationData

TWO = ["cpu", "cpu"]
CPU = torch.device("cpu")
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    """9 training images in batches of 4: the second process has no share in the last batch. 5 validation images."""
    return write_synthetic(tmp_path_factory.mktemp("nine"), train=9, val=5)


@pytest.fixture(scope="module")
def everything(
    nine: SegmentationData, lively_checkpoint: Checkpoint, lively_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What one process and what two make of the same."""
    folder = tmp_path_factory.mktemp("examined")
    settings = TrainSettings(
        imgsz=64, batch=4, workers=0, mosaic=0.0, optimizer="SGD", cache_gb=0.001, project=folder, nbs=8, warmup_epochs=0
    )
    order = np.random.default_rng((settings.seed, 0)).permutation(9)
    bare = {int(i) for i in order[5:8:2]}  # what the second process gets of the second batch
    training = [replace(r, instances=()) if i in bare else r for i, r in enumerate(nine.splits["train"])]
    given = {
        "checkpoint": lively_file,
        "settings": settings,
        "folder": folder,
        "training": training,
        "validation": found_again(lively_checkpoint, nine.splits["val"]),
    }
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return ranks.all_of_it(World(CPU), None, given), launch(TWO, ranks.all_of_it, given, lambda kind, value: None)
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def one_and_two(everything: tuple[dict[str, Any], dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    return everything[0]["examined"], everything[1]["examined"]


def test_gradients_and_losses_are_those_of_the_whole_batch(one_and_two: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Also where one process has no object, and where it has no image."""
    one, two = one_and_two
    assert (one["images"], two["images"]) == ([[4], [4], [1]], [[2, 2], [2, 2], [1, 0]])
    for (losses, gradients), (summed, exchanged) in zip(one["steps"], two["steps"], strict=True):
        assert np.isfinite(losses).all() and losses.min() > 0 and max(np.abs(g).max() for g in gradients.values()) > 1e-2
        np.testing.assert_allclose(summed, losses, rtol=1e-5)
        assert ranks.differs(gradients, exchanged) < 1e-5


def test_gradients_that_wait_are_saved_whole(one_and_two: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, two = one_and_two
    assert ranks.differs(one["accumulated"], two["accumulated"]) < 1e-5
    assert ranks.differs(one["accumulated"], one["steps"][1][1]) > 1e-2, "the first batch counts"


def test_statistics_are_common(one_and_two: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, second = one_and_two[1]["statistics"]
    assert first == second and len(first) > 1000


def test_shared_batch_norms_have_the_gradients_of_plain_ones(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, two = (found["few norms"] for found in everything)
    assert one.keys() == two.keys() and len(one) == 18
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=1e-5 * np.abs(value).max(), rtol=0, err_msg=name)


def test_batch_norms_in_training_can_be_those_of_the_whole_batch(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Losses, gradients and running statistics with sync_bn, also where one process has no image."""
    one, two = (found["normalised"] for found in everything)
    assert len(one) == 2
    for (losses, gradients, statistics), (summed, exchanged, common) in zip(one, two, strict=True):
        np.testing.assert_allclose(summed, losses, rtol=1e-4)
        # sixty batch norms over a handful of images: float32 itself is that far from float64 (measured at forty layers: 2e-4, from 1e-6 at three)
        assert ranks.differs(gradients, exchanged) < 2e-2
        assert statistics.keys() == common.keys() and len(statistics) > 100
        for name, value in statistics.items():
            np.testing.assert_allclose(common[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_time_and_a_loss_that_is_no_number_are_common_decisions(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    decided = everything[1]["decided"]
    assert decided["epochs"] == [1, 1], "by the clock of the first process"
    assert decided["said"][0] == decided["said"][1] and decided["said"][0].startswith("the loss became [nan, nan, nan, nan] in epoch 1")
    assert decided["steps"] == [1, 1], "both at once"


def test_shared_validation_gives_the_same_metrics(one_and_two: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, two = one_and_two
    assert 0.05 < one["metrics"]["metrics/mAP50-95(M)"] < 0.95 and one["counts"] == two["counts"] and one["counts"][0] == 5
    for name, value in one["metrics"].items():
        assert two["metrics"][name] == pytest.approx(value, abs=1e-6), name
    np.testing.assert_allclose(two["maps"], one["maps"], atol=1e-6)
    assert two["metrics elsewhere"] == [two["metrics"]["fitness"]] * 2


def test_decisions_are_common_and_the_cache_is_shared(one_and_two: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, two = one_and_two
    assert one["decisions"] == (True, False, 2, 7) and two["decisions"] == (True, False, 4, 6) and two["from main"] == [0, 0]
    assert one["budget"] == [1_000_000] and two["budget"] == [500_000, 500_000]
    assert [loader_workers(asked, CPU, 2) for asked in (0, 1, 4, 5)] == [0, 1, 2, 3]


def test_processes_talk_to_the_one_that_started_them(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    heard: list[tuple[str, Any]] = []

    def handle(kind: str, value: Any) -> Any:
        heard.append((kind, value))
        return f"{kind} {value}"

    before = set(psutil.Process().children(recursive=True))
    with caplog.at_level(logging.INFO):
        number, answer, threads, leads, known = launch(TWO, ranks.talk, 7, handle)
    assert (number, answer, leads, known) == (7, "question 0", True, True) and 1 <= threads <= max((os.cpu_count() or 1) // 2, 1)
    assert sorted(heard) == [("hello", 0), ("hello", 1), ("question", 0), ("question", 1)]
    assert [r.getMessage() for r in caplog.records if "from process" in r.getMessage()] == ["from process 0"], "the others are silent"
    left = [p for p in set(psutil.Process().children(recursive=True)) - before if "spawn_main" in " ".join(p.cmdline())]
    assert left == []


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("user error", DataError, r"^a\.png: cannot be read$"),
        (
            "defect",
            ProcessError,
            r"^process 1 \(cpu\) of 2 failed: ZeroDivisionError: one / nothing \(ranks\.py:\d+\); the others were ended$",
        ),
    ],
)
def test_the_error_of_a_process_is_the_error(how: str, error: type[Exception], message: str) -> None:
    started: list[psutil.Process] = []
    start = time.monotonic()
    with pytest.raises(error, match=message):
        launch(TWO, ranks.fail, how, lambda kind, value: started.append(psutil.Process(value)))
    assert time.monotonic() - start < 60 and len(started) >= 1
    assert psutil.wait_procs(started, timeout=10)[1] == [], "what the processes started ends with them"


class Ears(TrainingListener):
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_run_start(self, run: RunInfo) -> None:
        self.heard.append(("start", len(run.training), len(run.validation), run.first_epoch))

    def on_batch(self, number: int, batch: Batch) -> None:
        self.heard.append(("batch", number, tuple(batch.images.shape)))

    def on_epoch_end(self, epoch: EpochInfo) -> None:
        self.heard.append(("epoch", epoch.epoch, epoch.metrics is not None))

    def on_run_end(self, end: RunEnd) -> None:
        self.heard.append(("end", end.result.stopped, sorted(end.found)))

    def on_run_failed(self, error: BaseException) -> None:
        self.heard.append(("failed", type(error).__name__))


PLAN: dict[str, Any] = {"imgsz": 64, "epochs": 3, "optimizer": "SGD", "nbs": 12, "lr0": 1e-3, "warmup_epochs": 0, "close_mosaic": 0}
"""Three batches an epoch, one update for all of them."""


def test_a_training_on_two_processes_stops_and_goes_on_with_one(
    nine: SegmentationData, tmp_path: Path, caplog: pytest.LogCaptureFixture, one_thread: None
) -> None:
    ears, told = Ears(), list[str]()
    at = At(2, 2)

    def progress(share: float, label: str) -> None:
        told.append(label)
        at.progress(share, label)

    with caplog.at_level(logging.INFO):
        stopped = train(
            fresh(nine), nine, options(tmp_path, device="cpu,cpu", **PLAN), progress=progress, should_stop=at.stop["should_stop"], listeners=[ears]
        )  # fmt: skip
    assert (stopped.stopped, stopped.epochs, stopped.best_epoch) == (True, 1, 1) and stopped.metrics is not None
    assert ears.heard == [
        ("start", 9, 5, 1), ("batch", 0, (2, 3, 64, 64)), ("batch", 1, (2, 3, 64, 64)), ("batch", 2, (1, 3, 64, 64)),
        ("epoch", 1, True), ("end", True, []),
    ]  # fmt: skip
    assert [label.split(" ")[1] for label in told] == ["1/3"] * 3 + ["2/3"] * 2
    said = "\n".join(r.getMessage() for r in caplog.records)
    assert said.count("on 2 processes (cpu,cpu)") == 1 and said.count("stopped (request) in epoch 2 after 2 of 3 batches") == 1
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert files == [f"train/{f}" for f in ("args.yaml", "dataset.yaml", "results.csv", "weights/best.pt", "weights/last.pt")]
    state = torch.load(stopped.last, weights_only=True)["train"]
    assert (state["epoch"], state["step"], state["pending"]) == (1, 2, 2) and len(state["gradients"]) > 100

    ended = train(load_checkpoint(stopped.last), nine, TrainSettings(resume=True, device="cpu"))
    assert (ended.stopped, ended.epochs, ended.dir) == (False, 3, stopped.dir) and [r["epoch"] for r in rows(ended.dir)] == list("123")


def test_a_training_of_one_process_goes_on_with_two(
    nine: SegmentationData, tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fiftyone_yoloseg.engine.plots.plot_listeners", lambda: [PinnedPictures()])
    first = train(fresh(nine), nine, options(tmp_path, **PLAN, plots=True, pinned=3), **At(2, 2).stop)
    assert list(pictures_of(first.dir)) == [1]
    ears = Ears()
    ended = train(load_checkpoint(first.last), nine, TrainSettings(resume=True, device="cpu,cpu"), listeners=[ears])
    assert (ended.stopped, ended.epochs, ended.dir) == (False, 3, first.dir) and [r["epoch"] for r in rows(ended.dir)] == list("123")
    assert ears.heard == [("start", 9, 5, 2), ("epoch", 2, True), ("epoch", 3, True), ("end", False, [0, 1, 2, 3, 4])]
    assert list(pictures_of(ended.dir)) == [1, 2, 3], "of images that both processes have looked at"
    assert ended.metrics is not None and ended.metrics.images == 5 and load_checkpoint(ended.last).train is None
    assert all(torch.isfinite(v).all() for v in load_checkpoint(ended.best).net.state_dict().values())


def run(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


COMMAND = ["-m", "fiftyone_yoloseg", "train", "imgsz=64", "batch=4", "plots=false"]


def test_a_killed_process_ends_the_training(tiny_dataset: Path, tmp_path: Path) -> None:
    """One line that says which, exit code 1, and nothing left running."""
    with run([*COMMAND, f"data={tiny_dataset}", "device=cpu,cpu", "epochs=1000", "workers=0"], tmp_path) as p:
        assert p.stderr is not None
        for line in p.stderr:
            if "epoch 2/1000" in line:  # the first is saved
                break
        family = psutil.Process(p.pid).children(recursive=True)
        leaders = sorted((c for c in family if os.getpgid(c.pid) == c.pid), key=lambda c: c.create_time())
        assert len(leaders) == 2
        killed = time.monotonic()
        leaders[1].kill()
        err = p.stderr.read()
        assert p.wait(60) == 1 and time.monotonic() - killed < 15
    message = "yoloseg: process 1 (cpu) of 2 was killed by SIGKILL (by hand, or because the memory was used up); the others were ended"
    assert err.strip().splitlines()[-1] == message and "Traceback" not in err
    gone, left = psutil.wait_procs(family, timeout=15)
    assert left == [] and len(gone) == len(family)
    assert load_checkpoint(tmp_path / "runs/segment/train/weights/last.pt").train is not None


def test_without_the_process_that_started_them_they_end(tmp_path: Path) -> None:
    """The script has no __main__ guard."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport ranks\n"
        "from fiftyone_yoloseg.engine.launch import launch\nlaunch(['cpu', 'cpu'], ranks.wait, None, lambda kind, value: print(kind, flush=True))\n"
    )
    with run([str(script)], tmp_path) as p:
        assert p.stdout is not None
        assert [p.stdout.readline(), p.stdout.readline()] == ["waiting\n"] * 2
        family = psutil.Process(p.pid).children(recursive=True)
        assert len([c for c in family if c.name() == "sleep"]) == 2
        p.kill()
    assert psutil.wait_procs(family, timeout=15)[1] == []


def test_torchrun(tiny_dataset: Path, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nnodes=1", "--nproc-per-node=2"]
    with run([*launcher, *COMMAND, f"data={tiny_dataset}", "device=cpu", "epochs=2", "workers=0"], tmp_path) as p:
        out, err = p.communicate(timeout=200)
    assert p.returncode == 0, err
    assert out.count("best ") == 1 and err.count("on 2 processes (cpu)") == 1 and err.count("epoch 2/2: box") == 1
    assert [f.name for f in (tmp_path / "runs/segment").iterdir()] == ["train"]
    assert [r["epoch"] for r in rows(tmp_path / "runs/segment/train")] == ["1", "2"]


def test_what_does_not_go(nine: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_names("cpu, cpu") == TWO and device_names(None) == [] and device_names("cpu") == ["cpu"]
    assert parse(TrainSettings, {"device": [0, 1]}).device == "0,1"
    for name in ("cpu,tpu", "0,77"):
        with pytest.raises(SettingsError, match="device="):
            device_names(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert device_names("0,1,2,3") == list("0123")
    for name in ("0,0", "cpu,0", "1,cuda:1"):
        with pytest.raises(SettingsError, match="name different GPUs"):
            device_names(name)
    with pytest.raises(SettingsError, match="only a training takes several devices"):
        select_device("0,1")
    assert device_names("cpu,") == ["cpu"] and select_device("cpu,") == torch.device("cpu")
    with pytest.raises(SettingsError, match=r"batch=5: .* multiple of 2: use batch=4 or 6"):
        check_batch(5, 2)
    for key, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(key, value)
    assert by_torchrun() and not by_torchrun({**os.environ, "WORLD_SIZE": "1"})
    with pytest.raises(SettingsError, match="torchrun gives each process its device"), joined("0,1"):
        pass
