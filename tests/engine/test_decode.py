"""From raw outputs to objects: suppression by hand-made cases, masks against shapes whose outline is known in image pixels."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_yoloseg.engine import decode as module
from fiftyone_yoloseg.engine.decode import CLASS_OFFSET, assemble_masks, decode
from fiftyone_yoloseg.engine.nms import nms
from fiftyone_yoloseg.geometry import letterbox, masks
from fiftyone_yoloseg.geometry.letterbox import Letterbox
from fiftyone_yoloseg.types import Instances, RawOutput

SQUARE = letterbox.fit((64, 64), (64, 64))


def raw(rows: list[tuple[tuple[float, float, float, float], list[float]]], nc: int = 3, size: int = 64) -> RawOutput:
    """rows: box x1 y1 x2 y2 and the class scores of one anchor each. Mask logits are +1 everywhere."""
    pred = torch.zeros(1, 4 + nc + 32, max(len(rows), 1))
    for i, ((x1, y1, x2, y2), scores) in enumerate(rows):
        pred[0, :4, i] = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
        pred[0, 4 : 4 + nc, i] = torch.tensor(scores)
        pred[0, 4 + nc, i] = 1
    protos = torch.zeros(1, 32, size // 4, size // 4)
    protos[0, 0] = 1
    return RawOutput(pred, protos)


def found(output: RawOutput, box: Letterbox = SQUARE, **changes: object) -> Instances:
    (instances,) = decode(output, [box], **{"conf": 0.25, "iou": 0.5, "max_det": 300, **changes})  # type: ignore[arg-type]
    return instances


A, NEAR_A, FAR = (8, 8, 40, 40), (9, 8, 41, 40), (44, 44, 60, 60)


def test_the_more_confident_of_two_boxes_stays() -> None:
    got = found(raw([(A, [0.6, 0, 0]), (NEAR_A, [0.9, 0, 0]), (FAR, [0.7, 0, 0])]))
    assert got.boxes.tolist() == [list(NEAR_A), list(FAR)] and got.confidences == pytest.approx([0.9, 0.7])
    assert (got.height, got.width, got.boxes.dtype, got.confidences.dtype, got.classes.dtype) == (64, 64, np.float32, np.float32, np.int64)
    assert [m.box for m in got.masks] == [NEAR_A, FAR]


def test_classes_do_not_compete_unless_agnostic() -> None:
    output = raw([(A, [0.6, 0, 0]), (NEAR_A, [0, 0, 0.9])])
    assert found(output).classes.tolist() == [2, 0]
    assert found(output, agnostic=True).classes.tolist() == [2]


def test_overlap_must_exceed_the_threshold() -> None:
    """Two 32 x 32 boxes 16 apart: IoU 16 / 48."""
    output = raw([((0, 0, 32, 32), [0.9, 0, 0]), ((16, 0, 48, 32), [0.8, 0, 0])])
    assert len(found(output, iou=0.34)) == 2 and len(found(output, iou=0.33)) == 1


@pytest.mark.parametrize("cls", [0, 7, 79, 364])
def test_classes_with_a_high_index_are_suppressed_by_the_same_overlap(cls: int) -> None:
    """Small boxes: moving classes apart must not cost the precision of their corners."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (200, 2))
    rows = [((x, y, x + w, y + w), s) for (x, y), w, s in zip(corners, rng.uniform(5, 9, 200), rng.uniform(0.3, 0.9, 200), strict=True)]

    def kept(index: int) -> list[list[float]]:
        return found(raw([(b, [0.0] * index + [s] + [0.0] * (364 - index)) for b, s in rows], nc=365), iou=0.5).boxes.tolist()

    assert kept(cls) == found(raw([(b, [s]) for b, s in rows], nc=1), iou=0.5).boxes.tolist()


def test_classes_stay_apart_in_the_largest_input() -> None:
    """Without a larger offset, class 0 at the far end would meet class 1 at the origin."""
    far = 7680.0
    output = raw([((far, far, far + 200, far + 200), [0.9, 0, 0]), ((0, 0, 200, 200), [0, 0.8, 0])], size=32)
    assert far + 200 < 8192 < CLASS_OFFSET
    assert len(found(output, letterbox.fit((8192, 8192), (8192, 8192)))) == 2


def test_confidence_is_strict() -> None:
    output = raw([(A, [0.5, 0, 0])])
    assert len(found(output, conf=0.5)) == 0 and len(found(output, conf=0.4999)) == 1


def test_zero_confidence_takes_everything_above_zero() -> None:
    output = raw([(A, [0.5, 0, 0]), (FAR, [0, 0, 0])])
    assert len(found(output, conf=0)) == 1


