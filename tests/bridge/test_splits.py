"""Which samples go where: every rule, shares, classes and groups; counted by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

pytest.importorskip("fiftyone")

from fiftyone_yoloseg.bridge.plan import check_split, choose_classes, make_plan, split_view
from fiftyone_yoloseg.bridge.splits import SPLITS, Facts, SplitOptions, assign
from fiftyone_yoloseg.errors import DataError, SettingsError


def facts(n: int, **columns: Any) -> Facts:
    return Facts([f"{i:024x}" for i in range(n)], [f"/data/{i}.jpg" for i in range(n)], **{"tags": [()] * n, **columns})


def counts(found: Facts, options: SplitOptions) -> dict[str, int]:
    codes, _ = assign(found, options)
    return {SPLITS[code]: n for code, n in sorted(Counter(codes.tolist()).items())}


def test_random_shares_are_exact() -> None:
    assert counts(facts(100), SplitOptions("random", 0.2, 0.1)) == {"train": 70, "val": 20, "test": 10}
    assert counts(facts(3), SplitOptions("random", 0.2, 0.2)) == {"train": 1, "val": 1, "test": 1}
    assert counts(facts(10), SplitOptions(0.35)) == {"train": 6, "val": 4}
    assert counts(facts(1), SplitOptions("random")) == {"train": 1}


def test_growing_data_moves_few_samples() -> None:
    before, _ = assign(facts(1000), SplitOptions("random"))
    after, _ = assign(facts(1010), SplitOptions("random"))
    assert (before != after[:1000]).sum() <= 10
    other, _ = assign(facts(1000), SplitOptions("random", seed=1))
    assert (before != other).sum() > 200


def test_groups_stay_together_and_shares_are_near() -> None:
    groups = [i // 7 for i in range(210)]  # 30 videos of 7 frames
    codes, how = assign(facts(210, groups=groups), SplitOptions("random", 0.2, 0.1, group_by="video"))
    sides = {group: {code for g, code in zip(groups, codes.tolist(), strict=True) if g == group} for group in set(groups)}
    assert all(len(codes_of) == 1 for codes_of in sides.values())
    assert Counter(codes.tolist()) == {0: 147, 1: 42, 2: 21} and "whole groups of 'video'" in how
    alone, _ = assign(facts(10, groups=[None] * 10), SplitOptions("random", group_by="video"))
    assert Counter(alone.tolist()) == {0: 8, 1: 2}  # a sample without a group is one of its own


def test_stratified_splits_spread_every_class() -> None:
    """90 images of a, 8 of b, 2 of c: a plain random split would often leave c out of one side."""
    classes: list[tuple[str, ...]] = [("a",)] * 90 + [("b", "b")] * 8 + [("c",)] * 2
    for seed in range(5):
        codes, how = assign(facts(100, classes=classes), SplitOptions("random", 0.25, stratify=True, seed=seed))
        val = Counter(name for names, code in zip(classes, codes.tolist(), strict=True) if code == 1 for name in set(names))
        assert val["b"] == 2 and 0 <= val["c"] <= 1 and 22 <= val["a"] <= 23 and 24 <= (codes == 1).sum() <= 26, val
        assert "stratified by class" in how
    two, _ = assign(facts(4, classes=[("rare",), ("rare",), (), ()]), SplitOptions("random", 0.5, stratify=True))
    assert Counter(two.tolist()) == {0: 2, 1: 2} and two[0] != two[1]


def test_folders_and_whole_splits() -> None:
    found = facts(5)
    found.files[:] = ["/x/train2017/a.jpg", "/x/images/val/b.jpg", "/val/y/Training/c.jpg", "/x/other/d.jpg", "/x/test/images/e.jpg"]
    codes, how = assign(found, SplitOptions("folders"))
    assert codes.tolist() == [0, 1, 0, -1, 2] and how == "folders"
    assert counts(found, SplitOptions("val")) == {"val": 5}


def test_a_group_on_two_sides_is_an_error() -> None:
    found = facts(3, groups=["a", "a", "b"])
    found.tags[:] = [("train",), ("val",), ("val",)]
    with pytest.raises(DataError, match="video='a' is in train and val"):
        assign(found, SplitOptions("tags", group_by="video"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "random", "val_fraction": 0.0}, "val_fraction=0.0"),
        ({"rule": "random", "test_fraction": 0.9}, "test_fraction=0.9"),
        ({"rule": True}, "split=True"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        SplitOptions(**options)


class View:
    """As much of a dataset as choosing classes looks at."""

    def __init__(self, declared: tuple[str, ...] = ()) -> None:
        self.classes, self.default_classes, self._dataset = {"gt": declared}, (), type("D", (), {"name": "d"})


def test_classes_are_merged_renamed_and_left_out() -> None:
    labels = {"car", "bus", "dog", "sign"}
    names, index, notes = choose_classes(View(), "gt", labels, None, {"car": "vehicle", "bus": "vehicle", "sign": None, "tram": "vehicle"})
    assert names == {0: "dog", 1: "vehicle"} and index == {"car": 1, "bus": 1, "dog": 0}
    assert notes == ["remap: no object is labelled tram; there are bus, car, dog, sign"]
    names, index, _ = choose_classes(View(("sign", "car", "dog", "bus")), "gt", labels, None, {"car": "bus"})
    assert list(names.values()) == ["sign", "bus", "dog"] and index["car"] == index["bus"] == 1  # the declared order
    names, index, _ = choose_classes(View(), "gt", labels, ["zebra", "car"], None)
    assert names == {0: "zebra", 1: "car"} and index == {"car": 1}
    with pytest.raises(DataError, match="no labelled object"):
        choose_classes(View(), "gt", {"car"}, None, {"car": None})


def test_plans_count_what_the_view_holds(coco: Any) -> None:
    plan = make_plan(coco, "ground_truth", SplitOptions("tags"))
    assert plan.counts == {"train": 4, "val": 2}
    objects = [(sample.tags[0], label.label) for sample in coco for label in sample.ground_truth.detections if not label.iscrowd]
    assert sum(c.total() for c in plan.objects.values()) == len(objects) == coco.count("ground_truth.detections") - 1
    assert plan.objects["val"] == Counter(label for split, label in objects if split == "val")
    assert [split for split, _ in plan.raw()] == ["train"] * 4 + ["val"] * 2
    shuffled = make_plan(coco.shuffle(seed=3), "ground_truth", SplitOptions("tags"))
    assert Counter(split for split, _ in shuffled.raw()) == plan.counts


def test_a_dataset_that_changes_between_the_passes(coco: Any) -> None:
    """Samples that came later belong to no split; those that went are not missed."""
    plan = make_plan(coco, "ground_truth", SplitOptions("tags"))
    first = coco.first()
    extra = first.copy()
    coco.delete_samples(first.id)
    coco.add_sample(extra)
    assert Counter(split for split, _ in plan.raw()) == {"train": 3, "val": 2}
    assert [split for split, _ in plan.everything()].count(None) == 1


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([["train"], ["val", "easy"], ["validation"], []], None),
        ([["train"], ["train", "easy"], []], "no sample for val"),
        ([["train"], ["val"], ["val", "training"]], "is tagged train and val"),
    ],
)
def test_a_form_that_counts_tags_in_the_database_says_what_the_split_says(coco: Any, tags: list[list[str]], message: str | None) -> None:
    view = coco.limit(len(tags))
    view.set_values("tags", tags)
    for check in (check_split, split_view):
        if message is None:
            check(view, "tags")
        else:
            with pytest.raises(DataError, match=message):
                check(view, "tags")
