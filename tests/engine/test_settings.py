"""Every setting of the training does something: changed alone, it changes what is trained, what is fed, or what is written."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import At, fresh, options, rows, same

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.data.augment import Augmenter
from fiftyone_yoloseg.data.loaders import train_loader
from fiftyone_yoloseg.data.store import ImageStore
from fiftyone_yoloseg.engine import prepare
from fiftyone_yoloseg.engine import trainer as trainer_module
from fiftyone_yoloseg.engine.checkpoint import load_checkpoint, save_checkpoint
from fiftyone_yoloseg.engine.devices import compiling, loader_workers, precision, select_device
from fiftyone_yoloseg.engine.optim import build_optimizer
from fiftyone_yoloseg.engine.stopping import StopRequests
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.engine.trainer import Trainer
from fiftyone_yoloseg.errors import SettingsError
from fiftyone_yoloseg.types import Batch, SegmentationData

OF_SAMPLES: dict[str, Any] = {
    "imgsz": 64, "hsv_h": 0.5, "hsv_s": 0.1, "hsv_v": 0.1, "degrees": 30.0, "translate": 0.4, "scale": 0.9, "shear": 20.0, "perspective": 0.001,
    "flipud": 1.0, "fliplr": 1.0, "mosaic": 0.0, "mixup": 1.0, "copy_paste": 1.0, "close_mosaic": 5, "seed": 7,
}  # fmt: skip
"""Changes of what the network is fed, from calm settings."""
OF_TRAINING: dict[str, Any] = {
    "epochs": 4, "batch": 8, "seed": 1, "lr0": 0.02, "lrf": 0.5, "cos_lr": True, "momentum": 0.5, "weight_decay": 0.5, "warmup_epochs": 0.0, "warmup_momentum": 0.1,
    "warmup_bias_lr": 0.01, "nbs": 400, "box": 1.0, "cls": 5.0, "dfl": 9.0, "instance_masks": "exclusive", "mask_ratio": 2, "freeze": 3, "amp": "bf16",
    "single_cls": True, "multi_scale": 0.5, "rect": True,
}  # fmt: skip
"""Changes of the weights after two short epochs of SGD."""
ELSEWHERE = {
    "data": "tests/test_api.py::test_train",
    "time": "tests/engine/test_settings.py::test_time",
    "workers": "tests/data/test_augment.py::test_batches_do_not_depend_on_the_number_of_workers",
    "cache": "tests/engine/test_settings.py::test_cache",
    "cache_gb": "tests/engine/test_settings.py::test_cache",
    "project": "tests/engine/test_trainer.py::test_a_second_run_gets_a_folder_of_its_own",
    "name": "tests/engine/test_trainer.py::test_a_second_run_gets_a_folder_of_its_own",
    "exist_ok": "tests/engine/test_trainer.py::test_a_second_run_gets_a_folder_of_its_own",
    "resume": "tests/engine/test_resume.py::test_stopping_anywhere_changes_nothing",
    "deterministic": "tests/engine/test_settings.py::test_deterministic",
    "val": "tests/engine/test_trainer.py::test_without_validation_the_last_epoch_is_the_best",
    "val_period": "tests/engine/test_settings.py::test_periods",
    "save_period": "tests/engine/test_settings.py::test_periods",
    "patience": "tests/engine/test_trainer.py::test_patience",
    "channels_last": "tests/engine/test_settings.py::test_channels_last",
    "compile": "tests/engine/test_settings.py::test_compile",
    "device": "tests/engine/test_settings.py::test_device",
    "optimizer": "tests/engine/test_settings.py::test_optimizers",
    "plots": "tests/engine/test_plots.py::test_drawing_changes_nothing",
    "pinned": "tests/engine/test_distributed.py::test_a_training_of_one_process_goes_on_with_two",
    "dynamics": "tests/engine/test_dynamics.py::test_a_run_records_its_training_objects_and_goes_on",
    "sync_bn": "tests/engine/test_distributed.py::test_batch_norms_in_training_can_be_those_of_the_whole_batch",
    "engine": "tests/engine/test_ray.py::test_a_training_has_the_numbers_of_one_process_is_heard_stops_and_goes_on",
    "ray_workers": "tests/engine/test_ray.py::test_a_training_has_the_numbers_of_one_process_is_heard_stops_and_goes_on",
    "loggers": "tests/engine/test_loggers.py::test_a_training_takes_its_plots_with_it",
}
REPO = Path(__file__).resolve().parents[2]


def test_no_setting_is_forgotten() -> None:
    assert set(OF_SAMPLES) | set(OF_TRAINING) | set(ELSEWHERE) == set(TrainSettings.model_fields)
    for where in ELSEWHERE.values():
        file, _, test = where.partition("::")
        assert f"def {test}(" in (REPO / file).read_text(), where


@pytest.fixture(scope="module")
def samples(shapes_data: SegmentationData) -> Iterator[Any]:
    records = shapes_data.splits["train"]

    def draw(**changes: Any) -> list[Any]:
        calm = {"imgsz": 96, "mosaic": 1.0, "copy_paste": 0.0, "fliplr": 0.0, "epochs": 10, "close_mosaic": 0}
        settings = TrainSettings(**{**calm, **changes})
        augment = Augmenter(records, ImageStore(records, settings.imgsz, 1 << 26), settings)
        made = [augment(8, i) for i in range(4)]
        return [[torch.from_numpy(s.image.copy()), [(t.cls, t.box, torch.from_numpy(t.soft)) for t in s.targets]] for s in made]

    yield draw


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_settings_of_samples(samples: Any, name: str) -> None:
    plain = samples()
    assert same(plain, samples()) and not same(plain, samples(**{name: OF_SAMPLES[name]}))


@pytest.fixture(scope="module")
def trained_weights(shapes_data: SegmentationData, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    project = tmp_path_factory.mktemp("runs")

    def weights(**changes: Any) -> dict[str, torch.Tensor]:
        settings = options(project, **{"optimizer": "SGD", "epochs": 3, "imgsz": 64, "mosaic": 0.0, "warmup_epochs": 0.1, **changes})
        names, training, validation = prepare.choose_splits(shapes_data, settings)
        with prepare.run_folder(settings, None) as folder:
            run = Trainer(fresh(shapes_data), names, training, validation, settings, folder, "")
            run.stop = StopRequests(folder, lambda: False)
            for epoch in range(2):
                run._epoch(epoch, lambda share, label: None)
                run.at = trainer_module.Position(epoch + 1)
        return {k: v for k, v in run.net.state_dict().items() if not k.endswith("num_batches_tracked")}

    yield weights


@pytest.fixture(scope="module")
def plain_weights(trained_weights: Any) -> dict[str, torch.Tensor]:
    return trained_weights()  # type: ignore[no-any-return]


def test_without_a_change_there_is_no_difference(trained_weights: Any, plain_weights: dict[str, torch.Tensor]) -> None:
    assert same(plain_weights, trained_weights())


@pytest.mark.parametrize("name", OF_TRAINING)
def test_settings_of_training(trained_weights: Any, plain_weights: dict[str, torch.Tensor], name: str) -> None:
    assert not same(plain_weights, trained_weights(**{name: OF_TRAINING[name]}))


def test_optimizers(trained_weights: Any, plain_weights: dict[str, torch.Tensor]) -> None:
    results = [plain_weights, *(trained_weights(optimizer=name) for name in ("auto", "Adam", "AdamW", "RMSProp"))]
    assert not any(same(a, b) for i, a in enumerate(results) for b in results[:i])
    recipe = trainer_module.resolve(TrainSettings(optimizer="RMSProp", momentum=0.7, lr0=0.003), 100, 3)
    got = build_optimizer(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1)), recipe, 0.5)
    assert isinstance(got, torch.optim.RMSprop) and (got.defaults["lr"], got.defaults["momentum"]) == (0.003, 0.7)
    assert [g["weight_decay"] for g in got.param_groups] == [0, 0.5, 0]
    schedule = trainer_module.Schedule(TrainSettings(optimizer="RMSProp", warmup_momentum=0.2), recipe, 50)
    schedule.apply(got, 0)
    assert {g["momentum"] for g in got.param_groups} == {0.2}


# one at a time


def test_time(shapes_data: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A clock by which each epoch takes 100 s: 360 s have room for three, at whose end the rate is that of a schedule of three."""
    epochs_done: list[int] = []
    original = Trainer._epoch

    def epoch(self: Trainer, number: int, *rest: Any) -> list[float]:
        losses = original(self, number, *rest)
        epochs_done.append(number)
        return losses

    monkeypatch.setattr(Trainer, "_epoch", epoch)
    monkeypatch.setattr(Trainer, "seconds", lambda self: 100.0 * len(epochs_done))
    plan: dict[str, Any] = {"optimizer": "SGD", "warmup_epochs": 0, "val": False, "lrf": 0.1, "close_mosaic": 1}
    with caplog.at_level(logging.INFO):
        limited = train(fresh(shapes_data), shapes_data, options(tmp_path, epochs=50, time=0.1, **plan))
    assert (limited.epochs, limited.stopped) == (3, False) and limited.metrics is not None
    assert load_checkpoint(limited.last).train is None
    told = [r.getMessage() for r in caplog.records]
    assert "time=0.1: room for 3 epochs in all" in told and any("epoch 3: mosaic, mixup and copy-paste are off" in line for line in told)
    epochs_done.clear()
    three = train(fresh(shapes_data), shapes_data, options(tmp_path, epochs=3, **plan))
    assert rows(limited.dir)[2]["lr/pg0"] == rows(three.dir)[2]["lr/pg0"] and rows(limited.dir)[2]["metrics/mAP50-95(M)"] != ""
    epochs_done.clear()
    assert train(fresh(shapes_data), shapes_data, options(tmp_path, epochs=50, time=0.01, **plan)).epochs == 1, "one epoch at least"


