"""Kinds of errors and their costs, on scenes computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_metrics import image, predictions, rectangle, score

from fiftyone_yoloseg.engine.error_types import KINDS, ErrorTypes, average_precision
from fiftyone_yoloseg.types import ImageRecord, Instances

A, B = 0, 1
BIG, FAR = rectangle(20, 20, 40, 40), rectangle(120, 20, 40, 40)


def kinds(record: ImageRecord, found: Instances) -> list[tuple[str, int | None, int | None]]:
    return [(e.kind, e.prediction, e.label) for e in ErrorTypes(2).add(0, record, found)]


@pytest.mark.parametrize(
    ("record", "found", "expected"),
    [
        pytest.param(image((A, BIG)), predictions((A, BIG, 0.9)), [], id="correct"),
        pytest.param(image((A, BIG)), predictions((B, BIG, 0.9)), [("class", 0, 0)], id="class"),
        pytest.param(image((A, BIG)), predictions((A, BIG, 0.9), (A, BIG, 0.8)), [("duplicate", 1, 0)], id="duplicate"),
        pytest.param(image((A, BIG)), predictions((A, BIG, 0.9), (A, FAR, 0.8)), [("background", 1, None)], id="background"),
        pytest.param(image((A, BIG), (B, FAR)), predictions((A, BIG, 0.9)), [("missed", None, 1)], id="missed"),
        # 20 x 20 of 40 x 40: IoU 0.25 and the same centre
        pytest.param(image((A, BIG)), predictions((A, rectangle(30, 30, 20, 20), 0.9)), [("boundary", 0, 0)], id="boundary"),
        # the same shape 25 pixels aside: IoU 15 / 65
        pytest.param(image((A, BIG)), predictions((A, rectangle(45, 20, 40, 40), 0.9)), [("shifted", 0, 0)], id="shifted"),
        # two objects of 40 x 40 with 60 pixels between them, and one prediction from 20 to 160 over both: IoU 40 / 140 with each
        pytest.param(
            image((A, BIG), (A, FAR)), predictions((A, rectangle(20, 20, 140, 40), 0.9)), [("merged", 0, 0), ("missed", None, 1)], id="merged"
        ),
        # two predictions of 40 x 16 on an object of 40 x 40: IoU 0.4 with it each
        pytest.param(
            image((A, BIG)),
            predictions((A, rectangle(20, 20, 40, 16), 0.9), (A, rectangle(20, 44, 40, 16), 0.8)),
            [("split", 0, 0), ("split", 1, 0)],
            id="split",
        ),
        pytest.param(image((A, BIG)), predictions((B, rectangle(30, 30, 20, 20), 0.9)), [("class and localisation", 0, 0), ("missed", None, 0)], id="both"),
        pytest.param(image(crowds=((A, BIG),)), predictions((A, rectangle(25, 25, 10, 10), 0.9)), [], id="on a crowd"),
        pytest.param(image(), predictions(), [], id="nothing at all"),
    ],
)  # fmt: skip
def test_kinds(record: ImageRecord, found: Instances, expected: list[tuple[str, int | None, int | None]]) -> None:
    assert kinds(record, found) == expected


def test_costs_by_hand() -> None:
    """One class: two objects, the first found second, the other not at all: AP = 51/101 * 1/2 (recalls up to 0.5 at precision 1/2)."""
    errors = ErrorTypes(1)
    errors.add(0, image((A, BIG), (A, FAR)), predictions((A, rectangle(80, 150, 20, 20), 0.9), (A, BIG, 0.8)))
    assert errors.ap == pytest.approx(51 / 101 / 2)
    costs = errors.costs()
    assert costs["background"] == pytest.approx(51 / 101 - 51 / 101 / 2), "without it, precision is 1 up to recall 0.5"
    assert costs["missed"] == pytest.approx(1 / 2 - 51 / 101 / 2), "one object to find, at precision 1/2"
    assert {kind for kind in KINDS if costs[kind]} == {"background", "missed"}
    assert dict(zip([e.kind for e in errors.errors], errors.object_costs(), strict=True)) == pytest.approx(
        {kind: costs[kind] for kind in ("background", "missed")}
    ), "there is one of each"


def test_a_class_error_becomes_a_correct_prediction_of_the_other_class() -> None:
    errors = ErrorTypes(2)
    errors.add(0, image((A, BIG), (B, FAR)), predictions((A, BIG, 0.9), (A, FAR, 0.95)))
    # a: found second of two at precision 1/2; b: nothing found
    assert errors.ap == pytest.approx((0.5 + 0) / 2)
    assert errors.costs()["class"] == errors.object_costs()[0] == pytest.approx(1 - 0.25)


def test_an_object_that_is_found_is_not_found_twice() -> None:
    errors = ErrorTypes(2)
    errors.add(0, image((A, BIG)), predictions((A, BIG, 0.5), (B, BIG, 0.9)))
    assert [e.kind for e in errors.errors] == ["class"]
    assert errors.ap == pytest.approx(1) and errors.costs()["class"] == pytest.approx(0), "b has no objects: it is not in the mean"


def test_ap_is_that_of_coco() -> None:
    pairs = [
        (image((A, BIG), (B, FAR)), predictions((A, BIG, 0.9), (B, BIG, 0.8), (B, rectangle(125, 25, 40, 40), 0.3))),
        (image((A, FAR)), predictions((A, rectangle(0, 0, 9, 9), 0.95), (A, FAR, 0.6))),
    ]
    errors = ErrorTypes(2)
    for number, (record, found) in enumerate(pairs):
        errors.add(number, record, found)
    assert errors.ap == pytest.approx(score(*pairs).seg.map50, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.floats(0.01, 0.99)), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_single_costs_are_those_of_their_kind_when_alone(drawn: list[tuple[int, bool, float]], seed: int) -> None:
    """The quick way to try one change gives what the plain way gives."""
    rng = np.random.default_rng(seed)
    places = [rectangle(30 * i, 10 * i, 24, 24) for i in range(6)]
    record = image(*((int(rng.integers(2)), place) for place in places[:4]))
    found = predictions(*((int(cls), places[i], conf) for i, cls, conf in drawn))
    errors = ErrorTypes(2)
    errors.add(0, record, found)
    for error, cost in zip(errors.errors, errors.object_costs(), strict=True):
        assert cost == pytest.approx(errors._ap([error]) - errors.ap, abs=1e-9)
        assert cost >= -1e-9 or error.kind == "missed"


def test_average_precision() -> None:
    assert average_precision(np.array([True, True]), 2) == pytest.approx(1)
    assert average_precision(np.array([], bool), 3) == 0
    assert average_precision(np.array([True, False, True]), 2) == pytest.approx((51 + 50 * 2 / 3) / 101)
