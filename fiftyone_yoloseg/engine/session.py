"""One training: in this process, in one of several, or as the one that starts several and follows them."""

from __future__ import annotations

import contextlib
import io
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import torch

from ..config import TrainSettings
from ..errors import DataError
from ..nn.model import YOLOv8Seg
from ..types import Batch, ImageRecord, Instances, Names, ProgressFn
from .checkpoint import Checkpoint
from .devices import deterministic, import_compiler, kept_memory
from .distributed import World
from .events import EpochInfo, Listeners, Phase, RunInfo, TrainingListener, TrainResult
from .launch import Handle, Link, launch
from .stopping import StopRequests
from .trainer import Trainer

Outcome = tuple[TrainResult, Mapping[int, Instances]]
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
    if job.settings.compile or world.size > 1:  # DistributedDataParallel imports it in any case
        import_compiler()
    with deterministic(job.settings.deterministic, job.settings.compile), kept_memory(world.device):
        trainer = Trainer(job.checkpoint, job.names, job.training, job.validation, job.settings, job.folder, job.origin, told, world)
        told.on_run_start(RunInfo(job.folder, trainer.settings, job.names, job.training, job.validation, trainer.first_epoch + 1))
        return trainer.run(progress, should_stop), trainer.found


def train_on(devices: Sequence[str], job: Job, told: Listeners, progress: ProgressFn, should_stop: Callable[[], bool | str]) -> Outcome:
    """Train in one new process a device. Progress, listeners and requests to stop are those of this process."""
    with StopRequests(None, should_stop) as stop:
        outcome: Outcome = launch(devices, _one_of_several, (_packed(job), bool(told)), _follower(job, told, progress, stop))
        return outcome


def train_on_cluster(job: Job, told: Listeners, progress: ProgressFn, should_stop: Callable[[], bool | str]) -> Outcome:
    """As `train_on`, in the workers of a Ray cluster. The run folder and the images have to be on storage that all its machines see."""
    from .cluster.connect import connected, room
    from .cluster.launch import launch as launch_on_cluster

    job = replace(job, folder=job.folder.absolute())
    with connected() as ray, _sign(job.folder) as sign, StopRequests(None, should_stop) as stop:
        space = room(ray, job.settings)
        outcome: Outcome = launch_on_cluster(
            ray, space, _one_of_a_cluster, (_packed(job), bool(told), sign), _follower(job, told, progress, stop)
        )
        return outcome


def _follower(job: Job, told: Listeners, progress: ProgressFn, stop: StopRequests) -> Handle:
    """Passes what the processes tell on to those who listen here."""

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

    return handle


@contextlib.contextmanager
def _sign(folder: Path) -> Iterator[Path]:
    """A file that a machine sees if it sees the folder; a path alone could be one of its own."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".tmp") as file:
        yield Path(file.name)


def _one_of_a_cluster(world: World, link: Link, argument: Any) -> Outcome | None:
    packed, heard, sign = argument
    job: Job = packed[0]
    for path in (sign, *(part[i].path for part in (job.training, job.validation) if part for i in (0, -1))):
        if not path.exists():
            what = f"the run folder {job.folder}" if path == sign else str(path)
            raise DataError(
                f"the machine {socket.gethostname()} of the Ray cluster does not see {what}: with engine=ray, images and run folder "
                "(project=...) must be on storage that all its machines see under the same path"
            )
    return _one_of_several(world, link, (packed, heard))


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
    checkpoint, content = packed_checkpoint(job.checkpoint)
    return replace(job, checkpoint=checkpoint), content


def _unpacked(packed: tuple[Job, bytes]) -> Job:
    job, content = packed
    return replace(job, checkpoint=unpacked_checkpoint(job.checkpoint, content))


def packed_checkpoint(c: Checkpoint) -> tuple[Checkpoint, bytes]:
    """One without tensors, and the tensors as bytes."""
    content, elsewhere = io.BytesIO(), cast(YOLOv8Seg, None)
    torch.save({"size": c.net.size, "net": c.net.state_dict(), "train": c.train}, content)
    return replace(c, net=elsewhere, train=None), content.getvalue()


def unpacked_checkpoint(bare: Checkpoint, content: bytes) -> Checkpoint:
    tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    net = YOLOv8Seg(len(bare.names), tensors["size"]).eval()
    net.load_state_dict(tensors["net"])
    return replace(bare, net=net, train=tensors["train"])
