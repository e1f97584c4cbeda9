"""Figures of the panel, as Plotly traces and layouts. Colours of text and grid come from the App's theme; those of the series can be read on both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..bridge.panel_data import BOX
from ..bridge.run_registry import KEY
from ..engine.loss_axis import loss_top

BLUE, ORANGE, GREEN, RED, GREY = "#4c8dff", "#ff8a3d", "#35b37e", "#e5534b", "#8a8f98"
SERIES = (BLUE, ORANGE, GREEN, "#b36bff", "#d9b300", "#22b8cf", RED, "#e667a5")
CONFIG = {"displayModeBar": False, "responsive": True}
Figure = tuple[list[dict[str, Any]], dict[str, Any]]
_LOSSES = {
    "train/box_loss": ("box", BLUE),
    "train/seg_loss": ("mask", ORANGE),
    "train/cls_loss": ("class", GREEN),
    "train/dfl_loss": ("dfl", GREY),
}


def scores(history: Mapping[str, Sequence[float]], best: int | None, calm: Mapping[str, Any] | None, epochs: int | None) -> Figure:
    """mAP of masks and boxes by epoch; the best epoch and the change of augmentation are marked."""
    epoch = history["epoch"]
    traces = [_line("mask mAP", epoch, history[KEY], BLUE), _line("box mAP", epoch, history[BOX], ORANGE)]
    if best is not None:
        value = history[KEY][list(epoch).index(best)]
        traces.append({
            "type": "scatter", "mode": "markers", "name": f"best: epoch {best}", "x": [best], "y": [value],
            "marker": {"color": BLUE, "size": 12, "symbol": "star", "line": {"color": "#ffffff", "width": 1}},
        })  # fmt: skip
    top = max([0.01, *(v for name in (KEY, BOX) for v in history[name] if not math.isnan(v))])
    return traces, _layout("mAP 0.50:0.95", *_shown(epoch, epochs, calm), {"range": [0, min(1.0, 1.15 * top)]})


def losses(history: Mapping[str, Sequence[float]], calm: Mapping[str, Any] | None, epochs: int | None) -> Figure:
    """The four training losses by epoch; those of validation images dashed."""
    traces, top = [], 0.0
    for column, (name, colour) in _LOSSES.items():
        traces.append(_line(name, history["epoch"], history[column], colour))
        validated = history.get(column.replace("train/", "val/"), [])
        if any(not math.isnan(v) for v in validated):
            trace = _line(f"{name}, val", history["epoch"], validated, colour)
            traces.append({**trace, "line": {**trace["line"], "dash": "dot"}, "showlegend": False})
        top = max(top, loss_top(history[column], validated))
    return traces, _layout("loss (dotted: validation)", *_shown(history["epoch"], epochs, calm), {"range": [0, top]})


def _shown(epoch: Sequence[float], epochs: int | None, calm: Mapping[str, Any] | None) -> tuple[int | None, Mapping[str, Any] | None]:
    """Where the axis of a training ends that is to have so many epochs, and what is marked on it.

    At twice of what there is: the first epochs of many would be one upright line. A mark beyond the end would make it longer. None: it has ended.
    """
    last = int(max(epoch, default=0))
    end = epochs and min(epochs, max(10, 2 * last))
    return end, calm if calm and calm["epoch"] <= (end or last) else None


def overlay(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Mask mAP by epoch of several runs."""
    traces = [_line(name, h["epoch"], h[KEY], SERIES[i % len(SERIES)]) for i, (name, h) in enumerate(histories.items()) if h]
    return traces, _layout("mask mAP 0.50:0.95", None, None, {"rangemode": "tozero"})


def sizes(coco: Mapping[str, Mapping[str, Any]]) -> Figure:
    """AP of masks and boxes by the size of objects. COCO says -1 where there are none of a size."""
    names = {"AP_small": "small", "AP_medium": "medium", "AP_large": "large", "AP": "all"}
    traces: list[dict[str, Any]] = []
    for kind, title, colour in (("segm", "masks", BLUE), ("bbox", "boxes", ORANGE)):
        if kind in coco:
            values = [coco[kind][key] if coco[kind][key] >= 0 else None for key in names]
            text = ["none" if v is None else f"{v:.3f}" for v in values]
            traces.append({
                "type": "bar", "name": title, "x": list(names.values()), "y": [v or 0 for v in values], "text": text,
                "textposition": "outside", "cliponaxis": False, "marker": {"color": colour},
            })  # fmt: skip
    top = max([0.1, *(v for t in traces for v in t["y"])])
    layout = _layout("AP 0.50:0.95", None, None, {"range": [0, 1.2 * top]}, x="")
    return traces, {**layout, "barmode": "group"}


