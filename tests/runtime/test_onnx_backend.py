"""ONNX artifacts behind the Backend interface: same answers as torch, and one clear error for every file that is none of ours."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from fiftyone_yoloseg.config import ExportSettings, PredictSettings, parse
from fiftyone_yoloseg.engine.checkpoint import Checkpoint
from fiftyone_yoloseg.engine.predictor import Predictor
from fiftyone_yoloseg.engine.torch_backend import TorchBackend
from fiftyone_yoloseg.errors import CheckpointError, MissingDependencyError, SettingsError
from fiftyone_yoloseg.export import export_here
from fiftyone_yoloseg.runtime import load_backend
from fiftyone_yoloseg.runtime.metadata import KEY, decode, encode
from fiftyone_yoloseg.types import Backend, ModelInfo


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def static(lively_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_here(
        lively_checkpoint, parse(ExportSettings, {"output": tmp_path_factory.mktemp("s") / "a.onnx", "imgsz": [64, 96], "batch": 2})
    ).path


@pytest.fixture(scope="module")
def dynamic(lively_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_here(lively_checkpoint, parse(ExportSettings, {"output": tmp_path_factory.mktemp("d") / "a.onnx", "dynamic": True})).path


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((60, 90), (90, 60), (200, 100), (33, 47), (64, 96))]


def same_objects(a: Backend, b: Backend, settings: PredictSettings) -> int:
    """Predict with both; returns how many objects there were."""
    count = 0
    for x, y in zip(Predictor(a, settings).instances(pictures()), Predictor(b, settings).instances(pictures()), strict=True):
        assert len(x) == len(y) and (x.classes == y.classes).all()
        np.testing.assert_allclose(x.boxes, y.boxes, atol=0.05)
        np.testing.assert_allclose(x.confidences, y.confidences, atol=1e-4)
        count += len(x)
    return count


def test_static_artifact_predicts_what_torch_predicts(lively_checkpoint: Checkpoint, static: Path) -> None:
    backend = load_backend(static, "cpu")
    assert backend.info == ModelInfo(lively_checkpoint.names, (64, 96), 32, dynamic=False, batch=2)
    torch_backend = TorchBackend(lively_checkpoint.net, backend.info, torch.device("cpu"))
    # five images through batches of two: the last one is filled up
    assert same_objects(backend, torch_backend, PredictSettings(batch=3, max_det=20)) > 5


def test_dynamic_artifact_predicts_what_torch_predicts(lively_checkpoint: Checkpoint, dynamic: Path) -> None:
    backend = load_backend(str(dynamic), "cpu")
    assert backend.info.dynamic and backend.info.imgsz == (96, 96)
    torch_backend = TorchBackend(lively_checkpoint.net, backend.info, torch.device("cpu"))
    assert same_objects(backend, torch_backend, PredictSettings(batch=3, max_det=20)) > 5
    assert same_objects(backend, torch_backend, PredictSettings(imgsz=128, max_det=20)) > 5


def test_raw_outputs(lively_checkpoint: Checkpoint, dynamic: Path) -> None:
    x = torch.rand(3, 3, 64, 128)
    raw = load_backend(dynamic, "cpu")(x)
    with torch.inference_mode():
        pred, protos = lively_checkpoint.net(x)
    assert raw.pred.dtype == torch.float32 and (raw.pred - pred).abs().max() < 1e-3 and (raw.protos - protos).abs().max() < 1e-3


def test_half_artifact(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = export_here(lively_checkpoint, parse(ExportSettings, {"output": tmp_path / "h.onnx", "half": True, "imgsz": 64})).path
    x = torch.rand(1, 3, 64, 64)
    raw = load_backend(path, "cpu")(x)
    with torch.inference_mode():
        pred, _ = lively_checkpoint.net(x)
    assert raw.pred.dtype == torch.float32 and (raw.pred - pred)[:, 4:7].abs().max() < 2e-2


def test_static_artifact_refuses_other_shapes(static: Path) -> None:
    backend = load_backend(static, "cpu")
    with pytest.raises(SettingsError, match=r"\(2, 3, 64, 96\) only, not \(1, 3, 64, 96\)"):
        backend(torch.rand(1, 3, 64, 96))
    with pytest.raises(SettingsError, match="takes only 64x96"):
        Predictor(backend, PredictSettings(imgsz=128))


def test_threads_follow_torch(static: Path) -> None:
    backend: Any = load_backend(static, "cpu")
    assert backend.session.get_session_options().intra_op_num_threads == torch.get_num_threads() == 1


def test_threads_and_providers_are_settings(static: Path) -> None:
    backend: Any = load_backend(static, threads=2, providers=["CPUExecutionProvider"])
    assert backend.session.get_session_options().intra_op_num_threads == 2 and backend.session.get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(SettingsError, match="providers=Magic: the installed onnxruntime has .*CPUExecutionProvider"):
        load_backend(static, providers=["Magic"])


def test_gpu_without_cuda_in_onnxruntime(static: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fiftyone_yoloseg.runtime.onnx_backend.select_device", lambda name: torch.device("cuda:0"))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(SettingsError, match="onnxruntime has no CUDA"):
        load_backend(static, "cuda")
    assert load_backend(static).device == torch.device("cpu")  # not asked for: the best there is


# Files that are none of ours -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated(static: Path, tmp_path: Path, share: float) -> None:
    data = static.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match="empty|truncated|not exported by|damaged|export it again") as caught:
        load_backend(path, "cpu")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_not_a_model(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(CheckpointError, match="not a readable ONNX model"):
        load_backend(path, "cpu")


@pytest.mark.parametrize(
    ("name", "message"), [("a.onnx", "no such file"), ("best.pt", "a checkpoint, not an exported"), ("a.xyz", r"no backend for \.xyz")]
)
def test_wrong_paths(tmp_path: Path, name: str, message: str) -> None:
    if name != "a.onnx":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=message):
        load_backend(tmp_path / name)


def changed(static: Path, path: Path, **meta: str | None) -> Path:
    model = onnx.load(static)
    mapping: dict[str, str | None] = {p.key: p.value for p in model.metadata_props}
    mapping.update(meta)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {k: v for k, v in mapping.items() if v is not None})
    onnx.save_model(model, str(path))
    return path


def own(static: Path, **values: Any) -> str:
    meta = {p.key: p.value for p in onnx.load(static).metadata_props}
    return json.dumps({**json.loads(meta[KEY]), **values})


def test_metadata_of_others(static: Path, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, str | None], str]] = [
        ({KEY: None}, "not exported by fiftyone-yoloseg"),
        ({KEY: None, "task": "detect"}, "task 'detect'"),
        ({KEY: own(static, task="pose")}, "task 'pose'"),
        ({KEY: "{"}, "metadata is damaged"),
        ({KEY: "[]"}, "metadata is damaged"),
        ({KEY: own(static, imgsz=[64])}, "metadata is damaged"),
        ({KEY: own(static, imgsz=[65, 96])}, "make no sense"),
        ({KEY: own(static, batch=0)}, "make no sense"),
        ({KEY: own(static, names=[])}, "make no sense"),
        ({KEY: own(static, names=["only one"])}, "not those that its metadata describes"),
        ({KEY: own(static, format_version=99)}, "newer fiftyone-yoloseg"),
    ]
    for i, (meta, message) in enumerate(cases):
        path = changed(static, tmp_path / f"{i}.onnx", **meta)
        with pytest.raises(CheckpointError, match=message) as caught:
            load_backend(path, "cpu")
        assert str(path) in str(caught.value)


def test_another_graph_with_our_metadata(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 39, 4])
    out = onnx.helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, [1, 39, 4])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["output0"])], "g", [value], [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.helper.set_model_props(model, encode(ModelInfo({0: "a", 1: "b", 2: "c"}, (64, 64)), size="n", half=False, origin=""))
    onnx.save_model(model, str(tmp_path / "a.onnx"))
    with pytest.raises(CheckpointError, match="inputs and outputs"):
        load_backend(tmp_path / "a.onnx", "cpu")


def test_metadata_round_trip() -> None:
    info = ModelInfo({0: "it's", 1: 'a "b"', 2: "ünï\n"}, (64, 96), 32, dynamic=False, batch=4)
    assert decode(encode(info, size="x", half=True, origin="o"), Path("a")) == info


def test_without_onnxruntime(static: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None)
    with pytest.raises(MissingDependencyError, match=r"fiftyone-yoloseg\[onnx\]"):
        load_backend(static)
