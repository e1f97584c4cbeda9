"""confusion_matrix.png, counts, and confusion_matrix_normalized.png, shares of each row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...types import Names
from ..matching import Integers
from .canvas import class_labels, dress, figure, largest, save

_CELL, _MARGIN, _LETTER = 38, 300, 7.5  # pixels


def condense(counts: Integers, most: int | None = None) -> tuple[Integers, list[int], list[int]]:
    """A confusion matrix of fewer classes: the `most` with the most labels, the others added up, background last.

    Returns it with the classes shown and the others. Confusions among the others stand on their diagonal cell.
    """
    nc = len(counts) - 1
    labelled = counts[:nc].sum(1)
    shown, others = largest(labelled) if most is None else largest(labelled, most)
    groups = [[i] for i in shown] + ([others] if others else []) + [[nc]]
    small = np.array([[counts[np.ix_(rows, columns)].sum() for columns in groups] for rows in groups], np.int64)
    return small, shown, others


def shares(counts: Integers) -> npt.NDArray[np.float64]:
    """Each row as shares of its sum; rows without anything stay 0."""
    return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), 1))


def plot_confusion(counts: Integers, names: Names, conf: float, path: Path, *, normalized: bool) -> None:
    small, shown, others = condense(counts)
    values, n = shares(small), len(small)
    labels = class_labels(names, shown, others)
    longest = max(len(label) for label in (*labels, "nothing found"))
    side = max(n * _CELL, 440)
    what = "shares of each row" if normalized else "objects"
    made = figure(side + _MARGIN, side + _MARGIN - 60, f"Confusions at mask IoU 0.5 and confidence {conf:.3f}: {what}")
    axes = made.subplots()
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(small > 0):
        text = _share(values[row, column]) if normalized else _count(int(small[row, column]))
        colour = "white" if values[row, column] > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5 if n > 12 else 10, color=colour)
    axes.set_xticks(range(n), [*labels, "nothing found"], rotation=90 if longest * _LETTER > side / n else 0)
    axes.set_yticks(range(n), [*labels, "no object"])
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e4e4e4", linewidth=0.7)
    axes.tick_params(which="minor", length=0)
    most = f", the {len(shown)} most frequent classes" if others else ""
    dress(axes, f"{counts[:-1].sum()} labels{most}", "predicted class", "true class", grid=False)
    bar = made.colorbar(image, ax=axes, shrink=0.6)
    bar.set_label("share of the row", fontsize=9)
    bar.ax.tick_params(labelsize=8.5)
    save(made, path)


def _share(value: float) -> str:
    return "<.01" if value < 0.005 else f"{value:.2f}".removeprefix("0")


def _count(n: int) -> str:
    return str(n) if n < 10_000 else f"{n / 1e3:.0f}k" if n < 1_000_000 else f"{n / 1e6:.1f}M" if n < 10_000_000 else f"{n / 1e6:.0f}M"
