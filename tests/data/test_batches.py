"""Shapes of batches (rect, multi_scale), and what heavy augmentation leaves of holes and parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.data.augment import Augmenter, Target, copy_paste
from fiftyone_yoloseg.data.loaders import EpochSampler, sizes_of, train_loader
from fiftyone_yoloseg.data.store import ImageStore
from fiftyone_yoloseg.geometry import letterbox, masks
from fiftyone_yoloseg.types import ImageRecord, InstanceRecord

DONUT, PARTS = 0, 1
STILL: dict[str, Any] = {"hsv_h": 0, "hsv_s": 0, "hsv_v": 0, "mosaic": 0, "fliplr": 0, "translate": 0, "scale": 0, "close_mosaic": 0}


def test_sizes() -> None:
    assert sizes_of(640, 0.0) == [640] and sizes_of(640, 0.5) == list(range(320, 961, 32)) and sizes_of(64, 0.5) == [64, 96]
    assert sizes_of(32, 0.9) == [32] and sizes_of(640, 0.01) == [640] and sizes_of(96, 0.34) == [64, 96, 128]


def sides(height: int, width: int) -> tuple[int, int]:
    return letterbox.fit((height, width), (160, 160), stride=32).size


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(20, 900), st.integers(20, 900)), min_size=1, max_size=40), st.integers(1, 9), st.sampled_from([0.0, 0.4])
)
def test_rectangular_batches(shapes: list[tuple[int, int]], batch: int, multi_scale: float) -> None:
    sampler = EpochSampler(len(shapes), batch, 3, 160, multi_scale, shapes)
    epochs = []
    for sampler.epoch in range(2):
        batches = list(sampler)
        assert sorted(d.image for b in batches for d in b) == list(range(len(shapes))) and len(batches) == len(sampler)
        for b in batches:
            ((height, width),) = {d.size for d in b}
            assert height % 32 == 0 == width % 32 and max(height, width) in sampler.sizes
            size = max(height, width)
            padded = [letterbox.fit(shapes[d.image], (size, size), stride=32).size for d in b]
            assert (height, width) == (max(h for h, _ in padded), max(w for _, w in padded)), "no more padding than its images need"
        epochs.append(batches)
    assert len(shapes) < 12 or [[d.image for d in b] for b in epochs[0]] != [[d.image for d in b] for b in epochs[1]]


def test_images_of_one_shape_come_together_and_are_mixed_anew() -> None:
    shapes = [(100, 200)] * 8 + [(200, 100)] * 8
    sampler = EpochSampler(16, 4, 0, 160, shapes=shapes)
    seen = set()
    for sampler.epoch in range(4):
        for b in sampler:
            assert len({shapes[d.image] for d in b}) == 1 and b[0].size == sides(*shapes[b[0].image])
            seen.add(frozenset(d.image for d in b))
    assert len(seen) > 12


def test_a_sampler_that_starts_in_the_middle_gives_the_rest() -> None:
    whole, rest = (EpochSampler(20, 3, 1, 160, 0.5, [(100 + 9 * i, 200) for i in range(20)]) for _ in range(2))
    whole.epoch = rest.epoch = 4
    rest.start = 3
    assert list(rest) == list(whole)[3:] and len(rest) == len(whole) == 7


def painted(folder: Path, name: str, cls: int, height: int, width: int, x: int, y: int, r: int) -> ImageRecord:
    """One donut, or one object of two parts, in white on black."""
    bitmap = np.zeros((height, width), np.uint8)
    if cls == DONUT:
        cv2.circle(bitmap, (x, y), r, 1, -1)
        cv2.circle(bitmap, (x, y), r // 2, 0, -1)
    else:
        cv2.ellipse(bitmap, (x - r // 2, y), (r // 3, r), 10, 0, 360, 1, -1)
        cv2.ellipse(bitmap, (x + r // 2, y - r // 4), (r // 3, r // 2), -20, 0, 360, 1, -1)
    cv2.imwrite(str(folder / f"{name}.png"), np.repeat(bitmap[..., None] * 255, 3, 2))
    mask = masks.from_bitmap(bitmap)
    return ImageRecord(folder / f"{name}.png", height, width, (InstanceRecord(cls, mask, mask.box),))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRecord]:
    folder = tmp_path_factory.mktemp("scene")
    return [
        painted(folder, "a", DONUT, 240, 320, 80, 90, 50), painted(folder, "b", PARTS, 240, 320, 90, 120, 50),
        painted(folder, "c", DONUT, 320, 240, 80, 200, 48), painted(folder, "d", PARTS, 320, 240, 70, 90, 46),
    ]  # fmt: skip


def augmenter(records: list[ImageRecord], size: int, **changes: Any) -> Augmenter:
    config = TrainSettings(**{**STILL, "imgsz": size, "mask_ratio": 1, "epochs": 50, **changes})
    return Augmenter(records, ImageStore(records, sizes_of(size, config.multi_scale)[-1], 1 << 30), config)


def test_an_image_fills_its_rectangle(scene: list[ImageRecord]) -> None:
    """240 x 320 into 192 x 256 at scale 0.8: nothing is padded, and the box is the record's times 0.8."""
    sample = augmenter(scene, 256)(0, 0, (192, 256))
    assert sample.image.shape == (192, 256, 3) and not (sample.image == 114).all(-1).any()
    assert sample.targets[0].box == pytest.approx([0.8 * v for v in scene[0].instances[0].box], abs=0.05)
    flipped = augmenter(scene, 256, fliplr=1, flipud=1)(0, 0, (192, 256))
    x1, y1, x2, y2 = sample.targets[0].box
    assert flipped.targets[0].box == pytest.approx((256 - x2, 192 - y2, 256 - x1, 192 - y1), abs=1e-6)
    assert np.abs(flipped.image.astype(int) - sample.image[::-1, ::-1]).max() <= 1