def test_max_det_keeps_the_best() -> None:
    rows = [((i * 8, 0, i * 8 + 6, 6), [0.3 + i / 20, 0, 0]) for i in range(8)]
    got = found(raw(rows), max_det=3)
    assert got.confidences == pytest.approx([0.65, 0.6, 0.55])


def test_classes_filter() -> None:
    output = raw([(A, [0.6, 0.5, 0]), (FAR, [0, 0, 0.9])])
    assert found(output, classes=[2]).boxes.tolist() == [list(FAR)]
    only = found(output, classes=[1])
    assert only.classes.tolist() == [1] and only.confidences == pytest.approx([0.5]), "the best of the classes that are wanted"
    assert len(found(output, classes=[0, 1, 2])) == 2
    assert len(found(output, classes=[])) == 0 and len(found(output, classes=[7, -1])) == 0 and len(found(output, classes=[1], conf=0)) == 1


def test_multi_label_counts_a_box_for_each_class() -> None:
    output = raw([(A, [0.6, 0.5, 0.1])])
    assert found(output).classes.tolist() == [0]
    both = found(output, multi_label=True)
    assert both.classes.tolist() == [0, 1] and both.confidences == pytest.approx([0.6, 0.5]) and len(both.masks) == 2


def test_nothing_found() -> None:
    got = found(raw([(A, [0.1, 0.1, 0.1])]))
    assert (len(got), got.boxes.shape, got.confidences.shape, got.masks) == (0, (0, 4), (0,), [])


def test_too_many_candidates_keep_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CANDIDATES", 4)
    rows = [((i * 8, 0, i * 8 + 6, 6), [0.3 + i / 20, 0, 0]) for i in range(8)]
    assert found(raw(rows)).confidences == pytest.approx([0.65, 0.6, 0.55, 0.5])


def test_images_of_a_batch_are_kept_apart() -> None:
    a, b = raw([(A, [0.9, 0, 0])]), raw([(FAR, [0, 0.8, 0])])
    both = decode(RawOutput(torch.cat((a.pred, b.pred)), torch.cat((a.protos, b.protos))), [SQUARE, SQUARE], conf=0.25, iou=0.5, max_det=9)
    assert [i.classes.tolist() for i in both] == [[0], [1]]


def test_boxes_come_back_through_the_letterbox() -> None:
    """50 x 100 in 64 x 64: scale 0.64, 16 rows of padding."""
    box = letterbox.fit((50, 100), (64, 64))
    got = found(raw([((6.4, 16, 32, 32), [0.9, 0, 0]), ((-5, 20, 80, 70), [0.8, 0, 0])]), box)
    assert np.allclose(got.boxes, [[10, 0, 50, 25], [0, 6.25, 100, 50]], atol=1e-4)


# masks


