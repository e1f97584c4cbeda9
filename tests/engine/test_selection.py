"""What is chosen to be labelled next, on cases that can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fiftyone_yoloseg.engine.selection import Weights, class_uncertainty, image_uncertainty, object_uncertainty, select

ONLY: dict[str, Weights] = {name: Weights(**{k: float(k == name) for k in ("uncertainty", "diversity", "balance")}) for name in ("uncertainty", "diversity", "balance")}  # fmt: skip


def indices(*args: Any, **options: Any) -> list[int]:
    return [p.index for p in select(*args, **options)]


def test_uncertainty_of_an_object_is_the_worse_of_class_and_mask() -> None:
    np.testing.assert_allclose(class_uncertainty([0.5, 0.0, 1.0, 0.25]), [1.0, 0.0, 0.0, 0.25 * 2 + 0.75 * np.log2(4 / 3)])
    np.testing.assert_allclose(object_uncertainty([1.0, 1.0, 0.5], [0.3, np.nan, 0.9]), [0.7, 0.0, 1.0])
    assert image_uncertainty([0.1, 0.9, 0.5, 0.7]) == pytest.approx((0.9 + 0.7 + 0.5) / 3)
    assert image_uncertainty([]) == 0.0


def test_the_budget_counts_items_or_their_cost() -> None:
    u = np.array([0.1, 0.9, 0.5, 0.8])
    assert indices(u, 2, weights=ONLY["uncertainty"]) == [1, 3]
    assert indices(u, 99, weights=ONLY["uncertainty"]) == [1, 3, 2, 0]
    assert indices(u, 5, costs=np.array([1.0, 4.0, 2.0, 3.0]), weights=ONLY["uncertainty"]) == [1, 0]  # 3 and 2 do not fit any more
    assert indices(np.zeros(0), 3) == []


def test_diversity_is_k_centre_greedy() -> None:
    line = np.array([[0.0], [1.0], [2.0], [10.0], [11.0]])
    picks = select(np.zeros(5), 3, features=line, labelled=np.array([[0.0]]), weights=ONLY["diversity"])
    assert [p.index for p in picks] == [4, 2, 1] or [p.index for p in picks] == [4, 2, 3]  # then 1 and 3 are both 1 away
    assert [p.diversity for p in picks] == pytest.approx([1.0, 2 / 11, 1 / 11])
    first, *rest = select(np.array([0.0, 0, 1, 0, 0]), 2, features=line)  # nothing labelled: the most uncertain begins
    assert first.index == 2 and first.diversity == 1.0 and rest[0].index == 4


def test_rare_classes_come_first_and_stop_being_rare_when_taken() -> None:
    classes = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1], [0.4, 0]])
    picks = select(np.zeros(5), 4, classes=classes, class_counts=np.array([3.0, 0.0]), weights=ONLY["balance"])
    # rarity, over the largest at first: class 1 has 1, 1/2, 1/3 as it is taken, class 0 has 1/4; item 4 most likely has no object
    assert [p.balance for p in picks] == pytest.approx([1.0, 1 / 2, 1 / 4, 1 / 5])
    assert {p.index for p in picks[:2]} == {2, 3} and {p.index for p in picks[2:]} == {0, 1}


def test_the_seed_decides_between_equals_and_nothing_else() -> None:
    equal, features = np.full(30, 0.5), np.random.default_rng(0).normal(size=(30, 4))
    assert indices(equal, 5, seed=3) == indices(equal, 5, seed=3) != indices(equal, 5, seed=4)
    unequal = np.linspace(0, 1, 30)
    assert indices(unequal, 9, features=features, seed=1) == indices(unequal, 9, features=features, seed=2)
    assert indices(unequal, 9, features=features * 1e6) == indices(unequal, 9, features=features)


def test_what_does_not_fit_together_is_refused() -> None:
    u = np.zeros(3)
    for options, what in (
        ({"features": np.zeros((2, 4))}, "features"),
        ({"features": np.full((3, 4), np.nan)}, "features"),
        ({"classes": np.zeros((2, 4))}, "classes"),
        ({"costs": np.array([1.0, 0.0, 1.0])}, "costs"),
    ):
        with pytest.raises(ValueError, match=what):
            select(u, 1, **options)
    for bad in ((0, 0, 0), (-1, 1, 1), (np.nan, 1, 1)):
        with pytest.raises(ValueError, match="weights"):
            Weights(*bad)
