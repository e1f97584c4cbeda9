"""`train`: a run is prepared, and trained wherever the settings want it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..config import TrainSettings
from ..errors import DataError, SettingsError
from ..types import ProgressFn, SegmentationData
from .checkpoint import Checkpoint
from .devices import device_names
from .distributed import by_torchrun, joined
from .events import Listeners, RunEnd, TrainingListener, TrainResult, default_listeners
from .prepare import choose_splits, run_folder
from .session import Job, train_here, train_on, train_on_cluster
from .state import resumed_settings


def train(
    checkpoint: Checkpoint,
    data: SegmentationData,
    settings: TrainSettings,
    *,
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
    listeners: Sequence[TrainingListener] = (),
) -> TrainResult:
    """Train a network on records and write a run folder.

    checkpoint: where to start; a network for other classes keeps every weight that fits. With settings.resume it must be the last.pt of an
    interrupted run, whose own settings then count. should_stop is asked after every step; Ctrl-C, SIGTERM and a file named `stop` in the run
    folder do the same: the run is saved as it is, and can be resumed from there. listeners are told what happens, beside those of
    settings.plots and settings.loggers.
    With several devices in settings.device, one new process each trains; progress, should_stop and listeners are called in this one.
    With settings.engine="ray" they are workers of a Ray cluster, and the same holds.
    Under torchrun, this is one of the processes: the first of them calls these and writes; each returns the result.
    Raises DataError without training or validation images, ProcessError if one of several processes is killed.
    """
    if settings.resume:
        settings = resumed_settings(checkpoint, settings)
    names, training, validation = choose_splits(data, settings)
    last = checkpoint.path if settings.resume else None
    if last and list(names.values()) != list(checkpoint.names.values()):
        raise DataError(f"{data.origin}: its classes are not those of the run {last}: start a new run from that checkpoint, without resume")
    cluster = settings.engine == "ray"
    devices = [] if cluster or by_torchrun() else device_names(settings.device)  # those of a cluster are not this machine's
    if cluster and by_torchrun():
        raise SettingsError("engine=ray: Ray starts the processes itself: start this without torchrun")
    several = len(devices) > 1
    asked = progress or (lambda share, label: None), should_stop or (lambda: False)
    with joined("cpu" if several or cluster else settings.device) as world:
        told = Listeners([*default_listeners(settings), *listeners] if world.main else [])
        with run_folder(settings, last, world) as folder:
            job = Job(checkpoint, names, training, validation, settings, folder, data.origin)
            try:
                if cluster:
                    result, found = train_on_cluster(job, told, *asked)
                else:
                    result, found = train_on(devices, job, told, *asked) if several else train_here(job, world, told, *asked)
            except BaseException as error:
                told.on_run_failed(error)
                raise
            told.on_run_end(RunEnd(result, found))
            return result