def test_periods(shapes_data: SegmentationData, tmp_path: Path) -> None:
    result = train(fresh(shapes_data), shapes_data, options(tmp_path, epochs=5, val_period=2, save_period=2, patience=1))
    validated = [row["metrics/mAP50-95(M)"] != "" for row in rows(result.dir)]
    assert validated[:2] == [False, True] and validated == [False, True, False, True, True][: len(validated)]
    assert result.best_epoch in (2, 4, 5) and result.metrics is not None
    kept = sorted(p.name for p in (result.dir / "weights").iterdir())
    assert kept == ["best.pt", *(f"epoch{n}.pt" for n in (2, 4) if n <= result.epochs), "last.pt"]
    fourth = load_checkpoint(result.dir / "weights" / "epoch2.pt")
    assert fourth.train is None and fourth.metrics and fourth.names == dict(shapes_data.names)
    none = train(fresh(shapes_data), shapes_data, options(tmp_path, epochs=2, save_period=-1, val_period=9), **At(2, 1).stop)
    assert (none.best_epoch, sorted(p.name for p in (none.dir / "weights").iterdir())) == (1, ["best.pt", "last.pt"]), (
        "without a validated epoch the latest is the best"
    )


def test_cache(shapes_data: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How often images are decoded in two epochs, and what lies on the disk after them; the numbers stay the same."""
    from fiftyone_yoloseg.data import store

    monkeypatch.setenv("YOLOSEG_CACHE_DIR", str(tmp_path / "cache"))
    decoded: list[Path] = []
    original = store.read_image
    monkeypatch.setattr(store, "read_image", lambda path: decoded.append(path) or original(path))

    def run(**changes: Any) -> tuple[int, Any]:
        decoded.clear()
        result = train(fresh(shapes_data), shapes_data, options(tmp_path / "runs", mosaic=0.0, val=False, **changes))
        return len(decoded), torch.load(result.last, weights_only=True)["model"]

    def on_disk() -> int:
        return len(list((tmp_path / "cache").rglob("*.npy")))

    one_image = 3 * 32 * 32 / 1e9
    (ram, weights), (none, other), (some, third) = run(cache=True), run(cache="false"), run(cache="ram", cache_gb=3 * one_image)
    assert (ram, none) == (8, 16) and 8 < some < 16 and on_disk() == 0
    (first, fourth), (second, fifth) = run(cache="disk"), run(cache="disk")
    assert (first, second, on_disk()) == (8, 0, 8)
    assert all(same(weights, w) for w in (other, third, fourth, fifth))
    few, _ = run(cache="disk", cache_gb=3 * one_image, imgsz=64)
    assert few > 8 and sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*.npy")) <= 3 * one_image * 1e9
    with pytest.raises(SettingsError, match="cache_gb=1: there is no cache to limit"):
        trainer_parse(cache=False, cache_gb=1)


def trainer_parse(**values: Any) -> TrainSettings:
    from fiftyone_yoloseg.config import parse

    return parse(TrainSettings, values)


def test_deterministic(shapes_data: SegmentationData, tmp_path: Path) -> None:
    for wanted in (True, False):
        seen: list[tuple[bool, bool]] = []
        look = At(1, 1, lambda seen=seen: seen.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark)))  # type: ignore[misc]
        train(fresh(shapes_data), shapes_data, options(tmp_path, deterministic=wanted), **look.stop)
        assert seen == [(wanted, not wanted)]
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("wanted", [True, False])
def test_channels_last(shapes_data: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    orders: list[tuple[bool, bool]] = []
    original = Trainer._backward

    def look(self: Trainer, batch: Batch) -> torch.Tensor:
        heads = self.forward

        def forward(images: torch.Tensor) -> Any:
            weight = self.net.model[1].conv.weight
            orders.append(tuple(t.is_contiguous(memory_format=torch.channels_last) for t in (images, weight)))  # type: ignore[arg-type]
            return heads(images)

        with monkeypatch.context() as patch:
            patch.setattr(self, "forward", forward)
            return original(self, batch)

    monkeypatch.setattr(Trainer, "_backward", look)
    train(fresh(shapes_data), shapes_data, options(tmp_path, channels_last=wanted), **At(1, 1).stop)
    assert orders == [(wanted, wanted)]


@pytest.mark.parametrize(("amp", "dtype"), [("true", torch.float32), ("bf16", torch.bfloat16), ("false", torch.float32)])
def test_amp_is_the_type_of_the_forward_pass(
    shapes_data: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amp: str, dtype: torch.dtype
) -> None:
    seen: list[torch.dtype] = []
    original = trainer_module.SegmentationLoss.__call__
    monkeypatch.setattr(
        trainer_module.SegmentationLoss, "__call__", lambda self, out, batch: seen.append(out.protos.dtype) or original(self, out, batch)
    )
    result = train(fresh(shapes_data), shapes_data, options(tmp_path, amp=amp), **At(1, 2).stop)
    assert seen == [dtype] * 2
    assert {v.dtype for v in torch.load(result.last, weights_only=True)["train"]["weights"].values()} == {torch.float32, torch.int64}


def test_types_of_mixed_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda:0")
    assert [precision(amp, cpu) for amp in (True, False, "bf16")] == [None, None, torch.bfloat16]
    with pytest.raises(SettingsError, match="amp=fp16: only on a GPU"):
        precision("fp16", cpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert [precision(amp, gpu) for amp in (True, False, "fp16", "bf16")] == [torch.float16, None, torch.float16, torch.bfloat16]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
    with pytest.raises(SettingsError, match="an old GPU has no bfloat16"):
        precision("bf16", gpu)


def test_device() -> None:
    assert select_device("cpu") == torch.device("cpu") and loader_workers(3, torch.device("cpu")) == 3
    for name in ("tpu", "cuda:77", "meta"):
        with pytest.raises(SettingsError, match=f"device='{name}'"):
            select_device(name)


def test_compile(shapes_data: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole network goes through the compiler; one that fails is an error, not a slower training. (With a compiler that takes the
    graph and runs it as it is: the real one takes minutes here.)"""
    graphs: list[int] = []

    def compiler(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(sum(node.op == "call_function" or node.op == "call_module" for node in graph.graph.nodes))
        return graph.forward

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **how: real(f, backend=compiler, **how))
    plan = {"mosaic": 0.0, "imgsz": 64}
    with_it = train(fresh(shapes_data), shapes_data, options(tmp_path, compile=True, **plan), **At(1, 2).stop)
    assert len(graphs) == 1 and graphs[0] > 100, "one graph, nothing left out of it"
    without = train(fresh(shapes_data), shapes_data, options(tmp_path, **plan), **At(1, 2).stop)
    one, other = (torch.load(r.last, weights_only=True)["train"]["weights"] for r in (with_it, without))
    assert all(torch.allclose(v, other[k], atol=1e-5) for k, v in one.items()) and list(one) == list(other)

    def broken(*_: Any) -> Any:
        raise RuntimeError("no C++ compiler found")

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda f, **how: real(f, backend=broken, **how))
    with pytest.raises(SettingsError, match=r"compile=true: torch cannot compile the network here .*no C\+\+ compiler.*compile=false"):
        train(fresh(shapes_data), shapes_data, options(tmp_path / "none", compile=True))
    assert list((tmp_path / "none").iterdir()) == []
    with pytest.raises(ZeroDivisionError), compiling(True):
        raise ZeroDivisionError


