"""What an interrupted training needs to go on as if nothing had happened: put together, checked, and put back."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config import AUTO_BATCH, TrainSettings, parse
from ..errors import CheckpointError, DataError, SettingsError
from ..types import ImageRecord
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .metrics import Metrics

if TYPE_CHECKING:
    from .trainer import Trainer

log = logging.getLogger(__name__)
FREE = frozenset({"device", "engine", "ray_workers", "workers", "cache", "cache_gb", "data"})
"""Settings that a resumed run may change: they do not change its numbers (data: only where the same images are)."""
UNUSED = frozenset({"resume", "project", "name", "exist_ok"})


@dataclass(slots=True)
class Position:
    """How far a run is. epoch: finished ones. Of the one under way: batches done, batches since the last update, mean losses (4,)."""

    epoch: int = 0
    step: int = 0
    pending: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(4))


def resumed_settings(checkpoint: Checkpoint, given: TrainSettings) -> TrainSettings:
    """The settings of an interrupted run, with what may differ as given. Raises CheckpointError if there is nothing to resume,
    SettingsError if another setting was given than the run has."""
    path = checkpoint.path
    if path is None:
        raise CheckpointError("a new network: nothing to resume; give the last.pt of an interrupted run")
    if checkpoint.train is None:
        if path.name == "last.pt" and checkpoint.train_args:
            raise CheckpointError(
                f"{path}: nothing to resume, this run has finished; to train on, start a new run from its best.pt, without resume"
            )
        raise CheckpointError(f"{path}: nothing to resume; give the last.pt of an interrupted run")
    own = parse(TrainSettings, checkpoint.train_args)
    free = {k: getattr(given, k) for k in given.model_fields_set & FREE}
    wanted = {k: getattr(given, k) for k in given.model_fields_set - FREE - UNUSED}
    other = [k for k, v in sorted(wanted.items()) if v != getattr(own, k) and (k, v) != ("batch", AUTO_BATCH)]
    if other:
        listing = ", ".join(f"{k}={getattr(given, k)} (the run has {getattr(own, k)})" for k in other)
        raise SettingsError(f"resume=true goes on with the run's own settings: leave out {listing}; or start a new run, without resume")
    return parse(TrainSettings, {**checkpoint.train_args, "device": None, "engine": "local", "ray_workers": None, **free, "resume": True})


def fingerprint(records: Sequence[ImageRecord]) -> dict[str, Any]:
    """What tells one list of images from another: names, sizes and order; and their labels."""
    images, labels = hashlib.sha256(), hashlib.sha256()
    for r in records:
        images.update(f"{r.path.name}\0{r.height}\0{r.width}\n".encode("utf-8", "surrogateescape"))
        for i in r.instances:
            labels.update(f"{i.cls} {i.crowd} {i.mask.x} {i.mask.y} {i.mask.w} {i.mask.h} ".encode() + i.mask.counts + b"\n")
        labels.update(b"\n")
    return {"count": len(records), "images": images.hexdigest(), "labels": labels.hexdigest()}


def capture(trainer: Trainer) -> dict[str, Any]:
    """The state of a run, between two steps. Tensors and plain values only. Each process has to call it: some of it is shared out."""
    at, net, world = trainer.at, trainer.net, trainer.world
    gradients = {k: world.sum(p.grad.detach()).cpu() for k, p in net.named_parameters() if p.grad is not None} if at.pending else {}
    cuda = torch.cuda.get_rng_state(trainer.device) if trainer.device.type == "cuda" else None
    return {
        "epoch": at.epoch,
        "step": at.step,
        "pending": at.pending,
        "mean": world.sum(at.mean).cpu().clone(),
        "weights": net.state_dict(),
        "gradients": gradients,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "updates": trainer.average.updates,
        "epochs": trainer.schedule.epochs,
        "best_fitness": trainer.best_fitness,
        "best_epoch": trainer.best_epoch,
        "seconds": trainer.seconds(),
        "rng": {"cpu": torch.get_rng_state(), "cuda": cuda},
        "data": trainer.data,
    }


def restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Put the state back. Raises CheckpointError if it is incomplete, DataError if the training images are not those of the run."""
    state = checkpoint.train
    assert state is not None
    if missing := sorted(capture(trainer).keys() - state.keys()):
        raise CheckpointError(
            f"{checkpoint.path}: its state lacks {', '.join(missing)}: it was written by another version; start a new run from it, without resume"
        )
    _check_data(state["data"], trainer.data, str(checkpoint.path))
    trainer.average.net.load_state_dict(checkpoint.net.state_dict())
    trainer.average.updates = state["updates"]
    trainer.net.load_state_dict(state["weights"])
    for name, parameter in trainer.net.named_parameters():
        if name in state["gradients"] and trainer.world.main:  # what the processes add up; one of them holds all of it
            parameter.grad = state["gradients"][name].to(trainer.device)
    trainer.optimizer.load_state_dict(state["optimizer"])
    if state["scaler"]:
        trainer.scaler.load_state_dict(state["scaler"])
    trainer.schedule.epochs = state["epochs"]
    trainer.best_fitness, trainer.best_epoch = float(state["best_fitness"]), state["best_epoch"]
    trainer.at = Position(state["epoch"], state["step"], state["pending"], state["mean"].to(trainer.device) * trainer.world.main)
    torch.set_rng_state(state["rng"]["cpu"])
    if trainer.device.type == "cuda" and state["rng"]["cuda"] is not None:
        torch.cuda.set_rng_state(state["rng"]["cuda"], trainer.device)


