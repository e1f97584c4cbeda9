"""ONNX export against the runtimes that people use it in: ONNX Runtime and OpenCV's dnn."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from fiftyone_yoloseg.config import ExportSettings, parse
from fiftyone_yoloseg.engine.checkpoint import Checkpoint, load_checkpoint
from fiftyone_yoloseg.errors import ExportError, MissingDependencyError, SettingsError
from fiftyone_yoloseg.export import ExportReport, Samples, export_here
from fiftyone_yoloseg.export.onnx_format import OnnxExporter
from fiftyone_yoloseg.export.parity import Parity, compare, sample_inputs
from fiftyone_yoloseg.export.registry import FORMATS
from fiftyone_yoloseg.nn.model import YOLOv8Seg, fused
from fiftyone_yoloseg.runtime import load_backend
from fiftyone_yoloseg.types import ModelInfo, RawOutput


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_export(checkpoint: Checkpoint, path: Path, images: Any = None, **settings: Any) -> ExportReport:
    return export_here(checkpoint, parse(ExportSettings, {"output": path, **settings}), Samples(images or ()))


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(7))


def reference(checkpoint: Checkpoint, x: torch.Tensor) -> RawOutput:
    with torch.inference_mode():
        out = checkpoint.net(x)
    assert isinstance(out, RawOutput)
    return out


def ort(path: Path, x: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    result: list[np.ndarray] = session.run(["output0", "output1"], {"images": x.numpy()})
    return result


def errors(found: list[np.ndarray], wanted: RawOutput) -> tuple[float, float, float]:
    """Largest differences: boxes in px, probabilities and coefficients, prototypes."""
    assert [a.shape for a in found] == [tuple(t.shape) for t in wanted]
    pred = np.abs(found[0] - wanted.pred.numpy())
    return float(pred[:, :4].max()), float(pred[:, 4:].max()), float(np.abs(found[1] - wanted.protos.numpy()).max())


def test_the_lively_network_is_a_real_test(lively_checkpoint: Checkpoint) -> None:
    """Outputs must vary, or wrong wiring would pass."""
    pred, protos = reference(lively_checkpoint, images(1, 3, 96, 96))
    assert pred[:, 4:7].std() > 0.1 and pred[:, 7:].std() > 0.1 and protos.std() > 0.1 and pred[:, 2:4].std() > 1


@pytest.mark.parametrize("opset", [13, 17, 20])
def test_static_runs_in_onnxruntime_and_opencv(lively_checkpoint: Checkpoint, tmp_path: Path, opset: int) -> None:
    report = run_export(lively_checkpoint, tmp_path / "a.onnx", imgsz=(96, 128), opset=opset)
    x = images(1, 3, 96, 128)
    wanted = reference(lively_checkpoint, x)
    assert wanted.pred.shape == (1, 4 + 3 + 32, 12 * 16 + 6 * 8 + 3 * 4) and wanted.protos.shape == (1, 32, 24, 32)
    found = ort(report.path, x)
    assert found[0].dtype == found[1].dtype == np.float32
    assert max(errors(found, wanted)) < 1e-3
    net = cv2.dnn.readNetFromONNX(str(report.path))
    net.setInput(x.numpy())
    assert max(errors(list(net.forward(["output0", "output1"])), wanted)) < 1e-3
    model = onnx.load(report.path)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
    onnx.checker.check_model(model, full_check=True)
    assert not any(node.op_type in ("Shape", "Identity", "Constant") for node in model.graph.node)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "a.onnx.report.json"]


def test_batch_of_a_static_artifact(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    report = run_export(lively_checkpoint, tmp_path / "a.onnx", imgsz=64, batch=3)
    x = images(3, 3, 64, 64)
    assert max(errors(ort(report.path, x), reference(lively_checkpoint, x))) < 1e-3
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        ort(report.path, x[:1])


def test_dynamic_takes_other_sizes_and_batches(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    report = run_export(lively_checkpoint, tmp_path / "a.onnx", imgsz=96, dynamic=True)
    assert report.dynamic
    for shape in ((1, 3, 96, 96), (3, 3, 64, 160), (2, 3, 32, 32)):
        x = images(*shape)
        assert max(errors(ort(report.path, x), reference(lively_checkpoint, x))) < 1e-3, shape
    graph = onnx.load(report.path).graph
    axes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in [*graph.input, *graph.output]}
    assert axes == {
        "images": ["batch", 3, "height", "width"],
        "output0": ["batch", 39, "anchors"],
        "output1": ["batch", 32, "mask_height", "mask_width"],
    }


@pytest.mark.parametrize("dynamic", [False, True])
def test_half_precision(lively_checkpoint: Checkpoint, tmp_path: Path, dynamic: bool) -> None:
    report = run_export(lively_checkpoint, tmp_path / "h.onnx", half=True, dynamic=dynamic)
    full = run_export(lively_checkpoint, tmp_path / "f.onnx", dynamic=dynamic)
    assert report.half and report.size_bytes < 0.55 * full.size_bytes
    x = images(1, 3, 96, 96)
    found = ort(report.path, x)
    assert found[0].dtype == np.float32  # clients need no change
    boxes, rest, protos = errors(found, reference(lively_checkpoint, x))
    assert 1e-4 < boxes < 1 and rest < 2e-2 and protos < 5e-2
    kinds = {
        numpy_helper.to_array(w).dtype
        for w in onnx.load(report.path).graph.initializer
        if w.name.endswith("conv.weight") and "dfl" not in w.name
    }
    assert kinds == {np.dtype(np.float16)}


@pytest.mark.parametrize("size", ["s", "m"])
def test_other_sizes(tmp_path: Path, size: str) -> None:
    torch.manual_seed(1)
    checkpoint = Checkpoint(YOLOv8Seg(2, size).eval(), {0: "a", 1: "b"}, imgsz=32)
    assert run_export(checkpoint, tmp_path / "a.onnx").max_abs_error["protos"] < 1e-4


def test_metadata_as_clients_read_it(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    report = run_export(lively_checkpoint, tmp_path / "a.onnx", imgsz=(64, 96), batch=2)
    session = onnxruntime.InferenceSession(str(report.path), providers=["CPUExecutionProvider"])
    meta = session.get_modelmeta().custom_metadata_map
    assert ast.literal_eval(meta["names"]) == lively_checkpoint.names
    assert (int(meta["stride"]), json.loads(meta["imgsz"]), meta["task"], int(meta["batch"])) == (32, [64, 96], "segment", 2)
    assert json.loads(meta["letterbox"])["pad_value"] == 114
    assert meta["author"] == "fiftyone-yoloseg" and meta["version"]
    own = json.loads(meta["fiftyone_yoloseg"])
    assert own["names"] == list(lively_checkpoint.names.values()) and own["size"] == "n" and own["origin"] == "random weights"


def test_report(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    pictures = [np.random.default_rng(i).integers(0, 256, (50 + i, 70, 3), dtype=np.uint8) for i in range(10)]
    told: list[tuple[float, str]] = []
    settings = parse(ExportSettings, {"output": tmp_path / "a.onnx"})
    report = export_here(lively_checkpoint, settings, Samples(pictures), lambda share, label: told.append((share, label)))
    assert report.path == tmp_path / "a.onnx" and report.size_bytes == report.path.stat().st_size
    assert (report.format, report.imgsz, report.opset, report.verified, report.compared_on) == ("onnx", (96, 96), 17, True, "10 images")
    assert set(report.max_abs_error) == {"boxes_px", "classes", "coefficients", "protos"}
    assert all(0 < report.mean_abs_error[k] <= v < 1e-3 for k, v in report.max_abs_error.items())
    assert report.predictions_matched == report.predictions > 0
    assert json.loads(json.dumps(report.to_json()))["max_abs_error"] == report.max_abs_error
    assert json.loads((tmp_path / "a.onnx.report.json").read_text()) == json.loads(json.dumps(report.to_json()))
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and (shares[0], shares[-1]) == (0.0, 1.0)
    assert report.latency_ms and report.torch_latency_ms and report.accuracy is None and report.machine


def test_same_checkpoint_gives_the_same_file(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    files = [run_export(lively_checkpoint, tmp_path / name).path.read_bytes() for name in ("a.onnx", "b.onnx")]
    assert files[0] == files[1]


def test_the_network_is_left_as_it_was(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    before = {k: v.clone() for k, v in lively_checkpoint.net.state_dict().items()}
    run_export(lively_checkpoint, tmp_path / "a.onnx", half=True)
    after = lively_checkpoint.net.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def test_peer_checkpoint(test_data: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(test_data / "peer" / "yolov8n-seg-shapes.pt")
    pictures = [np.ascontiguousarray(cv2.imread(str(p))[..., ::-1]) for p in sorted((test_data / "shapes").glob("**/val/*.[jp][pn]g"))[:4]]
    assert len(pictures) == 4
    report = run_export(checkpoint, tmp_path / "a.onnx", pictures)
    assert report.predictions_matched == report.predictions >= 4
    assert max(report.max_abs_error.values()) < 1e-3


# What must fail ----------------------------------------------------------------------------------------------------------


class Perturbing(OnnxExporter):
    """An exporter with a fault: one weight of the given layer is off by `by`."""

    def __init__(self, layer: str, by: float) -> None:
        self.layer, self.by = layer, by

    def write(self, job: Any, path: Path) -> None:
        super().write(job, path)
        model = onnx.load(path)
        tensor = next(t for t in model.graph.initializer if t.name == self.layer)
        value = numpy_helper.to_array(tensor).copy()
        value.flat[0] += self.by
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        onnx.save_model(model, str(path))


@pytest.mark.parametrize(
    ("layer", "by", "named"),
    [
        ("model.22.cv2.0.2.bias", 3.0, "boxes_px"),
        ("model.22.cv3.1.2.weight", 0.5, "classes"),
        ("model.22.cv4.2.2.bias", 0.1, "coefficients"),
        ("model.22.proto.cv3.conv.bias", 1.0, "protos"),
        ("model.0.conv.bias", float("nan"), "boxes_px nan"),
    ],
)
def test_wrong_artifact_is_refused_and_removed(
    lively_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: str, by: float, named: str
) -> None:
    monkeypatch.setattr("fiftyone_yoloseg.export.work.find_exporter", lambda name: Perturbing(layer, by))
    with pytest.raises(ExportError, match=f"same answers.*{named}"):
        run_export(lively_checkpoint, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.onnx").write_bytes(b"the one from before")
    with pytest.raises(ExportError):
        run_export(lively_checkpoint, tmp_path / "a.onnx")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"the one from before"]


def test_tolerance_is_the_users(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="larger tolerance"):
        run_export(lively_checkpoint, tmp_path / "a.onnx", tolerance=1e-9)
    assert list(tmp_path.iterdir()) == []


def test_artifact_that_the_runtime_cannot_load(lively_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(OnnxExporter):
        def write(self, job: Any, path: Path) -> None:
            path.write_bytes(b"\x08\x08not a model")

    monkeypatch.setattr("fiftyone_yoloseg.export.work.find_exporter", lambda name: Broken())
    with pytest.raises(ExportError, match="cannot be run here.*Nothing was written") as caught:
        run_export(lively_checkpoint, tmp_path / "a.onnx")
    assert ".tmp" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_outputs_of_another_shape_are_an_error(lively_checkpoint: Checkpoint) -> None:
    class Cropped:
        info, device = ModelInfo(lively_checkpoint.names, (96, 96)), torch.device("cpu")

        def __call__(self, x: torch.Tensor) -> RawOutput:
            pred, protos = lively_checkpoint.net(x)
            return RawOutput(pred[..., 1:], protos)

    with pytest.raises(ExportError, match="shapes"):
        compare(lively_checkpoint.net, Cropped())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "onx"}, "format='onx' is unknown: did you mean 'onnx'"),
        ({"format": "zip"}, "unknown: This version exports: onnx"),
        ({"opset": 11}, "opset=11: .*13"),
        ({"opset": 99}, "opset=99"),
        ({"imgsz": 16}, "imgsz=16"),
        ({"imgsz": [96, 96, 96]}, "imgsz"),
        ({"dynamic": True, "batch": 4}, "batch=4: a dynamic artifact takes any batch"),
        ({"output": Path("model.engine")}, r"ends in \.onnx"),
        ({"batch": 0}, "batch=0"),
        ({"half": True, "int8": True}, "half=true with int8=true"),
        ({"int8": True}, "no image to calibrate on"),
        ({"conf": 0.5}, "conf=0.5: is for nms=true only"),
        ({"calibration": 8}, "calibration=8: is for int8=true only"),
        ({"format": "torchscript", "nms": True}, "nms=True with format=torchscript: only the ONNX graph"),
        ({"format": "openvino", "simplify": False}, "simplify=False with format=openvino: there is no ONNX graph"),
        ({"format": "torchscript", "int8": True}, "no 8 bit TorchScript"),
        ({"simplifi": True}, "did you mean 'simplify'"),
    ],
)
def test_bad_settings(lively_checkpoint: Checkpoint, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        export_here(lively_checkpoint, parse(ExportSettings, {"output": tmp_path, **settings}))
    assert list(tmp_path.iterdir()) == []


def test_formats_are_known() -> None:
    assert len(FORMATS) == 11  # and the checkpoint itself


def test_without_onnxruntime(lively_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else real(name, *a))
    with pytest.raises(MissingDependencyError, match=r"pip install 'fiftyone-yoloseg\[onnx\]'"):
        run_export(lively_checkpoint, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_onnxslim(lively_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxslim" else real(name, *a))
    with_slim, without = (
        run_export(lively_checkpoint, tmp_path / "a.onnx", simplify=False),
        run_export(lively_checkpoint, tmp_path / "b.onnx"),
    )
    assert with_slim.path.read_bytes() == without.path.read_bytes()


def test_folder_that_cannot_be_written(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        run_export(lively_checkpoint, tmp_path / "file" / "a.onnx")


def test_default_place_is_beside_the_checkpoint(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint = Checkpoint(lively_checkpoint.net, lively_checkpoint.names, 64, path=tmp_path / "run" / "best.pt")
    assert export_here(checkpoint, ExportSettings()).path == tmp_path / "run" / "best.onnx"
    (tmp_path / "out").mkdir()
    assert run_export(checkpoint, tmp_path / "out").path == tmp_path / "out" / "best.onnx"
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(SettingsError, match=r"folder\.onnx"):
        run_export(checkpoint, tmp_path / "folder.onnx")


# The comparison itself ---------------------------------------------------------------------------------------------------


def test_samples_fill_and_vary() -> None:
    pictures = [np.zeros((40, 60, 3), np.uint8)] * 5
    batches, label = sample_inputs(ModelInfo({0: "a"}, (64, 96), dynamic=False, batch=2), pictures)
    assert label == "5 images" and [tuple(b.shape) for b in batches] == [(2, 3, 64, 96), (2, 3, 64, 96), (1, 3, 64, 96)]
    batches, label = sample_inputs(ModelInfo({0: "a"}, (64, 96)), None)
    assert label == "noise" and [tuple(b.shape) for b in batches] == [(1, 3, 64, 96), (2, 3, 96, 160)]
    again, _ = sample_inputs(ModelInfo({0: "a"}, (64, 96)), None)
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))


def test_limits_by_hand() -> None:
    def parity(**error: float) -> Parity:
        all_errors = {"boxes_px": 0.0, "classes": 0.0, "coefficients": 0.0, "protos": 0.0, **error}
        return Parity("noise", all_errors, all_errors, {"boxes_px": 600, "classes": 1, "coefficients": 4.0, "protos": 0.5}, 0, 0)

    for passing in (parity(boxes_px=0.099), parity(classes=0.00099), parity(coefficients=0.0039), parity(protos=0.00099)):
        passing.check(1e-3, half=False)
    for failing in (parity(boxes_px=0.11), parity(classes=0.0011), parity(coefficients=0.0041), parity(protos=0.0011)):
        with pytest.raises(ExportError):
            failing.check(1e-3, half=False)
        failing.check(1e-3, half=True)


def test_predictions_that_moved_do_not_match(lively_checkpoint: Checkpoint) -> None:
    class Shifted:
        info, device = ModelInfo(lively_checkpoint.names, (96, 96), dynamic=False), torch.device("cpu")
        by = 0.0

        def __call__(self, x: torch.Tensor) -> RawOutput:
            pred, protos = fused(lively_checkpoint.net)(x)
            return RawOutput(torch.cat((pred[:, :1] + self.by, pred[:, 1:]), 1), protos)

    shifted = Shifted()
    same = compare(lively_checkpoint.net, shifted)
    assert same.matched == same.predictions > 0
    shifted.by = 5.0
    moved = compare(lively_checkpoint.net, shifted)
    assert moved.matched < moved.predictions
    assert moved.max_abs_error["boxes_px"] == pytest.approx(5.0, abs=1e-3)


def test_loads_again_as_a_backend(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    report = run_export(lively_checkpoint, tmp_path / "a.onnx", imgsz=64)
    assert load_backend(report.path, "cpu").info == ModelInfo(lively_checkpoint.names, (64, 64), 32, dynamic=False, batch=1)
