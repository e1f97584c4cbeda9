"""Several exports side by side: what the table says of each, and which of them decide the exit code."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch

from fiftyone_yoloseg.config import ExportSettings, parse
from fiftyone_yoloseg.config.export import FormatName
from fiftyone_yoloseg.engine.checkpoint import Checkpoint
from fiftyone_yoloseg.errors import SettingsError
from fiftyone_yoloseg.export import ExportTable, export_all
from fiftyone_yoloseg.export.base import Accuracy, ExportReport
from fiftyone_yoloseg.export.registry import FORMATS, check_device
from fiftyone_yoloseg.export.table import Row
from fiftyone_yoloseg.export.work import check_settings


def report(**changed: object) -> ExportReport:
    errors = {"boxes_px": 0.05, "classes": 1e-6, "coefficients": 2e-4, "protos": 3e-5}
    facts = {
        "path": Path("best.onnx"), "format": "onnx", "imgsz": (64, 64), "batch": 1, "opset": 17, "dynamic": False, "half": False, "int8": False,
        "nms": False, "verdict": "verified", "compared_on": "2 images", "max_abs_error": errors, "mean_abs_error": errors, "predictions": 3,
        "predictions_matched": 3, "seconds": 1.0, "size_bytes": 13_700_000, "accuracy": Accuracy(2, 5, 0.5, 0.41, 0.5, 0.4225),
        "latency_ms": 21.25, "torch_latency_ms": 60.0,
    }  # fmt: skip
    return ExportReport(**{**facts, **changed})  # type: ignore[arg-type]


def test_rows_by_hand() -> None:
    elsewhere = report(
        verdict="unverified", why="no GPU here", how="Run yoloseg val on one", latency_ms=None, torch_latency_ms=None, accuracy=None
    )
    table = ExportTable(
        [
            Row("onnx", report()),
            Row("engine", elsewhere),
            Row("openvino", None, "needs the package 'openvino': pip install x", missing=True),
            Row("torchscript", None, "broken"),
        ]
    )
    lines = table.text().splitlines()
    assert lines[1].split() == ["onnx", "13.7", "2.0e-04", "5.0e-02", "+0.0125", "21.2", "60.0", "verified"]
    assert lines[2].split()[-4:] == ["-", "-", "-", "unverified"]
    assert [line.split()[-1] for line in lines[3:5]] == ["installed", "failed"]
    assert lines[5:] == [
        "engine: not verified: no GPU here. Run yoloseg val on one",
        "openvino: needs the package 'openvino': pip install x",
        "torchscript: broken",
    ]
    assert [row.format for row in table.failed] == ["torchscript"] and table.paths == [Path("best.onnx")] * 2
    assert [row["verdict"] for row in table.to_json()] == ["verified", "unverified", "not installed", "failed"]
    assert table.markdown().splitlines()[2].startswith("| onnx | 13.7 | 2.0e-04 |")


def test_all_formats_leave_out_those_that_the_settings_are_not_for(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Only they, and only where all were asked for; nothing is exported here, because no format takes this."""
    settings = {"imgsz": 64, "output": tmp_path, "opset": 13, "nms": True, "int8": True}
    everything = export_all(lively_checkpoint, parse(ExportSettings, {**settings, "format": "all"}))
    assert {row.verdict for row in everything.rows} == {"left out"} and everything.failed == everything.rows
    assert len(everything.rows) == len(FORMATS) and any("with format=paddle" in note for note in everything.notes)
    (named,) = export_all(lively_checkpoint, parse(ExportSettings, {**settings, "format": "paddle"})).rows
    assert named.verdict == "failed"
    some = ExportTable([Row("onnx", report()), Row("paddle", None, "int8=true with format=paddle: no", apart=True)])
    assert some.failed == [] and some.rows[1].verdict == "left out"


def test_formats_that_are_not_installed(lively_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {need.package for name in FORMATS for need in FORMATS[name].needs}
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in needed else real(name, *rest))
    settings = parse(ExportSettings, {"format": "onnx,openvino", "imgsz": 64, "output": tmp_path})
    table = export_all(lively_checkpoint, settings)
    assert [row.verdict for row in table.rows] == ["not installed"] * 2
    assert table.failed == table.rows, "nothing was written"
    assert "onnx: export to ONNX needs the package 'onnxruntime': pip install 'fiftyone-yoloseg[onnx]'" in table.notes
    with pytest.raises(SettingsError, match="did you mean 'onnx'"):
        export_all(lively_checkpoint, parse(ExportSettings, {"format": "openvino,onxx"}))


def test_what_is_refused_is_in_one_table() -> None:
    from dataclasses import asdict

    assert get_args(FormatName) == tuple(FORMATS)
    for name in FORMATS:
        for setting, answer in asdict(FORMATS[name].takes).items():
            assert answer is True or isinstance(answer, str) and len(answer) > 20, (name, setting)


@pytest.mark.parametrize("device", ["0", "cuda", "cuda:1", "0,"])
def test_a_gpu_for_a_format_of_the_cpu(device: str) -> None:
    for name in FORMATS:
        settings = parse(ExportSettings, {"format": name, "device": device})
        if not FORMATS[name].gpu:
            with pytest.raises(
                SettingsError, match=f"with format={name}: {FORMATS[name].title} models run on the CPU here; leave device out"
            ):
                check_settings(settings)
    assert [name for name in FORMATS if FORMATS[name].gpu] == ["onnx", "torchscript", "engine"]
    for name in FORMATS:  # the CPU is for all, and what is no device for none
        check_device(name, parse(ExportSettings, {"format": name, "device": "cpu"}), True)
        with pytest.raises(SettingsError, match="'banana' is not a device"):
            check_device(name, parse(ExportSettings, {"format": name, "device": "banana"}), True)


def test_a_gpu_that_onnxruntime_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    for place in ("export.registry", "runtime.onnx_backend"):
        monkeypatch.setattr(f"fiftyone_yoloseg.{place}.select_device", lambda name: torch.device("cuda:0"))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(SettingsError, match="device=0: the installed onnxruntime has no CUDA"):
        check_settings(parse(ExportSettings, {"device": 0}))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    check_settings(parse(ExportSettings, {"device": 0}))


def test_what_cannot_work_is_refused_before_any_image_is_read(tmp_path: Path) -> None:
    from fiftyone_yoloseg import YOLO
    from fiftyone_yoloseg.bridge.export import export, export_table

    model, given = YOLO(), {"format": "openvino", "device": 0, "output": tmp_path, "data": tmp_path / "missing.yaml"}
    for refused in (model.export, model.export_report, partial(export, model)):
        with pytest.raises(SettingsError, match="OpenVINO models run on the CPU"):
            refused(**given)
    for table in (model.export_table(**given), export_table(model, **given)):
        assert "OpenVINO models run on the CPU" in table.rows[0].error
    with pytest.raises(SettingsError, match="torch sees"):
        model.val(data=tmp_path / "missing.yaml", device=77)
    assert list(tmp_path.iterdir()) == []
