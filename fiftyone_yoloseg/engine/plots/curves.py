"""pr_curves.png and f1_curves.png: each class thin, their mean bold, at IoU 0.5."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ...types import Names
from ..metrics import GRID, Floats, Metrics, Scores
from .canvas import GREY, PALETTE, class_name, dress, figure, plain, save


def class_mean(curves: Floats) -> Floats:
    """(classes, n) -> (n,); classes without objects, rows of NaN, are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no class has objects: NaN is the answer
        return np.asarray(np.nanmean(curves, axis=0))


def plot_pr(metrics: Metrics, path: Path) -> None:
    def draw(axes: Axes, scores: Scores, what: str) -> None:
        _curves(axes, np.linspace(0, 1, scores.curves.pr.shape[1]), scores.curves.pr, metrics.names)
        dress(axes, f"{what}: mAP50 {scores.map50:.3f}", "recall", "precision")

    _two(metrics, "Precision and recall at IoU 0.5", draw, path)


def plot_f1(metrics: Metrics, path: Path) -> None:
    def draw(axes: Axes, scores: Scores, what: str) -> None:
        _curves(axes, GRID, scores.curves.f1, metrics.names)
        title = f"{what}: no objects"
        if not np.isnan(scores.conf):
            axes.plot([scores.conf], [scores.f1], "o", color="black", markersize=7)
            axes.axvline(scores.conf, color="black", linestyle=":", linewidth=1.2)
            title = f"{what}: best mean F1 {scores.f1:.3f} at confidence {scores.conf:.3f}"
        dress(axes, title, "confidence", "F1")

    _two(metrics, "F1 at IoU 0.5, by the confidence from which predictions count", draw, path)


def _two(metrics: Metrics, title: str, draw: Any, path: Path) -> None:
    made = figure(1400, 720, f"{title}: {metrics.objects} objects in {metrics.images} images")
    panels = made.subplots(1, 2)
    for axes, scores, what in zip(panels, (metrics.box, metrics.seg), ("Boxes", "Masks"), strict=True):
        draw(axes, scores, what)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        made.legend(handles, labels, fontsize=9, loc="outside lower center", ncols=min(len(handles), 8), frameon=False)
    save(made, path)


def _curves(axes: Axes, x: Floats, curves: Floats, names: Names) -> None:
    there = [i for i in range(len(curves)) if not np.isnan(curves[i]).all()]
    few = len(there) <= len(PALETTE)
    for n, i in enumerate(there):
        if few:
            axes.plot(x, curves[i], color=PALETTE[n], linewidth=1.3, label=plain(class_name(names, i)))
        else:
            axes.plot(x, curves[i], color=GREY, linewidth=0.7, alpha=0.4, label=f"{len(there)} classes" if n == 0 else None)
    if there:
        axes.plot(x, class_mean(curves), color="black", linewidth=2.8, label="mean of the classes")
