"""The search for label errors on a real dataset: ids, attributes, views, refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

fo = pytest.importorskip("fiftyone")

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg import cli  # noqa: E402
from fiftyone_yoloseg.bridge import runs  # noqa: E402
from fiftyone_yoloseg.bridge.out_of_fold import fold_ids  # noqa: E402
from fiftyone_yoloseg.errors import DataError, SettingsError, Stopped  # noqa: E402

SIDE = 80


def detection(label: str, x: int, y: int, w: int, h: int, **attributes: Any) -> Any:
    return fo.Detection(label=label, bounding_box=[x / SIDE, y / SIDE, w / SIDE, h / SIDE], mask=np.ones((h, w), bool), **attributes)


@pytest.fixture
def labelled(fiftyone_db: Any, tmp_path: Path) -> Iterator[Any]:
    """Three images: a cat that is labelled dog and an object without a label; two labels in one and one that is good; nothing."""
    dataset = fo.Dataset()
    truth = [
        [detection("dog", 5, 5, 10, 10), detection("dog", 60, 60, 10, 10, iscrowd=True)],
        [detection("cat", 10, 10, 40, 20), detection("cat", 10, 50, 10, 10)],
        None,
    ]
    found = [
        [detection("cat", 5, 5, 10, 10, confidence=0.9), detection("dog", 30, 30, 10, 10, confidence=0.8), detection("dog", 60, 60, 9, 9, confidence=0.9)],
        [detection("cat", 10, 10, 20, 20, confidence=0.9), detection("cat", 30, 10, 20, 20, confidence=0.7), detection("cat", 10, 50, 10, 10, confidence=1)],
        [],
    ]  # fmt: skip
    for i, (labels, predictions) in enumerate(zip(truth, found, strict=True)):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), np.zeros((SIDE, SIDE, 3), np.uint8))
        sample = fo.Sample(filepath=str(path))
        sample["ground_truth"] = None if labels is None else fo.Detections(detections=labels)
        sample["predictions"] = fo.Detections(detections=predictions)
        dataset.add_sample(sample)
    yield dataset
    dataset.delete()


def test_cases_name_samples_labels_and_predictions(labelled: Any) -> None:
    shares: list[float] = []
    before = [s.to_dict() for s in labelled]
    report = fy.find_label_errors(labelled, "predictions", "ground_truth", progress=lambda share, label: shares.append(share))
    (first, second, _) = labelled
    wrong, missing, merged = (report.of(kind)[0] for kind in ("wrong_class", "missing", "merged"))
    assert report.counts == {"missing": 1, "spurious": 0, "wrong_class": 1, "merged": 1, "split": 0, "sloppy": 0}
    assert wrong.sample_id == first.id and wrong.path == first.filepath and wrong.score == pytest.approx(0.9)
    assert wrong.label_ids == (first.ground_truth.detections[0].id,) and wrong.prediction_ids == (first.predictions.detections[0].id,)
    assert (wrong.labels, wrong.predicted) == (("dog",), ("cat",)) and str(wrong) == "0.90 0.png: dog, predicted cat"
    assert (
        missing.label_ids == () and missing.prediction_ids == (first.predictions.detections[1].id,) and missing.score == pytest.approx(0.8)
    )
    assert (
        merged.label_ids == (second.ground_truth.detections[0].id,)
        and len(merged.prediction_ids) == 2
        and merged.score == pytest.approx(0.7)
    )
    assert (report.images, report.labels, report.predictions) == (3, 3, 5)  # without the crowd and the prediction on it
    assert "1 missing, 1 wrong class, 1 merged" in report.summary() and "0.90 0.png: dog, predicted cat" in report.markdown()
    facts = json.loads(json.dumps(report.to_dict(cases=1)))
    assert facts["cases"]["merged"][0]["score"] == pytest.approx(0.7) and facts["cases"]["split"] == []
    labelled.reload()
    assert [s.to_dict() for s in labelled] == before and labelled.list_saved_views() == []  # nothing was asked to be written
    assert shares == sorted(shares) and shares[-1] == 1


def test_attributes_and_views_replace_those_of_an_earlier_search(labelled: Any) -> None:
    masks = [[d.mask.tolist() for d in s.ground_truth.detections] for s in labelled if s.ground_truth]
    report = fy.find_label_errors(labelled, write=True, save_views=True)
    assert report.written == 3
    assert labelled.values("ground_truth.detections.label_error") == [["wrong_class", None], ["merged", None], None]
    assert labelled.values("predictions.detections.label_error") == [[None, "missing", None], [None] * 3, []]
    assert labelled.values("ground_truth.detections.label_error_score")[1][0] == pytest.approx(0.7)
    assert [[d.mask.tolist() for d in s.ground_truth.detections] for s in labelled if s.ground_truth] == masks
    assert sorted(report.views) == ["merged", "missing", "wrong_class"] and set(report.views.values()) == set(labelled.list_saved_views())
    shown = labelled.load_saved_view("yoloseg label errors: merged")
    assert shown.count("ground_truth.detections") == 1 and shown.count("predictions.detections") == 2 and len(shown) == 1
    report = fy.find_label_errors(labelled, write=True, save_views=True, kinds="missing", min_score=0.5)
    assert labelled.count("ground_truth.detections.label_error") == 0 and labelled.count("predictions.detections.label_error") == 1
    assert labelled.list_saved_views() == ["yoloseg label errors: missing"] and list(report.counts) == ["missing"]


def test_the_most_suspicious_are_kept_and_views_filter(labelled: Any) -> None:
    labelled.first().predictions.detections[1].confidence = 0.8
    more = labelled.last()
    more.predictions.detections = [detection("dog", 5, 5, 9, 9, confidence=0.95)]
    more.save()
    report = fy.find_label_errors(labelled, kinds=["missing"], limit=1)
    assert report.counts == {"missing": 2} and [c.sample_id for c in report.cases] == [more.id]
    ordered = fy.find_label_errors(labelled, kinds=["missing"], save_views=True)
    assert labelled.load_saved_view(ordered.views["missing"]).values("id") == [more.id, labelled.first().id]
    sure = labelled.filter_labels("predictions", fo.ViewField("confidence") > 0.85, only_matches=False)
    assert [c.sample_id for c in fy.find_label_errors(sure, kinds=["missing"]).cases] == [more.id]
    assert fy.find_label_errors(labelled.limit(1)).images == 1


def test_refusals(labelled: Any) -> None:
    with pytest.raises(DataError, match="no field 'nope'"):
        fy.find_label_errors(labelled, "nope")
    with pytest.raises(DataError, match="cannot be judged by themselves"):
        fy.find_label_errors(labelled, "ground_truth")
    with pytest.raises(SettingsError, match="did you mean 'min_score'"):
        fy.find_label_errors(labelled, min_scor=0.3)
    with pytest.raises(SettingsError, match="kinds"):
        fy.find_label_errors(labelled, kinds="lost")
    with pytest.raises(Stopped, match="nothing was written"):
        fy.find_label_errors(labelled, should_stop=lambda: True, write=True)
    first = labelled.first()
    first.predictions.detections[0].confidence = None
    first.save()
    with pytest.raises(
        DataError, match=f"sample {first.id} .0.png.: the prediction {first.predictions.detections[0].id} has no confidence"
    ):
        fy.find_label_errors(labelled)


def test_labels_without_masks_and_missing_files(labelled: Any) -> None:
    second = list(labelled)[1]
    second.ground_truth.detections[1].mask = None
    second.save()
    with pytest.raises(DataError, match="1 labels in 1 samples have no mask .*Use maskless='skip'"):
        fy.find_label_errors(labelled, write=True, progress=lambda *_: pytest.fail("something was compared"))
    assert labelled.count("ground_truth.detections") == 4 and not labelled.has_field("ground_truth.detections.label_error")
    skipped = fy.find_label_errors(labelled, maskless="skip")
    assert skipped.labels == 2 and len(skipped.dropped) == 1 and skipped.counts["missing"] == 2  # its prediction now stands alone
    assert fy.find_label_errors(labelled, maskless="box").labels == 3
    Path(labelled.first().filepath).unlink()
    report = fy.find_label_errors(labelled, maskless="box")
    assert report.images == 2 and [p.sample_id for p in report.skipped] == [labelled.first().id] and "could not be read" in report.text()
    for sample in labelled:
        Path(sample.filepath).unlink(missing_ok=True)
    with pytest.raises(DataError, match="no sample of this view can be read"):
        fy.find_label_errors(labelled, maskless="box")


def test_a_model_that_was_trained_here_is_named(labelled: Any) -> None:
    assert fy.find_label_errors(labelled).notes == []
    runs.remember(labelled, "train", "mine", trained_on_field="ground_truth", best="/runs/mine/best.pt", last="/runs/mine/last.pt")
    runs.remember(labelled, "predict", "predictions", model="/runs/mine/best.pt")
    assert "'predictions' comes from the training 'mine'" in fy.find_label_errors(labelled).notes[0]


def test_command(labelled: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["find_label_errors", f"dataset={labelled.name}", "kinds=merged,split", "write=true"])
    out = capsys.readouterr().out
    assert "1 merged; 3 labels and 5 predictions in 3 images" in out and "0.70 1.png: cat, predicted cat + cat" in out
    labelled.reload()
    assert labelled.count("ground_truth.detections.label_error") == 1


def test_folds_share_nothing(labelled: Any) -> None:
    parts = fold_ids(labelled, 3, seed=1)
    assert sorted(x for part in parts for x in part) == sorted(labelled.values("id")) and [len(p) for p in parts] == [1, 1, 1]
    assert parts == fold_ids(labelled, 3, seed=1)
    labelled.set_values("video", ["a", "b", "a"])
    together = sorted(fold_ids(labelled, 2, group_by="video"), key=len)
    assert together == [[labelled.values("id")[1]], [labelled.values("id")[0], labelled.values("id")[2]]]
    with pytest.raises(DataError, match="only 2 values of 'video'"):
        fold_ids(labelled, 3, group_by="video")
    with pytest.raises(SettingsError, match="at least 2"):
        fy.predict_out_of_fold(labelled, folds=1)


@pytest.mark.slow
def test_every_sample_is_predicted_by_a_model_that_has_not_seen_it(coco: Any, tmp_path: Path) -> None:
    labels = coco.values("ground_truth.detections.id")
    shares: list[float] = []
    report = fy.predict_out_of_fold(
        coco, "yolov8n-seg.yaml", folds=2, val=0.34, conf=0.0, project=str(tmp_path / "runs"), epochs=1, imgsz=32, batch=2, workers=0,
        device="cpu", plots=False, progress=lambda share, label: shares.append(share),
    )  # fmt: skip
    assert report.images == 6 and report.failed == [] and coco.count("predictions.detections") == report.objects
    assert coco.values("ground_truth.detections.id") == labels and shares == sorted(shares)
    remembered = runs.recall(coco, "predict")[0]
    assert remembered["model"] is None and [Path(m).parts[-3] for m in remembered["folds"]] == ["train-fold1", "train-fold2"]
    trained = runs.recall(coco, "train")
    assert all(sum(t["images"].values()) == 3 for t in trained) and {tuple(t["classes"]) for t in trained} == {tuple(remembered["classes"])}
    assert fy.find_label_errors(coco).notes == []
