"""Each kind of label error on rectangles whose scores can be computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_yoloseg.engine.label_errors import KINDS, LabelErrors, Suspect, typical
from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.types import CropMask, ImageRecord, InstanceRecord, Instances

SIZE = 60
Box = tuple[int, int, int, int]


def rectangle(box: Box) -> CropMask:
    x, y, w, h = box
    return masks.from_bitmap(np.ones((h, w), np.uint8), x, y)


def image(
    labels: list[tuple[int, Box]], predictions: list[tuple[int, float, Box]], crowds: list[tuple[int, Box]] = ()
) -> tuple[ImageRecord, Instances]:  # type: ignore[assignment]
    """labels: (class, box); predictions: (class, confidence, box); boxes as x, y, w, h."""
    objects = [
        InstanceRecord(cls, m := rectangle(box), m.box, crowd) for part, crowd in ((labels, False), (crowds, True)) for cls, box in part
    ]
    found = [rectangle(box) for _, _, box in predictions]
    boxes = np.array([m.box for m in found], np.float32).reshape(-1, 4)
    confidences = np.array([conf for _, conf, _ in predictions], np.float32)
    instances = Instances(SIZE, SIZE, boxes, confidences, np.array([cls for cls, _, _ in predictions], np.int64), found)
    return ImageRecord(Path("x.png"), SIZE, SIZE, tuple(objects)), instances


def search(*images: tuple[ImageRecord, Instances], min_score: float = 0.0) -> dict[str, list[Suspect]]:
    errors = LabelErrors(min_score=min_score)
    for record, found in images:
        errors.add(record, found)
    suspects = errors.suspects()
    assert all(0 < s.score <= 1 for s in suspects) and suspects == sorted(suspects, key=lambda s: -s.score)
    return {kind: [s for s in suspects if s.kind == kind] for kind in KINDS}


A: Box = (5, 5, 10, 10)


@pytest.mark.parametrize(
    ("labels", "score", "iou"),
    [
        ([], 0.8, 0.0),  # nothing there
        ([(0, (30, 30, 10, 10))], 0.8, 0.0),
        ([(1, (11, 5, 10, 10))], 0.8 * (1 - 0.25 / 0.5), 0.25),  # 40 of 160 pixels are shared with another class
        ([(0, (12, 5, 10, 10))], 0.8 * (1 - 0.3 / 0.5), 30 / 170),  # of its own class the share of its pixels counts: 30 of 100
        ([(0, (10, 5, 10, 10))], None, 0.0),  # half of it
        ([(1, (5, 5, 10, 9))], None, 0.0),  # a label of another class, but the same object
        ([(0, (0, 0, 50, 50))], None, 0.0),  # a part of a labelled object
    ],
)
def test_missing(labels: list[tuple[int, Box]], score: float | None, iou: float) -> None:
    found = search(image(labels, [(0, 0.8, A)]))["missing"]
    if score is None:
        assert found == []
    else:
        assert [s.score for s in found] == pytest.approx([score]) and found[0].predictions == (0,) and found[0].labels == ()
        assert found[0].iou == pytest.approx(iou)


def test_one_missing_object_is_named_once_and_by_its_most_confident_prediction() -> None:
    found = search(image([], [(0, 0.6, A), (1, 0.9, (5, 5, 10, 9)), (0, 0.5, (30, 30, 5, 5)), (0, 0.04, (50, 50, 5, 5))]))["missing"]
    assert [s.predictions for s in found] == [(1,), (2,)]  # the last one is below the lowest confidence that counts


def test_spurious_weighs_how_often_the_model_finds_labels_of_that_size() -> None:
    found = search(image([(0, A), (0, (30, 30, 10, 10))], [(0, 0.8, A)]))["spurious"]
    # supports 0.8 and 0, so labels of this size have 0.4
    assert [(s.labels, s.score) for s in found] == [((1,), pytest.approx(1 * 0.4))]
    # any class supports: IoU 0.25 gives half of the confidence; on 30 of 100 pixels its own class does
    near = search(image([(0, A), (0, (30, 30, 10, 10))], [(0, 0.8, A), (1, 0.4, (36, 30, 10, 10))]))["spurious"]
    assert near[0].score == pytest.approx((1 - 0.2) * (0.8 + 0.2) / 2)
    near = search(image([(0, A), (0, (30, 30, 10, 10))], [(0, 0.8, A), (0, 0.5, (37, 30, 30, 10))]))["spurious"]
    assert near[0].score == pytest.approx((1 - 0.15) * (0.8 + 0.15) / 2)


def test_a_label_on_pixels_of_another_labelled_object_is_more_suspicious() -> None:
    found = search(image([(0, (0, 0, 20, 20)), (1, (15, 0, 10, 20))], [(0, 0.5, (0, 0, 20, 20))]))["spurious"]
    # half of the second label lies on the prediction, which has the first: c = 0.25. Its IoU with that is 100 / 500: s = 0.5 * 0.2 / 0.5
    assert found[0].labels == (1,) and found[0].score == pytest.approx((1 - 0.2) * (1 - (1 - (0.5 + 0.2) / 2) * (1 - 0.25)))
    found = search(image([(0, A), (0, (30, 30, 10, 10))], [(0, 0.8, A), (1, 0.3, (30, 30, 10, 10))]))["spurious"]
    assert found == []  # 0.3 is support enough


def test_wrong_class() -> None:
    found = search(image([(0, A)], [(1, 0.9, A), (0, 0.3, A)]))
    assert [(s.labels, s.predictions, s.iou) for s in found["wrong_class"]] == [((0,), (0,), 1.0)]
    assert found["wrong_class"][0].score == pytest.approx(0.9 * 0.7)
    assert found["missing"] == []
    # an object of the predicted class is labelled there too: the prediction is explained
    assert search(image([(0, A), (1, A)], [(1, 0.9, A)]))["wrong_class"] == []
    assert search(image([(0, A)], [(1, 0.9, (12, 5, 10, 10))]))["wrong_class"] == []


WHOLE, LEFT, RIGHT = (10, 10, 20, 10), (10, 10, 10, 10), (20, 10, 10, 10)


@pytest.mark.parametrize(
    ("more", "score"),
    [
        ([], 0.8),  # u 1, gain 0.5, the lower confidence
        ([(0, 0.4, WHOLE)], 0.8),  # alone 1 * 0.4 / 0.8: gain still 0.5
        ([(0, 0.8, WHOLE)], None),  # one prediction says the same as the label
        ([(0, 0.76, WHOLE)], 0.8 * (1 - 0.76 / 0.8) / 0.1),
        ([(0, 0.85, (11, 10, 9, 10))], 0.8),  # a second one of the left half is no part of its own
    ],
)
def test_merged(more: list[tuple[int, float, Box]], score: float | None) -> None:
    found = search(image([(0, WHOLE)], [(0, 0.9, LEFT), (0, 0.8, RIGHT), *more]))
    if score is None:
        assert found["merged"] == []
    else:
        assert [(s.labels, s.predictions, s.iou) for s in found["merged"]] == [((0,), (0, 1), 1.0)]
        assert found["merged"][0].score == pytest.approx(score)
    assert found["missing"] == []


def test_parts_that_have_labels_or_other_classes_are_not_merged() -> None:
    assert search(image([(0, WHOLE), (0, RIGHT)], [(0, 0.9, LEFT), (0, 0.8, RIGHT)]))["merged"] == []
    assert search(image([(0, WHOLE)], [(0, 0.9, LEFT), (1, 0.8, RIGHT)]))["merged"] == []


def test_split() -> None:
    found = search(image([(0, LEFT), (0, RIGHT)], [(0, 0.9, WHOLE)]))
    assert [(s.labels, s.predictions, s.iou) for s in found["split"]] == [((0, 1), (0,), 1.0)]
    assert found["split"][0].score == pytest.approx(0.9) and found["sloppy"] == []
    # a prediction of 0.6 has the left half for itself
    found = search(image([(0, LEFT), (0, RIGHT)], [(0, 0.9, WHOLE), (0, 0.6, LEFT)]))
    assert found["split"][0].score == pytest.approx(0.9 * 0.4)
    assert search(image([(0, LEFT), (1, RIGHT)], [(0, 0.9, WHOLE)]))["split"] == []


def test_sloppy_is_what_lies_further_off_than_is_usual() -> None:
    usual = [image([(0, (10, 10, 20, 20))], [(0, 0.9, (11, 10, 20, 20))]) for _ in range(40)]
    off = image([(0, (10, 10, 20, 20))], [(0, 0.9, (16, 10, 20, 20))])
    found = search(*usual, off)["sloppy"]
    # gaps 40 / 80 / 20 = 0.025 and 240 / 80 / 20 = 0.15; the least deviation that is taken is 0.002
    z = (0.15 - 0.025) / 0.002
    assert [(s.image, s.labels, s.predictions) for s in found] == [(40, (0,), (0,))]
    assert found[0].score == pytest.approx(0.9 * z**2 / (z**2 + 9)) and found[0].iou == pytest.approx(14 / 26)
    other_class = image([(1, (10, 10, 20, 20))], [(0, 0.9, (16, 10, 20, 20))])
    assert search(*usual, other_class)["sloppy"] == []
    assert search(*[off] * 41)["sloppy"] == []  # a model that is always that far off says nothing


def test_crowds_are_no_labels_and_take_the_predictions_on_them() -> None:
    crowd: Box = (0, 0, 40, 40)
    found = search(image([], [(0, 0.9, A), (0, 0.8, (35, 0, 10, 10))], [(0, crowd)]))
    assert all(not v for v in found.values())  # wholly and half on it
    found = search(image([], [(1, 0.9, A), (0, 0.8, (36, 0, 10, 10))], [(0, crowd)]))
    assert [s.predictions for s in found["missing"]] == [(0,), (1,)]  # of another class; less than half


def test_without_labels_or_predictions_nothing_is_suspicious() -> None:
    errors = LabelErrors()
    assert errors.suspects() == []
    for record, found in (image([], []), image([(0, A)], [])):
        errors.add(record, found)
    assert errors.suspects() == [] and (errors.images, errors.labels, errors.predictions) == (2, 1, 0)


def test_masks_without_pixels_are_left_out_and_low_scores_forgotten() -> None:
    record, found = image([(0, A)], [(0, 0.9, A), (0, 0.9, (30, 30, 5, 5)), (0, 0.2, (40, 40, 5, 5))])
    empty = Instances(SIZE, SIZE, found.boxes, found.confidences, found.classes, [found.masks[0], masks.EMPTY, found.masks[2]])
    assert [s.predictions for s in search((record, empty))["missing"]] == [(2,)]
    assert search((record, empty), min_score=0.25)["missing"] == []


def test_what_is_typical() -> None:
    at = np.arange(80.0)
    values = np.where(at < 40, 1.0, 3.0)
    # two bins with means at 19.5 and 59.5, straight between, level outside
    assert typical(at, values, np.array([0.0, 19.5, 39.5, 59.5, 99.0]), np.median).tolist() == [1, 1, 2, 3, 3]
    assert typical(at[:79], values[:79], np.array([5.0]), np.mean)[0] == pytest.approx((40 + 39 * 3) / 79)  # too few for two bins


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_shared_pixels_are_those_of_whole_bitmaps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    crops, full = [], []
    for _ in range(6):
        x, y, w, h = (int(v) for v in rng.integers(1, 12, 4))
        bits = rng.integers(0, 2, (h, w)).astype(np.uint8)
        canvas = np.zeros((24, 24), np.uint8)
        canvas[y : y + h, x : x + w] = bits
        crops.append((bits, x, y))
        full.append(canvas)
    expected = [[int((a & b).sum()) for b in full[4:]] for a in full[:4]]
    assert masks.shared_pixels(crops[:4], crops[4:]).tolist() == expected
    assert masks.shared_pixels([], crops).shape == (0, 6)
