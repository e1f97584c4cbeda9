"""Metrics on scenes that can be computed by hand, and against pycocotools run the official way."""

from __future__ import annotations

import contextlib
import io
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from coco_reference import coco_eval, perturbed
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fiftyone_yoloseg.data.coco import load_coco
from fiftyone_yoloseg.engine.metrics import CocoScorer, Metrics, Scores
from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.types import CropMask, ImageRecord, InstanceRecord, Instances

NAMES = {0: "a", 1: "b"}
SIZE = 200


def rectangle(x: int, y: int, w: int, h: int) -> CropMask:
    return masks.from_bitmap(np.ones((h, w)), x, y)


def image(*objects: tuple[int, CropMask], crowds: tuple[tuple[int, CropMask], ...] = ()) -> ImageRecord:
    labels = [InstanceRecord(c, m, m.box) for c, m in objects] + [InstanceRecord(c, m, m.box, crowd=True) for c, m in crowds]
    return ImageRecord(Path("x.png"), SIZE, SIZE, tuple(labels))


def predictions(*objects: tuple[int, CropMask, float]) -> Instances:
    boxes = np.array([m.box for _, m, _ in objects], np.float32).reshape(-1, 4)
    scores, classes = np.array([s for *_, s in objects], np.float32), np.array([c for c, *_ in objects], np.int64)
    return Instances(SIZE, SIZE, boxes, scores, classes, [m for _, m, _ in objects])


def score(*pairs: tuple[ImageRecord, Instances]) -> Metrics:
    scorer = CocoScorer(NAMES)
    for record, found in pairs:
        scorer.add(record, found)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # an empty mean must have been thought of
        return scorer.compute()


SMALL, MEDIUM, LARGE = rectangle(0, 0, 20, 20), rectangle(30, 30, 50, 50), rectangle(90, 90, 100, 100)


def test_perfect() -> None:
    metrics = score((image((0, SMALL), (0, MEDIUM), (0, LARGE)), predictions((0, LARGE, 0.9), (0, MEDIUM, 0.8), (0, SMALL, 0.7))))
    for scores in (metrics.box, metrics.seg):
        assert (scores.map, scores.map50, scores.map75) == pytest.approx((1, 1, 1))
        assert (scores.ap_small, scores.ap_medium, scores.ap_large) == pytest.approx((1, 1, 1))
        assert (scores.precision, scores.recall, scores.f1) == pytest.approx((1, 1, 1))
        assert scores.conf <= 0.7 and scores.maps[0] == pytest.approx(1) and math.isnan(scores.maps[1])
    assert (metrics.images, metrics.objects, metrics.objects_per_class.tolist()) == (1, 3, [3, 0])
    assert metrics.fitness == pytest.approx(2)


def test_half_of_the_objects_missed() -> None:
    """Precision 1 up to recall 0.5: 51 of the 101 recall points."""
    metrics = score((image((0, MEDIUM), (0, LARGE)), predictions((0, LARGE, 0.9))))
    for scores in (metrics.box, metrics.seg):
        assert scores.map == scores.map50 == pytest.approx(51 / 101)
        assert (scores.precision, scores.recall, scores.f1) == pytest.approx((1, 0.5, 2 / 3))
        assert (scores.ap_medium, scores.ap_large) == pytest.approx((0, 1)) and math.isnan(scores.ap_small)


def test_a_duplicate_is_a_false_positive() -> None:
    """True, false, true by falling confidence: precision 1 at recall 0.5, 2/3 after it."""
    metrics = score((image((0, MEDIUM), (0, LARGE)), predictions((0, LARGE, 0.9), (0, LARGE, 0.8), (0, MEDIUM, 0.7))))
    for scores in (metrics.box, metrics.seg):
        assert scores.map == pytest.approx((51 + 50 * 2 / 3) / 101)
        assert (scores.precision, scores.recall) == pytest.approx((2 / 3, 1)) and scores.conf <= 0.7


