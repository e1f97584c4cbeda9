"""engine=ray on a real cluster of two nodes on this machine, with a CPU each: the numbers of one process, and every way in which it can fail."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import ranks
import torch
from conftest import unavailable
from small_runs import At, fresh, options, rows, untimed

from fiftyone_yoloseg import YOLO
from fiftyone_yoloseg.config import PredictSettings, TrainSettings, parse
from fiftyone_yoloseg.data.synthetic import write_synthetic
from fiftyone_yoloseg.engine.checkpoint import Checkpoint, load_checkpoint
from fiftyone_yoloseg.engine.cluster import predict as predicting
from fiftyone_yoloseg.engine.cluster.connect import Room, await_room, connected, lacking, room, share_of_cpus
from fiftyone_yoloseg.engine.cluster.launch import launch
from fiftyone_yoloseg.engine.cluster.post import Post
from fiftyone_yoloseg.engine.events import EpochInfo, RunEnd, RunInfo, TrainingListener
from fiftyone_yoloseg.engine.predictor import Predictor
from fiftyone_yoloseg.engine.torch_backend import TorchBackend
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.errors import DataError, MissingDependencyError, ProcessError, SettingsError, Stopped
from fiftyone_yoloseg.types import Batch, SegmentationData

TWO = Room(2, 1, gpu=False)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Connected to, for all tests of this file: each connection of its own would take Ray seconds."""
    try:
        import ray
        from ray.cluster_utils import Cluster
    except ImportError:
        unavailable("ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # how soon Ray notices that its workers are done
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            started.add_node(num_cpus=1)
            patch.setenv("RAY_ADDRESS", started.address)
            with connected():
                yield ray
        finally:
            started.shutdown()


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    return write_synthetic(tmp_path_factory.mktemp("eight"), train=8, val=3)


class Ears(TrainingListener):
    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def on_run_start(self, run: RunInfo) -> None:
        self.heard.append(("start", len(run.training), len(run.validation)))

    def on_batch(self, number: int, batch: Batch) -> None:
        self.heard.append(("batch", number, tuple(batch.images.shape)))

    def on_epoch_end(self, epoch: EpochInfo) -> None:
        self.heard.append(("epoch", epoch.epoch))

    def on_run_end(self, end: RunEnd) -> None:
        self.heard.append(("end", end.result.stopped, sorted(end.found)))


def test_a_training_has_the_numbers_of_one_process_is_heard_stops_and_goes_on(
    cluster: Any,
    eight: SegmentationData,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    one_thread: None,
) -> None:
    """With the batch norms of the whole batch all is equal up to rounding. A request to stop takes a step or two to arrive."""
    monkeypatch.chdir(tmp_path)
    plan = {"imgsz": 64, "optimizer": "SGD", "lr0": 1e-3, "warmup_epochs": 0, "epochs": 100}
    alone = train(fresh(eight), eight, options(tmp_path / "alone", **plan), **At(3, 1).stop)
    ears, told, at = Ears(), list[str](), At(3, 1)

    def progress(share: float, label: str) -> None:
        told.append(label)
        at.progress(share, label)

    with caplog.at_level(logging.INFO):
        result = train(
            fresh(eight), eight, options(Path("runs"), engine="ray", sync_bn=True, **plan),
            progress=progress, should_stop=at.stop["should_stop"], listeners=[ears],
        )  # fmt: skip
    assert result.stopped and 2 <= result.epochs < 100 and len(rows(result.dir)) == result.epochs and alone.epochs == 2
    for there, here in zip(untimed(result.dir), untimed(alone.dir), strict=False):
        assert numbers(there) == pytest.approx(numbers(here), rel=1e-3, abs=1e-6, nan_ok=True)
    heard = [("epoch", i + 1) for i in range(result.epochs)]
    assert ears.heard == [("start", 8, 3), ("batch", 0, (2, 3, 64, 64)), ("batch", 1, (2, 3, 64, 64)), *heard, ("end", True, [])]
    assert [label.split(" ")[1] for label in told][:5] == ["1/100"] * 2 + ["2/100"] * 2 + ["3/100"]
    said = "\n".join(r.getMessage() for r in caplog.records)
    assert said.count("on 2 processes (cpu)") == 1 and "stopped (request)" in said
    files = sorted(str(p.relative_to(tmp_path / "runs")) for p in (tmp_path / "runs").rglob("*") if p.is_file())
    assert files == [f"train/{f}" for f in ("args.yaml", "dataset.yaml", "results.csv", "weights/best.pt", "weights/last.pt")]
    assert load_checkpoint(result.last).net.state_dict().keys() == load_checkpoint(alone.last).net.state_dict().keys()
    resumed = train(load_checkpoint(result.last), eight, TrainSettings(resume=True, device="cpu"), should_stop=lambda: True)
    assert resumed.dir == result.dir.absolute() and resumed.stopped and resumed.epochs >= result.epochs


def numbers(row: dict[str, str]) -> dict[str, float]:
    return {name: float(value or "nan") for name, value in row.items()}


def test_a_dead_worker_ends_the_training(cluster: Any, eight: SegmentationData, tmp_path: Path) -> None:
    def kill(kind: str, value: Any) -> Any:
        if kind == "pid":
            os.kill(value, signal.SIGKILL)
        return False

    start = time.monotonic()
    with pytest.raises(
        ProcessError,
        match=r"^process 1 of 2 on the Ray cluster has died \(killed, out of memory, or its machine was lost\); the others were ended$",
    ):
        launch(cluster, TWO, ranks.wait_to_be_killed, None, kill)
    assert time.monotonic() - start < 150, "not the timeout of the process group"


def test_storage_that_a_machine_does_not_see(cluster: Any, eight: SegmentationData, tmp_path: Path) -> None:
    first, *rest = eight.splits["train"]
    data = replace(eight, splits={**eight.splits, "train": [replace(first, path=tmp_path / "elsewhere.png"), *rest]})
    with pytest.raises(
        DataError, match=r"^the machine .+ of the Ray cluster does not see .*elsewhere\.png: with engine=ray, images and run folder"
    ):
        train(fresh(eight), data, options(tmp_path / "runs", engine="ray", ray_workers=1))  # one is enough to miss it
    assert not list((tmp_path / "runs").iterdir()), "a run that came to nothing leaves nothing behind"


def test_predictions_come_in_order_and_one_bad_image_loses_only_itself(
    cluster: Any, lively_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, files = np.random.default_rng(0), []
    for i in range(7):
        files.append(tmp_path / f"{9 - i}.png")  # not the order of their names
        cv2.imwrite(str(files[-1]), rng.integers(0, 256, (40 + 8 * i, 70, 3), dtype=np.uint8))
    files[3].write_bytes(b"no picture")
    model = YOLO(lively_file)
    wanted: dict[str, Any] = {"conf": 0.05, "batch": 2, "imgsz": 96}
    here = model.predict(files, device="cpu", **wanted)
    caplog.clear()
    cluster_finds = Kept(predicting.predict_on_cluster)
    monkeypatch.setattr(predicting, "predict_on_cluster", cluster_finds)
    there = model.predict(files, engine="ray", **wanted)
    assert [r.path for r in there] == [r.path for r in here] == [str(f) for i, f in enumerate(files) if i != 3]
    assert sum(map(len, here)) > 10
    for a, b in zip(here, there, strict=True):
        assert a.orig_shape == b.orig_shape and a.names == b.names and set(b.speed) == {"preprocess", "inference", "postprocess"}
        np.testing.assert_allclose(b.instances.boxes, a.instances.boxes, atol=1e-2)
        np.testing.assert_allclose(b.instances.confidences, a.instances.confidences, atol=1e-4)
        assert np.array_equal(b.instances.classes, a.instances.classes) and np.array_equal(b.orig_img, a.orig_img)
    (said,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert said.startswith(f"left out: {files[3]}: ")
    found = cluster_finds.found[3][0]
    assert isinstance(found, DataError)
    monkeypatch.setattr(predicting, "predict_on_cluster", lambda files, *_: iter([(found, {})] * len(files)))
    with pytest.raises(DataError, match="none of the images can be read"):
        model.predict([files[3], files[3]], engine="ray")
    with pytest.raises(DataError, match="engine=ray takes image files"):
        model.predict(np.zeros((9, 9, 3), np.uint8), engine="ray")


class Kept:
    """`predict_on_cluster`, whose answers are kept: to ask the cluster again would start new actors."""

    def __init__(self, real: Any) -> None:
        self.real, self.found = real, list[Any]()

    def __call__(self, *given: Any) -> Iterator[Any]:
        for answer in self.real(*given):
            self.found.append(answer)
            yield answer


def test_what_does_not_go(cluster: Any, lively_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    assert room(cluster, TrainSettings(engine="ray")) == TWO and room(cluster, TrainSettings(engine="ray", ray_workers=1)) == replace(
        TWO, workers=1
    )
    with pytest.raises(SettingsError, match=r"ray_workers=3: the machines of this Ray cluster have 2 CPUs"):
        room(cluster, TrainSettings(engine="ray", ray_workers=3))
    with pytest.raises(SettingsError, match="device=cuda: this Ray cluster has no GPU"):
        room(cluster, TrainSettings(engine="ray", device="cuda"))
    with pytest.raises(SettingsError, match="Ray gives each process its device"):
        room(cluster, TrainSettings(engine="ray", device="0,1"))
    with pytest.raises(SettingsError, match="only YOLO.train, fy.train and YOLO.predict can use a cluster"):
        Predictor(TorchBackend(lively_checkpoint.net, lively_checkpoint.info, torch.device("cpu")), PredictSettings(engine="ray"))
    with pytest.raises(SettingsError, match="ray_workers"):
        parse(TrainSettings, {"ray_workers": 2})


def test_it_says_what_it_waits_for_and_can_be_stopped_meanwhile(
    cluster: Any, eight: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last on the cluster: what was handed to Ray begins, and ends, when it is its turn."""
    monkeypatch.setattr("fiftyone_yoloseg.engine.cluster.connect._MOMENT", 0.0)
    other, told = cluster.remote(num_cpus=1)(Post).remote(), list[str]()
    cluster.get(other.stop.remote())
    with pytest.raises(Stopped, match="stopped while it waited for the Ray cluster: nothing was begun"):
        train(
            fresh(eight), eight, options(tmp_path / "runs", engine="ray"),
            progress=lambda share, label: told.append(label), should_stop=lambda: bool(told),
        )  # fmt: skip
    assert told == ["waiting for the Ray cluster: 2 processes need 2 CPUs, and 1 of 2 are free; `ray status` says what is in use"]
    assert not list((tmp_path / "runs").iterdir())
    cluster.kill(other)


def test_what_is_not_free_is_said_when_those_who_leave_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    all_of_it = {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}
    assert lacking(Room(2, 4, True), all_of_it, all_of_it) == "" == lacking(TWO, {"CPU": 2.0}, all_of_it)
    assert lacking(Room(2, 4, True), {"CPU": 8.0, "GPU": 1.0}, all_of_it) == "2 processes need 2 GPUs, and 1 of 2 are free"
    assert lacking(Room(1, 4, True), {"CPU": 3.0}, all_of_it) == "1 process needs 4 CPUs, and 3 of 8 are free; 1 GPUs, and 0 of 2 are free"
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    states, said = [{}, {"CPU": 1.0}, {"CPU": 2.0}], list[str]()
    leaving = SimpleNamespace(available_resources=lambda: states.pop(0), cluster_resources=lambda: {"CPU": 2.0})
    assert not await_room(leaving, TWO, said.append) and said == [] == states
    monkeypatch.setattr("fiftyone_yoloseg.engine.cluster.connect._MOMENT", 0.01)
    busy = SimpleNamespace(available_resources=dict, cluster_resources=lambda: {"CPU": 2.0})
    assert await_room(busy, TWO, said.append) and len(said) == 1 and "2 CPUs, and 0 of 2 are free" in said[0]


def test_cpus_are_shared_out_so_that_all_processes_find_a_place() -> None:
    assert share_of_cpus([(16, 0), (4, 0)], 2, gpu=False) == 8  # both on the larger machine
    assert share_of_cpus([(16, 0), (16, 0)], 2, gpu=False) == 16
    assert share_of_cpus([(16, 4), (8, 4)], 8, gpu=True) == 2 and share_of_cpus([(0, 0), (6, 2)], 2, gpu=True) == 3
    with pytest.raises(SettingsError, match="have 2 GPUs, with a CPU each"):
        share_of_cpus([(16, 2)], 3, gpu=True)


def test_without_a_cluster_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("ray") is None:
        unavailable("ray is not installed")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    for address, message in (
        ("ray://head:10001", "give host:port"),
        ("127.0.0.1:1", "no Ray cluster answers there"),
        ("host:port", "no Ray cluster answers there"),
    ):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(SettingsError, match=message), connected():
            pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"engine=ray needs .* pip install 'fiftyone-yoloseg\[ray\]'"), connected():
        pass
