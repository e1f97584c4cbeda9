"""How far an axis of losses reaches."""

from __future__ import annotations

import math
from collections.abc import Iterable

_ROOM, _TIMES = 1.08, 3.0


def loss_top(training: Iterable[float], validation: Iterable[float]) -> float:
    """Upper end of an axis from 0 with both curves on it; NaN is where there is no value.

    Validation losses above three times the largest training loss run out of the plot: where batch norm's statistics lag behind the weights, one
    epoch's can be ten thousand times the others, and all curves would lie on the axis.
    """
    learnt = max((v for v in training if math.isfinite(v)), default=0.0)
    tested = max((v for v in validation if math.isfinite(v)), default=0.0)
    return _ROOM * max(learnt, min(tested, _TIMES * learnt) if learnt else tested) or 1.0
