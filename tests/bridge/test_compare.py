"""Comparison of two models and kinds of errors on a dataset in MongoDB: what is counted, written and saved."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

fo = pytest.importorskip("fiftyone")

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg.bridge.labels import to_detection  # noqa: E402
from fiftyone_yoloseg.errors import DataError, UserError  # noqa: E402
from fiftyone_yoloseg.geometry import masks  # noqa: E402

F = fo.ViewField
SIZE = 120
Placed = tuple[str, int, int, float]  # class, x, y of a square of 30 pixels, confidence


def squares(*placed: Placed, truth: bool = False) -> Any:
    labels = [
        to_detection(masks.from_bitmap(np.ones((30, 30)), x, y), name, SIZE, SIZE, **({} if truth else {"confidence": confidence}))
        for name, x, y, confidence in placed
    ]
    return fo.Detections(detections=labels)


@pytest.fixture
def dataset(fiftyone_db: Any, tmp_path: Path) -> Iterator[Any]:
    """Two images with three objects. `a` finds the first and the second, `b` the first and the third, and one thing that is not there."""
    samples = []
    truth = ((("cat", 0, 0, 1.0), ("cat", 60, 0, 1.0)), (("dog", 40, 40, 1.0),))
    a = ((("cat", 0, 0, 0.9), ("cat", 62, 0, 0.8)), ())
    b = ((("cat", 0, 0, 0.9), ("cat", 45, 0, 0.3)), (("dog", 42, 40, 0.8), ("cat", 0, 80, 0.7)))
    for i in range(2):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), np.zeros((SIZE, SIZE, 3), np.uint8))
        samples.append(fo.Sample(str(path), ground_truth=squares(*truth[i], truth=True), a=squares(*a[i]), b=squares(*b[i])))
    made = fo.Dataset()
    made.add_samples(samples, progress=False)
    yield made
    made.delete()


def test_compare(dataset: Any) -> None:
    report = fy.compare(dataset, "a", "b", samples=50)
    assert report.objects == {"fixed": 1, "broken": 1, "right": 1, "wrong": 0}
    assert report.per_class == {"cat": {"right": 1, "broken": 1}, "dog": {"fixed": 1}}
    assert report.per_size == {"small": {"right": 1, "broken": 1, "fixed": 1}, "medium": {}, "large": {}}, "900 pixels each"
    assert report.per_class_and_size == {"cat": {"small": {"right": 1, "broken": 1}}, "dog": {"small": {"fixed": 1}}}
    assert report.false_positives == (0, 2)
    assert dataset.values("ground_truth.detections.compare") == [["right", "broken"], ["fixed"]]
    assert report.masks is not None and report.masks.low <= report.masks.difference <= report.masks.high
    a, b = (fy.evaluate(dataset, name, eval_key=None).mAP() for name in ("a", "b"))
    assert (report.masks.first, report.masks.second) == pytest.approx((a, b), abs=1e-9)
    assert report.views == {v: f"compare: {v}" for v in ("fixed", "broken", "right")}
    assert len(dataset.load_saved_view("compare: fixed")) == 1
    assert "1 fixed, 1 broken" in report.summary() and "false positives 0 -> 2" in report.summary()


def test_an_earlier_comparison_is_replaced_and_nothing_else(dataset: Any) -> None:
    fy.compare(dataset, "a", "b", samples=10)
    dataset.save_view("mine", dataset.limit(1))
    report = fy.compare(dataset, "b", "a", samples=10)
    assert dataset.values("ground_truth.detections.compare") == [["right", "fixed"], ["broken"]]
    assert set(dataset.list_saved_views()) == {"mine", *report.views.values()}


def test_comparing_on_a_part_leaves_the_rest(dataset: Any) -> None:
    fy.compare(dataset.limit(1), "a", "b", samples=10)
    assert dataset.values("ground_truth.detections.compare") == [["right", "broken"], [None]]


def test_error_types(dataset: Any) -> None:
    report = fy.error_types(dataset, "b")
    # of b: the second cat is 15 pixels aside (IoU 1/3), another lies on nothing; nothing else is missed, for that cat was nearly found
    assert {kind: n for kind, n in report.counts.items() if n} == {"shifted": 1, "background": 1}
    assert dataset.values("b.detections.error") == [[None, "shifted"], [None, "background"]]
    assert dataset.values("ground_truth.detections.error") == [[None, None], [None]]
    shifted, background = (
        dataset.values("b.detections.error_cost", unwind=True)[1],
        dataset.values("b.detections.error_cost", unwind=True)[3],
    )
    # cats: right at 0.9, wrong at 0.7, at 0.3 wrong but mended; two to find: AP 51/101 -> 51/101 + 50/101 * 2/3
    assert shifted == pytest.approx(50 / 101 * 2 / 3 / 2) and background == pytest.approx(0, abs=1e-12)
    assert report.ap50 == pytest.approx((51 / 101 + 1) / 2)
    assert report.costs["shifted"] == pytest.approx(shifted)
    worst = report.worst[0]
    assert (worst.kind, worst.cost, worst.iou) == ("shifted", pytest.approx(shifted), pytest.approx(1 / 3))
    assert (worst.label, worst.predicted, worst.confidence) == ("cat", "cat", pytest.approx(0.3))
    assert worst.label_id == dataset.values("ground_truth.detections.id", unwind=True)[1]
    assert report.worst[1].label_id is None and report.worst[1].prediction_id == dataset.values("b.detections.id", unwind=True)[3]
    assert (report.objects, report.predictions, report.errors) == (3, 4, 2)
    assert report.classes == {
        "cat": {"objects": 2, "AP50": pytest.approx(51 / 101), "errors": {"shifted": 1, "background": 1}},
        "dog": {"objects": 1, "AP50": pytest.approx(1), "errors": {}},
    }
    assert report.views == {"shifted": "error: shifted", "background": "error: background"}
    assert "shifted" in report.summary()
    missed = fy.error_types(dataset, "a", key="e2")
    assert missed.counts["missed"] == 1 and dataset.values("ground_truth.detections.e2") == [[None, None], ["missed"]]
    assert len(dataset.load_saved_view("e2: missed")) == 1


def test_several_models_are_compared_with_the_first(dataset: Any) -> None:
    dataset.clone_sample_field("b", "c")
    dataset.set_values("c.detections", [labels[:1] for labels in dataset.values("c.detections")])
    report = fy.compare(dataset, "a", "b", "c", samples=20)
    (other,) = report.more
    assert (other.first, other.second, other.objects) == ("a", "c", {"fixed": 1, "broken": 1, "right": 1, "wrong": 0})
    assert report.objects == other.objects and (report.false_positives, other.false_positives) == ((0, 2), (0, 0))
    assert dataset.values("ground_truth.detections.compare_c") == dataset.values("ground_truth.detections.compare")
    assert other.views == {v: f"compare_c: {v}" for v in ("fixed", "broken", "right")}
    alone = fy.compare(dataset, "a", "c", key=None, samples=20)
    assert (alone.masks, alone.boxes, alone.per_size) == (other.masks, other.boxes, other.per_size)
    assert json.loads(json.dumps(report.to_dict()))["more"][0]["per_class"] == {"cat": {"right": 1, "broken": 1}, "dog": {"fixed": 1}}
    with pytest.raises(DataError, match="'b' is given twice"):
        fy.compare(dataset, "a", "b", "b")


def test_sizes_are_those_of_coco(fiftyone_db: Any, tmp_path: Path) -> None:
    """32 x 32 pixels are small, 33 x 32 medium, 97 x 96 large."""
    labels = [
        to_detection(masks.from_bitmap(np.ones((h, w)), x, 0), name, 300, 300, confidence=0.5)
        for name, w, h, x in (("a", 32, 32, 0), ("b", 33, 32, 50), ("c", 97, 96, 100))
    ]
    made = fo.Dataset()
    sample = fo.Sample(str(tmp_path / "x.png"), metadata=fo.ImageMetadata(width=300, height=300))
    sample["ground_truth"], sample["a"], sample["b"] = (
        fo.Detections(detections=[d.copy() for d in part]) for part in (labels, labels, labels[:2])
    )
    made.add_sample(sample)
    report = fy.compare(made, "a", "b", samples=5)
    assert report.per_size == {"small": {"right": 1}, "medium": {"right": 1}, "large": {"broken": 1}}
    made.delete()


@pytest.mark.parametrize("name", ["cat", "<script>alert('cat')</script>"])
def test_the_report_of_kinds_of_errors(dataset: Any, tmp_path: Path, name: str) -> None:
    for field in ("ground_truth", "b"):
        renamed = [[name if x == "cat" else x for x in labels] for labels in dataset.values(f"{field}.detections.label")]
        dataset.set_values(f"{field}.detections.label", renamed)
    report = fy.error_types(dataset, "b", report=tmp_path / "pages" / "errors.html")
    assert report.page == tmp_path / "pages" / "errors.html" and [p.name for p in report.page.parent.iterdir()] == ["errors.html"]
    page = report.page.read_text()
    assert "<script" not in page and escape(name) in page and "default-src 'none'" in page
    assert not re.search(r"(src|href)=.(?!data:image/)", page), "everything is in the file"
    # the shifted one and the one on nothing, twice each
    pictures = [base64.b64decode(p) for p in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)]
    assert len(pictures) == 4
    truth, found, nothing, background = (
        cv2.imdecode(np.frombuffer(p, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1].astype(int) for p in pictures
    )
    # on black images: green outlines of labels, red ones of predictions, of which the first lies 15 pixels further left
    green, red = (np.argwhere(p[..., channel] > 150) for p, channel in ((truth, 1), (found, 0)))
    assert len(green) and len(red) and green[:, 1].mean() > red[:, 1].mean() + 20 and nothing.max() < 30 < background.max()
    assert "AP50 +0.1650" in page and f"AP50 {report.costs['shifted']:+.4f}" in page
    stored = json.loads(json.dumps(report.to_dict()))
    assert stored["cases"]["shifted"][0]["sample_id"] == dataset.first().id and stored["classes"][name]["objects"] == 2
    Path(dataset.first().filepath).unlink()  # an image that is gone has no picture, and the report is there all the same
    dataset.set_values("metadata", [fo.ImageMetadata(width=SIZE, height=SIZE)] * 2)
    assert fy.error_types(dataset, "b", report=report.page).page.read_text().count("<img") == 2


def test_what_cannot_be_compared(dataset: Any) -> None:
    before = dataset.values("ground_truth.detections")
    with pytest.raises(DataError, match="'a' is given twice"):
        fy.compare(dataset, "a", "a")
    with pytest.raises(UserError, match="key='1 x': use letters"):
        fy.compare(dataset, "a", "b", key="1 x")
    with pytest.raises(UserError, match="key='no-good'"):
        fy.error_types(dataset, "a", key="no-good")
    for sample in dataset:
        for label in sample.a.detections:
            label.confidence = None
        sample.save()
    with pytest.raises(DataError, match="no confidence"):
        fy.error_types(dataset, "a")
    with pytest.raises(DataError, match="no confidence"):
        fy.compare(dataset, "a", "b")
    assert dataset.values("ground_truth.detections") == before and not dataset.list_saved_views()


def test_nothing_is_written_without_a_key(dataset: Any) -> None:
    assert fy.compare(dataset, "a", "b", key=None, samples=10).views == {}
    assert fy.error_types(dataset, "b", key=None).counts["shifted"] == 1
    assert not dataset.list_saved_views() and "compare" not in str(dataset.get_field_schema(flat=True).keys())


@pytest.mark.parametrize("key", ["label", "mask", "iscrowd", "confidence", "difficulty"])
def test_attributes_of_others_are_not_replaced(dataset: Any, key: str) -> None:
    first = dataset.first()
    first.ground_truth.detections[0]["difficulty"] = "hard"
    first.ground_truth.detections[0]["iscrowd"] = False
    first.b.detections[0]["error_cost"] = 12.5
    first.save()
    before = list(dataset._sample_collection.find())
    with pytest.raises(UserError, match=f"key='{key}': .* that is not ours"):
        fy.compare(dataset, "a", "b", key=key)
    with pytest.raises(UserError, match=f"key='{key}': .* that is not ours"):
        fy.error_types(dataset, "b", key=key)
    with pytest.raises(UserError, match="'error_cost' that is not ours"):
        fy.error_types(dataset, "b")
    assert list(dataset._sample_collection.find()) == before


def test_saved_views_of_others_are_not_replaced(dataset: Any) -> None:
    dataset.save_view("compare: mine", dataset.limit(1))
    for _ in range(2):
        fy.compare(dataset, "a", "b", samples=10)
    assert set(dataset.list_saved_views()) == {"compare: mine", "compare: fixed", "compare: broken", "compare: right"}