def distance_protos(box: Letterbox, cx: float, cy: float, r: float) -> torch.Tensor:
    """Prototype 0 is the signed distance to a circle in image pixels, positive inside, at the centres of the 4 x 4 cells."""
    v, u = np.indices((box.size[0] // 4, box.size[1] // 4))
    x = ((u + 0.5) * 4 - box.left) / box.scale[0]
    y = ((v + 0.5) * 4 - box.top) / box.scale[1]
    protos = torch.zeros(32, *u.shape)
    protos[0] = torch.from_numpy(r - np.hypot(x - cx, y - cy))
    return protos


def circle(height: int, width: int, cx: float, cy: float, r: float) -> np.ndarray:
    y, x = np.indices((height, width)) + 0.5
    return np.hypot(x - cx, y - cy) < r


ONE = torch.eye(32)[:1]


@pytest.mark.parametrize(
    ("source", "size", "stride"),
    [
        ((64, 64), (64, 64), None),
        ((101, 67), (96, 96), None),
        ((101, 67), (96, 96), 32),
        ((67, 101), (64, 96), None),
        ((333, 217), (96, 96), 32),
        ((31, 45), (96, 96), 32),
        ((97, 640), (160, 160), None),
    ],
)
def test_a_circle_is_found_again(source: tuple[int, int], size: tuple[int, int], stride: int | None) -> None:
    box = letterbox.fit(source, size, stride=stride)
    height, width = source
    r = 0.42 * min(source)
    for cx, cy in ((width / 2, height / 2), (width * 0.6 + 0.3, height * 0.45 + 0.4), (r * 0.5, r * 0.4), (width - r / 2, height - r / 3)):
        expected = circle(height, width, cx, cy, r)
        corners = np.array([[max(cx - r, 0), max(cy - r, 0), min(cx + r, width), min(cy + r, height)]])
        (mask,) = assemble_masks(ONE, distance_protos(box, cx, cy, r), corners, box)
        got = masks.full_bitmap(mask, height, width).astype(bool)
        assert (got & expected).sum() / (got | expected).sum() > 0.97
        whole = np.array([[0, 0, width, height]], float)
        (mask,) = assemble_masks(ONE, distance_protos(box, cx, cy, r), whole, box)
        got = masks.full_bitmap(mask, height, width).astype(bool)
        if min(cx, cy) > r and cx + r < width and cy + r < height:
            y, x = np.nonzero(got)
            assert abs(x.mean() + 0.5 - cx) < 0.15 and abs(y.mean() + 0.5 - cy) < 0.15, "not even shifted by part of a pixel"


@settings(max_examples=80, deadline=None)
@given(st.integers(20, 90), st.integers(20, 90), st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=5), st.booleans())
def test_a_mask_is_exactly_its_box_where_all_is_foreground(height: int, width: int, shares: list[tuple[float, ...]], padded: bool) -> None:
    box = letterbox.fit((height, width), (64, 64), stride=None if padded else 32)
    protos = torch.zeros(32, box.size[0] // 4, box.size[1] // 4)
    protos[0] = 1
    boxes = np.array([[min(a, c) * width, min(b, d) * height, max(a, c) * width, max(b, d) * height] for a, b, c, d in shares], np.float32)
    for mask, (x1, y1, x2, y2) in zip(assemble_masks(ONE.repeat(len(boxes), 1), protos, boxes, box), boxes, strict=True):
        full = masks.full_bitmap(mask, height, width)
        expected = np.zeros((height, width), np.uint8)
        columns, rows = np.arange(width), np.arange(height)
        expected[np.ix_((y1 <= rows) & (rows < y2), (x1 <= columns) & (columns < x2))] = 1
        assert np.array_equal(full, expected)


def test_empty_boxes_and_background_give_empty_masks() -> None:
    protos = torch.zeros(32, 16, 16)
    protos[0] = 1
    boxes = np.array([[5, 5, 5, 20], [5, 20, 30, 20], [64, 64, 64, 64], [5.2, 5.2, 5.8, 5.8]], float)
    assert assemble_masks(ONE.repeat(4, 1), protos, boxes, SQUARE) == [masks.EMPTY] * 4
    assert assemble_masks(-ONE, protos, np.array([[0, 0, 64, 64]], float), SQUARE) == [masks.EMPTY]
    assert assemble_masks(ONE[:0], protos, np.zeros((0, 4)), SQUARE) == []


def test_each_detection_has_its_own_coefficients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MASK_CHUNK", 2)
    protos = torch.zeros(32, 16, 16)
    for i in range(5):
        protos[i] = -1
        protos[i, :, 3 * i : 3 * i + 3] = 1
    got = assemble_masks(torch.eye(32)[:5], protos, np.tile([0.0, 0, 64, 64], (5, 1)), SQUARE)
    assert [(m.x, m.w) for m in got] == [(max(12 * i, 0), 12) for i in range(5)]


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_memory_does_not_grow_with_detections_times_pixels(share: float) -> None:
    """100 masks of 4000 x 3000 would be 1.2 GB."""
    box = letterbox.fit((3000, 4000), (640, 640), stride=32)
    protos = torch.randn(32, box.size[0] // 4, box.size[1] // 4, generator=torch.Generator().manual_seed(0))
    protos[0] = distance_protos(box, 2000, 1500, 1400)[0]
    count = 100 if share < 1 else 5
    boxes = np.tile([0, 0, 4000 * share, 3000 * share], (count, 1))
    coefficients = ONE.repeat(count, 1)
    tracemalloc.start()
    try:
        assemble_masks(coefficients, protos, boxes, box)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6, f"{peak / 1e6:.0f} MB"


def test_nms_is_torchvisions_and_is_had_without_its_package() -> None:
    """Importing the package takes longer than importing torch."""
    code = "import sys, fiftyone_yoloseg.engine.train as t, fiftyone_yoloseg.engine.nms as n; n._operator(); print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    import torchvision.ops

    generator = torch.Generator().manual_seed(0)
    corner, side = torch.rand(200, 2, generator=generator) * 50, torch.rand(200, 2, generator=generator) * 30
    boxes, scores = torch.cat((corner, corner + side), 1), torch.rand(200, generator=generator)
    assert nms(boxes, scores, 0.5).tolist() == torchvision.ops.nms(boxes, scores, 0.5).tolist()
