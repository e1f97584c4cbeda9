"""Loggers against the real libraries: what was told is read back with their own readers."""

from __future__ import annotations

import importlib.util
import json
import math
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fiftyone_yoloseg.config import TrainSettings, parse, problems
from fiftyone_yoloseg.data.synthetic import write_synthetic
from fiftyone_yoloseg.engine.checkpoint import new_checkpoint
from fiftyone_yoloseg.engine.events import EpochInfo, Phase, RunEnd, RunInfo, TrainingListener, TrainResult
from fiftyone_yoloseg.engine.loggers import open_loggers
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.errors import MissingDependencyError
from fiftyone_yoloseg.types import ImageRecord

ROWS = [
    {"epoch": 1, "train/box_loss": 0.1, "metrics/mAP50(B)": 1 / 3, "lr/pg0": 1e-7, "fitness": 0.5},
    {"epoch": 2, "train/box_loss": 0.05, "metrics/mAP50(B)": math.nan, "lr/pg0": 2e-7, "fitness": 0.75},
]
SHEET = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def need(package: str) -> None:
    """All are here where the dev group is installed."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: uv pip install {package}")


def opened(name: str) -> TrainingListener:
    need(name)
    (logger,) = open_loggers([name])
    return logger


def begin(logger: TrainingListener, folder: Path, first_epoch: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    settings = TrainSettings(epochs=7, data=Path("some where/data.yaml"))
    record = ImageRecord(Path("x.png"), 10, 10)
    logger.on_run_start(RunInfo(folder, settings, {0: "a", 1: "b"}, [record] * 5, [record] * 2, first_epoch))


def go_on(logger: TrainingListener, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["epoch"] == 2:
            logger.on_phase(Phase(2, "no mosaic"))
        logger.on_epoch_end(EpochInfo(row["epoch"], 7, row, None, False))


def finish(logger: TrainingListener, folder: Path, stopped: bool = False) -> None:
    cv2.imwrite(str(folder / "results.png"), SHEET[..., ::-1])
    logger.on_run_end(RunEnd(TrainResult(folder, folder / "weights/best.pt", folder / "weights/last.pt", None, 2, 1, 0.1, stopped), {}))


def tell_all(name: str, folder: Path) -> None:
    logger = opened(name)
    begin(logger, folder)
    go_on(logger, ROWS)
    finish(logger, folder)


# TensorBoard


def tensorboard_events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return events


def test_tensorboard(tmp_path: Path) -> None:
    tell_all("tensorboard", tmp_path / "run")
    events = tensorboard_events(tmp_path / "run")
    assert set(events.Tags()["scalars"]) == set(ROWS[0]) - {"epoch"}, "the names of results.csv"
    for name in events.Tags()["scalars"]:
        found = events.Scalars(name)
        assert [e.step for e in found] == [1, 2]
        assert np.array_equal([e.value for e in found], np.float32([row[name] for row in ROWS]), equal_nan=True)
    (picture,) = events.Images("results")
    pixels = cv2.imdecode(np.frombuffer(picture.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert picture.step == 2 and np.array_equal(pixels, SHEET)
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert json.loads(texts["settings/text_summary"])["epochs"] == 7 and "no mosaic" in texts["phase/text_summary"]
    assert str(tmp_path / "run/weights/best.pt") in texts["best/text_summary"]


def test_tensorboard_of_a_run_that_goes_on(tmp_path: Path) -> None:
    """The interrupted session had begun an epoch 3 that is done anew: it must not be there twice."""
    logger = opened("tensorboard")
    begin(logger, tmp_path / "run")
    go_on(logger, [*ROWS, {**ROWS[1], "epoch": 3, "fitness": 0.1}])
    logger.on_run_failed(KeyboardInterrupt())
    again = opened("tensorboard")
    begin(again, tmp_path / "run", first_epoch=3)
    go_on(again, [{**ROWS[1], "epoch": 3, "fitness": 1.0}])
    again.on_run_failed(KeyboardInterrupt())
    found = tensorboard_events(tmp_path / "run").Scalars("fitness")
    assert [(e.step, e.value) for e in found] == [(1, 0.5), (2, 0.75), (3, 1.0)]


# MLflow


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    need("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    import mlflow

    mlflow.set_tracking_uri(None)  # what another test, or the user's shell, may have set
    yield mlflow
    mlflow.set_tracking_uri(None)


def mlflow_runs(uri: str, experiment: str) -> tuple[Any, list[Any]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return client, list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def test_mlflow(mlflow: Any, tmp_path: Path) -> None:
    folder = tmp_path / "segment" / "run"
    tell_all("mlflow", folder)
    client, (run,) = mlflow_runs(f"sqlite:///{tmp_path / 'segment' / 'mlflow.db'}", "segment")
    assert (run.info.run_name, run.info.status, run.data.tags["run folder"]) == ("run", "FINISHED", str(folder))
    assert (run.data.params["epochs"], run.data.params["train_images"], run.data.params["lr0"]) == ("7", "5", "0.01")
    assert run.data.tags["best checkpoint"] == str(folder / "weights/best.pt") and run.data.tags["phase"] == "from epoch 2: no mosaic"
    for name, ours in (
        ("train/box_loss", "train/box_loss"),
        ("metrics/mAP50_B", "metrics/mAP50(B)"),
        ("lr/pg0", "lr/pg0"),
        ("fitness", "fitness"),
    ):
        history = sorted(client.get_metric_history(run.info.run_id, name), key=lambda m: m.step)
        assert [m.step for m in history] == [1, 2]
        assert np.array_equal([m.value for m in history], [row[ours] for row in ROWS], equal_nan=True), name
    (artifact,) = client.list_artifacts(run.info.run_id, "plots")
    assert artifact.path == "plots/results.png"
    assert Path(client.download_artifacts(run.info.run_id, artifact.path)).read_bytes() == (folder / "results.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["segment"], "nothing in the folder where we are"


def test_mlflow_of_a_run_that_goes_on(mlflow: Any, tmp_path: Path) -> None:
    folder = tmp_path / "segment" / "run"
    logger = opened("mlflow")
    begin(logger, folder)
    go_on(logger, ROWS)
    logger.on_run_failed(ValueError())
    uri = f"sqlite:///{tmp_path / 'segment' / 'mlflow.db'}"
    assert [r.info.status for r in mlflow_runs(uri, "segment")[1]] == ["FAILED"]
    again = opened("mlflow")
    begin(again, folder, first_epoch=3)
    go_on(again, [{**ROWS[1], "epoch": 3}])
    finish(again, folder, stopped=True)
    client, (run,) = mlflow_runs(uri, "segment")
    assert run.info.status == "KILLED" and len(client.get_metric_history(run.info.run_id, "fitness")) == 3
    begin(opened("mlflow"), folder, first_epoch=1)
    assert len(mlflow_runs(uri, "segment")[1]) == 2, "a run that begins anew in its folder is another one"


def test_mlflow_where_the_user_wants_it(mlflow: Any, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mine.db'}"
    mlflow.set_tracking_uri(uri)
    logger = opened("mlflow")
    begin(logger, tmp_path / "segment" / "run")
    go_on(logger, ROWS)
    assert len(mlflow_runs(uri, "segment")[1]) == 1 and not (tmp_path / "segment" / "mlflow.db").exists()


# Weights & Biases


def wandb_records(folder: Path) -> Iterator[Any]:
    """The records of the one offline run in a folder. The file is a LevelDB log: blocks of 32 KiB, records with a head of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if at + 7 + length > len(data):
            return  # it is being written
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # all of a record, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def finished_records(folder: Path) -> list[Any]:
    """W&B's own process may still write when the run's `finish` has returned; the last record that matters is of the kind "exit"."""
    deadline = time.monotonic() + 30
    while True:
        records = list(wandb_records(folder))
        if "exit" in [r.WhichOneof("record_type") for r in records] or time.monotonic() > deadline:
            return records
        time.sleep(0.1)


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = tmp_path / "segment" / "run"
    tell_all("wandb", folder)
    records = finished_records(folder)
    kinds = {r.WhichOneof("record_type") for r in records}
    (run,) = [r.run for r in records if r.WhichOneof("record_type") == "run"][:1]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (run.project, run.display_name, config["epochs"], config["val_images"]) == ("segment", "run", 7, 2) and "exit" in kinds
    histories = [
        {".".join([i.key] if i.key else i.nested_key): json.loads(i.value_json) for i in r.history.item}
        for r in records
        if r.WhichOneof("record_type") == "history"
    ]
    assert any(key.startswith("plots/results") for key in histories[-1]), "the plots stand beside the last epoch"
    for row, history in zip(ROWS, histories, strict=True):
        assert history["_step"] == row["epoch"]
        for name in row.keys() - {"epoch"}:
            value = history[name]
            assert float(value) == row[name] or (math.isnan(row[name]) and math.isnan(float(value))), name
    summary = {
        ".".join([i.key] if i.key else i.nested_key): json.loads(i.value_json)
        for r in records
        if r.WhichOneof("record_type") == "summary"
        for i in r.summary.update
    }
    assert summary["best_checkpoint"] == str(folder / "weights/best.pt") and summary["phase"] == "from epoch 2: no mosaic"
    (picture,) = (folder / "wandb").glob("offline-run-*/files/media/images/plots/results_*.png")
    assert np.array_equal(cv2.imread(str(picture)), SHEET[..., ::-1])