# what goes together


def test_overlap_mask_is_another_name_of_instance_masks() -> None:
    for value, meant in ((True, "exclusive"), ("true", "exclusive"), ("False", "independent"), (0, "independent")):
        assert trainer_parse(overlap_mask=value).instance_masks == meant
    assert trainer_parse(overlap_mask=True, instance_masks="exclusive").instance_masks == "exclusive"
    assert "overlap_mask" not in trainer_parse(overlap_mask=True).model_dump()
    for wrong, message in (
        (
            {"overlap_mask": True, "instance_masks": "independent"},
            "instance_masks='independent' contradicts overlap_mask=True: give one of them",
        ),
        ({"overlap_mask": "perhaps"}, "overlap_mask='perhaps': must be true or false"),
    ):
        with pytest.raises(SettingsError) as error:
            trainer_parse(**wrong)
        assert str(error.value) == message


def test_rect_turns_mosaic_off_on_record_and_refuses_it_where_asked_for(shapes_data: SegmentationData, tmp_path: Path) -> None:
    assert trainer_parse(rect="true").mosaic == 0 and trainer_parse(rect=False).mosaic == 1
    again = trainer_parse(**trainer_parse(rect=True).model_dump(mode="json"))
    assert again.rect and again.mosaic == 0
    for name in ("mosaic", "mixup"):
        with pytest.raises(
            SettingsError, match=rf"rect=True: its batches hold single images of one shape, so {name}=0.5 is impossible: set {name}=0"
        ):
            trainer_parse(rect=True, **{name: 0.5})
    result = train(fresh(shapes_data), shapes_data, options(tmp_path, rect=True), **At(1, 1).stop)
    assert result.notes == ("rect: mosaic is off",)