def precision_recall(recall: Sequence[float], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Precision over recall at IoU 0.5: the mean of all classes, and those with the lowest area below, but some."""
    known = {name: [max(p, 0.0) for p in values] for name, values in curves.items() if max(values, default=-1) >= 0}
    worst = sorted((n for n in known if sum(known[n])), key=lambda name: sum(known[name]))[: len(SERIES) - 1]
    mean = [sum(column) / len(column) for column in zip(*known.values(), strict=True)]
    traces = [_line("all classes", recall, mean, BLUE, width=4)]
    traces += [_line(name, recall, known[name], SERIES[1 + i], width=1.5) for i, name in enumerate(worst)]
    layout = _layout("precision at IoU 0.5", None, None, {"range": [0, 1.03]}, x="recall")
    return traces, {**layout, "xaxis": {**layout["xaxis"], "range": [0, 1]}}


def confusion(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Figure:
    """How often an object of one class (row) was predicted as another (column). Colours are shares of the row, so that rare classes are seen.

    Cells without an object have no colour; the others are dark enough for white numbers in a dark and in a light App.
    """
    shares = [[n / sum(row) if n else None for n in row] for row in counts]
    small = len(classes) <= 12
    trace: dict[str, Any] = {
        "type": "heatmap", "x": list(classes), "y": list(classes), "z": shares, "customdata": [list(row) for row in counts], "showscale": False,
        "zmin": 0, "zmax": 1, "colorscale": [[0, "#24406e"], [1, "#2f6fe0"]], "xgap": 1, "ygap": 1,
        "hovertemplate": "truth %{y}, predicted %{x}: %{customdata}<extra></extra>",
    }  # fmt: skip
    if small:
        trace |= {
            "text": [[str(n) if n else "" for n in row] for row in counts],
            "texttemplate": "%{text}",
            "textfont": {"color": "#ffffff"},
        }
    layout = _layout("ground truth", None, None, {"autorange": "reversed", "type": "category"}, x="predicted")
    return [trace], {**layout, "xaxis": {**layout["xaxis"], "type": "category", "side": "bottom"}, "showlegend": False}


def _line(name: str, x: Sequence[float], y: Sequence[float], colour: str, width: float = 2) -> dict[str, Any]:
    values = [None if math.isnan(v) else v for v in y]
    mode = "lines+markers" if len(values) < 30 else "lines"
    return {
        "type": "scatter", "mode": mode, "name": name, "x": list(x), "y": values, "connectgaps": True,
        "line": {"color": colour, "width": width}, "marker": {"size": 5},
    }  # fmt: skip


def _layout(title: str, epochs: int | None, calm: Mapping[str, Any] | None, y: dict[str, Any], x: str = "epoch") -> dict[str, Any]:
    layout: dict[str, Any] = {
        "showlegend": True, "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        "margin": {"t": 56, "l": 60, "r": 16, "b": 44}, "height": 320, "hovermode": "closest",
        "title": {"text": title, "x": 0, "xref": "paper", "xanchor": "left", "y": 0.98, "font": {"size": 13, "color": GREY}},
        "xaxis": {"title": {"text": x}}, "yaxis": y,
    }  # fmt: skip
    if epochs:
        layout["xaxis"]["range"] = [0.5, epochs + 0.5]
    if calm:
        at = calm["epoch"] - 0.5
        layout["shapes"] = [
            {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": GREY, "dash": "dash", "width": 1}}
        ]
        layout["annotations"] = [{"x": at, "yref": "paper", "y": 1, "xanchor": "right", "yanchor": "top", "showarrow": False,
                                  "text": f"{calm['what']} ", "font": {"color": GREY, "size": 12}}]  # fmt: skip
    return layout
