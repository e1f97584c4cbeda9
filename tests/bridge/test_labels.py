"""FiftyOne's boxes and masks keep their pixels on the way in and on the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

fo = pytest.importorskip("fiftyone")

from fiftyone_yoloseg.bridge.evaluate import evaluate  # noqa: E402
from fiftyone_yoloseg.bridge.labels import record_to_detections, to_detections, to_polyline  # noqa: E402
from fiftyone_yoloseg.bridge.pixels import box_crop, mask_crop, polygon_crop, read_mask  # noqa: E402
from fiftyone_yoloseg.geometry import masks  # noqa: E402
from fiftyone_yoloseg.types import ImageRecord, InstanceRecord, Instances  # noqa: E402


def placed_mask(*args: Any) -> masks.CropMask:
    return masks.from_bitmap(*mask_crop(*args))


def placed_polygon(*args: Any) -> masks.CropMask:
    return masks.from_bitmap(*polygon_crop(*args))


def placed_box(*args: Any) -> masks.CropMask:
    return masks.from_bitmap(*box_crop(*args))


H, W = 40, 60


def bitmap(x: int, y: int, w: int, h: int, seed: int = 0) -> Any:
    """Random pixels whose corners are set, so that their rectangle is exactly x, y, w, h."""
    full = np.zeros((H, W), np.uint8)
    part = (np.random.default_rng(seed).random((h, w)) < 0.7).astype(np.uint8)
    part[0, 0] = part[-1, -1] = part[0, -1] = part[-1, 0] = 1
    full[y : y + h, x : x + w] = part
    return full


@pytest.mark.parametrize("x1, x2", [(5.0, 17.0), (5.3, 17.4), (5.6, 17.2), (5.5, 17.5), (4.7, 17.9)])
@pytest.mark.parametrize("crop", ["round", "int", "outer"])
def test_a_mask_keeps_its_pixels_however_its_box_was_cropped(x1: float, x2: float, crop: str) -> None:
    full = bitmap(3, 8, 16, 20)
    edges = {"round": (round(x1), round(x2)), "int": (int(x1), int(x2)), "outer": (int(np.floor(x1)), int(np.ceil(x2)))}[crop]
    expected = np.zeros_like(full)
    expected[8:28, edges[0] : edges[1]] = full[8:28, edges[0] : edges[1]]
    placed = placed_mask(full[8:28, edges[0] : edges[1]], [x1 / W, 8 / H, (x2 - x1) / W, 20 / H], H, W)
    got = masks.full_bitmap(placed, H, W)
    if edges[1] - edges[0] in (round(x2) - round(x1), round(x2 - x1)):
        expected = np.roll(expected, round(x1) - edges[0], 1)  # a size that FiftyOne's evaluator expects: its own rounding wins
    assert got.shape == (H, W)
    np.testing.assert_array_equal(got, expected)


def test_a_mask_of_another_size_is_stretched_to_its_box() -> None:
    placed = placed_mask(np.array([[1, 0], [0, 1]], bool), [10 / W, 20 / H, 8 / W, 4 / H], H, W)
    expected = np.zeros((H, W), np.uint8)
    expected[20:22, 10:14] = expected[22:24, 14:18] = 1
    np.testing.assert_array_equal(masks.full_bitmap(placed, H, W), expected)


def test_what_lies_outside_the_image_is_cut_off() -> None:
    placed = placed_mask(np.ones((10, 10), bool), [-4 / W, 36 / H, 10 / W, 10 / H], H, W)
    assert (placed.x, placed.y, placed.w, placed.h) == (0, 36, 6, 4)
    assert placed_mask(np.ones((4, 4), bool), [1.2, 0.1, 0.1, 0.1], H, W) == masks.EMPTY
    # a box of a billion pixels must cost no more memory than the image
    assert masks.area(placed_mask(np.ones((2, 2), bool), [-1e7, -1e7, 2e7, 2e7], H, W)) == H * W


def test_shapes_inside_shapes_are_holes() -> None:
    square = [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]  # 30 x 20 pixels at (15, 10)
    hole = [[0.4, 0.4], [0.6, 0.4], [0.6, 0.6], [0.4, 0.6]]  # 12 x 8 pixels at (24, 16)
    apart = [[0.0, 0.0], [0.1, 0.0], [0.1, 0.1], [0.0, 0.1]]  # 6 x 4 pixels
    full = masks.full_bitmap(placed_polygon([square, hole, apart], H, W), H, W)
    assert full.sum() == 30 * 20 - 12 * 8 + 6 * 4
    assert full[20, 30] == 0 and full[11, 16] == 1 and full[0, 0] == 1


def test_place_box_and_mask_files(tmp_path: Path) -> None:
    assert masks.area(placed_box([0.1, 0.1, 0.5, 0.5], H, W)) == 30 * 20
    colour = np.zeros((5, 6), np.uint16)
    colour[1:3, 2:5] = 256  # would be 0 as a byte
    cv2.imwrite(str(tmp_path / "m.png"), colour)
    assert read_mask(str(tmp_path / "m.png")).sum() == 6
    (tmp_path / "bad.png").write_text("no image")
    for name, what in (("bad.png", "is not an image"), ("none.png", "No such file")):
        with pytest.raises(ValueError, match=what):
            read_mask(str(tmp_path / name))


def test_written_masks_score_one_in_fiftyones_own_evaluator(fiftyone_db: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    dataset = fiftyone_db.Dataset()
    try:
        for i in range(4):
            height, width = (int(v) for v in rng.integers(37, 333, 2))
            cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((height, width, 3), np.uint8))
            objects = []
            for j in range(12):
                w, h = int(rng.integers(1, width)), int(rng.integers(1, height))
                part = np.ones((h, w), np.uint8)
                part[rng.random((h, w)) < 0.3] = 0
                mask = masks.from_bitmap(part, int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1)))
                objects.append(InstanceRecord(j, mask, mask.box))
            record = ImageRecord(tmp_path / f"{i}.png", height, width, tuple(o for o in objects if o.mask.w))
            names = {j: f"class {j}" for j in range(12)}
            sample = fiftyone_db.Sample(filepath=str(record.path))
            sample["ground_truth"] = record_to_detections(record, names)
            n = len(record.instances)
            found = Instances(
                height, width, np.zeros((n, 4), np.float32), np.linspace(1, 0.5, n).astype(np.float32),
                np.array([o.cls for o in record.instances]), [o.mask for o in record.instances],
            )  # fmt: skip
            sample["predictions"] = to_detections(found, names)
            dataset.add_sample(sample)
        results = evaluate(dataset, "predictions", eval_key="ev")
        ious = [iou for sample in dataset.values("predictions.detections.ev_iou") for iou in sample]
        assert len(ious) >= 40 and min(ious) == 1.0
        assert results.mAP() == pytest.approx(1.0)
    finally:
        dataset.delete()


def test_a_predicted_object_without_pixels_is_left_out_and_crowds_are_marked() -> None:
    mask = masks.from_bitmap(bitmap(1, 2, 3, 4))
    found = Instances(H, W, np.zeros((2, 4), np.float32), np.array([0.9, 0.8], np.float32), np.array([0, 0]), [masks.EMPTY, mask])
    (label,) = to_detections(found, {0: "a"}).detections
    assert label.confidence == pytest.approx(0.8) and label.mask.shape == (4, 3)
    assert label.bounding_box == pytest.approx([1 / W, 2 / H, 3 / W, 4 / H])
    crowd = ImageRecord(Path("x.png"), H, W, (InstanceRecord(0, mask, mask.box, crowd=True),))
    assert record_to_detections(crowd, {0: "a"}).detections[0].iscrowd is True


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)), st.integers(0, 5), st.integers(0, 7)
)
def test_a_written_polyline_is_read_back_exactly(bits: Any, x: int, y: int) -> None:
    """Donuts, islands, parts and single pixels: all small masks, in an image whose sides are no powers of two."""
    mask = masks.from_bitmap(bits, x, y)
    if mask.w:
        outline = to_polyline(mask, "a", 17, 19, confidence=0.5)
        assert placed_polygon(outline.points, 17, 19) == mask
        assert outline.closed and outline.filled and (outline.label, outline.confidence) == ("a", 0.5)


def test_a_polyline_has_a_shape_for_each_part_and_each_hole() -> None:
    island = np.pad(np.ones((1, 1)), 2)
    donut_with_island_and_dot = np.pad(np.pad(island, 1, constant_values=1), ((0, 0), (0, 3)))
    donut_with_island_and_dot[0, -1] = 1
    shapes = to_polyline(masks.from_bitmap(donut_with_island_and_dot), "a", H, W).points
    assert sorted(len(shape) for shape in shapes) == [4, 4, 4, 4]
    areas = sorted(
        round((max(x for x, _ in s) - min(x for x, _ in s)) * (max(y for _, y in s) - min(y for _, y in s)) * W * H) for s in shapes
    )
    assert areas == [1, 1, 25, 49]


def test_labels_for_the_database_are_those_that_fiftyone_would_write() -> None:
    from datetime import datetime

    from fiftyone_yoloseg.bridge.pixels import decode_mask
    from fiftyone_yoloseg.bridge.provenance import MODEL, Author, fingerprint, origin_of, predicted_labels

    crops = [
        masks.from_bitmap(bitmap(3, 8, 16, 20)),
        masks.EMPTY,
        masks.from_bitmap(bitmap(0, 0, W, H, 1)),
        masks.from_bitmap(bitmap(59, 39, 1, 1)),
    ]
    boxes, n = np.array([c.box for c in crops], np.float32), len(crops)
    found = Instances(H, W, boxes, np.linspace(0.9, 0.1, n).astype(np.float32), np.arange(n), crops)
    names, author = {i: f"class {i}" for i in range(n)}, Author("0123456789ab", "run", datetime(2026, 1, 2))
    wanted = [d.to_dict() for d in to_detections(found, names).detections]
    made = predicted_labels(found, names, author, keep_masks=True)
    assert len(made) == len(wanted) == 3
    for ours, theirs in zip(made, wanted, strict=True):
        own = {"origin": "model", "checkpoint": "0123456789ab", "run": "run", "predicted_at": datetime(2026, 1, 2)}
        assert set(ours) - set(theirs) == {*own, "model_hash", "model_mask"} and set(theirs) <= set(ours)
        assert {k: ours[k] for k in own} == own
        assert all(ours[k] == theirs[k] for k in set(theirs) - {"_id", "mask"}) and type(ours["_id"]) is type(theirs["_id"])
        np.testing.assert_array_equal(decode_mask(ours["mask"]), decode_mask(bytes(theirs["mask"])))
        np.testing.assert_array_equal(fo.Detection.from_dict(dict(ours)).mask, decode_mask(ours["mask"]))
        assert origin_of(ours) == MODEL and ours["model_hash"] == fingerprint({**ours, "mask": bytes(theirs["mask"])})
        assert fingerprint({**ours, "label": "other"}) != ours["model_hash"]