def test_multi_scale_and_rect_reach_the_network(shapes_data: SegmentationData, tmp_path: Path) -> None:
    """(Sizes of batches have tests of their own in tests/data/test_batches.py.)"""
    loader, sampler = train_loader(shapes_data.splits["train"], TrainSettings(imgsz=96, batch=4, multi_scale=0.5))
    shapes = set()
    for sampler.epoch in range(6):
        shapes |= {tuple(batch.images.shape[2:]) for batch in loader}
    assert shapes == {(64, 64), (96, 96), (128, 128)}


def test_layers_that_start_anew_are_named(shapes_data: SegmentationData, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start = fresh(shapes_data)
    names = {0: "disc", 1: "cat"}
    save_checkpoint(tmp_path / "two.pt", fresh(SegmentationData(names, {})).net, names=names, imgsz=64, train_args={}, origin="")
    with caplog.at_level(logging.INFO):
        result = train(load_checkpoint(tmp_path / "two.pt"), shapes_data, options(tmp_path), **At(1, 1).stop)
    (note,) = result.notes
    assert note.endswith("these layers start anew: model.22.cv3.0.2, model.22.cv3.1.2, model.22.cv3.2.2")
    total = len(start.net.state_dict())
    assert f"{total - 6} of {total} tensors are kept" in note and note in [r.getMessage() for r in caplog.records]


def test_a_run_explains_itself(shapes_data: SegmentationData, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), contextlib.suppress(KeyboardInterrupt):
        result = train(fresh(shapes_data), shapes_data, options(tmp_path))
    told = "\n".join(r.getMessage() for r in caplog.records)
    for part in (
        "synthetic shapes: 8 training images (224x224 to 224x288, ",
        "3 validation images, 3 classes (disc, square, ring)",
        "YOLOv8n-seg on cpu in float32, images of 32 px, 2 batches of 4 an epoch, 2 epochs; AdamW at lr 0.001429 (auto: ",
        "memory: about 0.1 GB to train, up to ",
        f"best epoch {result.best_epoch} of 2, box mAP ",
        f"files in {result.dir}",
    ):
        assert part in told, (part, told)
    assert "resume=true" not in told and len(caplog.records) < 10