def test_boxes_and_masks_are_scored_apart() -> None:
    """The mask fills the left 60 of 100 columns of its label but the box is right: box IoU 1, mask IoU 0.6."""
    found = predictions((0, LARGE, 0.9))
    found.masks[0] = rectangle(90, 90, 60, 100)
    metrics = score((image((0, LARGE)), found))
    assert metrics.box.map == pytest.approx(1)
    assert (metrics.seg.map, metrics.seg.map50, metrics.seg.map75) == pytest.approx((0.3, 1, 0)), "IoU thresholds 0.50, 0.55, 0.60"
    assert metrics.results_dict == pytest.approx(
        {
            "metrics/precision(B)": 1, "metrics/recall(B)": 1, "metrics/mAP50(B)": 1, "metrics/mAP50-95(B)": 1,
            "metrics/precision(M)": 1, "metrics/recall(M)": 1, "metrics/mAP50(M)": 1, "metrics/mAP50-95(M)": 0.3, "fitness": 1.3,
        }
    )  # fmt: skip


def test_the_confidence_itself_counts() -> None:
    """Only predictions of confidence 1 are all right, and 1 is a point of the grid."""
    metrics = score((image((0, LARGE)), predictions((0, LARGE, 1.0), (0, SMALL, 0.9995))))
    assert (metrics.seg.precision, metrics.seg.recall, metrics.seg.conf) == (1, 1, 1)


def test_crowds_are_ignored() -> None:
    crowd = rectangle(30, 30, 50, 50)
    inside = rectangle(35, 35, 20, 20)
    metrics = score(
        (image((0, LARGE), crowds=((0, crowd),)), predictions((0, inside, 0.95), (0, LARGE, 0.9), (0, rectangle(40, 40, 20, 20), 0.8)))
    )
    assert metrics.seg.map == pytest.approx(1) and metrics.seg.precision == pytest.approx(1), (
        "predictions on a crowd are neither right nor wrong"
    )
    assert (metrics.objects, metrics.objects_per_class.tolist()) == (1, [1, 0])
    outside = score((image((0, LARGE), crowds=((0, crowd),)), predictions((0, SMALL, 0.95), (0, LARGE, 0.9))))
    assert outside.seg.map == pytest.approx(0.5) and outside.seg.precision == pytest.approx(0.5)


def test_a_class_with_crowds_only_has_no_score() -> None:
    metrics = score((image((0, LARGE), crowds=((1, MEDIUM),)), predictions((0, LARGE, 0.9), (1, SMALL, 0.9))))
    assert math.isnan(metrics.seg.maps[1]) and metrics.seg.map == pytest.approx(1) and metrics.objects_per_class.tolist() == [1, 0]


def test_classes_are_averaged_and_absent_ones_left_out() -> None:
    both = score((image((0, LARGE), (1, MEDIUM)), predictions((0, LARGE, 0.9))))
    assert both.seg.map == pytest.approx(0.5) and both.seg.maps == pytest.approx([1, 0]) and both.seg.recalls == pytest.approx([1, 0])
    one = score((image((0, LARGE)), predictions((0, LARGE, 0.9), (1, MEDIUM, 0.9))))
    assert one.seg.map == pytest.approx(1) and math.isnan(one.seg.maps[1]) and math.isnan(one.seg.recalls[1])


def test_no_predictions() -> None:
    metrics = score((image((0, LARGE)), predictions()), (image((0, SMALL)), predictions()))
    for scores in (metrics.box, metrics.seg):
        assert (scores.map, scores.map50, scores.precision, scores.recall, scores.f1) == (0, 0, 0, 0, 0)
    assert metrics.fitness == 0


def test_no_labels() -> None:
    metrics = score((image(), predictions((0, LARGE, 0.9))), (image(), predictions()))
    assert math.isnan(metrics.box.map) and math.isnan(metrics.seg.f1) and math.isnan(metrics.fitness) and metrics.objects == 0
    assert len(metrics.seg.maps) == len(metrics.seg.precisions) == 2


def test_an_empty_mask_is_wrong_but_no_accident() -> None:
    found = predictions((0, LARGE, 0.9))
    found.masks[0] = masks.EMPTY
    metrics = score((image((0, LARGE)), found))
    assert metrics.box.map == pytest.approx(1) and metrics.seg.map == 0


