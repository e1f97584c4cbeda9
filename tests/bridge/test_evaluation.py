"""The evaluation backend: pycocotools' numbers, FiftyOne's verdicts, what it writes and what it keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_reference import coco_eval, perturbed

fo = pytest.importorskip("fiftyone")

from fiftyone.operators.executor import ExecutionContext, Executor  # noqa: E402
from fiftyone.plugins.context import PluginContext  # noqa: E402
from fiftyone.plugins.definitions import PluginDefinition  # noqa: E402

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg.bridge.coco_evaluation import METHOD, YolosegCOCOResults  # noqa: E402
from fiftyone_yoloseg.bridge.evaluate import evaluate  # noqa: E402
from fiftyone_yoloseg.bridge.labels import record_to_detections, record_to_polylines, to_detection, to_detections  # noqa: E402
from fiftyone_yoloseg.data.coco import load_coco  # noqa: E402
from fiftyone_yoloseg.errors import DataError, SettingsError, UserError  # noqa: E402
from fiftyone_yoloseg.geometry import masks  # noqa: E402
from fiftyone_yoloseg.types import ImageRecord, Instances  # noqa: E402

F = fo.ViewField
ATTRIBUTES = ("", "_id", "_iou")
Pair = tuple[ImageRecord, Instances]


def as_fiftyone(record: ImageRecord, found: Instances) -> Pair:
    """As they are when they have been through FiftyOne: boxes are those of the masks, and a label's size is that of its pixels."""
    labels = tuple(replace(i, box=i.mask.box, area=None) for i in record.instances)
    boxes = np.array([m.box for m in found.masks], np.float32).reshape(-1, 4)
    return replace(record, instances=labels), replace(found, boxes=boxes)


