"""Exports from FiftyOne views: compared on their images and labels, calibrated on them, and remembered on the dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fiftyone_yoloseg.bridge import jobs, runs
from fiftyone_yoloseg.bridge.export import export
from fiftyone_yoloseg.engine.checkpoint import Checkpoint, save_checkpoint
from fiftyone_yoloseg.errors import ExportError, SettingsError, UserError


@pytest.fixture
def model(coco: Any, lively_checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A network that knows three of the classes of the validation samples of `coco`."""
    names = dict(enumerate(coco.match_tags("val").distinct("ground_truth.detections.label")[:3]))
    assert len(names) == 3
    path = tmp_path / "run" / "weights" / "best.pt"
    path.parent.mkdir(parents=True)
    save_checkpoint(path, lively_checkpoint.net, names=names, imgsz=64, train_args={}, origin="a test")
    return path


def test_compared_on_labels_and_remembered(coco: Any, model: Path) -> None:
    runs.remember(coco, "train", "run", dir=str(model.parent), best=str(model), last="", classes=[])
    report = export(model, coco, label_field="ground_truth", maskless="skip", format="onnx")
    assert report.compared_on == "2 images", "the samples tagged val"
    assert report.accuracy is not None and report.accuracy.images == 2 and report.accuracy.mask_drop == pytest.approx(0, abs=1e-3)
    (facts,) = runs.recall(coco, "export")
    assert facts["about"] == "run_best.onnx" and facts["training"] == "run" and facts["report"]["verdict"] == "verified"
    assert facts["report"] == json.loads(report.path.with_name("best.onnx.report.json").read_text())
    export(model, coco, format="onnx", imgsz=96)
    (facts,) = runs.recall(coco, "export")
    assert facts["report"]["imgsz"] == [96, 96] and facts["report"]["accuracy"] is None, "the record of the artifact is replaced with it"


def test_int8_is_calibrated_on_other_samples_than_it_is_compared_on(coco: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fiftyone_yoloseg import export as exporting

    seen: list[Any] = []
    monkeypatch.setattr(exporting, "export", lambda checkpoint, settings, samples, *rest: seen.append(samples) or pytest.fail("enough"))  # type: ignore[func-returns-value]
    for view, calibrated, compared in ((coco, 4, 2), (coco.match_tags("train"), 2, 2)):
        with pytest.raises(pytest.fail.Exception, match="enough"):
            export(model, view, format="onnx", int8=True)
        samples = seen.pop()
        assert (len(samples.calibration), len(samples.images)) == (calibrated, compared)
        assert not set(samples.calibration) & set(samples.images)


def test_the_job_gives_a_table(coco: Any, model: Path) -> None:
    options = {"model": str(model), "format": "onnx,torchscript", "opset": 17}
    result = jobs.run("export", jobs.view_params(coco, **options))
    assert [row["verdict"] for row in result["formats"]] == ["verified", "failed"]
    assert "| onnx |" in result["summary"] and "torchscript: opset=17 with format=torchscript" in result["summary"]
    with pytest.raises(UserError, match="opset=17 with format=torchscript"):
        jobs.run("export", jobs.view_params(coco, **{**options, "format": "torchscript"}))


def test_what_cannot_be_exported(coco: Any, model: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the images come from the view"):
        export(model, coco, data=str(tmp_path))
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(ExportError, match="is exported already"):
        export(tmp_path / "a.onnx", coco)
