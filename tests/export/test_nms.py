"""ONNX with NMS and masks inside: the same objects as the network with our NMS, in ONNX Runtime and through predict."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from fiftyone_yoloseg import YOLO
from fiftyone_yoloseg.config import ExportSettings, PredictSettings, parse
from fiftyone_yoloseg.data.images import read_image
from fiftyone_yoloseg.engine.checkpoint import Checkpoint, load_checkpoint
from fiftyone_yoloseg.engine.predictor import Predictor
from fiftyone_yoloseg.engine.torch_backend import TorchBackend
from fiftyone_yoloseg.export import Samples, export_here
from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.runtime import load_backend


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_export(checkpoint: Checkpoint, folder: Path, **settings: Any) -> Path:
    return export_here(checkpoint, parse(ExportSettings, {"nms": True, "output": folder / "a.onnx", **settings})).path


@pytest.mark.parametrize("options", [{"opset": 13}, {"opset": 20, "batch": 2}, {"dynamic": True}, {"half": True}, {"max_det": 5}])
def test_runs_and_is_verified(lively_checkpoint: Checkpoint, tmp_path: Path, options: dict[str, Any]) -> None:
    path = run_export(lively_checkpoint, tmp_path, imgsz=(64, 96), **options)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [o.name for o in model.graph.output] == ["output0", "output1", "masks"]
    info = load_backend(path, "cpu").info
    assert info.least_conf == 0.25 and info.names == lively_checkpoint.names


@pytest.mark.parametrize("dynamic", [False, True])
def test_predicts_what_torch_predicts(test_data: Path, tmp_path: Path, dynamic: bool) -> None:
    checkpoint = load_checkpoint(test_data / "peer" / "yolov8n-seg-shapes.pt")
    files = sorted((test_data / "shapes/images/val").iterdir())[:12]
    settings = parse(ExportSettings, {"nms": True, "output": tmp_path, "dynamic": dynamic, "iou": 0.5})
    report = export_here(checkpoint, settings, Samples(files))
    assert report.predictions_matched == report.predictions >= 20
    backend, pictures = load_backend(report.path, "cpu"), [read_image(f) for f in files]
    wanted = PredictSettings(iou=0.5, batch=1, rect=dynamic)
    ours, theirs = (
        Predictor(b, wanted).instances(pictures) for b in (backend, TorchBackend(checkpoint.net, checkpoint.info, torch.device("cpu")))
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a.classes.tolist() == b.classes.tolist()
        np.testing.assert_allclose(a.boxes, b.boxes, atol=0.01)
        np.testing.assert_allclose(a.confidences, b.confidences, atol=1e-4)
        assert all(masks.iou([x], [y])[0, 0] > 0.99 for x, y in zip(a.masks, b.masks, strict=True))


def test_outputs_by_hand(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Places are filled by falling confidence; behind them are zeros. Masks are the sign of coefficients x prototypes inside the boxes."""
    path = run_export(lively_checkpoint, tmp_path, imgsz=96, batch=2, conf=0.6, iou=0.4)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(3)).numpy()
    found, protos, bitmaps = session.run(["output0", "output1", "masks"], {"images": x})
    assert found.shape[0] == 2 and found.shape[2] == 38 and bitmaps.shape == (*found.shape[:2], 24, 24) and bitmaps.dtype == np.uint8
    for objects, proto, images in zip(found, protos, bitmaps, strict=True):
        count = int((objects[:, 4] > 0).sum())
        assert 0 < count < len(objects) and not objects[count:].any() and not images[count:].any()
        assert (np.diff(objects[:count, 4]) <= 0).all() and (objects[:count, 4] > 0.6).all()
        centres = np.arange(2, 96, 4)
        for (x1, y1, x2, y2, *_), coefficients, image in zip(objects[:count], objects[:count, 6:], images[:count], strict=True):
            logits = np.tensordot(coefficients, proto, 1)
            inside = ((centres > y1) & (centres < y2))[:, None] & ((centres > x1) & (centres < x2))[None]
            sure = np.abs(logits) > 1e-4
            assert (image[sure] == ((logits > 0) & inside)[sure]).all()


def test_a_lower_confidence_is_said_to_have_no_effect(
    lively_checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = run_export(lively_checkpoint, tmp_path, imgsz=64, conf=0.5)
    with caplog.at_level(logging.WARNING, "fiftyone_yoloseg"):
        model = YOLO(path)
        model(np.zeros((64, 64, 3), np.uint8), conf=0.6)
        assert not caplog.messages
        model(np.zeros((64, 64, 3), np.uint8), conf=0.1)
    assert caplog.messages == ["conf=0.1: the model was exported with nms=true and conf=0.5, and finds nothing below that"]