def on_crowds(found: Instances, record: ImageRecord) -> Instances:
    """Besides: a part of each crowd."""
    parts = []
    for label in record.instances:
        if label.crowd:
            bits = masks.crop_bitmap(label.mask)
            parts.append((label.cls, masks.from_bitmap(bits[: max(1, len(bits) // 2)], label.mask.x, label.mask.y)))
    more = [(cls, mask) for cls, mask in parts if mask.w]
    return Instances(
        found.height,
        found.width,
        np.concatenate([found.boxes, np.array([m.box for _, m in more], np.float32).reshape(-1, 4)]),
        np.concatenate([found.confidences, np.full(len(more), 0.55, np.float32)]),
        np.concatenate([found.classes, np.array([c for c, _ in more], np.int64)]),
        [*found.masks, *(m for _, m in more)],
    )


@pytest.fixture(scope="module")
def pairs(test_data: Path) -> tuple[list[Pair], dict[int, str]]:
    """Labels of 24 real images, those with crowds among them, and predictions of every quality."""
    data = load_coco(test_data / "coco_tiny")
    rng = np.random.default_rng(4)
    records = sorted(data.splits["val"], key=lambda r: not any(i.crowd for i in r.instances))[:24]
    found = [on_crowds(perturbed(r, len(data.names), rng), r) for r in records]
    return [as_fiftyone(r, f) for r, f in zip(records, found, strict=True)], dict(data.names)


def make(pairs: list[Pair], names: dict[int, str], crowds: bool = True) -> Any:
    dataset, samples = fo.Dataset(), []
    for record, found in pairs:
        kept = replace(record, instances=tuple(i for i in record.instances if crowds or not i.crowd))
        sample = fo.Sample(filepath=str(record.path), ground_truth=record_to_detections(kept, names))
        sample["predictions"] = to_detections(found, names)
        samples.append(sample)
    dataset.add_samples(samples)
    return dataset


@pytest.fixture
def dataset(fiftyone_db: Any, pairs: tuple[list[Pair], dict[int, str]]) -> Iterator[Any]:
    made = make(*pairs)
    yield made
    made.delete()


@pytest.fixture
def scene(fiftyone_db: Any, tmp_path: Path) -> Iterator[Any]:
    """One image of 100 x 100 pixels without a file: a cat and a crowd of cats."""
    made = fo.Dataset()
    sample = fo.Sample(filepath=str(tmp_path / "none.png"), metadata=fo.ImageMetadata(width=100, height=100))
    sample["ground_truth"] = fo.Detections(detections=[thing("cat", 0, 0, 20, 20), thing("cat", 50, 50, 40, 40, iscrowd=True)])
    sample["predictions"] = fo.Detections(
        detections=[
            thing("cat", 0, 0, 20, 10, confidence=0.9),  # IoU 0.5
            thing("cat", 55, 55, 10, 10, confidence=0.8),  # inside the crowd
            thing("dog", 60, 60, 10, 10, confidence=0.7),  # inside a crowd of another class
            thing("cat", 0, 40, 10, 10, confidence=0.6),
        ]
    )
    made.add_sample(sample)
    yield made
    made.delete()


def thing(label: str, x: int, y: int, w: int, h: int, **attributes: Any) -> Any:
    return to_detection(masks.from_bitmap(np.ones((h, w)), x, y), label, 100, 100, **attributes)


def verdicts(dataset: Any, key: str, field: str) -> list[list[Any]]:
    return [dataset.values(f"{field}.detections.{key}{name}", unwind=True) for name in ATTRIBUTES]


@pytest.mark.parametrize(("use_masks", "classwise"), [(True, True), (True, False), (False, True), (False, False)])
def test_verdicts_and_results_are_those_of_fiftyone(
    fiftyone_db: Any, pairs: tuple[list[Pair], dict[int, str]], use_masks: bool, classwise: bool
) -> None:
    """Where the rules agree: no crowds, and every object has a mask."""
    dataset = make(pairs[0][:8], pairs[1], crowds=False)
    settings: dict[str, Any] = {"gt_field": "ground_truth", "use_masks": use_masks, "classwise": classwise, "iou": 0.57}
    theirs = dataset.evaluate_detections("predictions", method="coco", eval_key="theirs", compute_mAP=classwise, progress=False, **settings)
    ours = evaluate(dataset, "predictions", eval_key="ours", **settings)
    for field in ("ground_truth", "predictions"):
        (status, ids, ious), (their_status, their_ids, their_ious) = (verdicts(dataset, key, field) for key in ("ours", "theirs"))
        assert status == their_status and ids == their_ids
        assert ious == (their_ious if use_masks else pytest.approx(their_ious, abs=1e-12))
        assert {"tp", "fn" if field == "ground_truth" else "fp"} == set(status)
    for name in ("tp", "fp", "fn"):
        assert dataset.values(f"ours_{name}") == dataset.values(f"theirs_{name}")
    assert ours.metrics(classes=ours.classes) == theirs.metrics() and ours.report() == theirs.report()
    assert ours.classes.tolist() == theirs.classes.tolist()
    np.testing.assert_array_equal(ours.confusion_matrix(), theirs.confusion_matrix())
    if classwise and use_masks:  # boxes in shares of the image miss overlaps of exactly a threshold; ours do not
        assert (ours.mAP(), ours.mAR()) == pytest.approx((theirs.mAP(), theirs.mAR()), abs=1e-12) and 0.1 < ours.mAP() < 0.9
        np.testing.assert_allclose(ours.precision, theirs.precision, atol=1e-12)
        np.testing.assert_allclose(ours.thresholds, theirs.thresholds, atol=1e-12)
        np.testing.assert_allclose(ours.recall_sweep, theirs.recall_sweep, atol=1e-12)
    dataset.delete()


def test_numbers_are_those_of_pycocotools_with_crowds(dataset: Any, pairs: tuple[list[Pair], dict[int, str]]) -> None:
    results = evaluate(dataset, "predictions")
    assert results.facts["crowds"] >= 2 and results.facts["ignored"] >= 2 and results.facts["left_out"] == []
    names = pairs[1]
    for kind in ("segm", "bbox"):
        official = coco_eval(pairs[0], names, kind)
        official.accumulate()
        official.summarize()
        ours = results.coco[kind]
        assert [v for k, v in ours.items() if k != "classes"] == pytest.approx(official.stats.tolist(), abs=1e-9)
        assert 0.1 < ours["AP"] < 0.9
        precision, recall = (np.where(official.eval[k] < 0, np.nan, official.eval[k]) for k in ("precision", "recall"))
        for index, name in names.items():
            if name in ours["classes"] and not np.isnan(precision[0, 0, index, 0, -1]):
                p = precision[:, :, index, 0, -1]
                expected = {"AP": p.mean(), "AP50": p[0].mean(), "AP75": p[5].mean(), "AR": recall[:, index, 0, -1].mean()}
                assert ours["classes"][name] == pytest.approx(expected, abs=1e-9)
    assert results.mAP() == pytest.approx(results.coco["segm"]["AP"], abs=1e-12)
    assert results.mAR() == pytest.approx(results.coco["segm"]["AR100"], abs=1e-12)
    boxes = evaluate(dataset, "predictions", eval_key=None, use_masks=False)
    assert boxes.coco == {"bbox": results.coco["bbox"]} and boxes.mAP() == pytest.approx(results.coco["bbox"]["AP"], abs=1e-12)
    some = evaluate(dataset, "predictions", eval_key=None, classes=["person", "no such class"])
    assert some.coco["segm"]["classes"]["person"] == results.coco["segm"]["classes"]["person"]
    assert some.mAP() == pytest.approx(results.mAP(classes=["person"])) and some.coco["segm"]["classes"]["no such class"]["AP"] == -1


def test_crowds_by_hand(scene: Any) -> None:
    results = evaluate(scene, "predictions")
    assert verdicts(scene, "eval", "predictions")[0] == ["tp", "ignored", "fp", "fp"]
    assert verdicts(scene, "eval", "predictions")[2] == [0.5, 1.0, None, None]
    cat, crowd = scene.values("ground_truth.detections.id", unwind=True)
    first, inside, *_ = scene.values("predictions.detections.id", unwind=True)
    assert verdicts(scene, "eval", "predictions")[1] == [cat, crowd, "", ""]
    assert verdicts(scene, "eval", "ground_truth") == [["tp", "ignored"], [first, inside], [0.5, 1.0]]
    sample = scene.first()
    assert (sample.eval_tp, sample.eval_fp, sample.eval_fn) == (1, 2, 0)
    # the only cat is found first, at IoU 0.5 and no higher threshold
    assert results.coco["segm"]["AP50"] == pytest.approx(1) and results.mAP() == pytest.approx(0.1)
    assert (results.facts["crowds"], results.facts["ignored"]) == (1, 1) and len(results.ytrue) == 3
    patches = scene.to_evaluation_patches("eval")
    assert sorted(patches.values("type")) == ["fp", "fp", "ignored", "tp"] and len(patches.match(F("crowd"))) == 1


def test_labels_without_a_mask(scene: Any) -> None:
    before = evaluate(scene, "predictions")
    sample = scene.first()
    sample.ground_truth.detections[0].mask = None
    sample.predictions.detections[3].mask = None
    sample.save()
    with pytest.raises(DataError, match=rf"1 labels of 'ground_truth' and 1 labels of 'predictions' have no mask \(samples {sample.id}\)"):
        evaluate(scene, "predictions", maskless="error")
    assert scene.load_evaluation_results("eval") is before and scene.first().eval_tp == 1, "nothing has been touched"
    results = evaluate(scene, "predictions")
    assert results.facts["without_mask"] == {"ground_truth": 1, "predictions": 1} and results.mAP() == before.mAP()
    assert verdicts(scene, "eval", "predictions")[0] == ["tp", "ignored", "fp", "fp"]
    skipped = evaluate(scene, "predictions", maskless="skip")
    assert verdicts(scene, "eval", "predictions")[0] == ["fp", "ignored", "fp", None] and len(skipped.ytrue) == 2
    assert skipped.facts["without_mask"] == {"ground_truth": 1, "predictions": 1}


def test_labels_that_cannot_be_read_are_listed(scene: Any, tmp_path: Path) -> None:
    sample = scene.first()
    sample.predictions.detections[0].label = None
    sample.predictions.detections[2].mask = np.zeros((10, 10), bool)
    gone = sample.predictions.detections[3]
    gone.mask, gone.mask_path = None, str(tmp_path / "gone.png")
    sample.save()
    other = fo.Sample(
        filepath=str(tmp_path / "no file.png"), predictions=fo.Detections(detections=[thing("cat", 0, 0, 5, 5, confidence=1)])
    )
    scene.add_samples([other, fo.Sample(filepath=str(tmp_path / "empty.png"))])
    results = evaluate(scene, "predictions")
    assert [("no class name" in p, "gone.png" in p, "no file.png" in p) for p in results.facts["left_out"]] == [
        (True, False, False), (False, True, False), (False, False, True)
    ]  # fmt: skip
    assert results.facts["left_out_count"] == 3 and results.facts["images"] == 2
    # a mask without a pixel is found nowhere, but it was predicted
    assert verdicts(scene, "eval", "predictions")[0] == [None, "ignored", "fp", None, None]
    assert scene.values("eval_fn") == [1, None, 0]


def test_a_perfect_prediction_has_iou_one_exactly(dataset: Any) -> None:
    dataset.clone_sample_field("ground_truth", "copy")
    dataset.set_values("copy.detections.confidence", [[0.5] * n for n in dataset.values(F("copy.detections").length())])
    results = evaluate(dataset, "copy")
    status, _, ious = verdicts(dataset, "eval", "copy")
    assert {s: {iou for t, iou in zip(status, ious, strict=True) if t == s} for s in set(status)} == {"tp": {1.0}, "ignored": {1.0}}
    assert [results.coco[kind]["AP"] for kind in ("segm", "bbox")] == pytest.approx([1, 1], abs=1e-12)


def test_results_are_kept_and_come_back(dataset: Any) -> None:
    view = dataset.limit(10)
    results = evaluate(view, "predictions", eval_key="kept")
    dataset._evaluation_cache.clear()
    again = dataset.load_evaluation_results("kept")
    assert type(again) is YolosegCOCOResults and again is not results
    assert (again.mAP(), again.mAR(), again.coco, again.facts) == (results.mAP(), results.mAR(), results.coco, results.facts)
    assert again.metrics() == results.metrics() and again.metrics()["mask_AP50"] == results.coco["segm"]["AP50"]
    assert again.report() == results.report()
    for name in ("ytrue", "ypred", "confs", "ious", "precision", "recall", "thresholds", "recall_sweep", "classes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(results, name))
    for mine, theirs in zip(again._confusion_matrix()[:2], results._confusion_matrix()[:2], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again.plot_pr_curves(classes=["person"]) is not None
    kept = results.serialize()
    unpacked = YolosegCOCOResults.from_dict({**kept, **json.loads(kept.pop("objects"))}, view, results.config, "kept")
    assert unpacked.metrics() == results.metrics(), "as earlier versions have saved them"
    with again.use_subset({"type": "field", "expr": F("kept_tp") > sorted(view.values("kept_tp"))[4]}):
        part = again.metrics()
        assert part["support"] < results.metrics()["support"] and "mask_AP" not in part, "COCO's numbers are of all samples"
    config = dataset.get_evaluation_info("kept").config
    assert (config.type, config.method, config.cls) == (
        "detection",
        METHOD,
        "fiftyone_yoloseg.bridge.coco_evaluation.YolosegCOCOEvaluationConfig",
    )
    assert len(dataset.load_evaluation_view("kept")) == 10 and dataset.exists("kept_tp").values("id") == view.values("id")
    dataset.rename_evaluation("kept", "renamed")
    assert sum(dataset.limit(10).values("renamed_tp")) == np.count_nonzero(results.ytrue == results.ypred)
    assert dataset.count_values("predictions.detections.renamed")["tp"] == sum(dataset.limit(10).values("renamed_tp"))
    dataset.delete_evaluation("renamed")
    assert not [f for f in dataset.get_field_schema(flat=True) if "renamed" in f or "kept" in f]


def test_fiftyones_model_evaluation_panel_reads_it(dataset: Any) -> None:
    """The panel's own code, without the browser."""
    results = evaluate(dataset, "predictions")
    context = PluginContext(PluginDefinition.from_disk(str(Path(fo.__file__).parents[1] / "plugins" / "panels" / "fiftyone.yml")))
    context.register_all()
    panel = next(i for i in context.instances if i.config.name == "model_evaluation_panel_builtin")
    request = {"dataset_name": dataset.name, "params": {"panel_id": "p", "panel_state": {}, "key": "eval"}}
    data = panel.get_evaluation_data(ExecutionContext(request_params=request, executor=Executor()))
    assert data["info"]["config"]["method"] == METHOD
    counts = [data["metrics"][name] for name in ("tp", "fp", "fn")]
    assert counts == [sum(dataset.values(f"eval_{name}")) for name in ("tp", "fp", "fn")]
    assert data["metrics"]["mAP"] == results.mAP() and data["metrics"]["mAR"] == results.mAR()
    assert data["confusion_matrix"]["matrix"].sum() == len(results.ytrue)
    assert set(data["per_class_metrics"]) == set(results.classes) and 0 < data["per_class_metrics"]["person"]["iou"] < 1


def test_quality_by_hand(scene: Any) -> None:
    results = evaluate(scene, "predictions")
    # one cat found at IoU 0.5, one wrong cat, one wrong dog of which there is none
    assert results.panoptic()["cat"] == pytest.approx({"PQ": 0.5 / 1.5, "SQ": 0.5, "RQ": 1 / 1.5})
    assert results.panoptic()["dog"] == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0}
    assert results.panoptic()["mean"] == pytest.approx({"PQ": 0.5 / 3, "SQ": 0.25, "RQ": 1 / 3})
    assert results.best_thresholds() == {"cat": pytest.approx({"confidence": 0.9, "precision": 1, "recall": 1, "f1": 1})}
    calibration = results.calibration(bins=10)
    # confidences 0.9, 0.7 and 0.6, each alone in its bin; the first is right
    assert calibration["ECE"] == pytest.approx((0.1 + 0.7 + 0.6) / 3)
    assert [b["predictions"] for b in calibration["bins"]] == [0, 0, 0, 0, 0, 1, 1, 0, 1, 0]


def test_replacing_an_evaluation_leaves_nothing_of_it(dataset: Any) -> None:
    held = dataset.last()
    evaluate(dataset, "predictions", use_masks=False, classwise=False)
    assert held.eval_tp is not None
    evaluate(dataset.limit(5), "predictions")
    dataset.delete_evaluation("eval")
    expected = evaluate(dataset.limit(5), "predictions")
    fresh = [dataset.values(path) for path in ("eval_tp", "predictions.detections.eval", "ground_truth.detections.eval_iou")]
    schema = dataset.get_field_schema(flat=True)
    evaluate(dataset, "predictions", use_masks=False, classwise=False)
    again = evaluate(dataset.limit(5), "predictions")
    assert [dataset.values(path) for path in ("eval_tp", "predictions.detections.eval", "ground_truth.detections.eval_iou")] == fresh
    assert set(dataset.get_field_schema(flat=True)) == set(schema) and again.coco == expected.coco
    assert held.eval_tp is None and fresh[0][5:] == [None] * (len(dataset) - 5)
    stored = dataset._sample_collection.find({"eval_tp": {"$exists": True}})
    assert len(list(stored)) == 5 == len(dataset.load_evaluation_view("eval"))


def test_fiftyones_own_call_does_the_same(dataset: Any) -> None:
    assert fy.register_evaluation() == METHOD
    ours = evaluate(dataset, "predictions", eval_key="ours")
    other = dataset.evaluate_detections(
        "predictions", gt_field="ground_truth", eval_key="other", method=METHOD, use_masks=True, progress=False
    )
    assert other.coco == ours.coco and other.mAP() == ours.mAP() and other.facts == ours.facts
    for field in ("ground_truth", "predictions"):
        assert verdicts(dataset, "other", field) == verdicts(dataset, "ours", field)
    for name in ("tp", "fp", "fn"):
        assert dataset.values(f"other_{name}") == dataset.values(f"ours_{name}")
    plain = dataset.evaluate_detections("predictions", gt_field="ground_truth", method=METHOD, compute_mAP=False, progress=False)
    assert not hasattr(plain, "mAP") and plain.config.use_masks is False


def test_filtered_views_write_to_the_labels_they_show(dataset: Any) -> None:
    view = dataset.filter_labels("predictions", F("confidence") > 0.5, only_matches=False)
    held = dataset.first()  # what a user has in hand shows it too
    results = evaluate(view, "predictions")
    shown = set(view.values("predictions.detections.id", unwind=True))
    ids, status = dataset.values(["predictions.detections.id", "predictions.detections.eval"], unwind=True)
    assert {i for i, s in zip(ids, status, strict=True) if s is not None} == shown and 0 < len(shown) < len(ids)
    counts = {s: status.count(s) for s in ("tp", "fp", "ignored")}
    assert counts["tp"] == np.count_nonzero(results.ytrue == results.ypred) == sum(dataset.values("eval_tp"))
    assert counts["ignored"] == results.facts["ignored"]
    assert held.eval_tp == dataset.values("eval_tp")[0]
    # confidences are in falling order nowhere, so places in the filtered list are not places in the stored one
    taken = dict(zip(ids, dataset.values("predictions.detections.eval_id", unwind=True), strict=True))
    labels = [dataset.values(f"ground_truth.detections.{name}", unwind=True) for name in ("id", "eval", "eval_id")]
    pairs_of_labels = {i: other for i, verdict, other in zip(*labels, strict=True) if verdict == "tp"}
    assert pairs_of_labels and all(taken[other] == i for i, other in pairs_of_labels.items())


def test_polylines_are_compared_by_the_pixels_they_fill(fiftyone_db: Any, pairs: tuple[list[Pair], dict[int, str]]) -> None:
    dataset = fo.Dataset()
    for record, _ in pairs[0][:4]:
        lines = record_to_polylines(record, pairs[1])
        for line in lines.polylines:
            line.confidence = 0.5
        dataset.add_sample(fo.Sample(filepath=str(record.path), ground_truth=record_to_detections(record, pairs[1]), predictions=lines))
    results = evaluate(dataset, "predictions")
    ious = [v for v in dataset.values("predictions.polylines.eval_iou", unwind=True) if v is not None]
    assert set(ious) == {1.0} and results.coco["segm"]["AP"] == pytest.approx(1)
    with pytest.raises(DataError, match="set use_masks or use_boxes"):
        evaluate(dataset, "predictions", use_masks=False)
    dataset.delete()


def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(scene: Any) -> None:
    for settings, error, what in (
        ({"gt_field": "nope"}, DataError, "no field 'nope'"),
        ({"eval_key": "my eval"}, UserError, "eval_key='my eval'"),
        ({"iuo": 0.5}, SettingsError, "did you mean 'iou'"),
        ({"iou": 0}, SettingsError, "iou=0"),
        ({"maskless": "guess"}, SettingsError, "maskless='guess'"),
    ):
        with pytest.raises(error, match=what):
            evaluate(scene, "predictions", **settings)
    with pytest.raises(SettingsError, match="exact pixels"):
        scene.evaluate_detections("predictions", method=METHOD, use_masks=True, tolerance=2)
    scene.evaluate_detections("predictions", eval_key="taken", method="coco", progress=False)
    with pytest.raises(UserError, match="Cannot overwrite existing evaluation 'taken'"):
        evaluate(scene, "predictions", eval_key="taken")
    scene.set_values("predictions.detections.confidence", [[0.9, None, 0.7, 0.6]])
    with pytest.raises(DataError, match=r"have no confidence \(samples .*compute_mAP=False"):
        evaluate(scene, "predictions")
    assert scene.list_evaluations() == ["taken"] and not scene.has_field("eval_tp")
    assert np.count_nonzero(evaluate(scene, "predictions", compute_mAP=False).ytrue == "cat") == 1


@pytest.mark.parametrize("eval_key", ["label", "mask", "confidence", "iscrowd", "origin", "model_hash"])
def test_an_evaluation_cannot_be_named_as_what_makes_a_label(dataset: Any, eval_key: str) -> None:
    before = list(dataset._sample_collection.find())
    with pytest.raises(UserError, match="is an attribute of every label"):
        evaluate(dataset, "predictions", eval_key=eval_key)
    assert list(dataset._sample_collection.find()) == before
