"""One training: in this process, in one of several, or as the one that starts several and follows them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from ..config import TrainSettings
from ..nn.model import YOLOv8Seg
from ..types import Batch, ImageRecord, Instances, Names, ProgressFn
from .checkpoint import Checkpoint
from .devices import deterministic, kept_memory
from .distributed import World
from .events import EpochInfo, Listeners, Phase, RunInfo, TrainingListener
from .launch import Link, launch
from .stopping import StopRequests

if TYPE_CHECKING:
    from .trainer import TrainResult

Outcome = tuple["TrainResult", Mapping[int, Instances]]
"""What a training gives, and what best.pt finds in each validation image."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a training is about; the same in each of its processes."""

    checkpoint: Checkpoint
    names: Names
    training: Sequence[ImageRecord]
    validation: Sequence[ImageRecord]
    settings: TrainSettings
    folder: Path
    origin: str


def train_here(job: Job, world: World, told: Listeners, progress: ProgressFn, should_stop: Callable[[], bool | str]) -> Outcome:
    """Train in this process, alone or as one of several."""
    from .trainer import Trainer

    with deterministic(job.settings.deterministic), kept_memory(world.device):
        trainer = Trainer(job.checkpoint, job.names, job.training, job.validation, job.settings, job.folder, job.origin, told, world)
        told.on_run_start(RunInfo(job.folder, trainer.settings, job.names, job.training, job.validation, trainer.first_epoch + 1))
        return trainer.run(progress, should_stop), trainer.found


def train_on(devices: Sequence[str], job: Job, told: Listeners, progress: ProgressFn, should_stop: Callable[[], bool | str]) -> Outcome:
    """Train in one new process a device. Progress, listeners and requests to stop are those of this process."""
    with StopRequests(None, should_stop) as stop:

        def handle(kind: str, value: Any) -> Any:
            if kind == "progress":
                progress(*value)
            elif kind == "stop":
                return stop() and stop.reason
            elif kind == "on_run_start":
                told.on_run_start(replace(value, training=job.training, validation=job.validation))
            elif kind == "on_batch":
                told.on_batch(value[0], Batch(*map(torch.from_numpy, value[1])))
            else:
                getattr(told, kind)(value)
            return None

        outcome: Outcome = launch(devices, _one_of_several, (_packed(job), bool(told)), handle)
        return outcome


def _one_of_several(world: World, link: Link, argument: Any) -> Outcome | None:
    packed, heard = argument
    told = Listeners([_Teller(link)] if world.main and heard else [])
    if not world.main:
        train_here(_unpacked(packed), world, told, lambda share, label: None, lambda: False)
        return None
    return train_here(
        _unpacked(packed), world, told, lambda share, label: link.tell("progress", (share, label)), lambda: link.ask("stop") or False
    )


class _Teller(TrainingListener):
    """Passes on to the process that has the listeners."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def on_run_start(self, run: RunInfo) -> None:
        self._link.tell("on_run_start", replace(run, training=(), validation=()))  # they are there already

    def on_batch(self, number: int, batch: Batch) -> None:
        self._link.tell("on_batch", (number, [getattr(batch, f.name).numpy() for f in fields(batch)]))

    def on_phase(self, phase: Phase) -> None:
        self._link.tell("on_phase", phase)

    def on_epoch_end(self, epoch: EpochInfo) -> None:
        self._link.tell("on_epoch_end", epoch)


def _packed(job: Job) -> tuple[Job, bytes]:
    """Tensors as bytes: left to multiprocessing, all processes would share their memory, and train in each other's weights."""
    c, content, elsewhere = job.checkpoint, io.BytesIO(), cast(YOLOv8Seg, None)
    torch.save({"size": c.net.size, "net": c.net.state_dict(), "train": c.train}, content)
    return replace(job, checkpoint=replace(c, net=elsewhere, train=None)), content.getvalue()


def _unpacked(packed: tuple[Job, bytes]) -> Job:
    job, content = packed
    tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    net = YOLOv8Seg(len(job.checkpoint.names), tensors["size"]).eval()
    net.load_state_dict(tensors["net"])
    return replace(job, checkpoint=replace(job.checkpoint, net=net, train=tensors["train"]))
