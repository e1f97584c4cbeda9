"""Matching of predictions and labels: a scene computed by hand, and COCO's own matches on real labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from coco_reference import coco_eval, perturbed
from test_metrics import LARGE, MEDIUM, SMALL, image, predictions, rectangle

from fiftyone_yoloseg.data.coco import load_coco
from fiftyone_yoloseg.engine.matching import IGNORED, NOTHING, confusion_matrix, match
from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.types import ImageRecord, Instances

A, B = 0, 1
FIRST = image((A, LARGE), (B, MEDIUM)), predictions((A, LARGE, 0.9), (A, MEDIUM, 0.8))  # one right; b taken for a
SECOND = image((A, SMALL)), predictions((A, SMALL, 0.1))  # found, but below the confidence
CROWD = rectangle(100, 0, 80, 80)
THIRD = (
    image((B, LARGE), crowds=((B, CROWD),)),
    # right; a second one on the same object; inside the crowd of its class; inside a crowd of another class
    predictions((B, LARGE, 0.9), (B, LARGE, 0.7), (B, rectangle(110, 10, 20, 20), 0.6), (A, rectangle(140, 10, 20, 20), 0.5)),
)


def test_confusions_of_three_images() -> None:
    assert confusion_matrix([FIRST, SECOND, THIRD], 2, 0.25).tolist() == [
        # found as a, as b, not at all
        [1, 0, 1],
        [1, 1, 0],
        [1, 1, 0],  # no object: inside the other's crowd, and the second one
    ]
    assert confusion_matrix([SECOND], 2, 0.1).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]], "the confidence itself counts"
    assert confusion_matrix([], 2, 0.25).tolist() == [[0] * 3] * 3


def test_matching_by_hand() -> None:
    first, third = match(*FIRST, 0.25), match(*THIRD, 0.25)
    assert first.labels.tolist() == [0, NOTHING] and first.missed.tolist() == [1] and first.ious.tolist() == [1, 0]
    assert (first.hits, first.wrong, first.quality) == (1, 1, pytest.approx(1 / 2)), "1 / (1 + half of one wrong and one missed)"
    assert match(*FIRST, 0.25, classwise=False).labels.tolist() == [0, 1]
    assert third.labels.tolist() == [0, NOTHING, IGNORED, NOTHING] and third.missed.tolist() == []
    assert (third.hits, third.wrong, third.quality) == (1, 2, pytest.approx(1 / 2))


def test_the_most_confident_chooses_first_and_takes_the_best() -> None:
    left, right = rectangle(0, 0, 100, 100), rectangle(0, 0, 80, 100)
    found = predictions((A, rectangle(0, 0, 90, 100), 0.5), (A, left, 0.6))
    matching = match(image((A, right), (A, left)), found, 0.1)
    assert matching.predictions.tolist() == [1, 0] and matching.labels.tolist() == [1, 0], "0.9 is the better of two, but it is taken"
    assert matching.ious == pytest.approx([1, 8 / 9]) and matching.quality == pytest.approx((1 + 8 / 9) / 2)


def test_an_overlap_of_just_the_threshold_counts() -> None:
    half = rectangle(90, 90, 50, 100)
    assert match(image((A, LARGE)), predictions((A, half, 0.9)), 0.5).labels.tolist() == [0]
    assert match(image((A, LARGE)), predictions((A, half, 0.9)), 0.5, iou=0.51).labels.tolist() == [NOTHING]


def test_nothing_there_and_nothing_found() -> None:
    empty, one = image(), image((A, LARGE))
    assert match(empty, predictions(), 0.5).quality == 1 and match(one, predictions(), 0.5).quality == 0
    assert match(empty, predictions((A, LARGE, 0.9)), 0.5).quality == 0
    found = predictions((A, LARGE, 0.9))
    found.masks[0] = masks.EMPTY
    assert match(one, found, 0.5).labels.tolist() == [NOTHING]


def test_matches_are_those_of_pycocotools(test_data: Path) -> None:
    """Hits, wrong ones and ignored ones of each image and class, with real crowds."""
    data = load_coco(test_data / "coco_tiny")
    rng = np.random.default_rng(1)
    pairs: list[tuple[ImageRecord, Instances]] = [(r, perturbed(r, len(data.names), rng)) for r in data.splits["val"]]
    crowded = [(r, f) for r, f in pairs if any(i.crowd for i in r.instances)]
    assert len(crowded) >= 2
    pairs += [(replace(r, path=Path("again")), on_crowds(r, f)) for r, f in crowded]
    official = coco_eval(pairs, dict(data.names), "segm")
    ours = {i: match(record, found, 0.0) for i, (record, found) in enumerate(pairs, 1)}
    ignored = 0
    for entry in official.evalImgs:
        if entry is None or entry["aRng"] != official.params.areaRng[0]:
            continue
        matching, found = ours[entry["image_id"]], pairs[entry["image_id"] - 1][1]
        labels = matching.labels[found.classes[matching.predictions] == entry["category_id"]]
        skipped = entry["dtIgnore"][0].astype(bool)
        assert (labels == IGNORED).tolist() == skipped.tolist()
        assert (labels >= 0).tolist() == ((entry["dtMatches"][0] > 0) & ~skipped).tolist()
        ignored += int(skipped.sum())
    assert ignored >= 2 and sum(m.hits for m in ours.values()) > 300


def on_crowds(record: ImageRecord, found: Instances) -> Instances:
    """A prediction on each crowd, besides those that are there."""
    crowds = [i for i in record.instances if i.crowd]
    return Instances(
        record.height,
        record.width,
        np.concatenate([found.boxes, np.array([c.box for c in crowds], np.float32)]),
        np.concatenate([found.confidences, np.full(len(crowds), 0.5, np.float32)]),
        np.concatenate([found.classes, np.array([c.cls for c in crowds], np.int64)]),
        [*found.masks, *(c.mask for c in crowds)],
    )
