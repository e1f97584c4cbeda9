"""Training samples: pixels painted exactly where the masks are must still agree with them after every composition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.data.augment import PASTE_MAX_COVERED, Augmenter, Sample, Target, copy_paste, jitter_colour, place_target
from fiftyone_yoloseg.data.loaders import EpochSampler, collate, train_loader, val_loader, val_targets
from fiftyone_yoloseg.data.store import Budget, ImageStore
from fiftyone_yoloseg.data.warp import shift, stretch
from fiftyone_yoloseg.geometry import letterbox, masks
from fiftyone_yoloseg.types import Batch, ImageRecord, InstanceRecord

DONUT, PARTS, STAR = 0, 1, 2
"""Class c is painted in the pure colour of channel c, on black; padding is grey. So colour tells the class of a pixel."""
QUIET: dict[str, Any] = {
    "hsv_h": 0,
    "hsv_s": 0,
    "hsv_v": 0,
    "mosaic": 0,
    "fliplr": 0,
    "translate": 0,
    "scale": 0,
    "epochs": 20,
    "close_mosaic": 0,
}


def donut(canvas: np.ndarray, x: int, y: int, r: int) -> None:
    cv2.circle(canvas, (x, y), r, 1, -1)
    cv2.circle(canvas, (x, y), r // 2, 0, -1)


def parts(canvas: np.ndarray, x: int, y: int, r: int) -> None:
    # no straight edges along the axes: one that falls on the middle of a pixel row would flip the whole row by a rounding error
    cv2.ellipse(canvas, (x - r // 2, y), (r // 3, r), 10, 0, 360, 1, -1)
    cv2.ellipse(canvas, (x + r // 2, y - r // 4), (r // 3, r // 2), -20, 0, 360, 1, -1)


def star(canvas: np.ndarray, x: int, y: int, r: int) -> None:
    angles = np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2, r * 0.5, r)
    points = np.stack([x + radii * np.sin(angles), y - radii * np.cos(angles)], 1)
    cv2.fillPoly(canvas, [np.round(points).astype(np.int32)], 1)


DRAW = {DONUT: donut, PARTS: parts, STAR: star}


def painted(folder: Path, name: str, height: int, width: int, objects: list[tuple[int, int, int, int]]) -> ImageRecord:
    """objects: class, x, y, r."""
    image = np.zeros((height, width, 3), np.uint8)
    instances = []
    for cls, x, y, r in objects:
        bitmap = np.zeros((height, width), np.uint8)
        DRAW[cls](bitmap, x, y, r)
        image[bitmap > 0] = 0
        image[bitmap > 0, cls] = 255
        mask = masks.from_bitmap(bitmap)
        instances.append(InstanceRecord(cls, mask, mask.box))
    cv2.imwrite(str(folder / f"{name}.png"), image[..., ::-1])
    return ImageRecord(folder / f"{name}.png", height, width, tuple(instances))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRecord]:
    """Four images of three shapes and sizes, one object of each class in each, none touching another or the border."""
    folder = tmp_path_factory.mktemp("scene")
    return [
        painted(folder, "wide", 120, 200, [(DONUT, 40, 60, 30), (PARTS, 110, 50, 28), (STAR, 165, 70, 28)]),
        painted(folder, "tall", 180, 110, [(DONUT, 60, 140, 32), (PARTS, 40, 40, 26), (STAR, 80, 86, 24)]),
        painted(folder, "same", 96, 96, [(DONUT, 24, 24, 18), (PARTS, 70, 26, 18), (STAR, 46, 70, 20)]),
        painted(folder, "large", 300, 300, [(DONUT, 80, 80, 60), (PARTS, 210, 90, 60), (STAR, 150, 220, 64)]),
    ]


def augmenter(records: list[ImageRecord], **changes: Any) -> Augmenter:
    config = TrainSettings(**{**QUIET, "imgsz": 96, "mask_ratio": 1, **changes})
    return Augmenter(records, ImageStore(records, config.imgsz, 1 << 30), config)


def colour(sample: Sample, cls: int) -> np.ndarray:
    """How much of each pixel is of the class's colour, 0..1: 0 for black and grey."""
    image = sample.image.astype(np.float64)
    others = [c for c in range(3) if c != cls]
    return np.clip(image[..., cls] - image[..., others].max(2), 0, 255) / 255


