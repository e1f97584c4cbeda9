"""What the results of jobs have in common: Markdown for a person, and values that are JSON."""

from __future__ import annotations

import math
from typing import Any

LISTED = 10


def best(epoch: int, metrics: dict[str, float], stopped: bool) -> str:
    """What is known of best.pt at the end of a training."""
    if not epoch:
        return "No epoch is complete: the checkpoint holds the weights as they are, not validated"
    if metrics:
        return f"Best epoch {epoch}: {scores(metrics)}"
    return f"Best epoch {epoch}: {'not validated in this session' if stopped else 'no validation images'}"


def scores(metrics: dict[str, float]) -> str:
    mask, box = number(metrics["metrics/mAP50-95(M)"]), number(metrics["metrics/mAP50-95(B)"])
    return f"mask mAP **{mask}**, box mAP **{box}** (IoU 0.50:0.95)"


def count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def score(value: float) -> str:
    """COCO says -1 where there is nothing to score."""
    return number(value if value >= 0 else math.nan)


def paragraphs(lines: list[str]) -> str:
    return "\n\n".join(lines)


def listing(problems: list[str], what: str, total: int | None = None) -> str:
    """total: how many there are, if `problems` are only the first of them."""
    total = len(problems) if total is None else total
    if not problems:
        return ""
    shown = "".join(f"\n- {p}" for p in problems[:LISTED])
    rest = f"\n- and {total - LISTED} more" if total > LISTED else ""
    return f"\n\n{total} {what}:\n{shown}{rest}"


def plain(value: Any) -> Any:
    """NaN is no JSON, and the App's server would break on it."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
