"""What can be wrong with a view is named; the rest is read."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

fo = pytest.importorskip("fiftyone")

from fiftyone_yoloseg.bridge.objects import file_size  # noqa: E402
from fiftyone_yoloseg.bridge.plan import split_view  # noqa: E402
from fiftyone_yoloseg.bridge.read import read_sizes, view_records  # noqa: E402
from fiftyone_yoloseg.bridge.views import has_masks, label_fields  # noqa: E402
from fiftyone_yoloseg.errors import DataError, SettingsError  # noqa: E402
from fiftyone_yoloseg.geometry import masks  # noqa: E402


@pytest.fixture
def dataset(fiftyone_db: Any, tmp_path: Path) -> Any:
    """Ten images of 20 x 30 pixels, each with one 4 x 5 object of class a or b."""
    dataset = fiftyone_db.Dataset()
    samples = []
    for i in range(10):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((20, 30, 3), np.uint8))
        sample = fo.Sample(filepath=str(tmp_path / f"{i}.png"), tags=["train" if i < 7 else "validation"], fold=["train", "val"][i % 2])
        detection = fo.Detection(label="ab"[i % 2], bounding_box=[3 / 30, 2 / 20, 5 / 30, 4 / 20], mask=np.ones((4, 5), bool))
        sample["gt"] = fo.Detections(detections=[detection])
        sample["kind"] = fo.Classification(label="x")
        samples.append(sample)
    dataset.add_samples(samples)
    yield dataset
    dataset.delete()


def test_records(dataset: Any) -> None:
    read = view_records(dataset, "gt")
    assert read.names == {0: "a", 1: "b"} and len(read.records) == read.objects == 10 and not read.skipped and not read.dropped
    first = read.records[0]
    assert (first.height, first.width, first.source_id) == (20, 30, dataset.first().id)
    instance = first.instances[0]
    assert (instance.mask.x, instance.mask.y, instance.mask.w, instance.mask.h) == (3, 2, 5, 4)
    assert instance.box == pytest.approx((3, 2, 8, 6)) and instance.source_id == dataset.first().gt.detections[0].id
    assert (
        view_records(dataset.match(fo.ViewField("gt.detections").length() > 0).limit(3), "gt", ["b", "a"]).records[0].instances[0].cls == 1
    )


def test_label_field_errors_name_the_fields_that_have_masks(dataset: Any) -> None:
    with pytest.raises(DataError, match=r"no field 'nope'; fields with masks: 'gt' \(10 masks\)"):
        view_records(dataset, "nope")
    with pytest.raises(DataError, match="'kind' .* is Classification: need Detections"):
        view_records(dataset, "kind")
    assert [(f.name, f.objects, f.masks) for f in label_fields(dataset)] == [("gt", 10, 10)]


def test_sizes_of_a_slow_disk_are_those_of_a_fast_one(dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [*dataset.values("filepath"), str(tmp_path / "missing.png"), *dataset.values("filepath")]
    fast = [str(size) for size in read_sizes(files)]
    asked: list[str] = []
    monkeypatch.setattr("fiftyone_yoloseg.bridge.read._SLOW", -1.0)
    monkeypatch.setattr(
        "fiftyone_yoloseg.bridge.read.file_size", lambda file: (asked.append(threading.current_thread().name), file_size(file))[1]
    )
    assert [str(size) for size in read_sizes(files)] == fast and fast[0] == fast[-1] == "(20, 30)" and "missing.png" in fast[10]
    assert len(asked) == 21 and asked[0] == "MainThread" and not {"MainThread"} & {*asked[1:]}


def test_one_mask_is_found_wherever_it_is(dataset: Any) -> None:
    last = dataset.last()

    def has() -> tuple[bool, bool]:
        return has_masks(dataset, label_fields(dataset)), has_masks(dataset.exclude(last.id), label_fields(dataset))

    dataset.set_values("gt.detections.mask", [[None]] * 9 + [[np.ones((4, 5), bool)]])
    assert has() == (True, False)
    dataset.set_values("gt.detections.mask", [[None]] * 10)
    assert has() == (False, False) and not has_masks(dataset, [])
    dataset.set_values("gt.detections.mask_path", [[None]] * 9 + [["/masks/1.png"]])
    assert has() == (True, False)
    dataset.set_values("gt.detections.mask_path", [[None]] * 10)
    last.reload()
    last["outlines"] = fo.Polylines(polylines=[fo.Polyline(label="a", points=[[(0.1, 0.1), (0.5, 0.1), (0.5, 0.5)]], filled=False)])
    last.save()
    assert has() == (False, False)
    last.outlines.polylines[0].filled = True
    last.save()
    assert has() == (True, False)


def test_views_that_cannot_be_used(dataset: Any, fiftyone_db: Any) -> None:
    with pytest.raises(DataError, match="empty"):
        view_records(dataset.match_tags("nothing"), "gt")
    with pytest.raises(DataError, match="patches view"):
        view_records(dataset.to_patches("gt"), "gt")
    with pytest.raises(DataError, match="not str"):
        view_records("dataset", "gt")
    groups = fiftyone_db.Dataset()
    groups.add_group_field("group", default="left")
    group = fo.Group()
    groups.add_samples([fo.Sample(filepath=dataset.first().filepath, group=group.element(name)) for name in ("left", "right")])
    with pytest.raises(DataError, match=r"slices: left, right\): choose one, e.g. view.select_group_slices\('left'\)"):
        view_records(groups, "gt")
    groups.delete()


def test_broken_files_are_listed_by_sample_and_the_rest_goes_on(dataset: Any) -> None:
    ids, files = dataset.values(["id", "filepath"])
    Path(files[2]).unlink()
    Path(files[5]).write_text("this is text")
    Path(files[6]).write_bytes(b"")
    read = view_records(dataset, "gt")
    assert [p.sample_id for p in read.skipped] == [ids[2], ids[5], ids[6]] and len(read.records) == 7
    assert "No such file" in str(read.skipped[0]) and "not an image" in str(read.skipped[1])
    for file in files:
        Path(file).unlink(missing_ok=True)
    with pytest.raises(DataError, match=f"no sample of this view can be read, the first: sample {ids[0]}"):
        view_records(dataset, "gt")


def test_labels_without_masks(dataset: Any) -> None:
    some = dataset.limit(2)
    some.set_values("gt.detections.mask", [[None]] * 2)
    with pytest.raises(DataError, match=rf"2 labels in 2 samples have no mask \(samples {dataset.first().id}, .*maskless='skip'"):
        view_records(dataset, "gt")
    skipped = view_records(dataset, "gt", maskless="skip")
    assert skipped.objects == 8 and len(skipped.records) == 10 and len(skipped.dropped) == 2
    boxes = view_records(dataset, "gt", maskless="box")
    assert boxes.objects == 10 and masks.area(boxes.records[0].instances[0].mask) == 20


def test_objects_that_cannot_be_used_are_dropped_with_a_reason(dataset: Any) -> None:
    sample = dataset.first()
    ones = np.ones((2, 2), bool)
    sample.gt.detections += [
        fo.Detection(label="a", bounding_box=[0.1, 0.1, 0.2, 0.2], mask=np.zeros((4, 6), bool)),
        fo.Detection(label=None, bounding_box=[0.1, 0.1, 0.2, 0.2], mask=ones),
        fo.Detection(label="a", bounding_box=[0.1, 0.1, 0, 0.2], mask=ones),
        fo.Detection(label="a", bounding_box=[0.1, 0.1, 0.2, 0.2], mask_path="/no/such/mask.png"),
        fo.Detection(label="b", bounding_box=[0.5, 0.5, 0.2, 0.2], mask=ones, iscrowd=True),
    ]
    sample.save()
    read = view_records(dataset, "gt")
    reasons = [p.reason for p in read.dropped]
    assert len(reasons) == 4 and all(p.sample_id == sample.id and p.label_id for p in read.dropped)
    for reason, what in zip(reasons, ("no pixel", "no class name", "impossible bounding box", "/no/such/mask.png"), strict=True):
        assert what in reason
    assert [i.crowd for i in read.records[0].instances] == [False, True]
    only = view_records(dataset, "gt", ["b"])
    assert only.objects == 6 and "class 'a' is not in the class list" in {p.reason for p in only.dropped}
    with pytest.raises(DataError, match="no object can be used; 15 were left out"):
        view_records(dataset, "gt", ["z"])
    with pytest.raises(DataError, match="'b' is given twice"):
        view_records(dataset, "gt", ["b", "b"])


def test_mask_files_and_polylines(dataset: Any, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "mask.png"), np.full((4, 5), 255, np.uint8))
    dataset.limit(1).set_values("gt.detections.mask_path", [[str(tmp_path / "mask.png")]])
    dataset.limit(1).set_values("gt.detections.mask", [[None]])
    assert masks.area(view_records(dataset, "gt").records[0].instances[0].mask) == 20
    shape = [[(0.1, 0.1), (0.5, 0.1), (0.5, 0.6), (0.1, 0.6)]]  # 12 x 10 pixels
    lines = [fo.Polylines(polylines=[fo.Polyline(label="c", points=shape, closed=True, filled=True)]) for _ in range(10)]
    dataset.set_values("lines", lines)
    assert {masks.area(i.mask) for r in view_records(dataset, "lines").records for i in r.instances} == {120}
    dataset.limit(1).set_values("lines.polylines.filled", [[False]])
    with pytest.raises(DataError, match="1 labels in 1 samples have no mask"):
        view_records(dataset, "lines")


def sizes(dataset: Any, *args: Any, **kwargs: Any) -> dict[str, int]:
    return {name: len(view) for name, view in split_view(dataset, *args, **kwargs).views.items()}


def test_splits(dataset: Any) -> None:
    assert sizes(dataset) == sizes(dataset, "tags") == {"train": 7, "val": 3}  # "validation" is val
    assert sizes(dataset, "field:fold") == sizes(dataset, "fold") == {"train": 5, "val": 5}
    assert sizes(dataset, 0.3) == sizes(dataset, "random", val_fraction=0.3) == {"train": 7, "val": 3}
    assert sizes(dataset, dataset.limit(4)) == {"train": 6, "val": 4}
    assert sizes(dataset, {"train": dataset[:5], "validation": dataset[5:7], "test": dataset[7:]}) == {"train": 5, "val": 2, "test": 3}
    dataset.untag_samples("validation")
    assert sizes(dataset) == {"train": 8, "val": 2}  # no val tags: random


def test_random_splits_are_the_same_for_the_same_seed_in_any_order(dataset: Any) -> None:
    def chosen(view: Any, seed: int) -> set[str]:
        return set(split_view(view, 0.3, seed=seed).views["val"].values("id"))

    assert chosen(dataset, 1) == chosen(dataset.sort_by("id", reverse=True), 1)
    assert len({frozenset(chosen(dataset, seed)) for seed in range(6)}) > 1


def test_splits_that_make_no_sense(dataset: Any) -> None:
    for rule, error, what in (
        ("nonsense", SettingsError, "neither 'auto'"),
        (1.5, SettingsError, "must be above 0 and below 1"),
        (None, SettingsError, "split=None"),
        ("field:filepath", DataError, "no sample for train"),
        (dataset.match_tags("nothing"), DataError, "no sample for val"),
        (dataset, DataError, "no sample for train"),
        ({"train": dataset, "val": dataset.limit(1)}, DataError, "shares 1 samples"),
        ({"holdout": dataset}, SettingsError, "must be train, val or test"),
    ):
        with pytest.raises(error, match=what):
            split_view(dataset, rule)
    dataset.limit(1).tag_samples("validation")
    with pytest.raises(DataError, match=f"sample {dataset.first().id} is tagged train and val"):
        split_view(dataset, "tags")
