"""results.png: losses, metrics and learning rates of results.csv over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..events import Phase
from ..loss_axis import loss_top
from ..runlog import read_results
from .canvas import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, dress, figure, save

Series = npt.NDArray[np.float64]
_LOSSES = {"box": "Box loss", "seg": "Mask loss", "cls": "Class loss", "dfl": "Distribution focal loss"}
_METRICS = {"mAP50-95": VERMILLION, "mAP50": BLUE, "precision": GREEN, "recall": PURPLE}


def with_fitness(path: Path) -> dict[str, Series]:
    """The columns of a results.csv, and `fitness`, box mAP + mask mAP."""
    table = {name: np.array(values) for name, values in read_results(path).items()}
    return {**table, "fitness": table["metrics/mAP50-95(B)"] + table["metrics/mAP50-95(M)"]}


def best_epoch(table: dict[str, Series]) -> int | None:
    """The epoch of best.pt: the last one with the highest fitness. None before the first validation."""
    fitness = table["fitness"]
    if np.isnan(fitness).all():
        return None
    return int(table["epoch"][np.flatnonzero(fitness == np.nanmax(fitness))[-1]])


def plot_results(csv_path: Path, phases: Sequence[Phase], path: Path) -> None:
    table = with_fitness(csv_path)
    epochs = table["epoch"]
    made = figure(1600, 860, f"{csv_path.parent.name}: {len(epochs)} epochs")
    panels = made.subplots(2, 4)
    for axes, (name, title) in zip((*panels[0, :2], *panels[1, :2]), _LOSSES.items(), strict=True):
        _line(axes, epochs, table[f"train/{name}_loss"], BLUE, "training")
        _line(axes, epochs, table[f"val/{name}_loss"], ORANGE, "validation")
        axes.set_ylim(0, loss_top(table[f"train/{name}_loss"].tolist(), table[f"val/{name}_loss"].tolist()))
        _finish(axes, title, "loss, with its gain", phases)
    for axes, letter, what in ((panels[0, 2], "B", "Boxes"), (panels[1, 2], "M", "Masks")):
        for name, colour in _METRICS.items():
            _line(axes, epochs, table[f"metrics/{name}({letter})"], colour, name)
        axes.set_ylim(-0.02, 1.02)
        _finish(axes, f"{what}, validation images", "0 to 1", phases)
    _fitness(panels[0, 3], table, phases)
    for group, (colour, style, label) in enumerate(((BLUE, "-", "biases"), (ORANGE, "--", "convolutions"), (GREEN, ":", "batch norms"))):
        panels[1, 3].plot(epochs, table[f"lr/pg{group}"], style, color=colour, label=label, linewidth=2)
    _finish(panels[1, 3], "Learning rates", "learning rate", phases)
    save(made, path)


def _fitness(axes: Axes, table: dict[str, Series], phases: Sequence[Phase]) -> None:
    _line(axes, table["epoch"], table["fitness"], VERMILLION, "box mAP50-95 + mask mAP50-95")
    if (best := best_epoch(table)) is not None:
        value = np.nanmax(table["fitness"])
        axes.plot([best], [value], "*", markersize=14, color="black", label=f"best.pt: epoch {best}, {value:.3f}")
    _finish(axes, "Fitness", "0 to 2", phases)


def _line(axes: Axes, x: Series, y: Series, colour: str, label: str) -> None:
    there = ~np.isnan(y)
    if there.any():
        axes.plot(x[there], y[there], color=colour, label=label, linewidth=1.6, marker="o" if there.sum() < 3 else None, markersize=4)


def _finish(axes: Axes, title: str, unit: str, phases: Sequence[Phase]) -> None:
    dress(axes, title, "epoch", unit)
    for phase in phases:
        axes.axvline(phase.epoch - 0.5, color=GREY, linestyle="--", linewidth=1.2, label=f"from epoch {phase.epoch}: {phase.what}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="best", framealpha=0.85, edgecolor="none")
