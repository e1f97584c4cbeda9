"""Checkpoints: what is saved comes back, and nothing that is not a checkpoint of ours is ever loaded, executed or half-written."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fiftyone_yoloseg.engine import checkpoint as module
from fiftyone_yoloseg.engine.checkpoint import Checkpoint, fit_to_classes, load_checkpoint, new_checkpoint, save_checkpoint
from fiftyone_yoloseg.errors import CheckpointError
from fiftyone_yoloseg.nn.model import YOLOv8Seg

NAMES = {0: "disc", 1: "it's", 2: "Größe"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, YOLOv8Seg]:
    torch.manual_seed(0)
    net = YOLOv8Seg(3, "n").eval()
    path = tmp_path_factory.mktemp("saved") / "best.pt"
    save_checkpoint(path, net, names=NAMES, imgsz=96, train_args={"lr0": 0.1, "data": None}, origin="test", metrics={"fitness": 0.5})
    return path, net


def damaged(saved: tuple[Path, YOLOv8Seg], tmp_path: Path, **changes: Any) -> Path:
    """A copy with other entries; None leaves one out."""
    content = torch.load(saved[0], weights_only=True)
    content = {k: v for k, v in {**content, **changes}.items() if k not in changes or v is not ABSENT}
    torch.save(content, tmp_path / "best.pt")
    return tmp_path / "best.pt"


ABSENT = object()


def test_round_trip(saved: tuple[Path, YOLOv8Seg]) -> None:
    path, net = saved
    got = load_checkpoint(path)
    assert (got.names, got.imgsz, got.train_args, got.origin, got.metrics, got.train, got.path) == (
        NAMES, 96, {"lr0": 0.1, "data": None}, "test", {"fitness": 0.5}, None, path,
    )  # fmt: skip
    assert (got.net.nc, got.net.size, got.net.training, got.trained) == (3, "n", False, True)
    assert (got.info.names, got.info.imgsz, got.info.dynamic) == (NAMES, (96, 96), True)
    expected = net.state_dict()
    for key, value in got.net.state_dict().items():
        assert value.dtype == expected[key].dtype and torch.equal(
            value, expected[key].half().to(value.dtype) if value.is_floating_point() else expected[key]
        )


def test_file_is_plain_and_half_precision(saved: tuple[Path, YOLOv8Seg]) -> None:
    content = torch.load(saved[0], weights_only=True)
    assert {v.dtype for v in content["model"].values() if v.is_floating_point()} == {torch.float16} and content["train"] is None
    assert (content["format"], content["format_version"], content["task"], content["size"]) == ("fiftyone-yoloseg", 1, "segment", "n")
    assert saved[0].stat().st_size < 8e6


def test_an_unfinished_run_keeps_full_precision(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = YOLOv8Seg(2, "n")
    save_checkpoint(
        tmp_path / "last.pt",
        net,
        names={0: "a", 1: "b"},
        imgsz=64,
        train_args={},
        origin="",
        train={"epoch": 2, "weights": net.state_dict()},
    )
    got = load_checkpoint(tmp_path / "last.pt")
    assert got.train is not None and got.train["epoch"] == 2
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in got.net.state_dict().items())


def test_a_failed_write_leaves_the_old_file(saved: tuple[Path, YOLOv8Seg], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(saved[0].read_bytes())

    def full_disk(content: Any, target: Path) -> None:
        Path(target).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, saved[1], names=NAMES, imgsz=96, train_args={}, origin="")
    assert path.read_bytes() == saved[0].read_bytes() and list(tmp_path.iterdir()) == [path]


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    message = str(error.value)
    assert message.startswith(str(path)) and len(message) < 700 and "\n" not in message
    return message


@pytest.mark.parametrize("share", [0, 1e-6, 0.01, 0.3, 0.5, 0.9, 0.99, 0.999, 0.999999])
def test_truncated(saved: tuple[Path, YOLOv8Seg], tmp_path: Path, share: float) -> None:
    data = saved[0].read_bytes()
    (tmp_path / "best.pt").write_bytes(data[: int(len(data) * share)])
    refused(tmp_path / "best.pt")


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    (tmp_path / "best.pt").write_bytes(rng.bytes(int(rng.integers(1, 5000))))
    refused(tmp_path / "best.pt")


def test_flipped_bytes_never_raise_anything_else(saved: tuple[Path, YOLOv8Seg], tmp_path: Path) -> None:
    """In the first part, where the description of the tensors is, and in the directory at the end."""
    data = bytearray(saved[0].read_bytes())
    rng = np.random.default_rng(0)
    places = np.concatenate([rng.integers(0, 40_000, 12), len(data) - rng.integers(1, 20_000, 12)])
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 0xFF
        (tmp_path / "best.pt").write_bytes(changed)
        try:
            load_checkpoint(tmp_path / "best.pt")
        except CheckpointError as error:
            assert str(tmp_path / "best.pt") in str(error)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "torch", "ours"])
def test_a_pickle_bomb_does_not_go_off(saved: tuple[Path, YOLOv8Seg], tmp_path: Path, kind: str) -> None:
    crater, path = tmp_path / "crater", tmp_path / "best.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb(crater)))
    elif kind == "torch":
        torch.save({"model": Bomb(crater)}, path)
    else:
        torch.save({**torch.load(saved[0], weights_only=True), "train_args": Bomb(crater)}, path)
    refused(path)
    assert not crater.exists()
    if kind != "pickle":  # the bomb is a real one
        torch.load(path, weights_only=False)
        assert crater.exists()


def test_a_newer_format(saved: tuple[Path, YOLOv8Seg], tmp_path: Path) -> None:
    assert "newer fiftyone-yoloseg (9.9)" in refused(damaged(saved, tmp_path, format_version=2, version="9.9"))


@pytest.mark.parametrize("key", ["format_version", "names", "size", "imgsz", "model", "train_args", "origin", "metrics"])
def test_a_missing_entry(saved: tuple[Path, YOLOv8Seg], tmp_path: Path, key: str) -> None:
    assert f"{key!r} is missing" in refused(damaged(saved, tmp_path, **{key: ABSENT}))


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": "one"},
        {"names": ["a", "b", "c"]},
        {"names": {0: "a", 1: "b", 3: "c"}},
        {"names": {}},
        {"size": "xxl"},
        {"size": 3},
        {"imgsz": "big"},
        {"model": [1, 2]},
        {"train_args": None},
        {"train": 5},
    ],
)
def test_an_entry_of_the_wrong_kind(saved: tuple[Path, YOLOv8Seg], tmp_path: Path, changes: dict[str, Any]) -> None:
    assert "damaged" in refused(damaged(saved, tmp_path, **changes))


def test_weights_that_do_not_fit(saved: tuple[Path, YOLOv8Seg], tmp_path: Path) -> None:
    weights = torch.load(saved[0], weights_only=True)["model"]
    key = "model.0.conv.weight"
    assert "do not fit" in refused(damaged(saved, tmp_path, names={0: "a", 1: "b"})), "two names, weights of three classes"
    assert "do not fit" in refused(damaged(saved, tmp_path, size="s"))
    for changed in (
        {**weights, "model.99.x": weights[key]},
        {k: v for k, v in weights.items() if k != key},
        {**weights, key: weights[key][:1]},
        {**weights, key: 1},
    ):
        assert "1 tensors differ" in refused(damaged(saved, tmp_path, model=changed))


def test_other_files(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(2)}}, tmp_path / "bare.pt")
    assert "bare weights" in refused(tmp_path / "bare.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    refused(tmp_path / "tensor.pt")
    assert "no such file" in refused(tmp_path / "missing.pt")
    refused(tmp_path)


@pytest.mark.parametrize("size", "nsmlx")
def test_official_weights_are_not_shipped(size: str) -> None:
    message = refused(Path(f"yolov8{size}-seg.pt"))
    assert "We ship no weights" in message and f"yolov8{size}-seg.yaml" in message


def test_new_networks() -> None:
    fresh = new_checkpoint("yolov8n-seg.yaml", {0: "a"})
    assert (fresh.net.nc, fresh.names, fresh.trained, fresh.net.training) == (1, {0: "a"}, False, False)
    assert new_checkpoint("yolov8n-seg").net.nc == 80
    for wrong in ("yolov8t-seg.yaml", "yolov8n.yaml", "yolov9n-seg.yaml", ""):
        with pytest.raises(CheckpointError, match="is no model that we know"):
            new_checkpoint(wrong)


# other classes


def test_fitting_to_other_classes_keeps_what_fits(saved: tuple[Path, YOLOv8Seg]) -> None:
    start = load_checkpoint(saved[0])
    net, anew = fit_to_classes(start, {0: "square", 1: "disc"})
    old, new = start.net.state_dict(), net.state_dict()
    assert net.nc == 2 and anew and all(".cv3." in key for key in anew)
    assert all(torch.equal(old[k], new[k]) for k in new if k not in anew) and len(anew) < 40
    for tower in range(3):
        key = f"model.22.cv3.{tower}.2.bias"
        assert torch.equal(new[key][1], old[key][0]), "the class that both know keeps its row"


def test_fitting_to_the_same_classes_is_a_copy(saved: tuple[Path, YOLOv8Seg]) -> None:
    start = load_checkpoint(saved[0])
    net, anew = fit_to_classes(start, dict(NAMES))
    assert anew == [] and all(torch.equal(v, net.state_dict()[k]) for k, v in start.net.state_dict().items())
    net.model[0].conv.weight.data.zero_()
    assert start.net.model[0].conv.weight.abs().sum() > 0, "training must not change the network that it starts from"


def test_the_order_of_classes_counts(saved: tuple[Path, YOLOv8Seg]) -> None:
    start = load_checkpoint(saved[0])
    turned, _ = fit_to_classes(start, {0: "Größe", 1: "it's", 2: "disc"})
    key = "model.22.cv3.0.2.weight"
    assert torch.equal(turned.state_dict()[key], start.net.state_dict()[key].flip(0))


def test_a_new_network_is_drawn_with_the_seed_in_force() -> None:
    one, other = new_checkpoint("yolov8n-seg.yaml", NAMES), Checkpoint(YOLOv8Seg(3, "n"), NAMES)
    torch.manual_seed(5)
    first, _ = fit_to_classes(one, dict(NAMES))
    torch.manual_seed(5)
    second, _ = fit_to_classes(other, dict(NAMES))
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())