def _check_data(before: dict[str, Any], now: dict[str, Any], run: str) -> None:
    """Other images would make another run: refused. Labels that were mended meanwhile, and other validation images, are said."""
    if before["train"]["images"] != now["train"]["images"]:
        raise DataError(
            f"{run}: the training images are not those of this run ({before['train']['count']} then, {now['train']['count']} now, "
            "compared by name, size and order): bring them back, or start a new run from this checkpoint, without resume"
        )
    if before["train"]["labels"] != now["train"]["labels"]:
        log.warning("training labels have changed since this run began: it goes on with the new ones")
    if before["val"] != now["val"]:
        log.warning("validation images or labels have changed since this run began: its metrics before and after are not comparable")


def keep(trainer: Trainer, metrics: Metrics | None) -> None:
    """Save what a finished epoch leaves behind. metrics: if it was validated; until one is, the latest epoch is the best."""
    t, period, epoch = trainer, trainer.settings.save_period, trainer.at.epoch
    fitness = metrics.fitness if metrics and math.isfinite(metrics.fitness) else 0.0
    if (metrics and fitness >= t.best_fitness) or t.best_fitness == -math.inf:
        t.best_epoch = epoch
        if metrics:
            t.best_fitness, t.best_metrics = fitness, metrics
        _save(t, t.best, metrics)
    if period > 0 and epoch % period == 0:
        _save(t, t.last.with_name(f"epoch{epoch}.pt"), metrics)
    _save(t, t.last, metrics, capture(t))


def keep_stopped(trainer: Trainer) -> None:
    """last.pt as things stand, to go on from the next batch; before the first epoch is complete, best.pt too."""
    _save(trainer, trainer.last, None, capture(trainer))
    if not trainer.best_epoch:
        _save(trainer, trainer.best, None)


def strip(last: Path) -> None:
    """Take from last.pt what only an unfinished run needs."""
    c = load_checkpoint(last)
    save_checkpoint(last, c.net, names=c.names, imgsz=c.imgsz, train_args=c.train_args, origin=c.origin, metrics=c.metrics)


def _save(trainer: Trainer, path: Path, metrics: Metrics | None, state: dict[str, Any] | None = None) -> None:
    """The averaged network; with a state, also what it takes to go on. Only the first process writes."""
    if not trainer.world.main:
        return
    save_checkpoint(
        path,
        trainer.average.net,
        names=trainer.names,
        imgsz=trainer.settings.imgsz,
        train_args=trainer.settings.model_dump(mode="json"),
        origin=trainer.origin,
        metrics=metrics.results_dict if metrics else None,
        train=state,
    )