def test_the_stated_area_decides_on_the_size() -> None:
    label = InstanceRecord(0, MEDIUM, MEDIUM.box, area=500.0)
    metrics = score((ImageRecord(Path("x.png"), SIZE, SIZE, (label,)), predictions((0, MEDIUM, 0.9))))
    assert metrics.seg.ap_small == pytest.approx(1) and math.isnan(metrics.seg.ap_medium)


# the official way


def official(path: Path, results: list[dict[str, object]], kind: str) -> list[float]:
    """The twelve numbers that pycocotools prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.fixture(scope="module")
def coco_tiny(test_data: Path) -> tuple[Path, list[ImageRecord], list[Instances], list[int], dict[int, str]]:
    data = load_coco(test_data / "coco_tiny")
    rng = np.random.default_rng(0)
    records = list(data.splits["val"])
    path = test_data / "coco_tiny" / "annotations" / "instances_val2017.json"
    ids = sorted(c["id"] for c in json.loads(path.read_text())["categories"])
    return path, records, [perturbed(r, len(data.names), rng) for r in records], ids, dict(data.names)


def test_equal_to_pycocotools(coco_tiny: tuple[Path, list[ImageRecord], list[Instances], list[int], dict[int, str]]) -> None:
    path, records, found, ids, names = coco_tiny
    numbers = {i["file_name"]: i["id"] for i in json.loads(path.read_text())["images"]}
    scorer = CocoScorer(names)
    results: dict[str, list[dict[str, object]]] = {"bbox": [], "segm": []}
    for record, instances in zip(records, found, strict=True):
        scorer.add(record, instances)
        for box, confidence, cls, mask in zip(
            instances.boxes.tolist(), instances.confidences.tolist(), instances.classes.tolist(), instances.masks, strict=True
        ):
            common = {"image_id": numbers[record.path.name], "category_id": ids[cls], "score": confidence}
            results["bbox"].append({**common, "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]})
            rle = masks.to_coco_rle(mask, record.height, record.width)
            results["segm"].append({**common, "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}})
    metrics = scorer.compute()

    def ours(s: Scores) -> list[float]:
        aps = [s.map, s.map50, s.map75, s.ap_small, s.ap_medium, s.ap_large]
        return [*aps, s.ar1, s.ar10, s.ar100, s.ar_small, s.ar_medium, s.ar_large]

    for kind, scores in (("bbox", metrics.box), ("segm", metrics.seg)):
        expected = official(path, results[kind], kind)
        assert 0.1 < expected[0] < 0.9, "the predictions are neither all right nor all wrong"
        assert ours(scores) == pytest.approx(expected, abs=1e-6)
    assert metrics.objects == sum(not i.crowd for r in records for i in r.instances) == metrics.objects_per_class.sum()


def crowded_scene(rng: np.random.Generator) -> tuple[ImageRecord, Instances]:
    """Overlapping rectangles of two classes and all sizes, a third of them crowds, equal confidences, more than 100 predictions, empty masks."""

    def some(n: int) -> list[CropMask]:
        corners, sides = rng.integers(0, 150, (n, 2)), rng.integers(1, 50, (n, 2)) * rng.choice([1, 3], (n, 1))
        return [
            rectangle(int(x), int(y), int(min(w, SIZE - x)), int(min(h, SIZE - y))) for (x, y), (w, h) in zip(corners, sides, strict=True)
        ]

    labels = [(int(rng.integers(2)), m) for m in some(int(rng.integers(0, 12)))]
    copies = [m for _, m in labels for _ in range(2)]
    found = [*copies, *some(int(rng.integers(0, 8)) + 250 * int(rng.random() < 0.1)), masks.EMPTY][: int(rng.integers(0, 300))]
    split = len(labels) * 2 // 3
    confident = [(int(rng.integers(2)), m, float(rng.integers(5)) / 4) for m in found]
    return image(*labels[:split], crowds=tuple(labels[split:])), predictions(*confident)


@pytest.mark.parametrize("at_once", [20_000, 300, 100])
def test_every_value_of_the_tables_is_that_of_pycocotools(
    coco_tiny: tuple[Path, list[ImageRecord], list[Instances], list[int], dict[int, str]], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit: real labels, and scenes full of ties and crowds. at_once: all classes together, three by three at most, one by one."""
    monkeypatch.setattr("fiftyone_yoloseg.engine.average_precision._AT_ONCE", at_once)
    _, records, found, _, names = coco_tiny
    rng = np.random.default_rng(2)
    scenes = [crowded_scene(rng) for _ in range(60)]
    for pairs, classes in (
        (list(zip(records, found, strict=True)), names),
        (scenes, NAMES),
        (scenes[:1], NAMES),
        ([(image(), predictions((0, LARGE, 0.5)))], NAMES),
        ([(image((1, LARGE)), predictions())], NAMES),
    ):
        scorer = CocoScorer(classes)
        for record, instances in pairs:
            scorer.add(record, instances)
        for kind, averager in zip(("bbox", "segm"), scorer.averagers(), strict=True):
            table, evaluation = averager.compute(len(classes)), coco_eval(pairs, classes, kind)
            with contextlib.redirect_stdout(io.StringIO()):
                evaluation.accumulate()
            for ours, theirs in (
                (table.precision, evaluation.eval["precision"][..., -1]),
                (table.scores, evaluation.eval["scores"][..., -1]),
                (table.recall, evaluation.eval["recall"]),
            ):
                np.testing.assert_array_equal(ours, theirs)


