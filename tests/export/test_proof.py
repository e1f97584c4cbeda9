"""What an artifact must show: mAP beside torch on labelled images, objects found again, tolerances; and what int8 costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from fiftyone_yoloseg.config import ExportSettings, parse
from fiftyone_yoloseg.data.load import load_data
from fiftyone_yoloseg.engine.checkpoint import Checkpoint, load_checkpoint, new_checkpoint, save_checkpoint
from fiftyone_yoloseg.errors import DataError, ExportError
from fiftyone_yoloseg.export import Samples, export_here, from_data
from fiftyone_yoloseg.export.base import Accuracy, Exporter, StandIn, Unverified
from fiftyone_yoloseg.export.onnx_format import OnnxExporter
from fiftyone_yoloseg.export.parity import Parity
from fiftyone_yoloseg.export.proof import _judge, prove
from fiftyone_yoloseg.export.samples import Inputs, spread
from fiftyone_yoloseg.runtime import load_backend
from fiftyone_yoloseg.runtime.reports import checkpoint_sha256, file_sha256
from fiftyone_yoloseg.types import ImageRecord


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def exact(**changed: Any) -> Parity:
    errors = {"boxes_px": 0.0, "classes": 0.0, "coefficients": 0.0, "protos": 0.0}
    return Parity(**{"compared_on": "x", "max_abs_error": errors, "mean_abs_error": errors, "largest": errors, "predictions": 10, "matched": 10, "found": 10, **changed})  # fmt: skip


@pytest.mark.parametrize("kind", ["half", "int8"])
def test_with_labels_lossy_formats_are_judged_by_map(kind: str) -> None:
    settings = parse(ExportSettings, {kind: True})
    wild = exact(max_abs_error={"boxes_px": 90.0}, matched=1)
    _judge(wild, Accuracy(9, 9, 0.60, 0.51, 0.61, 0.525), settings)
    for drops in ((0.50, 0.525), (0.61, 0.50), (float("nan"), 0.525)):
        with pytest.raises(ExportError, match="mAP falls by"):
            _judge(wild, Accuracy(9, 9, *drops, 0.61, 0.525), settings)
    _judge(wild, Accuracy(9, 9, 0.50, 0.525, 0.61, 0.525), parse(ExportSettings, {kind: True, "max_map_drop": 0.2}))
    with pytest.raises(ExportError, match="no numbers"):
        _judge(exact(max_abs_error={"boxes_px": float("nan")}), Accuracy(9, 9, 0.61, 0.525, 0.61, 0.525), settings)


def test_without_labels_int8_must_find_the_same_objects() -> None:
    settings = parse(ExportSettings, {"int8": True})
    assert not _judge(exact(matched=8), None, settings)
    for poor in (exact(matched=7), exact(found=13)):
        with pytest.raises(ExportError, match="does not find the same objects"):
            _judge(poor, None, settings)


@pytest.mark.parametrize("kind", ["int8", "nms"])
def test_without_objects_nothing_is_proven(kind: str) -> None:
    settings, none = parse(ExportSettings, {kind: True}), exact(predictions=0, matched=0, found=0)
    blank = Accuracy(9, 9, 0.0, 0.0, 0.0, 0.0)
    assert _judge(none, None, settings) and _judge(none, blank, settings) and not _judge(exact(), None, settings)
    with pytest.raises(ExportError, match="does not find the same objects"):
        _judge(exact(predictions=0, matched=0, found=3), blank, settings)


def test_without_objects_half_precision_is_judged_by_its_outputs() -> None:
    none, blank = {"predictions": 0, "matched": 0, "found": 0}, Accuracy(9, 9, 0.0, 0.0, 0.0, 0.0)
    assert not _judge(exact(**none), blank, parse(ExportSettings, {"half": True}))
    wild = {"boxes_px": 90.0, "classes": 0.0, "coefficients": 0.0, "protos": 0.0}
    with pytest.raises(ExportError, match="does not give the same answers"):
        _judge(exact(**none, max_abs_error=wild), blank, parse(ExportSettings, {"half": True}))


def test_what_the_report_says_without_objects(tmp_path: Path) -> None:
    report = export_here(new_checkpoint(), parse(ExportSettings, {"nms": True, "output": tmp_path, "imgsz": 64}))
    assert (report.verdict, report.predictions) == ("unverified", 0) and report.path.exists() and report.latency_ms is not None
    assert "there was nothing to compare" in report.why and "data=dataset.yaml" in report.how
    assert "0 of 0" not in report.summary() and "the network finds no object there, so none could be compared" in report.summary()


def test_the_hashes_are_of_what_was_compared(lively_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    c, file, settings = lively_checkpoint, tmp_path / "best.pt", parse(ExportSettings, {"imgsz": 64})
    save_checkpoint(file, c.net, names=c.names, imgsz=96, train_args={}, origin="")
    checkpoint = load_checkpoint(file)
    report = export_here(checkpoint, settings)
    assert report.sha256 == file_sha256(report.path) and report.checkpoint["sha256"] == file_sha256(file) is not None
    before = report.path.read_bytes()
    save_checkpoint(file, c.net, names=c.names, imgsz=64, train_args={}, origin="")  # as a training that goes on
    assert checkpoint_sha256(checkpoint) is None and checkpoint_sha256(load_checkpoint(file)) == file_sha256(file)
    monkeypatch.setattr("fiftyone_yoloseg.export.work.prove", changing(tmp_path))
    with pytest.raises(ExportError, match="best.onnx was changed by something else while it was compared.*Nothing was written"):
        export_here(checkpoint, settings)
    assert report.path.read_bytes() == before, "the one that was there stays"


def changing(folder: Path) -> Any:
    def prove_and_change(*given: Any) -> Any:
        proof = prove(*given)
        (new,) = folder.glob(".*.tmp/*.onnx")
        new.write_bytes(new.read_bytes() + b"x")
        return proof

    return prove_and_change


def test_calibration_images_are_spread_and_read_late(test_data: Path) -> None:
    records = [ImageRecord(Path(str(i)), 1, 1) for i in range(101)]
    assert [r.path.name for r in spread(records, 3)] == ["0", "50", "100"] and len(spread(records, 500)) == 101 and spread([], 5) == []
    inputs = Inputs([Path("missing.jpg"), np.full((40, 80, 3), 255, np.uint8)], (64, 64))
    x = inputs[1]
    assert len(inputs) == 2 and x.shape == (1, 3, 64, 64) and x.dtype == torch.float32
    assert float(x[0, 0, 32, 32]) == 1.0 and float(x[0, 0, 0, 0]) == pytest.approx(114 / 255)
    with pytest.raises(DataError, match=r"missing\.jpg"):
        _ = inputs[0]


def test_data_of_other_classes(lively_checkpoint: Checkpoint, test_data: Path) -> None:
    with pytest.raises(DataError, match="are not those of the network"):
        from_data(lively_checkpoint, ExportSettings(), test_data / "shapes" / "data.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_int8_keeps_the_mask_map(test_data: Path, tmp_path: Path, kind: str) -> None:
    """The figure that an int8 export is held to: mask mAP on the validation images of shapes falls by 0.02 at most."""
    checkpoint = load_checkpoint(test_data / "peer" / "yolov8n-seg-shapes.pt")
    settings = parse(ExportSettings, {"format": kind, "int8": True, "output": tmp_path, "calibration": 64})
    samples = from_data(checkpoint, settings, test_data / "shapes" / "data.yaml")
    assert len(samples.records) == 64 and len(samples.calibration) == 64
    assert not {r.path for r in samples.records} & set(samples.calibration)
    report = export_here(checkpoint, settings, samples)
    assert report.accuracy is not None and report.accuracy.torch_mask_map > 0.5 and report.accuracy.images == 64
    assert report.accuracy.mask_drop <= 0.02 and report.accuracy.box_drop <= 0.02
    assert report.size_bytes < 5_000_000
    facts = json.loads(report.path.with_name(report.path.name + ".report.json").read_text())
    assert facts["int8"] and facts["accuracy"]["mask_drop"] == report.accuracy.mask_drop
    assert load_backend(report.path, "cpu").info.names == checkpoint.names
    if kind == "onnx":
        graph = onnx.load(report.path).graph
        quantised = {i.name for i in graph.initializer if i.data_type == onnx.TensorProto.INT8}
        convolutions = [n for n in graph.node if n.op_type == "Conv" and n.name != "dfl.conv"]
        assert len(quantised) >= len(convolutions) > 60


@pytest.mark.parametrize("dynamic", [False, True])
def test_full_precision_has_the_map_of_the_network(test_data: Path, tmp_path: Path, dynamic: bool) -> None:
    """Both get the same inputs: a static artifact the full square, so the network too."""
    checkpoint = load_checkpoint(test_data / "peer" / "yolov8n-seg-shapes.pt")
    settings = parse(ExportSettings, {"output": tmp_path, "dynamic": dynamic, "samples": 12})
    accuracy = export_here(checkpoint, settings, from_data(checkpoint, settings, test_data / "shapes" / "data.yaml")).accuracy
    assert accuracy is not None and accuracy.images == 12 and accuracy.torch_mask_map > 0.4
    assert (accuracy.box_drop, accuracy.mask_drop) == pytest.approx((0, 0), abs=1e-6)


def test_a_ruined_int8_artifact_is_refused(test_data: Path, tmp_path: Path) -> None:
    """Calibrated on black images, the ranges fit nothing else."""
    checkpoint = load_checkpoint(test_data / "peer" / "yolov8n-seg-shapes.pt")
    records = load_data(test_data / "shapes" / "data.yaml", ("val",)).splits["val"][:8]
    black = [np.zeros((192, 192, 3), np.uint8)]
    settings = parse(ExportSettings, {"int8": True, "output": tmp_path})
    with pytest.raises(ExportError, match="worse than the network on 8 labelled images: .*mAP falls by .*Nothing was written"):
        export_here(checkpoint, settings, Samples([r.path for r in records], records, black))
    assert list(tmp_path.iterdir()) == []


class Elsewhere(Exporter):
    """A format that runs on another machine; its last portable stage is ONNX."""

    suffix = ".onnx"

    def __init__(self, compared: bool, wrong: bool = False) -> None:
        self.compared, self.wrong = compared, wrong

    def ending(self, settings: ExportSettings) -> str:
        return "_stage.onnx"

    def write(self, job: Any, path: Path) -> None:
        if self.wrong:
            with torch.no_grad():
                job.net.head.cv3[0][2].bias += 3
        OnnxExporter().write(job, path)

    def unverified(self, settings: ExportSettings) -> Unverified:
        return Unverified("there is no GPU here", "Copy it to one and run yoloseg val")

    def stand_in(self, job: Any, path: Path) -> StandIn | None:
        return StandIn(load_backend(path, "cpu"), "the ONNX stage in ONNX Runtime") if self.compared else None


def test_artifacts_that_cannot_run_here_say_so(lively_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = parse(ExportSettings, {"output": tmp_path, "imgsz": 64})
    monkeypatch.setattr("fiftyone_yoloseg.export.work.find_exporter", lambda name: Elsewhere(True))
    report = export_here(lively_checkpoint, settings)
    assert report.path.name == "yolov8n-seg_stage.onnx" and not report.verified and report.latency_ms is None
    assert report.max_abs_error["protos"] < 1e-3
    lines = report.summary().splitlines()
    assert lines[1] == "not verified: there is no GPU here. Copy it to one and run yoloseg val"
    assert lines[2].startswith("compared in its place: the ONNX stage in ONNX Runtime on noise: max abs error")
    monkeypatch.setattr("fiftyone_yoloseg.export.work.find_exporter", lambda name: Elsewhere(False))
    report = export_here(lively_checkpoint, settings)
    assert (report.verdict, report.compared_on, report.max_abs_error, report.proves) == ("unverified", "", {}, "")
    monkeypatch.setattr("fiftyone_yoloseg.export.work.find_exporter", lambda name: Elsewhere(True, wrong=True))
    with pytest.raises(ExportError, match="does not give the same answers"):
        export_here(lively_checkpoint, settings)
