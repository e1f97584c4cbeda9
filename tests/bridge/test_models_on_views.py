"""Train, predict, validate and evaluate on views; whose labels may be replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

fo = pytest.importorskip("fiftyone")

from fiftyone_yoloseg.bridge import runs  # noqa: E402
from fiftyone_yoloseg.bridge.defaults import free_field, known_models, suggest_imgsz, suggest_split  # noqa: E402
from fiftyone_yoloseg.bridge.evaluate import evaluate  # noqa: E402
from fiftyone_yoloseg.bridge.predict import predict  # noqa: E402
from fiftyone_yoloseg.bridge.train import train  # noqa: E402
from fiftyone_yoloseg.bridge.validate import validate  # noqa: E402
from fiftyone_yoloseg.errors import CheckpointError, DataError, SettingsError, Stopped, UserError  # noqa: E402

FAST: dict[str, Any] = {"imgsz": 96, "device": "cpu"}


@pytest.fixture
def model(test_data: Path) -> Path:
    """A trained network that knows discs, squares and stars, and sees some in anything at low confidence."""
    return test_data / "peer" / "yolov8n-seg-shapes.pt"


def test_predictions_are_written_with_masks_and_remembered(coco: Any, model: Path) -> None:
    told: list[float] = []
    report = predict(coco, model, conf=0.05, batch=4, progress=lambda share, label: told.append(share), **FAST)
    assert report.images == 6 and report.objects > 0 and report.failed == [] and told[-1] == 1.0
    coco.compute_metadata()
    labels = [(s.metadata, d) for s in coco for d in s.predictions.detections]
    assert len(labels) == report.objects
    for image, label in labels:
        # the box is the pixel rectangle of the mask: whole pixels, and every side of the mask touches it
        x, y, w, h = np.array(label.bounding_box) * [image.width, image.height, image.width, image.height]
        assert [x, y, w, h] == pytest.approx(np.round([x, y, w, h])) and label.mask.shape == (round(h), round(w))
        assert label.mask.any(0)[[0, -1]].all() and label.mask.any(1)[[0, -1]].all()
        assert 0 <= x < x + w <= image.width + 1e-6 and 0 <= y < y + h <= image.height + 1e-6
        assert 0.05 <= label.confidence <= 1 and label.label in ("disc", "square", "star")
    (facts,) = runs.recall(coco, "predict")
    assert facts["about"] == "predictions" and facts["model"] == str(model) and len(facts["sha256"]) == 64
    assert facts["settings"]["conf"] == 0.05
    # a second model may replace what the first one wrote, on a part of the samples
    before = coco[3:].values("predictions.detections.id")
    assert predict(coco.limit(2), model, conf=0.99, **FAST).images == 2
    assert coco[3:].values("predictions.detections.id") == before


def test_one_bad_image_loses_only_itself(coco: Any, model: Path, tmp_path: Path) -> None:
    predict(coco, model, conf=0.05, **FAST)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(Path(coco.first().filepath).read_bytes()[:200])
    ids = coco.values("id")
    coco.set_values("filepath", {ids[1]: str(bad), ids[4]: str(tmp_path / "gone.jpg")}, key_field="id")
    report = predict(coco, model, conf=0.05, **FAST)
    assert report.images == 4 and [p.sample_id for p in report.failed] == [ids[1], ids[4]]
    assert coco[ids[1]].predictions is None and coco[ids[0]].predictions is not None  # nothing stale stays
    with pytest.raises(DataError, match=f"none of 1 images could be predicted, the first: sample {ids[4]}"):
        predict(coco.select(ids[4]), model, **FAST)


def test_labels_of_others_are_never_overwritten(coco: Any, model: Path) -> None:
    ids = coco.values("ground_truth.detections.id")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="'ground_truth' holds ground truth"):
            predict(coco, model, "ground_truth", overwrite=overwrite)
    coco.clone_sample_field("ground_truth", "mine")
    with pytest.raises(UserError, match="labels that this tool did not write: .*overwrite=True"):
        predict(coco, model, "mine", **FAST)
    with pytest.raises(UserError, match="does not hold Detections"):
        predict(coco, model, "filepath", **FAST)
    with pytest.raises(UserError, match="letters, digits and underscores"):
        predict(coco, model, "my labels", **FAST)
    assert coco.values("mine.detections.id") == ids and free_field(coco, "mine") == "mine_2"
    assert predict(coco, model, "mine", overwrite=True, **FAST).images == 6
    assert coco.values("ground_truth.detections.id") == ids


def test_bad_models_and_settings(coco: Any, tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no checkpoint")
    for model, error, what in (
        (tmp_path / "none.pt", CheckpointError, "no such file"),
        (tmp_path / "text.pt", CheckpointError, "text.pt"),
        ("yolov8n-seg.yaml", CheckpointError, "untrained"),
        (7, CheckpointError, "not int"),
    ):
        with pytest.raises(error, match=what):
            predict(coco, model, **FAST)
    with pytest.raises(SettingsError, match="did you mean 'conf'"):
        predict(coco, tmp_path / "none.pt", cof=1)
    assert not coco.has_field("predictions")


def test_stop_keeps_what_is_written(coco: Any, model: Path) -> None:
    calls = iter([False, True])
    with pytest.raises(Stopped, match="after 2 of 6 images"):
        predict(coco, model, batch=2, should_stop=lambda: next(calls), **FAST)
    assert len(coco.exists("predictions")) == 2


@pytest.mark.slow
def test_train_straight_from_a_view_then_validate(coco: Any, tmp_path: Path) -> None:
    notes: list[str] = []
    common = {**FAST, "imgsz": 64, "batch": 2, "epochs": 1, "workers": 2, "project": tmp_path / "runs"}
    result = train(coco, notes=notes, **common)
    assert result.best.is_file() and result.epochs == 1 and notes == ["split by sample tags: 4 train, 2 val"]
    (facts,) = runs.recall(coco, "train")
    assert facts["best"] == str(result.best) and facts["trained_on_field"] == "ground_truth"
    assert set(facts["classes"]) == set(coco.distinct("ground_truth.detections.label"))
    assert [m.path for m in known_models(coco)] == [str(result.best)]
    metrics = validate(coco.match_tags("val"), result.best, workers=0, **FAST)
    assert metrics.images == 2 and list(metrics.names.values()) == facts["classes"]
    # another set of classes: the head is rebuilt, and the user hears of it
    few = coco.filter_labels("ground_truth", fo.ViewField("label").is_in(["person", "car", "sheep", "hot dog"]))
    notes.clear()
    again = train(few, result.last, val=0.5, notes=notes, **common)
    assert "the head is rebuilt" in notes[-1] and "random 0.5" in notes[0] and again.dir != result.dir
    with pytest.raises(DataError, match="classes that the model does not know"):
        validate(coco, again.best, **FAST)


def test_train_refuses_what_cannot_be_trained(coco: Any, tmp_path: Path, test_data: Path) -> None:
    project = {"project": tmp_path / "runs"}
    for options, error, what in (
        ({"epochs": 0}, SettingsError, "epochs=0"),
        ({"epoch": 3}, SettingsError, "did you mean 'epochs'"),
        ({"data": "x.yaml"}, SettingsError, "takes its data from the view"),
        ({"label_field": "nope"}, DataError, "no field 'nope'"),
        ({"model": "yolov9n.yaml"}, CheckpointError, "yolov9n.yaml"),
        ({"val": 2.0}, SettingsError, "val_fraction=2.0"),
    ):
        with pytest.raises(error, match=what):
            train(coco, **project, **options)
    assert not (tmp_path / "runs").exists() and runs.recall(coco, "train") == []


def test_predictions_of_a_model_are_evaluated(coco: Any, model: Path) -> None:
    report = predict(coco, model, conf=0.05, **FAST)
    results = evaluate(coco, "predictions", eval_key="ev")
    assert "ev" in coco.list_evaluations() and results.mAP() == 0, "discs, squares and stars: no class of COCO's"
    assert sum(coco.values("ev_fp")) == report.objects and sum(coco.values("ev_tp")) == 0
    assert sum(coco.values("ev_fn")) == coco.count("ground_truth.detections") - results.facts["crowds"]


def test_defaults(coco: Any) -> None:
    assert suggest_split(coco) == ("tags", "4 train, 2 val by their tags")
    assert suggest_split(coco.match_tags("val"))[0] == "random"
    assert suggest_imgsz(coco) == 640
    assert free_field(coco) == "predictions"
