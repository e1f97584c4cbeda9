"""Pinned pictures: which images they are of, which of them a run keeps, and that they never cost a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import fresh, options
from test_metrics import MEDIUM, image, predictions

from fiftyone_yoloseg.config import TrainSettings, parse
from fiftyone_yoloseg.data.images import image_size, read_image
from fiftyone_yoloseg.engine.pinned import LARGEST, MOST, kept, picture_path, pictures_of, pinned_images
from fiftyone_yoloseg.engine.plots import PinnedPictures
from fiftyone_yoloseg.engine.plots.canvas import save_pixels
from fiftyone_yoloseg.engine.plots.samples import plot_pinned, thumbnail
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.errors import SettingsError
from fiftyone_yoloseg.types import ImageRecord, SegmentationData


def records(count: int = 12) -> list[ImageRecord]:
    """Every second has an object; ids are id0, id1, ..."""
    made = [image((0, MEDIUM)) if i % 2 else image() for i in range(count)]
    return [replace(r, path=Path(f"/data/{i}.jpg"), source_id=f"id{i}") for i, r in enumerate(made)]


def test_images_are_chosen_evenly_among_those_with_objects() -> None:
    assert pinned_images(records(), 3) == [1, 5, 9] and pinned_images(records(), 16) == [1, 3, 5, 7, 9, 11]
    assert pinned_images(records(), 0) == [] == pinned_images([], 4)
    assert pinned_images([replace(r, instances=()) for r in records(4)], 2) == [0, 2], "of images without any object, all count"


def test_images_are_named_by_id_path_or_file(caplog: pytest.LogCaptureFixture) -> None:
    assert pinned_images(records(), ("id3", "/data/0.jpg", "5.jpg", "3.jpg")) == [3, 0, 5]
    with pytest.raises(SettingsError, match=r"'nope' is no validation image \(12 there are\): give ids"):
        pinned_images(records(), ("id3", "nope"))
    assert pinned_images(records(), ("id3", "nope"), strict=False) == [3] and "nope is no validation image any more" in caplog.text


@pytest.mark.parametrize(
    ("given", "meant"), [("4", 4), (0, 0), (False, 0), ("false", 0), ("B.jpg, a.jpg", ("B.jpg", "a.jpg")), (["a"], ("a",))]
)
def test_the_setting(given: Any, meant: Any) -> None:
    assert parse(TrainSettings, {"pinned": given}).pinned == meant
    written = TrainSettings(pinned=meant).model_dump(mode="json")
    assert parse(TrainSettings, written).pinned == meant, "as a checkpoint holds it"


@pytest.mark.parametrize("given", [17, -1, True, 1.5, [f"{i}.jpg" for i in range(17)]])
def test_the_setting_has_limits(given: Any) -> None:
    with pytest.raises(SettingsError, match="pinned"):
        parse(TrainSettings, {"pinned": given})


@pytest.mark.parametrize(("first", "period"), [(1, 1), (5, 5), (3, 1)])
def test_thinning_epoch_by_epoch_keeps_what_thinning_at_once_keeps(first: int, period: int) -> None:
    there, largest = set[int](), 0
    for epoch in range(first, 700, period):
        there = kept({*there, epoch}, period)
        assert there == kept(range(first, epoch + 1, period), period), "whatever was resumed in between"
        assert {first, epoch} <= there and len(there) <= MOST
        largest = max(largest, len(there))
    assert largest == MOST or period == 5
    steps = np.diff(sorted(there - {max(there)}))
    assert len(set(steps)) == 1, "at equal distances, but for the last"


def test_a_picture_is_small_enough_for_the_panel(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1400, 3), dtype=np.uint8)
    save_pixels(noise, tmp_path / "noise.jpg")
    assert 50_000 < (tmp_path / "noise.jpg").stat().st_size <= LARGEST and image_size(tmp_path / "noise.jpg") == (1500, 1400)


def test_labels_are_left_and_predictions_right(tmp_path: Path) -> None:
    record = replace(image((0, MEDIUM)), path=tmp_path / "grey.png")
    save_pixels(np.full((200, 200, 3), 120, np.uint8), record.path)
    small = thumbnail(record.path)
    before = small.copy()
    for conf, name in ((0.2, "unsure.png"), (0.9, "sure.png")):
        plot_pinned("Epoch 1", [record], [small], [predictions((0, MEDIUM, conf))], {0: "thing"}, tmp_path / name)
    unsure, sure = (read_image(tmp_path / name).astype(int) for name in ("unsure.png", "sure.png"))
    grey = (np.ptp(unsure, axis=2) == 0) & (unsure[..., 0] == 120)
    left, right = grey[:, : grey.shape[1] // 2], grey[:, grey.shape[1] // 2 :]
    assert right.sum() - left.sum() > 5000, "a label on the left, nothing yet on the right"
    changed = np.abs(unsure - sure).sum(2).any(0)
    assert changed[: len(changed) // 2].any(), "the label is found: another colour" and changed[len(changed) // 2 :].any()
    assert (small == before).all(), "what is drawn again and again stays as it is"
    large = tmp_path / "large.png"
    save_pixels(np.zeros((900, 1800, 3), np.uint8), large)
    assert thumbnail(large).shape == (240, 480, 3)


def test_a_picture_that_fails_and_those_of_an_earlier_run(
    shapes_data: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("fiftyone_yoloseg.engine.plots.plot_listeners", lambda: [PinnedPictures()])
    monkeypatch.setattr("fiftyone_yoloseg.engine.plots.plot_pinned", fail)
    earlier = picture_path(tmp_path / "train", 40)
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    result = train(fresh(shapes_data), shapes_data, options(tmp_path, plots=True, exist_ok=True))
    assert result.epochs == 2 and pictures_of(result.dir) == {} and "no space left on device" in caplog.text
    assert "PinnedPictures failed and hears no more of this run; the training goes on" in caplog.text
