"""Evaluation by Boundary IoU, and evaluation in several processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

fo = pytest.importorskip("fiftyone")

from fiftyone_yoloseg.bridge import scored_objects, scoring  # noqa: E402
from fiftyone_yoloseg.bridge.evaluate import evaluate  # noqa: E402
from fiftyone_yoloseg.bridge.labels import to_detection  # noqa: E402
from fiftyone_yoloseg.data import processes  # noqa: E402
from fiftyone_yoloseg.errors import DataError, SettingsError  # noqa: E402
from fiftyone_yoloseg.geometry import masks  # noqa: E402

SIZE = 100


def thing(bits: np.ndarray, x: int, y: int, **attributes: Any) -> Any:
    return to_detection(masks.from_bitmap(bits, x, y), "cat", SIZE, SIZE, **attributes)


def dataset_of(*pairs: tuple[list[Any], list[Any]]) -> Any:
    made, samples = fo.Dataset(), []
    for i, (truth, found) in enumerate(pairs):
        sample = fo.Sample(filepath=f"/nowhere/{i}.png", metadata=fo.ImageMetadata(width=SIZE, height=SIZE))
        sample["ground_truth"], sample["predictions"] = fo.Detections(detections=truth), fo.Detections(detections=found)
        samples.append(sample)
    made.add_samples(samples, progress=False)
    return made


@pytest.fixture
def shifted(fiftyone_db: Any) -> Iterator[Any]:
    """A square of 20 pixels, found 2 pixels aside; and a crowd with a prediction inside."""
    square = np.ones((20, 20))
    crowd = thing(np.ones((40, 40)), 55, 55, iscrowd=True)
    made = dataset_of(
        ([thing(square, 20, 20), crowd], [thing(square, 22, 20, confidence=0.9), thing(np.ones((10, 10)), 70, 70, confidence=0.8)])
    )
    yield made
    made.delete()


def test_boundary_iou_by_hand(shifted: Any) -> None:
    """Both have a band of 3 pixels: 400 - 14 * 14 = 204. Of the 18 * 20 pixels that the squares share, 14 * 14 + 14 * 14 - 12 * 14 = 224 are inside
    of one of the bands: the bands share 136, and have 272 together. The masks share 360 of 440."""
    plain = evaluate(shifted, "predictions", eval_key="plain")
    results = evaluate(shifted, "predictions", eval_key="edge", iou_type="boundary")
    assert shifted.values("predictions.detections.plain_iou") == [[pytest.approx(360 / 440), 1.0]]
    assert shifted.values("predictions.detections.edge_iou") == [[0.5, 1.0]], "on a crowd the share of the mask counts"
    assert shifted.values("predictions.detections.edge") == [["tp", "ignored"]]
    assert plain.coco["segm"]["AP"] == pytest.approx(0.7) and results.coco["boundary"]["AP"] == pytest.approx(0.1) == results.mAP()
    assert "segm" not in results.coco and results.coco["bbox"] == plain.coco["bbox"]
    assert results.metrics()["boundary_AP50"] == pytest.approx(1) and shifted.get_evaluation_info("edge").config.iou_type == "boundary"
    again = shifted.evaluate_detections(
        "predictions", gt_field="ground_truth", eval_key="own", method="yoloseg-coco", use_masks=True, iou_type="boundary", progress=False
    )
    assert again.coco == results.coco
    with pytest.raises(SettingsError, match="iou_type='edge': 'mask' or 'boundary'"):
        evaluate(shifted, "predictions", iou_type="edge")


@st.composite
def blobs(draw: st.DrawFn) -> np.ndarray:
    """A mask of a small image: some rectangles, some of them cut out."""
    full = np.zeros((24, 30), np.uint8)
    for value in draw(st.lists(st.sampled_from([1, 1, 0]), min_size=1, max_size=4)):
        x, y, w, h = (draw(st.integers(0, n)) for n in (28, 22, 16, 16))
        full[y : y + h + 1, x : x + w + 1] = value
    return full


@settings(max_examples=100, deadline=None)
@given(st.lists(blobs(), min_size=1, max_size=3), st.lists(blobs(), min_size=1, max_size=3))
def test_overlaps_are_those_of_whole_images(truth: list[np.ndarray], found: list[np.ndarray]) -> None:
    """As pycocotools has them of whole masks and of whole bands, the smaller one of the two; what is below `lowest` may be 0."""
    height, width = truth[0].shape
    rle = [[coco_mask.encode(np.asfortranarray(m)) for m in side] for side in (found, truth)]
    distance = masks.boundary_distance(height, width)
    bands = [[coco_mask.encode(np.asfortranarray(masks.boundary(m, distance))) for m in side] for side in (found, truth)]
    expected = {
        "mask": coco_mask.iou(*rle, [0] * len(truth)),
        "boundary": np.minimum(coco_mask.iou(*rle, [0] * len(truth)), coco_mask.iou(*bands, [0] * len(truth))),
    }
    labels = [[{"_id": i, "label": "a", **_as_label(m)} for i, m in enumerate(side) if m.any()] for side in (truth, found)]
    kept = np.ix_([m.any() for m in found], [m.any() for m in truth])
    for kind, table in expected.items():
        for lowest in (0.0, 0.5):
            how = scored_objects.Measuring(iou_type=kind, lowest=lowest)  # type: ignore[arg-type]
            measured = scored_objects.measure(*labels, (height, width), how).masks
            known = table[kept] >= lowest
            np.testing.assert_array_equal(measured[known], table[kept][known])
            assert (measured <= table[kept]).all()


def _as_label(full: np.ndarray) -> dict[str, Any]:
    crop = masks.from_bitmap(full)
    height, width = full.shape
    detection = to_detection(crop, "a", height, width)
    return {"bounding_box": detection.bounding_box, "mask": fo.core.utils.serialize_numpy_array(detection.mask)} if crop.w else {}


def test_other_processes_do_the_same(fiftyone_db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many samples as make them worth it; here they are waited for, so that they get some of the nine."""
    rng = np.random.default_rng(0)

    def things(n: int, **more: Any) -> list[Any]:
        return [
            thing(rng.integers(0, 2, (w, w)) | np.eye(w, dtype=int), x, y, **({"confidence": float(rng.random())} if more else {}))
            for w, x, y in rng.integers(5, 40, (n, 3)).tolist()
        ]

    made = dataset_of(*((things(4), things(8, confidence=True)) for _ in range(9)))
    alone = evaluate(made, "predictions", eval_key="alone", iou=0.2)
    monkeypatch.setattr(scoring, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(scoring, "_CHUNK", 2)
    start = processes.Workers.__init__

    def started(self: Any, *args: Any, **settings: Any) -> None:
        start(self, *args, **settings)
        assert self._processes is not None and self._processes.first.result() != os.getpid()

    monkeypatch.setattr(processes.Workers, "__init__", started)
    together = evaluate(made, "predictions", eval_key="together", iou=0.2)
    assert together.coco == alone.coco and (together.ytrue == alone.ytrue).all() and (together.ious == alone.ious).all()
    for name in ("", "_id", "_iou"):
        assert made.values(f"predictions.detections.together{name}") == made.values(f"predictions.detections.alone{name}")
    assert {"tp", "fp"} == set(made.values("predictions.detections.alone", unwind=True))
    monkeypatch.setattr(scoring, "measure_all", _die)
    with pytest.raises(DataError, match="a process that compared samples was killed"):
        evaluate(made, "predictions", eval_key="third")
    assert not made.has_field("third_tp") and sorted(made.list_evaluations()) == ["alone", "together"]
    made.delete()


def _die(*_: Any, **__: Any) -> Any:
    if multiprocessing.parent_process():  # the process of the test does chunks too
        os.kill(os.getpid(), 9)


def test_other_processes_load_neither_fiftyone_nor_torch() -> None:
    code = "import sys, fiftyone_yoloseg.bridge.scored_objects; print({'fiftyone', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
