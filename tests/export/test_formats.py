"""TorchScript and OpenVINO: each artifact in its own runtime against the network."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fiftyone_yoloseg.config import ExportSettings, PredictSettings, parse
from fiftyone_yoloseg.engine.checkpoint import Checkpoint, load_checkpoint
from fiftyone_yoloseg.engine.predictor import Predictor
from fiftyone_yoloseg.engine.torch_backend import TorchBackend
from fiftyone_yoloseg.errors import CheckpointError, MissingDependencyError, SettingsError
from fiftyone_yoloseg.export import ExportReport, Samples, export_here
from fiftyone_yoloseg.geometry import letterbox
from fiftyone_yoloseg.runtime import load_backend
from fiftyone_yoloseg.types import RawOutput

ENDINGS = {"torchscript": ".torchscript", "openvino": "_openvino_model"}
formats = pytest.mark.parametrize("kind", ENDINGS)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_export(checkpoint: Checkpoint, folder: Path, kind: str, pictures: Any = None, **settings: Any) -> ExportReport:
    output = folder / f"a{ENDINGS.get(kind, f'.{kind}')}"
    return export_here(checkpoint, parse(ExportSettings, {"format": kind, "output": output, **settings}), Samples(pictures or ()))


def largest_error(path: Path, checkpoint: Checkpoint, *shape: int) -> float:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        wanted = checkpoint.net(x)
    assert isinstance(wanted, RawOutput)
    found = load_backend(path, "cpu")(x)
    assert [t.dtype for t in found] == [torch.float32] * 2
    return max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True))


@formats
def test_static(lively_checkpoint: Checkpoint, tmp_path: Path, kind: str) -> None:
    report = run_export(lively_checkpoint, tmp_path, kind, imgsz=(64, 96), batch=2)
    assert (report.path.name, report.verified, report.opset) == (f"a{ENDINGS[kind]}", True, None)
    assert sorted(p.name for p in tmp_path.iterdir()) == [report.path.name, f"{report.path.name}.report.json"], "nothing else is left"
    assert largest_error(report.path, lively_checkpoint, 2, 3, 64, 96) < 1e-3
    backend = load_backend(report.path)
    assert (backend.info.names, backend.info.imgsz, backend.info.batch, backend.info.dynamic) == (
        lively_checkpoint.names, (64, 96), 2, False,
    )  # fmt: skip
    with pytest.raises(SettingsError, match=r"\(2, 3, 64, 96\) only, not \(1, 3, 64, 96\)"):
        backend(torch.rand(1, 3, 64, 96))


@formats
def test_dynamic(lively_checkpoint: Checkpoint, tmp_path: Path, kind: str) -> None:
    report = run_export(lively_checkpoint, tmp_path, kind, dynamic=True)
    for shape in ((1, 3, 96, 96), (3, 3, 64, 160), (2, 3, 32, 32)):
        assert largest_error(report.path, lively_checkpoint, *shape) < 1e-3, shape


@formats
def test_predicts_what_torch_predicts(test_data: Path, tmp_path: Path, kind: str) -> None:
    checkpoint = load_checkpoint(test_data / "peer" / "yolov8n-seg-shapes.pt")
    pictures = [np.ascontiguousarray(cv2.imread(str(p))[..., ::-1]) for p in sorted((test_data / "shapes").glob("**/val/*.[jp][pn]g"))[:20]]
    assert len(pictures) == 20
    report = run_export(checkpoint, tmp_path, kind, pictures, dynamic=True)
    assert report.predictions_matched == report.predictions >= 8
    assert report.max_abs_error["boxes_px"] < 0.1 and max(v for k, v in report.max_abs_error.items() if k != "boxes_px") < 1e-3
    backend = load_backend(report.path, "cpu")
    torch_backend = TorchBackend(checkpoint.net, backend.info, torch.device("cpu"))
    both = [Predictor(b, PredictSettings(batch=4)).instances(pictures) for b in (backend, torch_backend)]
    for ours, theirs in zip(*both, strict=True):
        assert (ours.classes == theirs.classes).all()
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.1)
        np.testing.assert_allclose(ours.confidences, theirs.confidences, atol=1e-3)


@pytest.mark.parametrize("kind", [*ENDINGS, "onnx"])
def test_the_same_outputs_on_twenty_photographs(test_data: Path, tmp_path: Path, kind: str) -> None:
    checkpoint = load_checkpoint(test_data / "peer" / "yolov8n-seg-shapes.pt")
    backend = load_backend(run_export(checkpoint, tmp_path, kind, imgsz=640).path, "cpu")
    photographs = sorted((test_data / "coco_tiny" / "val2017").glob("*.jpg"))[:20]
    assert len(photographs) == 20
    for path in photographs:
        picture = cv2.imread(str(path))[..., ::-1]
        pixels = letterbox.apply(picture, letterbox.fit(picture.shape[:2], (640, 640)))
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            (wanted, wanted_protos), (found, protos) = checkpoint.net(x), backend(x)
        assert (found[:, :4] - wanted[:, :4]).abs().max() < 0.1  # pixels
        assert (found[:, 4:] - wanted[:, 4:]).abs().max() < 1e-3 and (protos - wanted_protos).abs().max() < 1e-3


def test_openvino_in_half_precision_is_half_as_large(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    whole, half = (run_export(lively_checkpoint, tmp_path / name, "openvino", half=name == "half") for name in ("", "half"))
    assert half.size_bytes < 0.6 * whole.size_bytes
    assert half.max_abs_error["classes"] > whole.max_abs_error["classes"]


@formats
def test_a_second_export_replaces_the_first(lively_checkpoint: Checkpoint, tmp_path: Path, kind: str) -> None:
    first = run_export(lively_checkpoint, tmp_path, kind, imgsz=64)
    second = run_export(lively_checkpoint, tmp_path, kind, imgsz=96)
    assert first.path == second.path and load_backend(second.path).info.imgsz == (96, 96)
    assert sorted(p.name for p in tmp_path.iterdir()) == [second.path.name, f"{second.path.name}.report.json"]


@formats
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_cut_off(lively_checkpoint: Checkpoint, tmp_path: Path, kind: str, share: float) -> None:
    path = run_export(lively_checkpoint, tmp_path, kind, imgsz=64).path
    files = [path] if path.is_file() else list(path.iterdir())
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CheckpointError, match="empty|truncated|damaged|missing") as caught:
            load_backend(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        file.write_bytes(whole)


def test_what_is_none_of_ours(tmp_path: Path) -> None:
    class Other(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    torch.jit.save(torch.jit.trace(Other(), torch.zeros(1)), str(tmp_path / "a.torchscript"))
    (tmp_path / "b_openvino_model").mkdir()
    with pytest.raises(CheckpointError, match="not exported by fiftyone-yoloseg"):
        load_backend(tmp_path / "a.torchscript")
    with pytest.raises(CheckpointError, match="missing"):
        load_backend(tmp_path / "b_openvino_model")


def test_settings_that_make_no_sense(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="opset=17 with format=torchscript: operator sets are a matter of ONNX"):
        run_export(lively_checkpoint, tmp_path, "torchscript", opset=17)
    with pytest.raises(SettingsError, match="half precision on a GPU only"):
        run_export(lively_checkpoint, tmp_path, "torchscript", half=True)
    path = run_export(lively_checkpoint, tmp_path, "openvino", imgsz=64).path
    with pytest.raises(SettingsError, match="name that ends in .torchscript"):
        export_here(lively_checkpoint, parse(ExportSettings, {"format": "torchscript", "output": path / "x.xml"}))


def test_without_openvino(lively_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run_export(lively_checkpoint, tmp_path, "openvino", imgsz=64).path
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fiftyone-yoloseg\[openvino\]'"):
        load_backend(path)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fiftyone-yoloseg\[openvino\]'"):
        run_export(lively_checkpoint, tmp_path, "openvino", imgsz=64)