def mask_of(sample: Sample, cls: int, grow: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Soft union of the targets of a class, 0..1, and the surroundings in which it is compared (leftovers that are no target lie outside)."""
    union, near = np.zeros(sample.image.shape[:2]), np.zeros(sample.image.shape[:2], bool)
    for t in sample.targets:
        if t.cls == cls:
            h, w = t.soft.shape
            part = union[t.y : t.y + h, t.x : t.x + w]
            np.maximum(part, t.soft / 255, out=part)
            x1, y1, x2, y2 = (int(v) for v in t.box)
            near[max(y1 - grow, 0) : y2 + grow, max(x1 - grow, 0) : x2 + grow] = True
    return union, near


def agreement(sample: Sample, cls: int) -> tuple[float, int]:
    """IoU of painted pixels and mask, and how many pixels are painted."""
    union, near = mask_of(sample, cls)
    drawn, mask = (colour(sample, cls) >= 0.5) & near, union >= 0.5
    return float((drawn & mask).sum() / max((drawn | mask).sum(), 1)), int(drawn.sum())


def offset(sample: Sample, cls: int) -> float:
    """Distance between the centres of mass of paint and mask, in pixels; sees shifts far below a pixel."""
    union, near = mask_of(sample, cls)
    drawn = colour(sample, cls) * near
    y, x = np.indices(union.shape)
    centres = [np.array([(a * x).sum(), (a * y).sum()]) / a.sum() for a in (drawn, union)]
    return float(np.linalg.norm(centres[0] - centres[1]))


def tight(t: Target) -> np.ndarray:
    left, top, w, h = cv2.boundingRect((t.soft >= 128).view(np.uint8))
    return np.array([t.x + left, t.y + top, t.x + left + w, t.y + top + h], float)


COMPOSITIONS: dict[str, dict[str, Any]] = {
    "letterbox": {},
    "shift and zoom": {"translate": 0.2, "scale": 0.5},
    "flips": {"fliplr": 1, "flipud": 1},
    "rotation": {"degrees": 180},
    "shear": {"shear": 20},
    "perspective": {"perspective": 0.001, "degrees": 30},
    "mosaic": {"mosaic": 1, "scale": 0.3},
    "copy-paste": {"copy_paste": 1},
    "all": {
        "mosaic": 1,
        "degrees": 45,
        "shear": 10,
        "perspective": 0.0005,
        "scale": 0.5,
        "translate": 0.1,
        "fliplr": 0.5,
        "flipud": 0.5,
        "copy_paste": 0.5,
    },
}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_masks_agree_with_pixels(scene: list[ImageRecord], name: str) -> None:
    augment = augmenter(scene, imgsz=192, **COMPOSITIONS[name])
    compared = 0
    for epoch in range(6):
        for index in range(len(scene)):
            sample = augment(epoch, index)
            assert sample.image.shape == (192, 192, 3) and sample.image.dtype == np.uint8
            for t in sample.targets:
                assert np.abs(np.array(t.box) - tight(t)).max() <= 1.0, (name, epoch, index)
                assert min(t.box) >= 0 and max(t.box) <= 192
            for cls in DRAW:
                iou, pixels = agreement(sample, cls)
                if pixels >= 100:
                    compared += 1
                    assert iou > 0.97, (name, epoch, index, cls, iou)
    assert compared >= 30


@pytest.mark.parametrize("name", ["letterbox", "shift and zoom", "flips", "rotation", "perspective"])
def test_masks_are_not_shifted_by_a_fraction_of_a_pixel(scene: list[ImageRecord], name: str) -> None:
    augment = augmenter(scene, imgsz=192, **COMPOSITIONS[name])
    errors = []
    for epoch in range(6):
        for index in range(len(scene)):
            sample = augment(epoch, index)
            # whole objects only: a cut one ends in a sharp edge in one of the two
            errors += [
                offset(sample, t.cls)
                for t in sample.targets
                if t.soft.sum() / 255 >= 100 and min(t.box) > 2 and max(t.box) < 190 and len(sample.targets) == 3
            ]
    assert len(errors) > 15 and np.mean(errors) < 0.05 and max(errors) < 0.15, (len(errors), np.mean(errors), max(errors))


def test_the_measures_see_half_a_pixel(scene: list[ImageRecord]) -> None:
    sample = augmenter(scene)(0, 0)
    exact = [agreement(sample, cls)[0] for cls in DRAW]
    for t in sample.targets:
        t.soft = ((np.pad(t.soft, ((0, 0), (0, 1))).astype(int) + np.pad(t.soft, ((0, 0), (1, 0)))) // 2).astype(np.uint8)
    assert all(offset(sample, cls) > 0.35 for cls in DRAW)
    for t in sample.targets:
        t.x += 1
    shifted = [agreement(sample, cls)[0] for cls in DRAW]
    assert all(a > 0.95 > b for a, b in zip(exact, shifted, strict=True))


def test_holes_and_parts_survive(scene: list[ImageRecord]) -> None:
    augment = augmenter(scene, degrees=180, shear=10)
    for epoch in range(5):
        sample = augment(epoch, 2)
        for t in sample.targets:
            if min(t.box) < 1 or max(t.box) > 95:
                continue
            inside = np.pad((t.soft >= 128).astype(np.uint8), 2)
            components = cv2.connectedComponents(inside)[0] - 1
            outside = cv2.connectedComponents(1 - inside, connectivity=4)[0] - 1
            assert (components, outside) == {DONUT: (1, 2), PARTS: (2, 1), STAR: (1, 1)}[t.cls]


def test_flips_are_exact(scene: list[ImageRecord]) -> None:
    plain, flipped = augmenter(scene)(0, 2), augmenter(scene, fliplr=1, flipud=1)(0, 2)
    assert np.array_equal(flipped.image, plain.image[::-1, ::-1])  # "same" is as large as the input: nothing is resampled
    for a, b in zip(plain.targets, flipped.targets, strict=True):
        assert b.box == pytest.approx((96 - a.box[2], 96 - a.box[3], 96 - a.box[0], 96 - a.box[1]), abs=1e-9)


def test_boxes_are_those_of_the_letterbox(scene: list[ImageRecord]) -> None:
    """120 x 200 into 96 x 96: scale 0.48, resized to 58 x 96, 19 rows of padding above."""
    sample = augmenter(scene)(0, 0)
    for r, t in zip(scene[0].instances, sample.targets, strict=True):
        x1, y1, x2, y2 = r.box
        assert t.box == pytest.approx((x1 * 0.48, y1 * 58 / 120 + 19, x2 * 0.48, y2 * 58 / 120 + 19), abs=0.05)


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 60), st.integers(3, 60), st.floats(0.5, 3), st.floats(0.5, 3), st.floats(0, 30), st.floats(0, 30))
def test_box_of_scale_and_shift_is_analytic(w: int, h: int, sx: float, sy: float, dx: float, dy: float) -> None:
    mask = masks.from_bitmap(np.ones((h, w)), 7, 11)
    target = place_target(InstanceRecord(0, mask, mask.box), shift(dx, dy) @ stretch(sx, sy), (256, 256), 4)
    if target is None:
        assert min(w * sx, h * sy) <= 4
        return
    expected = np.array([7 * sx + dx, 11 * sy + dy, (7 + w) * sx + dx, (11 + h) * sy + dy])
    assert np.abs(np.array(target.box) - expected).max() < 0.05
    assert (target.x % 4, target.y % 4, target.soft.shape[0] % 4, target.soft.shape[1] % 4) == (0, 0, 0, 0)


def place(width: int, height: int, x: int, y: int, size: int = 320, crowd: bool = False) -> Target | None:
    mask = masks.from_bitmap(np.ones((height, width)))
    return place_target(InstanceRecord(0, mask, mask.box, crowd=crowd), shift(x, y), (size, size), 1)


def test_what_is_dropped() -> None:
    assert place(3, 3, 10, 10) and not place(2, 30, 10, 10) and not place(30, 2, 10, 10)
    assert place(30, 30, 317, 10) and not place(30, 30, 318, 10) and not place(30, 30, 320, 10)
    assert place(299, 3, 10, 10) and not place(300, 3, 10, 10)
    assert place(300, 300, 289, 289) and not place(300, 300, 290, 290), "31 x 31 of 300 x 300 is more than one percent, 30 x 30 is not"
    assert not place(30, 30, 10, 10, crowd=True)
    cut = place(30, 30, 310, -10)
    assert cut is not None and cut.box == (310, 0, 320, 20)


def test_a_crowd_is_never_a_target(scene: list[ImageRecord]) -> None:
    record = scene[0]
    crowds = ImageRecord(
        record.path, record.height, record.width, tuple(InstanceRecord(r.cls, r.mask, r.box, crowd=r.cls == STAR) for r in record.instances)
    )
    sample = augmenter([crowds], mosaic=1)(0, 0)
    assert sample.targets and STAR not in {t.cls for t in sample.targets}


def test_a_mask_without_pixels_is_no_target() -> None:
    assert place_target(InstanceRecord(0, masks.EMPTY, (1, 1, 20, 20)), np.eye(3), (64, 64), 4) is None


# copy-paste


def block(cls: int, x: int, y: int, w: int, h: int) -> Target:
    return Target(cls, (x, y, x + w, y + h), x, y, np.full((h, w), 255, np.uint8))


def test_copy_paste_mirrors_and_leaves_crowded_places_alone() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[8:24, 4:20, 0] = 255
    targets = [block(0, 4, 8, 16, 16)]
    copy_paste(image, targets, np.random.default_rng(0), 1.0)
    assert [t.box for t in targets] == [(4, 8, 20, 24), (44, 8, 60, 24)]
    assert np.array_equal(
        image[..., 0] == 255, np.pad(np.ones((16, 16), bool), ((8, 40), (4, 44))) | np.pad(np.ones((16, 16), bool), ((8, 40), (44, 4)))
    )
    centred = [block(0, 24, 8, 16, 16)]  # its mirror image is itself
    copy_paste(image, centred, np.random.default_rng(0), 1.0)
    assert len(centred) == 1
    covered = [block(0, 4, 8, 20, 20), block(1, 40, 8, 6, 20)]  # the second covers 6 of 20 columns of the place
    assert PASTE_MAX_COVERED <= 6 / 20
    copy_paste(image, covered, np.random.default_rng(0), 1.0)
    assert [t.box for t in covered if t.cls == 0] == [(4, 8, 24, 28)]


def test_an_object_behind_a_pasted_one_is_cut_or_dropped() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    large, hidden, cut = block(0, 0, 8, 28, 48), block(1, 44, 20, 6, 6), block(2, 56, 40, 16, 12)
    cut.soft, cut.box = cut.soft[:, :8], (56, 40, 64, 52)
    targets = [large, hidden, cut]
    copy_paste(image, targets, FirstOnly(), 1 / 3)  # type: ignore[arg-type]
    assert [(t.cls, t.box) for t in targets] == [(0, (0, 8, 28, 56)), (0, (36, 8, 64, 56))], "both others lie behind the copy"
    half = block(1, 32, 20, 8, 8)
    targets = [block(0, 0, 8, 28, 48), half]
    copy_paste(image, targets, FirstOnly(), 0.5)  # type: ignore[arg-type]
    assert half.box == (32, 20, 36, 28) and (half.soft >= 128).sum() == 4 * 8
    for t in targets:
        assert np.abs(np.array(t.box) - tight(t)).max() <= 1


class FirstOnly:
    """A generator whose order is the given one."""

    def permutation(self, n: int) -> np.ndarray:
        return np.arange(n)


# colour


def test_colour_jitter_without_gains_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    same = image.copy()
    jitter_colour(same, np.random.default_rng(1), 0, 0, 0)
    assert np.array_equal(same, image)


@pytest.mark.parametrize("seed", range(10))
def test_colour_jitter_stays_in_its_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    brighter = image.copy()
    jitter_colour(brighter, rng, 0, 0, 0.4)
    before, after = image.max(2).astype(float), brighter.max(2).astype(float)
    assert (after >= before * 0.6 - 1.5).all() and (after <= np.minimum(before * 1.4, 255) + 1.5).all() and (after != before).any()
    grey = np.repeat(image[..., :1], 3, 2)
    still_grey = grey.copy()
    jitter_colour(still_grey, rng, 0.1, 0.7, 0)
    assert np.array_equal(still_grey, grey)
    turned = np.full((4, 4, 3), (0, 255, 0), np.uint8)  # hue 60 of 180
    jitter_colour(turned, rng, 0.1, 0, 0)
    hue = cv2.cvtColor(turned, cv2.COLOR_RGB2HSV)[0, 0]
    assert 54 - 1 <= hue[0] <= 66 and hue[1] >= 253 and hue[2] == 255


def test_hue_is_circular() -> None:
    image = np.full((4, 4, 3), (255, 0, 8), np.uint8)  # just below hue 180
    assert cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[0, 0, 0] > 175

    class Up:
        def uniform(self, low: float, high: float, n: int) -> np.ndarray:
            return np.ones(n)

    jitter_colour(image, Up(), 0.1, 0, 0)  # type: ignore[arg-type]
    assert 10 <= cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[0, 0, 0] <= 20


# what a sample depends on


def same(a: Sample, b: Sample) -> bool:
    return (
        np.array_equal(a.image, b.image)
        and len(a.targets) == len(b.targets)
        and all(
            (s.cls, s.box, s.x, s.y) == (t.cls, t.box, t.x, t.y) and np.array_equal(s.soft, t.soft)
            for s, t in zip(a.targets, b.targets, strict=True)
        )
    )


LIVELY: dict[str, Any] = {**COMPOSITIONS["all"], "mixup": 0.5, "hsv_h": 0.1, "hsv_s": 0.5, "hsv_v": 0.4}


def test_a_sample_depends_on_seed_epoch_and_index_only(scene: list[ImageRecord]) -> None:
    first, second = augmenter(scene, **LIVELY), augmenter(scene, **LIVELY)
    keys = [(epoch, index) for epoch in range(2) for index in range(4)]
    forwards = {key: first(*key) for key in keys}
    backwards = {key: second(*key) for key in reversed(keys)}
    assert all(same(forwards[key], backwards[key]) for key in keys)
    other = augmenter(scene, **LIVELY, seed=1)
    assert not any(same(forwards[key], other(*key)) for key in keys)
    assert not same(forwards[0, 0], forwards[1, 0]) and not same(forwards[0, 0], forwards[0, 1])


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("images", "image_index", "classes", "boxes", "masks"))


def test_batches_do_not_depend_on_the_number_of_workers(scene: list[ImageRecord]) -> None:
    batches = {}
    for workers in (0, 2):
        loader, sampler = train_loader(
            scene, TrainSettings(**{**QUIET, **LIVELY, "imgsz": 96, "batch": 2, "workers": workers}), cache=Budget(1 << 24)
        )
        batches[workers] = []
        for sampler.epoch in (0, 3):
            batches[workers] += list(loader)
    assert len(batches[0]) == len(batches[2]) == 4
    assert all(equal(a, b) for a, b in zip(batches[0], batches[2], strict=True))
    assert batches[0][0].images.shape == (2, 3, 96, 96) and batches[0][0].masks.shape[1:] == (24, 24)


def test_epoch_sampler_takes_each_image_once() -> None:
    sampler, again = EpochSampler(11, 4, seed=3), EpochSampler(11, 4, seed=3)
    orders = []
    for epoch in range(3):
        sampler.epoch = again.epoch = epoch
        batches = list(sampler)
        assert batches == list(again) and len(batches) == len(sampler) == 3 and [len(b) for b in batches] == [4, 4, 3]
        assert {d.epoch for b in batches for d in b} == {epoch}
        orders.append([d.image for b in batches for d in b])
        assert sorted(orders[-1]) == list(range(11))
    assert orders[0] != orders[1] != orders[2]
    other = EpochSampler(11, 4, seed=4)
    assert [d.image for b in other for d in b] != orders[0]


def test_mosaic_is_closed_in_the_last_epochs(tmp_path: Path) -> None:
    """Images of one flat colour each: a mosaic shows up to four colours, a single image one."""
    records = []
    for i, level in enumerate((20, 60, 180, 240)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((64, 64, 3), level, np.uint8))
        records.append(ImageRecord(tmp_path / f"{i}.png", 64, 64))

    def colours(epoch: int, **changes: Any) -> int:
        augment = augmenter(records, imgsz=64, epochs=10, mosaic=1, mixup=1, **changes)
        return max(len(np.unique(augment(epoch, i).image)) for i in range(4))

    assert [colours(epoch, close_mosaic=3) > 1 for epoch in range(10)] == [True] * 7 + [False] * 3
    assert colours(9, close_mosaic=0) > 1 and colours(0, close_mosaic=10) == 1


def test_mixup_keeps_the_objects_of_both(scene: list[ImageRecord]) -> None:
    sample = augmenter(scene, mixup=1)(0, 0)
    assert len(sample.targets) == 6
    assert 90 < sample.image.max() < 250  # pure colours are blended, about half and half


# the store


def test_store_keeps_within_its_budget(scene: list[ImageRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    from fiftyone_yoloseg.data import store as module

    original = module.read_image
    monkeypatch.setattr(module, "read_image", lambda path: read.append(Path(path).stem) or original(path))
    store = ImageStore(scene, 96, budget=2 * 96 * 96 * 3)
    sizes = [store[i].shape for i in range(4)]
    assert sizes == [(58, 96, 3), (96, 59, 3), (96, 96, 3), (96, 96, 3)] and len(store) == 4
    assert sum(store[i].nbytes for i in (0, 1)) + store.budget == 2 * 96 * 96 * 3
    again = [store[i] for i in range(4)]
    assert read == ["wide", "tall", "same", "large", "same", "large"], "the first two fit, the others do not"
    assert store[0] is again[0] and store.budget >= 0
    empty = ImageStore(scene, 96)
    assert empty[0] is not empty[0] and np.array_equal(empty[0], again[0])


# batches


@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_coverage_is_the_share_of_each_cell(ratio: int) -> None:
    rng = np.random.default_rng(ratio)
    soft = (rng.random((16, 24)) < 0.4).astype(np.uint8) * 255
    samples = [Sample(np.full((32, 64, 3), i, np.uint8), []) for i in range(3)]
    samples[1].targets = [Target(5, (8, 4, 32, 20), 8, 4, soft), Target(6, (0, 0, 4, 4), 0, 0, np.full((4, 4), 255, np.uint8))]
    batch = collate(samples, ratio=ratio)
    assert batch.images.shape == (3, 3, 32, 64) and batch.images.dtype == torch.uint8 and batch.images[2].unique().tolist() == [2]
    assert batch.image_index.tolist() == [1, 1] and batch.classes.tolist() == [5, 6]
    assert batch.boxes.dtype == torch.float32 and batch.boxes.tolist() == [[8, 4, 32, 20], [0, 0, 4, 4]]
    assert batch.masks.shape == (2, 32 // ratio, 64 // ratio) and batch.masks.dtype == torch.uint8
    expected = np.zeros((32, 64))
    expected[4:20, 8:32] = soft
    expected = expected.reshape(32 // ratio, ratio, 64 // ratio, ratio).mean((1, 3))
    assert np.abs(batch.masks[0].numpy() - expected).max() <= 0.5
    assert batch.masks[1].sum() == 255 * (4 // ratio) ** 2


def test_a_batch_without_objects() -> None:
    batch = collate([Sample(np.zeros((32, 32, 3), np.uint8), [])])
    assert batch.boxes.shape == (0, 4) and batch.masks.shape == (0, 8, 8) and batch.classes.dtype == torch.int64


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(4, 24), st.integers(4, 24)), min_size=1, max_size=5),
    st.sampled_from([1, 2, 4]),
)
def test_exclusive_masks_never_overlap(blocks: list[tuple[int, int, int, int]], ratio: int) -> None:
    targets = []
    for i, (x, y, w, h) in enumerate(blocks):
        full = np.zeros((64, 64), np.uint8)
        full[y : y + h, x : x + w] = 255
        targets.append(Target(i, (x, y, x + w, y + h), 0, 0, full))
    areas = [w * h for _, _, w, h in blocks]
    batch = collate([Sample(np.zeros((64, 64, 3), np.uint8), targets)], ratio=ratio, exclusive=True)
    assert sorted(batch.classes.tolist()) == list(range(len(blocks)))
    assert batch.masks.int().sum(0).max() <= 255 + len(blocks) / 2, "no pixel twice, but for rounding"
    order = batch.classes.tolist()
    assert [areas[i] for i in order] == sorted(areas, reverse=True)
    smallest = order[-1]
    assert batch.masks[-1].int().sum() * ratio**2 == pytest.approx(255 * areas[smallest], abs=64 * 64), "nothing hides the smallest"
    if ratio == 1:
        whole = np.max([np.pad(np.ones((h, w)), ((y, 64 - y - h), (x, 64 - x - w))) for x, y, w, h in blocks], axis=0)
        assert np.array_equal(batch.masks.amax(0).numpy() > 0, whole > 0), "every covered pixel stays with one of them"
        assert int((batch.masks[-1] > 0).sum()) == areas[smallest]


def test_without_exclusive_every_object_keeps_its_pixels() -> None:
    targets = [block(0, 0, 0, 32, 32), block(1, 8, 8, 8, 8)]
    masks_ = collate([Sample(np.zeros((32, 32, 3), np.uint8), targets)], ratio=1).masks
    assert [(m > 0).sum().item() for m in masks_] == [1024, 64]


@pytest.mark.timeout(60)
def test_loaders_start_after_opencv_has_used_its_threads(scene: list[ImageRecord]) -> None:
    """A forked process that inherits OpenCV's thread pool hangs when it is told to use one thread."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        large = np.zeros((2000, 2000, 3), np.uint8)
        cv2.warpAffine(large, np.eye(3)[:2], (2000, 2000))
        (batch,) = val_loader(scene[2:3], (96, 96), batch=1, workers=1)
        assert batch.indices == [0]
    finally:
        cv2.setNumThreads(before)


# validation


def test_val_loader_gives_each_image_once_in_batches_of_one_size(scene: list[ImageRecord]) -> None:
    records = [*scene, scene[2], scene[0], scene[2]]
    for stride, sizes in ((32, {(64, 96), (96, 64), (96, 96)}), (None, {(96, 96)})):
        batches = list(val_loader(records, (96, 96), batch=2, workers=0, stride=stride))
        assert sorted(i for b in batches for i in b.indices) == list(range(7))
        assert {tuple(b.images.shape[2:]) for b in batches} == sizes
        assert all(1 <= len(b.indices) <= 2 and b.images.shape[0] == len(b.indices) == len(b.boxes) for b in batches)
        for b in batches:
            for image, index, box in zip(b.images, b.indices, b.boxes, strict=True):
                assert box == letterbox.fit((records[index].height, records[index].width), (96, 96), stride=stride)
                assert box.size == tuple(image.shape[1:])


def test_val_targets_are_the_records_in_the_letterbox(scene: list[ImageRecord]) -> None:
    (batch,) = val_loader([scene[1], scene[1]], (96, 96), batch=2, workers=0)
    targets = val_targets(batch, [scene[1], scene[1]], ratio=1)
    expected = batch.boxes[0].boxes_to_input(np.array([r.box for r in scene[1].instances]))
    assert targets.images is batch.images and targets.image_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.abs(targets.boxes.numpy() - np.concatenate([expected, expected])).max() < 0.05
    for mask, cls in zip(targets.masks[:3], targets.classes[:3].tolist(), strict=True):
        drawn = batch.images[0, cls].numpy() >= 128
        drawn &= batch.images[0].numpy().max(0) != 114
        inside = mask.numpy() >= 128
        assert (drawn & inside).sum() / (drawn | inside).sum() > 0.95
