"""What a training tells those who listen: plots, loggers, and whatever a user passes as `listeners`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import TrainSettings
from ..errors import SettingsError
from ..types import Batch, ImageRecord, Instances, Names
from .metrics import Metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A session of a run that begins. dir: the run folder. first_epoch: 1, or where an interrupted run goes on."""

    dir: Path
    settings: TrainSettings
    names: Names
    training: Sequence[ImageRecord]
    validation: Sequence[ImageRecord]
    first_epoch: int


@dataclass(frozen=True, slots=True)
class Phase:
    """From `epoch` (the first is 1) on the training differs: `what` says how. A run that goes on tells again of a phase that it is in."""

    epoch: int
    what: str


@dataclass(frozen=True, slots=True)
class EpochInfo:
    """An epoch that is complete, its checkpoint and row of results.csv written. The first is 1.

    row: values by their names in results.csv, and fitness.  metrics: None where the epoch was not validated.
    best: whether best.pt is of this epoch.  pinned: what the network finds in the pinned images, by index of the validation image.
    """

    epoch: int
    epochs: int
    row: Mapping[str, Any]
    metrics: Metrics | None
    best: bool
    pinned: Mapping[int, Instances] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Where a training put its files, and how good its best epoch is.

    epochs: finished ones, of all sessions of the run. best_epoch: 0 if it was stopped before the first was complete; best.pt then holds
    the weights as they were. metrics: of best.pt; None without validation images, or if a stopped session had validated none.
    notes: what the user should know: layers that start anew, what was chosen.
    """

    dir: Path
    best: Path
    last: Path
    metrics: Metrics | None
    epochs: int
    best_epoch: int
    seconds_per_step: float
    stopped: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunEnd:
    """A run that finished or was stopped. found (empty if it was stopped): what best.pt finds in each validation image, by its index; of confidence 0.001 and more."""

    result: TrainResult
    found: Mapping[int, Instances]


class TrainingListener:
    """Derive from this and write the methods that you need. A listener that raises is dropped; the training goes on.

    looks_at_predictions: whether it uses `RunEnd.found`, for which the predictions of all validation images are kept in memory.
    """

    looks_at_predictions = True

    def on_run_start(self, run: RunInfo) -> None:
        """Before the first step."""

    def on_batch(self, number: int, batch: Batch) -> None:
        """One of the first three training batches of a new run (number 0, 1, 2), before the network sees it. Not to be changed."""

    def on_phase(self, phase: Phase) -> None:
        """Before the first epoch of a phase."""

    def on_epoch_end(self, epoch: EpochInfo) -> None:
        """After each epoch."""

    def on_run_end(self, end: RunEnd) -> None:
        """The run finished, or was stopped."""

    def on_run_failed(self, error: BaseException) -> None:
        """In the place of on_run_end: the run was interrupted, or broke."""


class Listeners(TrainingListener):
    """Passes everything on to those who listen. Raises SettingsError if one of them is no listener."""

    def __init__(self, listeners: Sequence[TrainingListener]) -> None:
        self._listeners, self._running = list(listeners), False
        for listener in self._listeners:
            if not isinstance(listener, TrainingListener):
                raise SettingsError(f"listeners: {listener!r} is no TrainingListener: derive its class from that")

    def __bool__(self) -> bool:
        return bool(self._listeners)

    @property
    def looks_at_predictions(self) -> bool:  # type: ignore[override]
        """Whether one of them does."""
        return any(listener.looks_at_predictions for listener in self._listeners)

    def on_run_start(self, run: RunInfo) -> None:
        self._running = True
        self._tell(lambda listener: listener.on_run_start(run))

    def on_batch(self, number: int, batch: Batch) -> None:
        self._tell(lambda listener: listener.on_batch(number, batch))

    def on_phase(self, phase: Phase) -> None:
        self._tell(lambda listener: listener.on_phase(phase))

    def on_epoch_end(self, epoch: EpochInfo) -> None:
        self._tell(lambda listener: listener.on_epoch_end(epoch))

    def on_run_end(self, end: RunEnd) -> None:
        self._tell(lambda listener: listener.on_run_end(end))
        self._running = False

    def on_run_failed(self, error: BaseException) -> None:
        if self._running:
            self._tell(lambda listener: listener.on_run_failed(error))

    def _tell(self, event: Callable[[TrainingListener], None]) -> None:
        for listener in tuple(self._listeners):
            try:
                event(listener)
            except Exception:
                self._listeners.remove(listener)
                log.exception("%s failed and hears no more of this run; the training goes on", type(listener).__name__)


def calm_phase(settings: TrainSettings, epochs: int | None = None) -> Phase | None:
    """The last of all `epochs` (as set if None), without the augmentations that put images together; None if there are no such epochs or
    augmentations."""
    strong = {"mosaic": settings.mosaic, "mixup": settings.mixup, "copy-paste": settings.copy_paste}
    off = [name for name, share in strong.items() if share]
    epochs = settings.epochs if epochs is None else epochs
    start = epochs - settings.close_mosaic
    if not off or not 0 < start < epochs:
        return None
    return Phase(start + 1, f"no {', '.join(off)}")


def default_listeners(settings: TrainSettings) -> list[TrainingListener]:
    """Those that the settings ask for, loggers last: they take the plots with them. Raises MissingDependencyError."""
    found: list[TrainingListener] = []
    if settings.plots:
        from .plots import plot_listeners

        found += plot_listeners()
    if settings.loggers:
        from .loggers import open_loggers

        found += open_loggers(settings.loggers)
    return found