def test_wandb_beside_a_run_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("wandb")
    import wandb

    theirs = wandb.init(mode="offline", project="theirs", dir=str(tmp_path), settings=wandb.Settings(silent=True))
    try:
        tell_all("wandb", tmp_path / "segment" / "run")
        assert wandb.run is theirs
        theirs.log({"x": 1})
    finally:
        theirs.finish()


# in a training


def test_a_training_takes_its_plots_with_it(tmp_path: Path) -> None:
    need("tensorboard")
    data = write_synthetic(tmp_path / "data", train=2, val=2)
    settings = TrainSettings(imgsz=32, batch=2, epochs=1, workers=0, device="cpu", project=tmp_path / "runs", loggers=("tensorboard",))
    result = train(new_checkpoint("yolov8n-seg.yaml", dict(data.names)), data, settings)
    events = tensorboard_events(result.dir)
    assert result.metrics is not None and "metrics/mAP50-95(M)" in events.Tags()["scalars"]
    assert {"train_batch0", "labels", "results", "confusion_matrix", "val_pictures"} <= set(events.Tags()["images"])


def test_a_process_that_has_imported_tensorflow_can_train() -> None:
    """TensorBoard's readers import TensorFlow where it is installed; torch's optimizers then import triton, which ends such a process."""
    need("tensorflow")
    code = "import tensorflow, torch; from fiftyone_yoloseg.engine.devices import import_compiler; import_compiler(); torch.optim.SGD([torch.ones(1)])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_package_is_told_before_anything_is_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fiftyone_yoloseg.engine.loggers.importlib.util.find_spec", lambda _: None)
    data = write_synthetic(tmp_path / "data", train=1, val=1)
    settings = TrainSettings(device="cpu", project=tmp_path / "runs", loggers=(name,))
    with pytest.raises(MissingDependencyError, match=rf"loggers={name} needs .* pip install 'fiftyone-yoloseg\[{name}\]'"):
        train(new_checkpoint("yolov8n-seg.yaml", dict(data.names)), data, settings)
    assert not (tmp_path / "runs").exists()


def test_names_of_loggers() -> None:
    for typed, expected in (
        ("tensorboard", ("tensorboard",)), (" mlflow , wandb,", ("mlflow", "wandb")), (["wandb"], ("wandb",)), ("", ()), (None, None)
    ):  # fmt: skip
        assert parse(TrainSettings, {"loggers": typed}).loggers == expected
    assert "tensorbord" in problems(TrainSettings, {"loggers": "tensorbord"})["loggers"]
