"""Settings: one line a mistake, text from the command line becomes values, and every setting is described."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from fiftyone_yoloseg import config
from fiftyone_yoloseg.config import ExportSettings, PredictSettings, Settings, TrainSettings, ValSettings, parse, problems
from fiftyone_yoloseg.errors import SettingsError

MODELS = [m for _, m in inspect.getmembers(config, inspect.isclass) if issubclass(m, Settings) and m is not Settings]


def message(model: type[Settings], **values: Any) -> str:
    with pytest.raises(SettingsError) as error:
        parse(model, values)
    return str(error.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("epoch", "epochs"),
        ("imgsize", "imgsz"),
        ("lr_0", "lr0"),
        ("fliplf", "fliplr"),
        ("batch_size", "batch"),
        ("copypaste", "copy_paste"),
        ("wieght_decay", "weight_decay"),
    ],
)
def test_an_unknown_key_names_the_nearest(typed: str, meant: str) -> None:
    assert message(TrainSettings, **{typed: 1}) == f"unknown setting {typed!r}: did you mean {meant!r}?"


def test_a_key_like_no_other_lists_all() -> None:
    assert message(ValSettings, zzzzzz=1).startswith("unknown setting 'zzzzzz' (known: device, conf, iou,")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0), ("epochs", "many"), ("epochs", 1.5), ("batch", 0), ("batch", -2), ("imgsz", 16), ("imgsz", 100_000), ("workers", -1), ("patience", -1),
        ("seed", -1), ("freeze", 23), ("freeze", -1), ("optimizer", "Lion"), ("lr0", 0), ("lr0", -0.1), ("lrf", 0), ("lrf", 1.5), ("momentum", 1),
        ("weight_decay", -1), ("warmup_epochs", -1), ("warmup_momentum", 1.5), ("box", -1), ("cls", "x"), ("dfl", -0.5), ("mask_ratio", 3), ("hsv_h", 1.1),
        ("hsv_s", -0.1), ("degrees", 200), ("translate", 2), ("scale", 1), ("scale", -0.1), ("shear", 90), ("perspective", 0.01), ("flipud", 2), ("fliplr", -1),
        ("mosaic", 1.01), ("mixup", -0.01), ("copy_paste", 5), ("close_mosaic", -1), ("name", "a/b"), ("name", ""), ("amp", "perhaps"), ("amp", "fp32"), ("cache", "tape"), ("cache_gb", 0), ("time", 0), ("val_period", 0), ("save_period", -2), ("multi_scale", 1),
        ("rect", "x"), ("instance_masks", "both"), ("compile", 3), ("channels_last", "?"), ("nbs", 0), ("lr0", float("nan")),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_one_line(key: str, value: Any) -> None:
    text = message(TrainSettings, **{key: value})
    assert text.startswith(f"{key}={value!r}: ") and "\n" not in text and "pydantic" not in text
    assert list(problems(TrainSettings, {key: value})) == [key]


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [(PredictSettings, "conf", 1.1), (PredictSettings, "iou", -0.1), (PredictSettings, "max_det", 0), (PredictSettings, "vid_stride", 0), (PredictSettings, "classes", "a"),
     (ValSettings, "split", "dev"), (ValSettings, "batch", 0), (ExportSettings, "opset", 12), (ExportSettings, "opset", 24), (ExportSettings, "tolerance", 0)],
)  # fmt: skip
def test_the_other_settings_have_ranges_too(model: type[Settings], key: str, value: Any) -> None:
    assert message(model, **{key: value}).startswith(f"{key}={value!r}: ")


def test_several_mistakes_are_several_lines() -> None:
    lines = message(TrainSettings, epochs=0, epoch=1, lrf=2).splitlines()
    assert len(lines) == 3 and {line.split("=")[0].split(":")[0] for line in lines} == {"epochs", "lrf", "unknown setting 'epoch'"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("640", (640, 640)),
        ("480,640", (480, 640)),
        ("480x640", (480, 640)),
        ("[480, 640]", (480, 640)),
        ((480, 640), (480, 640)),
        ([96], (96, 96)),
        (640, (640, 640)),
        (650, (672, 672)),
        (32, (32, 32)),
    ],
)
def test_forms_of_imgsz(value: Any, expected: tuple[int, int]) -> None:
    assert parse(PredictSettings, {"imgsz": value}).imgsz == expected


@pytest.mark.parametrize("value", ["abc", 0, "0", -64, 31, 8193, "640,640,640", "", 640.5, True, [64, "x"], [], {"a": 1}])
def test_forms_that_are_no_imgsz(value: Any) -> None:
    assert message(PredictSettings, imgsz=value) == f"imgsz={value!r}: must be one number or height,width, each from 32 to 8192"


def test_training_takes_squares() -> None:
    assert parse(TrainSettings, {"imgsz": "650"}).imgsz == 672 and parse(TrainSettings, {"imgsz": "320,320"}).imgsz == 320
    assert "training uses square images" in message(TrainSettings, imgsz="480,640")


def test_text_from_the_command_line_becomes_values() -> None:
    typed = {
        "epochs": "5",
        "lr0": "1e-3",
        "amp": "False",
        "cos_lr": "true",
        "data": "a/b.yaml",
        "mask_ratio": "2",
        "seed": "0",
        "device": "cpu",
        "imgsz": "64",
        "patience": "0",
    }
    got = parse(TrainSettings, typed)
    assert (got.epochs, got.lr0, got.amp, got.cos_lr, got.data, got.mask_ratio, got.seed, got.device, got.imgsz) == (
        5,
        1e-3,
        False,
        True,
        Path("a/b.yaml"),
        2,
        0,
        "cpu",
        64,
    )
    for value, expected in (("0,2", (0, 2)), ("[0, 2]", (0, 2)), ("1", (1,)), (1, (1,)), ([1, 2], (1, 2)), (None, None)):
        assert parse(PredictSettings, {"classes": value}).classes == expected
    assert parse(PredictSettings, {"device": 0}).device == "0"


def test_settings_cannot_change_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainSettings().epochs = 3


def test_settings_survive_the_checkpoint() -> None:
    for model in (TrainSettings, PredictSettings, ValSettings, ExportSettings):
        settings = model()
        assert model(**settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_every_setting_is_described(model: type[Settings]) -> None:
    for name, field in model.model_fields.items():
        assert field.description and len(field.description) > 5 and not field.description.endswith("."), name
    assert model.__doc__


def test_defaults_are_the_recipe() -> None:
    s = TrainSettings()
    assert (s.epochs, s.batch, s.imgsz, s.patience, s.lr0, s.lrf, s.momentum, s.weight_decay) == (
        100,
        16,
        640,
        100,
        0.01,
        0.01,
        0.937,
        0.0005,
    )
    assert (s.warmup_epochs, s.warmup_momentum, s.warmup_bias_lr, s.box, s.cls, s.dfl, s.close_mosaic) == (3.0, 0.8, 0.1, 7.5, 0.5, 1.5, 10)
    assert (s.hsv_h, s.hsv_s, s.hsv_v, s.translate, s.scale, s.fliplr, s.mosaic, s.mixup, s.copy_paste) == (
        0.015,
        0.7,
        0.4,
        0.1,
        0.5,
        0.5,
        1.0,
        0.0,
        0.0,
    )
    assert (PredictSettings().conf, PredictSettings().iou, PredictSettings().max_det, ValSettings().conf) == (0.25, 0.7, 300, 0.001)
