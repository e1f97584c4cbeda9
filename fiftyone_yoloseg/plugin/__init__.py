"""The FiftyOne plugin: operators and their forms. It only asks and shows; the work is done in `bridge`."""

from __future__ import annotations

from typing import Any


def register(plugin: Any) -> None:
    """Called by FiftyOne for each plugin that it loads."""
    from .metrics import METRICS
    from .operators import OPERATORS
    from .panel import YolosegPanel

    for operator in (*OPERATORS, *METRICS, YolosegPanel):
        plugin.register(operator)
