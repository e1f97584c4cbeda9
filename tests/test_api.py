"""The four uses in Python - train, val, predict, export - and what each of them refuses."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fiftyone_yoloseg import YOLO
from fiftyone_yoloseg.config import PredictSettings
from fiftyone_yoloseg.data.images import read_image
from fiftyone_yoloseg.engine.events import TrainResult
from fiftyone_yoloseg.errors import CheckpointError, DataError, ExportError, SettingsError
from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.results import Results
from fiftyone_yoloseg.types import RawOutput

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
TINY = {"epochs": 1, "imgsz": 32, "batch": 4, "workers": 0, "device": "cpu", "plots": False}


@pytest.fixture(scope="module")
def trained(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[YOLO, TrainResult]:
    model = YOLO("yolov8n-seg.yaml")
    return model, model.train(data=tiny_dataset, project=tmp_path_factory.mktemp("runs"), **TINY)


@pytest.fixture(scope="module")
def lively(lively_file: Path) -> YOLO:
    return YOLO(lively_file)


def image_of(tiny_dataset: Path, number: int = 0) -> Path:
    return tiny_dataset.parent / "images" / "val" / f"{number}.png"


def test_train(trained: tuple[YOLO, TrainResult], tiny_dataset: Path) -> None:
    model, result = trained
    assert result.best.is_file() and result.last.is_file() and (result.dir / "results.csv").is_file()
    assert result.metrics is not None and model.path == result.best
    assert list(model.names.values()) == ["disc", 'it\'s a "square"', "star"], "the model is now the best checkpoint"
    assert model.checkpoint is not None and model.checkpoint.train_args["data"] == str(tiny_dataset)


def test_val_remembers_data_and_size(trained: tuple[YOLO, TrainResult]) -> None:
    model, result = trained
    metrics = YOLO(result.best).val(workers=0, device="cpu")
    assert metrics.images == 3 and result.metrics is not None
    assert metrics.results_dict == pytest.approx(result.metrics.results_dict, nan_ok=True)
    assert model.val(split="train", workers=0).images == 6


def test_val_of_a_model_trained_with_a_single_class(tiny_dataset: Path, tmp_path: Path) -> None:
    model = YOLO("yolov8n-seg.yaml")
    model.train(data=tiny_dataset, project=tmp_path, single_cls=True, **TINY)
    assert model.names == {0: "object"}
    metrics = model.val(workers=0)
    assert metrics.names == {0: "object"} and metrics.objects_per_class.tolist() == [metrics.objects] and metrics.objects == 6


def test_an_interrupted_training_goes_on(tiny_dataset: Path, tmp_path: Path) -> None:
    model = YOLO("yolov8n-seg.yaml")
    first = model.train(data=tiny_dataset, project=tmp_path, **{**TINY, "epochs": 2}, should_stop=lambda: any(tmp_path.rglob("last.pt")))
    assert first.stopped and first.epochs == 1
    second = YOLO(first.last).train(resume=True)
    assert (second.dir, second.epochs, second.stopped) == (first.dir, 2, False)
    with pytest.raises(CheckpointError, match="nothing to resume"):
        YOLO(second.last).train(resume=True)


def test_net_gives_raw_outputs(lively: YOLO) -> None:
    with torch.no_grad():
        raw = lively.net(torch.rand(2, 3, 64, 96))
    assert isinstance(raw, RawOutput) and raw.pred.shape == (2, 4 + 3 + 32, 126) and raw.protos.shape == (2, 32, 16, 24)
    assert not lively.net.training


def test_predict(lively: YOLO, tiny_dataset: Path) -> None:
    path = image_of(tiny_dataset)
    (result,) = lively(path, conf=0.01, device="cpu")
    assert isinstance(result, Results) and result.path == str(path) and result.names == lively.names
    height, width = read_image(path).shape[:2]
    assert result.orig_shape == (height, width) and len(result) == len(result.boxes) == len(result.masks) > 0
    assert result.boxes.xyxy.shape == (len(result), 4) and result.boxes.conf.tolist() == sorted(result.boxes.conf.tolist(), reverse=True)
    assert result.masks.data.shape == (len(result), height, width) and result.masks.data.dtype == torch.bool
    assert set(result.speed) == {"preprocess", "inference", "postprocess"} and result.plot().shape == (height, width, 3)
    x1, y1, x2, y2 = (result.boxes.xyxy.T).tolist()
    assert min(x1 + y1) >= 0 and max(x2) <= width and max(y2) <= height
    for entry, crop in zip(result.to_coco(7), result.masks.crops, strict=True):
        assert (
            entry["image_id"] == 7
            and masks.from_coco_rle({**entry["segmentation"], "counts": entry["segmentation"]["counts"].encode()}) == crop
        )


def boxes(results: list[Results]) -> list[list[float]]:
    return [r.boxes.xyxy.flatten().tolist() for r in results]


def test_the_same_pixels_give_the_same_objects(lively: YOLO, tiny_dataset: Path) -> None:
    path = image_of(tiny_dataset)
    rgb = read_image(path)
    sources = [path, str(path), np.ascontiguousarray(rgb[..., ::-1]), Image.open(path), [path], str(path.parent / "0*.png")]
    expected = boxes(lively(path, conf=0.01))
    assert expected[0]
    for source in sources:
        assert boxes(lively(source, conf=0.01)) == expected
    assert boxes(lively(rgb, conf=0.01)) != expected, "arrays are BGR"


def test_stream_and_batches(lively: YOLO, tiny_dataset: Path) -> None:
    folder = image_of(tiny_dataset).parent
    plain = lively(folder, conf=0.01)
    assert [Path(r.path).name for r in plain] == ["0.png", "1.png", "2.png"]
    stream = lively(folder, conf=0.01, stream=True, batch=2)
    assert not isinstance(stream, list)
    for one, other in zip(boxes(list(stream)), boxes(plain), strict=True):
        assert one and np.allclose(one, other, atol=1e-2)


def test_a_broken_image_is_logged_and_left_out(lively: YOLO, tiny_dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(image_of(tiny_dataset), tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    shutil.copy(image_of(tiny_dataset), tmp_path / "c.png")
    logging.getLogger("fiftyone_yoloseg").propagate = True
    with caplog.at_level(logging.WARNING, "fiftyone_yoloseg"):
        for batch in (1, 3):
            assert [Path(r.path).name for r in lively(tmp_path, batch=batch)] == ["a.png", "c.png"]
    assert len([m for m in caplog.messages if "b.png" in m]) == 2
    with pytest.raises(DataError, match=r"none of the images can be read; the first: .*b\.png"):
        lively([tmp_path / "b.png"])


@pytest.mark.parametrize("dynamic", [False, True])
def test_export_gives_the_same_objects(lively_file: Path, tiny_dataset: Path, tmp_path: Path, dynamic: bool) -> None:
    shutil.copy(lively_file, tmp_path / "best.pt")
    model = YOLO(tmp_path / "best.pt")
    path = model.export(format="onnx", dynamic=dynamic, simplify=False)
    assert path == tmp_path / "best.onnx"
    exported = YOLO(path)
    assert exported.names == model.names
    folder = image_of(tiny_dataset).parent
    for ours, theirs in zip(model(folder, conf=0.05, rect=False), exported(folder, conf=0.05, rect=False), strict=True):
        assert len(ours) == len(theirs) > 0 and ours.boxes.cls.tolist() == theirs.boxes.cls.tolist()
        assert torch.allclose(ours.boxes.xyxy, theirs.boxes.xyxy, atol=0.05) and torch.allclose(
            ours.boxes.conf, theirs.boxes.conf, atol=1e-4
        )
        for a, b in zip(ours.masks.crops, theirs.masks.crops, strict=True):
            assert masks.area(a) < 50 or masks.iou([a], [b])[0, 0] > 0.97
    metrics, expected = exported.val(data=tiny_dataset, workers=0), model.val(data=tiny_dataset, workers=0)
    if dynamic:
        assert metrics.results_dict == pytest.approx(expected.results_dict, abs=1e-3, nan_ok=True)
    with pytest.raises(CheckpointError, match="cannot be trained; use the .pt file"):
        exported.train(data=tiny_dataset)
    with pytest.raises(CheckpointError, match="cannot be exported again"):
        exported.export()
    with pytest.raises(CheckpointError, match="no torch network"):
        _ = exported.net


def test_report_of_an_export(lively: YOLO, tmp_path: Path) -> None:
    report = lively.export_report(output=tmp_path, simplify=False)
    first, second, third = report.summary().splitlines()
    assert first.startswith(f"onnx {tmp_path / 'best.onnx'} (") and first.endswith(" MB)")
    assert (
        "same answers as the network on " in second
        and "boxes_px" in second
        and f"{report.predictions_matched} of {report.predictions} predictions" in second
    )
    assert third.startswith(f"{report.latency_ms:.1f} ms a batch of 1, torch ")


def test_models_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    for wrong, message in (
        ("nothing.pt", "no such file"),
        ("nothing.onnx", "no such file"),
        ("yolov8n-seg.pt", "We ship no weights"),
        ("yolov9.yaml", "no such file"),
        (tmp_path / "a.txt", "no backend"),
        (tmp_path, "no backend"),
    ):
        with pytest.raises(CheckpointError, match=message):
            YOLO(wrong)


def test_settings_that_are_wrong(lively: YOLO, tiny_dataset: Path, lively_file: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean 'epochs'"):
        lively.train(data=tiny_dataset, epoch=1)
    with pytest.raises(SettingsError, match="which dataset"):
        YOLO(lively_file).train()
    with pytest.raises(SettingsError, match="remembers no dataset"):
        YOLO(lively_file).val()
    with pytest.raises(SettingsError, match="conf=2"):
        lively(image_of(tiny_dataset), conf=2)
    with pytest.raises(SettingsError, match="device='tpu'"):
        lively(image_of(tiny_dataset), device="tpu")
    with pytest.raises(SettingsError, match="device="):
        lively(image_of(tiny_dataset), device="cuda:99")


def test_classes_that_do_not_match(lively: YOLO, tiny_dataset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(f"path: {tiny_dataset.parent}\ntrain: images/train\nval: images/val\nnames: [disc, ring, star]\n")
    with pytest.raises(DataError, match="the classes differ: .*'ring'"):
        lively.val(data=other, workers=0)


def test_several_formats_do_not_lose_each_other(lively_file: Path, tmp_path: Path) -> None:
    shutil.copy(lively_file, tmp_path / "best.pt")
    model = YOLO(tmp_path / "best.pt")
    assert model.export(format=["torchscript", "onnx"], imgsz=64) == [tmp_path / "best.torchscript", tmp_path / "best.onnx"]
    (tmp_path / "best.torchscript").unlink()
    with pytest.raises(ExportError, match=r"torchscript: opset=17 with format=torchscript: .*\. Written: .*best\.onnx"):
        model.export(format=["torchscript", "onnx"], imgsz=64, opset=17)
    assert model.export(format="torchscript,onnx", imgsz=64) == [tmp_path / "best.torchscript", tmp_path / "best.onnx"]
    with pytest.raises(SettingsError, match=r"one format at a time here; YOLO\.export and"):
        model.export_report(format="torchscript,onnx")
    with pytest.raises(SettingsError, match=r"half=true: is for checkpoints; best\.onnx is exported"):
        YOLO(tmp_path / "best.onnx")(np.zeros((64, 64, 3), np.uint8), half=True)
    assert model.export(["onnx"], imgsz=64) == model.export("onnx,", imgsz=64) == [tmp_path / "best.onnx"], "a list of one is a list"
    assert model.export("onnx", imgsz=64) == tmp_path / "best.onnx"
    with pytest.raises(SettingsError, match="format='onxx' is unknown: did you mean 'onnx'"):
        model.export("torchscript,onxx", imgsz=64)
    (tmp_path / "best.torchscript").unlink()
    table = model.export_table(format=["torchscript", "onnx"], imgsz=64, opset=17)
    assert [row.verdict for row in table.rows] == ["failed", "verified"] and len(table.failed) == 1


def test_the_fastest_runtime_is_chosen(lively_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the reports beside the checkpoint; only what gives torch's answers on this machine counts."""
    import json

    shutil.copy(lively_file, tmp_path / "best.pt")
    image = np.zeros((64, 64, 3), np.uint8)
    path = YOLO(tmp_path / "best.pt").export(imgsz=64, dynamic=True)
    report = path.with_name("best.onnx.report.json")
    facts = json.loads(report.read_text())

    def chosen(**changed: object) -> str:
        report.write_text(json.dumps({**facts, "latency_ms": 1.0, "torch_latency_ms": 9.0, **changed}))
        model = YOLO(tmp_path / "best.pt")
        with caplog.at_level(logging.INFO, "fiftyone_yoloseg"):
            caplog.clear()
            model(image, runtime="auto", device="cpu", imgsz=64)
        assert sum("runtime=auto: " in m for m in caplog.messages) == 1
        (backend,) = model._backends.values()
        return type(backend).__name__

    assert chosen() == "OnnxBackend" and "runtime=auto: best.onnx, 1.0 ms a batch where torch takes 9.0" in caplog.text
    for reason in (
        {"latency_ms": 10.0},
        {"int8": True},
        {"verdict": "unverified"},
        {"machine": "another"},
        {"device": "cuda:0"},
        {"dynamic": False},
        {"checkpoint": {"path": None, "sha256": "0" * 64}},
        {"latency_ms": None},
        {"sha256": "0" * 64},
    ):
        assert chosen(**reason) == "TorchBackend", reason
    report.write_text("{")
    assert type(YOLO(tmp_path / "best.pt")._backend(PredictSettings(runtime="auto", device="cpu"))).__name__ == "TorchBackend"
    with pytest.raises(SettingsError, match="providers=CPUExecutionProvider: is for exported models"):
        YOLO(tmp_path / "best.pt")(image, providers="CPUExecutionProvider")
