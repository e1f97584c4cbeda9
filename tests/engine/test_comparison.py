"""Paired bootstrap: the averages are COCO's, and the interval says what it must in cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from fiftyone_yoloseg.engine.average_precision import Averager, Labelled, Predicted
from fiftyone_yoloseg.engine.comparison import _map, bootstrap


def averager(quality: float, seed: int, images: int = 60) -> Averager:
    """Images with up to four objects of two classes; a prediction lies on an object with an IoU around `quality`, a few lie on nothing."""
    rng, labels_rng = np.random.default_rng(seed), np.random.default_rng(99)
    made = Averager()
    for _ in range(images):
        n = int(labels_rng.integers(0, 5))
        classes = labels_rng.integers(0, 2, n).tolist()
        labels = Labelled(classes, [500.0] * n, (labels_rng.random(n) < 0.1).tolist())
        ious = np.diag(np.clip(rng.normal(quality, 0.1, n), 0, 1))
        ious = np.concatenate([ious, np.zeros((1, n))])
        made.add(labels, Predicted([*classes, 0], [500.0] * (n + 1), rng.random(n + 1).tolist()), ious)
    return made


def test_weights_of_one_give_cocos_map() -> None:
    made = averager(0.75, 1)
    table = made.compute(2).precision[..., 0]
    assert _map(made.rankings(), np.ones(made.images)) == pytest.approx(table[table > -1].mean(), abs=1e-12)


def test_an_image_drawn_twice_counts_as_two_images() -> None:
    rng = np.random.default_rng(5)
    labels = Labelled([0, 0], [400.0, 400.0], [False, False])
    scenes = [(labels, Predicted([0, 0, 0], [400.0] * 3, rng.random(3).tolist()), rng.random((3, 2))) for _ in range(3)]
    drawn, plain, twice = [0, 2, 2, 1], Averager(), Averager()
    for scene in scenes:
        plain.add(*scene)
    for i in drawn:
        twice.add(*scenes[i])
    weights = np.bincount(drawn, minlength=3).astype(float)
    table = twice.compute(1).precision[..., 0]
    assert _map(plain.rankings(), weights) == pytest.approx(table[table > -1].mean(), abs=1e-12)


def test_a_better_model_is_surely_better_and_an_equal_one_is_not() -> None:
    worse, better, equal = averager(0.6, 1), averager(0.85, 2), averager(0.6, 3)
    found = bootstrap(worse, better)
    assert found.sure and found.low > 0 and found.better == 1 and found.low < found.difference < found.high
    back = bootstrap(better, worse)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    assert not bootstrap(worse, equal).sure
    same = bootstrap(worse, worse)
    assert (same.low, same.high, same.difference, same.better) == (0, 0, 0, 0)
    assert bootstrap(worse, better, seed=0) == found, "reproducible"


def test_other_images() -> None:
    with pytest.raises(ValueError, match="60 and 10 images"):
        bootstrap(averager(0.6, 1), averager(0.6, 1, images=10))
