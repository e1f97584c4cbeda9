"""Where an axis of losses ends."""

from __future__ import annotations

import math

import pytest

from fiftyone_yoloseg.engine.loss_axis import loss_top

NAN = math.nan


@pytest.mark.parametrize(
    ("training", "validation", "top"),
    [
        ([4.0, 2.0, 1.0], [5.0, 3.0, 2.0], 5.0),  # all of both
        ([4.0, 2.0, 1.0], [5.0, 350_000.0, 2.0], 12.0),  # one epoch's is out of all proportion: three times the largest training loss
        ([4.0, NAN], [NAN, NAN], 4.0),
        ([NAN], [3.0], 3.0),
        ([2.0, math.inf], [1.0], 2.0),
        ([], [], 1 / 1.08),
        ([0.0], [0.0], 1 / 1.08),
    ],
)
def test_the_end(training: list[float], validation: list[float], top: float) -> None:
    assert loss_top(training, validation) == pytest.approx(1.08 * top)
