"""labels.png: how many objects of each class, where they are, and how large the network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator

from ...geometry import masks
from ...types import ImageRecord, Names
from .canvas import BLUE, ORANGE, VERMILLION, class_labels, dress, figure, largest, save

FINEST = 8  # pixels between two anchors of the finest level
_BINS = 40


@dataclass(frozen=True, slots=True)
class LabelStatistics:
    """Of N objects, crowds left out.

    counts: (classes,).  centres, sizes: (N, 2) x, y of the boxes as shares of the image.  sides: (N,) square root of the mask's
    area, in pixels at training size.
    """

    counts: npt.NDArray[np.int64]
    centres: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.float64]
    sides: npt.NDArray[np.float64]


def label_statistics(records: Sequence[ImageRecord], nc: int, imgsz: int) -> LabelStatistics:
    objects = [(record, label) for record in records for label in record.instances if not label.crowd]
    boxes = np.array([label.box for _, label in objects]).reshape(-1, 4)
    extent = np.array([(record.width, record.height) for record, _ in objects], float).reshape(-1, 2)
    areas = np.array([masks.area(label.mask) for _, label in objects], float)
    scale = imgsz / extent.max(1, initial=1)
    return LabelStatistics(
        np.bincount([label.cls for _, label in objects], minlength=nc),
        (boxes[:, :2] + boxes[:, 2:]) / 2 / extent,
        (boxes[:, 2:] - boxes[:, :2]) / extent,
        np.sqrt(areas) * scale,
    )


def plot_labels(training: Sequence[ImageRecord], validation: Sequence[ImageRecord], names: Names, imgsz: int, path: Path) -> None:
    train, val = label_statistics(training, len(names), imgsz), label_statistics(validation, len(names), imgsz)
    title = (
        f"Labels: {len(train.sides)} objects in {len(training)} training images, {len(val.sides)} in {len(validation)} validation images"
    )
    made = figure(1400, 900, title)
    left, right = made.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.6))[0]
    _classes(left.subplots(), train.counts, val.counts, names)
    panels = right.subplot_mosaic([["places", "sizes"], ["sides", "sides"]])
    places, sizes = panels["places"], panels["sizes"]
    _heat(places, train.centres, "Centres of the training boxes", "x, share of the image width", "y, share of the image height")
    places.invert_yaxis()  # as in the image
    _heat(sizes, train.sizes, "Sizes of the training boxes", "width, share of the image width", "height, share of the image height")
    _sides(panels["sides"], train.sides, val.sides, imgsz)
    save(made, path)


def _classes(axes: Axes, train: npt.NDArray[np.int64], val: npt.NDArray[np.int64], names: Names) -> None:
    shown, others = largest(train)
    rows = np.arange(len(shown) + bool(others))
    for counts, colour, label, shift in ((train, BLUE, "training", -0.2), (val, ORANGE, "validation", 0.2)):
        values = [*counts[shown].tolist(), *([int(counts[others].sum())] if others else [])]
        bars = axes.barh(rows + shift, values, 0.4, color=colour, label=label)
        axes.bar_label(bars, fontsize=7 if len(rows) > 12 else 9, padding=2)
    axes.set_yticks(rows, class_labels(names, shown, others))
    axes.set_ylim(max(len(rows), 6) - 0.4, -0.6)
    axes.margins(x=0.12)
    dress(axes, "Objects of each class", "objects", "", grid=False)
    axes.legend(fontsize=9, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)


def _heat(axes: Axes, points: npt.NDArray[np.float64], title: str, x: str, y: str) -> None:
    bins = int(np.clip(np.sqrt(len(points)), 8, _BINS))
    counts, *_ = np.histogram2d(points[:, 1], points[:, 0], bins=bins, range=((0, 1), (0, 1)))
    image = axes.imshow(counts, origin="lower", extent=(0, 1, 0, 1), norm=PowerNorm(0.5), cmap="cividis", interpolation="nearest")
    dress(axes, title, x, y, grid=False)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.85, ticks=MaxNLocator(5, integer=True))
    bar.set_label("objects in a cell", fontsize=8.5)
    bar.ax.tick_params(labelsize=8)


def _sides(axes: Axes, train: npt.NDArray[np.float64], val: npt.NDArray[np.float64], imgsz: int) -> None:
    edges = np.geomspace(1, imgsz, 49).tolist()
    for sides, colour, label in ((train, BLUE, "training"), (val, ORANGE, "validation")):
        if len(sides):
            weights = np.full(len(sides), 100 / len(sides))
            axes.hist(np.clip(sides, 1, imgsz), edges, weights=weights, histtype="step", linewidth=1.8, color=colour, label=label)
    small = 100 * float((train < FINEST).mean()) if len(train) else 0.0
    axes.axvline(FINEST, color=VERMILLION, linestyle="--", linewidth=1.2, label=f"{FINEST} px, the finest grid: {small:.1f} % are smaller")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    dress(axes, f"Object size at {imgsz} px", "square root of the mask's area, pixels", "% of the objects")
    axes.legend(fontsize=9, loc="upper left", framealpha=0.85, edgecolor="none")
