"""Pictures in the run folder. Each kind is a listener of its own, so that one that fails takes no other with it.

matplotlib is loaded with this package and not before; figures are made as objects with the Agg canvas.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...types import Batch, ImageRecord, Instances
from ..events import EpochInfo, Phase, RunEnd, RunInfo, TrainingListener
from ..matching import confusion_matrix
from ..metrics import Metrics
from ..pinned import picture_path, pictures_of, thin
from .confusion import plot_confusion
from .curves import plot_f1, plot_pr
from .labels import plot_labels
from .pictures import Image
from .results import plot_results
from .samples import PINNED_CONF, plot_batch, plot_pinned, plot_val_pictures, thumbnail

log = logging.getLogger(__name__)
_SHARE = 0.005
"""results.png is drawn again when that takes less than this share of the time since it was drawn last."""


def plot_listeners() -> list[TrainingListener]:
    return [LabelPlot(), BatchPlots(), ResultsPlot(), PinnedPictures(), ValidationPlots()]


class LabelPlot(TrainingListener):
    """labels.png"""

    def on_run_start(self, run: RunInfo) -> None:
        plot_labels(run.training, run.validation, run.names, run.settings.imgsz, run.dir / "labels.png")


class BatchPlots(TrainingListener):
    """train_batch0.png to train_batch2.png"""

    def on_run_start(self, run: RunInfo) -> None:
        self._run = run

    def on_batch(self, number: int, batch: Batch) -> None:
        plot_batch(number, batch, self._run.names, self._run.dir / f"train_batch{number}.png")


class ResultsPlot(TrainingListener):
    """results.png, drawn while the training runs but for next to none of its time, and at its end."""

    def __init__(self) -> None:
        self._phases: list[Phase] = []
        self._drawn, self._cost = time.monotonic(), 0.5

    def on_run_start(self, run: RunInfo) -> None:
        self._folder, self._drawn = run.dir, time.monotonic()

    def on_phase(self, phase: Phase) -> None:
        self._phases.append(phase)

    def on_epoch_end(self, epoch: EpochInfo) -> None:
        if self._cost < _SHARE * (time.monotonic() - self._drawn):
            self._draw()

    def on_run_end(self, end: RunEnd) -> None:
        self._draw()

    def on_run_failed(self, error: BaseException) -> None:
        self._draw()

    def _draw(self) -> None:
        start = time.monotonic()
        plot_results(self._folder / "results.csv", self._phases, self._folder / "results.png")
        self._drawn = time.monotonic()
        self._cost = self._drawn - start


class PinnedPictures(TrainingListener):
    """pinned/epoch_<n>.jpg, after each validated epoch; of a long run, those that `pinned.kept` keeps."""

    looks_at_predictions = False

    def on_run_start(self, run: RunInfo) -> None:
        self._run, self._images = run, dict[int, Image]()
        for epoch, path in pictures_of(run.dir).items():
            if epoch >= run.first_epoch:  # of a run that was in this folder before
                path.unlink(missing_ok=True)

    def on_epoch_end(self, epoch: EpochInfo) -> None:
        if not epoch.pinned:
            return
        records = [self._run.validation[i] for i in epoch.pinned]
        for i, record in zip(epoch.pinned, records, strict=True):
            if i not in self._images:
                self._images[i] = thumbnail(record.path)
        score = f", mask mAP {epoch.metrics.seg.map:.3f}" if epoch.metrics else ""
        title = f"Epoch {epoch.epoch}{score}. Labels, predictions from {PINNED_CONF:g}; orange: missed or wrong"
        images, path = [self._images[i] for i in epoch.pinned], picture_path(self._run.dir, epoch.epoch)
        plot_pinned(title, records, images, list(epoch.pinned.values()), self._run.names, path)
        thin(self._run.dir, self._run.settings.val_period)


class ValidationPlots(TrainingListener):
    """Curves, confusions and pictures of best.pt."""

    def on_run_start(self, run: RunInfo) -> None:
        self._records = run.validation

    def on_run_end(self, end: RunEnd) -> None:
        if end.result.metrics is not None and end.found:  # a run that was stopped does not validate its best.pt again
            plot_validation(self._records, end.found, end.result.metrics, end.result.dir)


def plot_validation(records: Sequence[ImageRecord], found: Mapping[int, Instances], metrics: Metrics, folder: Path) -> None:
    """pr_curves, f1_curves, confusion_matrix, confusion_matrix_normalized and val_pictures. Without any object: nothing."""
    if metrics.objects == 0:
        log.warning("the validation images have no object: there are no curves and pictures to draw")
        return
    conf = metrics.seg.conf
    plot_pr(metrics, folder / "pr_curves.png")
    plot_f1(metrics, folder / "f1_curves.png")
    counts = confusion_matrix(((records[i], instances) for i, instances in found.items()), len(metrics.names), conf)
    plot_confusion(counts, metrics.names, conf, folder / "confusion_matrix.png", normalized=False)
    plot_confusion(counts, metrics.names, conf, folder / "confusion_matrix_normalized.png", normalized=True)
    plot_val_pictures(records, found, metrics.names, conf, folder / "val_pictures.png")