def greedy(record: ImageRecord, found: Instances, cls: int) -> tuple[list[tuple[float, bool]], int]:
    """COCO's matching at IoU 0.5 in plain loops: (confidence, right) of the predictions that count, and the number of labels."""
    labels = [i for i in record.instances if i.cls == cls]
    order = sorted((i for i in range(len(found)) if found.classes[i] == cls), key=lambda i: -found.confidences[i])[:100]
    taken: set[int] = set()
    result = []
    for i in order:
        best, at = 0.5, None
        for j, label in enumerate(labels):
            if label.crowd or j in taken:
                continue
            overlap = float(masks.iou([found.masks[i]], [label.mask])[0, 0])
            if overlap >= best:
                best, at = overlap, j
        if at is not None:
            taken.add(at)
            result.append((float(found.confidences[i]), True))
            continue
        area = masks.area(found.masks[i])
        on_crowd = False
        for label in labels:
            if label.crowd and area:
                full = masks.full_bitmap(label.mask, record.height, record.width) & masks.full_bitmap(
                    found.masks[i], record.height, record.width
                )
                on_crowd |= bool(full.sum() / area >= 0.5)
        if not on_crowd:
            result.append((float(found.confidences[i]), False))
    return result, sum(not label.crowd for label in labels)


def test_best_f1_equals_a_plain_loop(coco_tiny: tuple[Path, list[ImageRecord], list[Instances], list[int], dict[int, str]]) -> None:
    _, records, found, _, names = coco_tiny
    records, found = records[:30], found[:30]
    scorer = CocoScorer(names)
    for record, instances in zip(records, found, strict=True):
        scorer.add(record, instances)
    scores = scorer.compute().seg
    table = []
    for cls in names:
        matched = [greedy(record, instances, cls) for record, instances in zip(records, found, strict=True)]
        table.append(([d for m, _ in matched for d in m], sum(n for _, n in matched)))
    best = (-1.0, 0.0, 0.0, 0.0)
    for step in range(1000):
        threshold = step / 999
        p, r, f = [], [], []
        for detections, objects in table:
            if not objects:
                continue
            above = [right for confidence, right in detections if confidence >= threshold]
            precision, recall = sum(above) / max(len(above), 1), sum(above) / objects
            p.append(precision)
            r.append(recall)
            f.append(2 * precision * recall / max(precision + recall, 1e-16))
        mean = float(np.mean(f))
        if mean > best[0] + 1e-12:
            best = (mean, float(np.mean(p)), float(np.mean(r)), threshold)
    assert (scores.f1, scores.precision, scores.recall, scores.conf) == pytest.approx(best, abs=1e-9)
