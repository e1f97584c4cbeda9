"""Training on a handful of small images: the files of a run, resuming bit by bit, and every way that it can end."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_runs import At, fresh, options, rows, same

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.data.synthetic import write_synthetic
from fiftyone_yoloseg.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fiftyone_yoloseg.engine.events import TrainResult
from fiftyone_yoloseg.engine.runlog import COLUMNS
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.engine.trainer import Trainer
from fiftyone_yoloseg.errors import CheckpointError, DataError, UserError
from fiftyone_yoloseg.types import SegmentationData

STEPS = 2  # an epoch: 8 images in batches of 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    return write_synthetic(tmp_path_factory.mktemp("data"), train=8, val=3)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


@pytest.fixture(scope="module")
def finished(data: SegmentationData, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    told: list[tuple[float, str]] = []
    result = train(fresh(data), data, options(tmp_path_factory.mktemp("runs")), progress=lambda share, label: told.append((share, label)))
    assert [s for s, _ in told] == sorted(s for s, _ in told) and told[-1][0] == 1 and len(told) == 2 * STEPS and "epoch 2/2" in told[-1][1]
    return result


def test_files(finished: TrainResult) -> None:
    files = sorted(str(p.relative_to(finished.dir)) for p in finished.dir.rglob("*") if p.is_file())
    assert set(files) >= {"args.yaml", "dataset.yaml", "results.csv", "weights/best.pt", "weights/last.pt"}
    assert not [f for f in files if f.endswith(".tmp")]
    assert (finished.best, finished.last) == (finished.dir / "weights/best.pt", finished.dir / "weights/last.pt")
    assert (finished.epochs, finished.stopped) == (2, False) and finished.best_epoch in (1, 2) and finished.seconds_per_step > 0
    assert finished.metrics is not None and finished.metrics.images == 3


def test_results_csv(finished: TrainResult) -> None:
    first, second = rows(finished.dir)
    assert list(first) == COLUMNS == [
        "epoch", "time", "train/box_loss", "train/seg_loss", "train/cls_loss", "train/dfl_loss",
        "metrics/precision(B)", "metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)",
        "metrics/precision(M)", "metrics/recall(M)", "metrics/mAP50(M)", "metrics/mAP50-95(M)",
        "val/box_loss", "val/seg_loss", "val/cls_loss", "val/dfl_loss", "lr/pg0", "lr/pg1", "lr/pg2",
    ]  # fmt: skip
    assert [first["epoch"], second["epoch"]] == ["1", "2"] and float(first["time"]) < float(second["time"])
    assert all(math.isfinite(float(row[c])) for row in (first, second) for c in COLUMNS)
    assert all(float(first[f"{kind}/{name}_loss"]) > 0 for kind in ("train", "val") for name in ("box", "seg", "cls", "dfl"))


def test_settings_and_data_are_written_down(finished: TrainResult) -> None:
    args = yaml.safe_load((finished.dir / "args.yaml").read_text())
    assert set(args) == set(TrainSettings.model_fields) and (args["imgsz"], args["batch"], args["seed"]) == (32, 4, 0)
    described = yaml.safe_load((finished.dir / "dataset.yaml").read_text())
    assert described == {"origin": "synthetic shapes", "train": 8, "val": 3, "names": {0: "disc", 1: "square", 2: "ring"}}


def test_checkpoints_are_stripped_half_precision_and_plain(finished: TrainResult) -> None:
    for path in (finished.best, finished.last):
        content = torch.load(path, weights_only=True)
        assert content["train"] is None and {v.dtype for v in content["model"].values()} == {torch.float16, torch.int64}
        assert content["train_args"]["imgsz"] == 32 and set(content["metrics"]) >= {"fitness", "metrics/mAP50-95(M)"}
        assert path.stat().st_size < 8e6
        loaded = load_checkpoint(path)
        assert (loaded.names, loaded.imgsz) == ({0: "disc", 1: "square", 2: "ring"}, 32)
        assert loaded.origin == "trained from random weights"


def test_the_network_given_is_not_changed(data: SegmentationData, finished: TrainResult, tmp_path: Path) -> None:
    start = load_checkpoint(finished.best)
    before = {k: v.clone() for k, v in start.net.state_dict().items()}
    train(start, data, options(tmp_path, epochs=1))
    assert same(before, dict(start.net.state_dict())) and not start.net.training


def test_a_second_run_gets_a_folder_of_its_own(data: SegmentationData, finished: TrainResult) -> None:
    again = train(fresh(data), data, options(finished.dir.parent, epochs=1))
    assert again.dir == finished.dir.parent / "train2"
    over = train(fresh(data), data, options(finished.dir.parent, epochs=1, name="train2", exist_ok=True))
    assert over.dir == again.dir and len(rows(over.dir)) == 1


# resuming


def test_what_cannot_be_resumed(data: SegmentationData, finished: TrainResult, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train(fresh(data), data, options(tmp_path, resume=True))
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train(load_checkpoint(finished.last), data, options(tmp_path, resume=True))
    stopped = train(fresh(data), data, options(tmp_path, epochs=3), **At(2, 1).stop)
    before = stopped.last.read_bytes()
    with pytest.raises(DataError, match="classes"):
        train(load_checkpoint(stopped.last), replace(data, names={0: "x", 1: "y", 2: "z"}), TrainSettings(resume=True, device="cpu"))
    assert stopped.last.read_bytes() == before


# seeds


def test_the_seed_decides(data: SegmentationData, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = train(fresh(data), data, options(tmp_path, epochs=1))
    torch.manual_seed(2)
    second = train(fresh(data), data, options(tmp_path, epochs=1))
    other = train(fresh(data), data, options(tmp_path, epochs=1, seed=1))
    assert same(tensors(first.last), tensors(second.last)), "of the settings, not the state of torch at the time"
    assert not torch.equal(tensors(first.last)["model.0.conv.weight"], tensors(other.last)["model.0.conv.weight"])


# what is trained


def test_single_cls(data: SegmentationData, tmp_path: Path) -> None:
    result = train(fresh(data), data, options(tmp_path, epochs=1, single_cls=True))
    assert load_checkpoint(result.best).names == {0: "object"} and result.metrics is not None
    assert result.metrics.objects_per_class.tolist() == [sum(len(r.instances) for r in data.splits["val"])]


def test_frozen_layers_stay(data: SegmentationData, finished: TrainResult, tmp_path: Path) -> None:
    start = load_checkpoint(finished.best)
    result = train(start, data, options(tmp_path, epochs=1, freeze=5))
    before, after = start.net.half().state_dict(), tensors(result.last)
    frozen = [k for k in after if int(k.split(".")[1]) < 5]
    assert len(frozen) > 50 and any("running_mean" in k for k in frozen)
    assert all(torch.equal(before[k], after[k]) for k in frozen if "num_batches" not in k), "statistics of batch norms too"
    for key in ("model.5.conv.weight", "model.5.bn.running_mean", "model.22.cv3.0.1.conv.weight"):
        assert not torch.equal(before[key], after[key])


def test_training_on_other_classes_starts_from_what_fits(data: SegmentationData, finished: TrainResult, tmp_path: Path) -> None:
    """With a rate of next to nothing the weights that fit can be seen again."""
    start = load_checkpoint(finished.best)
    two = replace(
        data,
        names={0: "ring", 1: "shape"},
        splits={
            s: [replace(r, instances=tuple(replace(i, cls=int(i.cls != 2)) for i in r.instances)) for r in images]
            for s, images in data.splits.items()
        },
    )
    result = train(start, two, options(tmp_path, epochs=1, optimizer="SGD", lr0=1e-12, warmup_epochs=0, warmup_bias_lr=0, weight_decay=0))
    old, new = start.net.half().state_dict(), tensors(result.last)
    kept = [k for k in new if "cv3" not in k and "running" not in k and "num_batches" not in k]
    assert len(kept) > 150 and all(torch.equal(old[k], new[k]) for k in kept)
    assert new["model.22.cv3.0.2.bias"].shape == (2,) and torch.equal(new["model.22.cv3.0.2.bias"][0], old["model.22.cv3.0.2.bias"][2]), (
        "ring"
    )
    assert load_checkpoint(result.best).names == {0: "ring", 1: "shape"}
    assert "yolov8" in load_checkpoint(result.best).origin or load_checkpoint(result.best).origin == start.origin


# ends


class Worse(Trainer):
    """Each epoch scores as told."""

    scores = (0.5, 0.5, 0.3, 0.2, 0.1)

    def _validate(self) -> Any:
        metrics, *others = super()._validate()
        value = self.scores[len(rows(self.folder))]
        for kind in ("box", "seg"):
            setattr(metrics, kind, replace(getattr(metrics, kind), map=value))
        return metrics, *others


def test_patience(data: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fiftyone_yoloseg.engine.session.Trainer", Worse)
    small = replace(data, splits={"train": data.splits["train"][:2], "val": data.splits["val"][:1]})
    result = train(fresh(data), small, options(tmp_path, epochs=5, batch=2, patience=2))
    assert (result.epochs, result.best_epoch, result.stopped) == (4, 2, False), "a tie counts as better; two worse epochs follow"
    assert len(rows(result.dir)) == 4
    assert load_checkpoint(result.best).metrics["fitness"] == 1.0 and load_checkpoint(result.last).metrics["fitness"] == pytest.approx(0.4)
    assert load_checkpoint(result.last).train is None
    patient = train(fresh(data), small, options(tmp_path, epochs=5, batch=2, patience=0))
    assert (patient.epochs, patient.best_epoch) == (5, 2)


def test_without_validation_the_last_epoch_is_the_best(data: SegmentationData, tmp_path: Path) -> None:
    result = train(fresh(data), data, options(tmp_path, val=False))
    first, last = rows(result.dir)
    assert first["metrics/mAP50-95(M)"] == "" and last["metrics/mAP50-95(M)"] != "" and result.best_epoch == 2
    assert same(tensors(result.best), tensors(result.last))
    none = train(fresh(data), replace(data, splits={"train": data.splits["train"]}), options(tmp_path, epochs=1, val=False))
    assert none.metrics is None and none.best.is_file()


@pytest.mark.parametrize("what", ["no val", "no train", "no objects", "crowds only"])
def test_data_that_cannot_be_trained_on(data: SegmentationData, tmp_path: Path, what: str) -> None:
    training, validation = data.splits["train"], data.splits["val"]
    splits = {
        "no val": {"train": training},
        "no train": {"val": validation},
        "no objects": {"train": [replace(r, instances=()) for r in training], "val": validation},
        "crowds only": {
            "train": [replace(r, instances=tuple(replace(i, crowd=True) for i in r.instances)) for r in training],
            "val": validation,
        },
    }[what]
    expected = {"no val": "validation split has no images", "no train": "training split has no images"}.get(
        what, "no training image has an object"
    )
    with pytest.raises(DataError, match=expected):
        train(fresh(data), replace(data, splits=splits), options(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_validation_images_without_objects(data: SegmentationData, tmp_path: Path) -> None:
    empty = replace(data, splits={**data.splits, "val": [replace(r, instances=()) for r in data.splits["val"]]})
    result = train(fresh(data), empty, options(tmp_path, epochs=1))
    assert result.metrics is not None and math.isnan(result.metrics.seg.map) and result.best.is_file()
    assert rows(result.dir)[0]["val/cls_loss"] != ""


def test_a_run_that_came_to_nothing_leaves_nothing(data: SegmentationData, tmp_path: Path) -> None:
    def interrupt(share: float, label: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(fresh(data), data, options(tmp_path / "runs"), progress=interrupt)
    assert list((tmp_path / "runs").iterdir()) == []
    (tmp_path / "runs" / "mine").mkdir()
    (tmp_path / "runs" / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(KeyboardInterrupt):
        train(fresh(data), data, options(tmp_path / "runs", name="mine", exist_ok=True), progress=interrupt)
    assert (tmp_path / "runs" / "mine" / "notes.txt").read_text() == "keep", "a folder that was there stays"


def broken_by(value: float, data: SegmentationData, path: Path) -> Checkpoint:
    net = fresh(data).net
    net.model[0].conv.weight.data[:] = value
    save_checkpoint(path, net, names=dict(data.names), imgsz=64, train_args={}, origin="")
    return load_checkpoint(path)


def test_a_loss_that_is_no_number_is_one_clear_error(data: SegmentationData, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the loss became .*nan.* in epoch 1: lower lr0.*nothing was saved"):
        train(broken_by(math.nan, data, tmp_path / "nan.pt"), data, options(tmp_path / "runs"))
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_loss_that_explodes_later_keeps_the_last_good_epoch(
    data: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(100))
    original = Trainer._backward

    def explode(self: Trainer, batch: Any) -> torch.Tensor:
        losses = original(self, batch)
        return losses * math.nan if next(steps) == STEPS else losses

    monkeypatch.setattr(Trainer, "_backward", explode)
    with pytest.raises(UserError, match=r"in epoch 2: .*last\.pt holds epoch 1"):
        train(fresh(data), data, options(tmp_path, epochs=3))
    state = load_checkpoint(tmp_path / "train" / "weights" / "last.pt").train
    assert state is not None and state["epoch"] == 1


def test_a_full_disk_is_not_a_finished_run(data: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fiftyone_yoloseg.engine.checkpoint.torch.save", full)
    with pytest.raises(OSError, match="No space"):
        train(fresh(data), data, options(tmp_path / "runs", epochs=1))
    assert list((tmp_path / "runs").iterdir()) == []