@pytest.mark.parametrize("size", [128, 192, 256, 320, 384])
def test_at_other_scales_everything_is_proportional(scene: list[ImageRecord], size: int) -> None:
    """Images are kept at the largest size, 384; a sample at any size is the letterbox of that size."""
    sample = augmenter(scene, 256, multi_scale=0.5)(0, 0, (size, size))
    scale, top = size / 320, (size - 240 * size / 320) / 2
    x1, y1, x2, y2 = scene[0].instances[0].box
    assert sample.targets[0].box == pytest.approx((x1 * scale, y1 * scale + top, x2 * scale, y2 * scale + top), abs=0.05)
    soft = np.zeros((size, size))
    t = sample.targets[0]
    soft[t.y : t.y + t.soft.shape[0], t.x : t.x + t.soft.shape[1]] = t.soft / 255
    drawn = sample.image[..., 0] / 255 * (sample.image[..., 0] != 114)
    assert (np.minimum(drawn, soft).sum() / np.maximum(drawn, soft).sum()) > 0.93


def test_rectangular_training_batches_agree_with_their_masks(scene: list[ImageRecord]) -> None:
    loader, sampler = train_loader(scene, TrainSettings(**{**STILL, "imgsz": 256, "batch": 2, "rect": True, "mask_ratio": 1}))
    seen = set()
    for batch in loader:
        seen.add(tuple(batch.images.shape[2:]))
        for image, mask in zip(batch.images[batch.image_index], batch.masks, strict=True):
            drawn, inside = image[0].numpy() >= 128, mask.numpy() >= 128
            assert (drawn & inside).sum() / (drawn | inside).sum() > 0.97
    assert seen == {(192, 256), (256, 192)} and sampler.closed is False


HEAVY: dict[str, Any] = {
    "mosaic": 1, "degrees": 45, "shear": 8, "scale": 0.4, "translate": 0.1, "fliplr": 0.5, "flipud": 0.5, "copy_paste": 1.0, "perspective": 0.0002,
}  # fmt: skip


def topology(t: Target) -> tuple[int, int]:
    """Parts, and holes."""
    inside = np.pad((t.soft >= 128).astype(np.uint8), 2)
    return cv2.connectedComponents(inside)[0] - 1, cv2.connectedComponents(1 - inside, connectivity=4)[0] - 2


def alone(t: Target, targets: list[Target], size: int) -> bool:
    """Whole, large enough to see its hole, and neither in front of nor behind another object."""
    x1, y1, x2, y2 = t.box
    meets = any(o is not t and o.box[0] < x2 + 1 and x1 < o.box[2] + 1 and o.box[1] < y2 + 1 and y1 < o.box[3] + 1 for o in targets)
    return not meets and min(t.box) > 1 and max(t.box) < size - 1 and min(x2 - x1, y2 - y1) > 24


def test_holes_and_parts_survive_mosaic_affine_flip_and_copy_paste(scene: list[ImageRecord]) -> None:
    """A donut whose hole has half its radius covers 3/4 of its filled disc; the parts of the other object are 4 : 9 in length and breadth."""
    augment, size = augmenter(scene, 384, **HEAVY), 384
    plain = {t.cls: t for i in (0, 1) for t in augmenter(scene, 384)(0, i).targets}
    pasted, seen = 0, {DONUT: 0, PARTS: 0}
    for epoch in range(12):
        for index in range(4):
            targets = augment(epoch, index).targets
            pasted += len(targets) > 4
            for t in targets:
                if not alone(t, targets, size):
                    continue
                seen[t.cls] += 1
                inside = (t.soft >= 128).astype(np.uint8)
                assert topology(t) == ((1, 1) if t.cls == DONUT else (2, 0)), (epoch, index)
                if t.cls == DONUT:
                    contours, _ = cv2.findContours(np.pad(inside, 1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
                    filled = cv2.drawContours(np.zeros_like(np.pad(inside, 1)), contours, -1, 1, -1).sum()
                    assert inside.sum() / filled == pytest.approx(0.75, abs=0.03)
                else:
                    assert share(inside) == pytest.approx(share((plain[PARTS].soft >= 128).astype(np.uint8)), abs=0.05)
    assert min(seen.values()) > 15 and pasted > 5, (seen, pasted)


def share(inside: np.ndarray) -> float:
    """Area of the smaller part over that of the whole."""
    areas = cv2.connectedComponentsWithStats(np.pad(inside, 1))[2][1:, cv2.CC_STAT_AREA]
    return float(areas.min() / areas.sum())


def test_an_object_that_vanished_behind_a_pasted_one_is_no_source() -> None:
    """It was: its box without extent was divided by."""

    class InOrder:
        def permutation(self, n: int) -> np.ndarray:
            return np.arange(n)

    def block(cls: int, x: int, y: int, w: int, h: int) -> Target:
        return Target(cls, (x, y, x + w, y + h), x, y, np.full((h, w), 255, np.uint8))

    targets = [block(0, 0, 8, 28, 48), block(1, 44, 20, 6, 6)]
    copy_paste(np.zeros((64, 64, 3), np.uint8), targets, InOrder(), 1.0)  # type: ignore[arg-type]
    assert [(t.cls, t.box) for t in targets] == [(0, (0, 8, 28, 56)), (0, (36, 8, 64, 56))]
