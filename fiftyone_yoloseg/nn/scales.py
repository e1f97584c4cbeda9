"""The five sizes. Topology is code (model.py), sizes are data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import SettingsError


@dataclass(frozen=True, slots=True)
class Scale:
    """Depth and width multipliers of one size."""

    depth: float
    width: float
    max_channels: int

    def channels(self, base: int) -> int:
        """Base channels -> channels of this size, a multiple of 8."""
        return math.ceil(min(base, self.max_channels) * self.width / 8) * 8

    def repeats(self, base: int) -> int:
        """Base repeats of a C2f block -> repeats of this size."""
        return max(round(base * self.depth), 1)


SCALES = {
    "n": Scale(0.33, 0.25, 1024),
    "s": Scale(0.33, 0.50, 1024),
    "m": Scale(0.67, 0.75, 768),
    "l": Scale(1.00, 1.00, 512),
    "x": Scale(1.00, 1.25, 512),
}


def scale_of(size: str) -> Scale:
    """The scale of one of the sizes n, s, m, l, x."""
    if size not in SCALES:
        raise SettingsError(f"unknown network size {size!r}: choose one of {', '.join(SCALES)}")
    return SCALES[size]
