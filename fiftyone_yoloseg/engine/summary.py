"""What a training says of itself: at its start what it is about to do and why, at its end where everything is."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.store import Budget
from ..types import ImageRecord
from .events import TrainResult
from .memory import estimate

if TYPE_CHECKING:
    from .trainer import Trainer

log = logging.getLogger(__name__)
GB = 1e9
_SHOWN = 6


def describe(trainer: Trainer, training: Sequence[ImageRecord], origin: str, workers: int, cache: Budget) -> None:
    """Log what a run is about to do, and what was chosen for the user and why."""
    s, schedule, recipe = trainer.settings, trainer.schedule, trainer.recipe
    names = list(trainer.names.values())
    listed = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    shapes = sorted({(r.height, r.width) for r in training}, key=lambda shape: shape[0] * shape[1])
    shapes_text = " to ".join(f"{h}x{w}" for h, w in dict.fromkeys((shapes[0], shapes[-1])))
    objects = sum(len(r.instances) for r in training)
    log.info(
        "%s: %d training images (%s, %d objects), %d validation images, %d classes (%s)",
        origin, len(training), shapes_text, objects, len(trainer.validation), len(names), listed,
    )  # fmt: skip
    sizes = trainer.sampler.sizes
    pixels = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else str(sizes[0])
    exact = "float32" if trainer.dtype is None else str(trainer.dtype).removeprefix("torch.")
    log.info(
        "YOLOv8%s-seg on %s in %s, images of %s px, %d batches of %d an epoch, %d epochs; %s at lr %g (%s), %d images an update",
        trainer.net.size, _where(trainer), exact, pixels, len(trainer.sampler), s.batch, schedule.epochs, recipe.optimizer, recipe.lr0, recipe.reason,
        schedule.accumulate * s.batch,
    )  # fmt: skip
    need = estimate(trainer.net, sizes[-1], half=trainer.dtype is not None)
    where = f" in {cache.folder}" if cache.folder else " in memory"
    kept = f"up to {cache.bytes / GB:.1f} GB of decoded images{where}" if cache.bytes else "no decoded images kept"
    each = " for each process" if trainer.world.size > 1 else ""
    need_gb = need.total(s.batch // trainer.world.size) / GB
    log.info("memory%s: about %.1f GB to train, %s; %d loader processes; %s", each, need_gb, kept, workers, trainer.folder)
    for note in trainer.notes:
        log.info("%s", note)


def _where(trainer: Trainer) -> str:
    world = trainer.world
    return f"{world.size} processes ({trainer.settings.device or trainer.device.type})" if world.size > 1 else str(trainer.device)


def resume_command(last: Path) -> str:
    return f"yoloseg train resume=true model={shlex.quote(str(last))}"


def conclude(trainer: Trainer, result: TrainResult) -> None:
    """Log where the files are, which epoch is the best, and how to go on."""
    if result.stopped:
        at, steps = trainer.at, len(trainer.sampler)
        log.info(
            "stopped (%s) in epoch %d after %d of %d batches; go on with: %s",
            trainer.stop.reason,
            at.epoch + 1,
            at.step,
            steps,
            resume_command(result.last),
        )
    if not result.best_epoch:
        log.info("no epoch is complete: best.pt holds the weights as they are, not validated; files in %s", result.dir)
        return
    score = f", box mAP {result.metrics.box.map:.3f}, mask mAP {result.metrics.seg.map:.3f}" if result.metrics else ""
    log.info("best epoch %d of %d%s; files in %s", result.best_epoch, result.epochs, score, result.dir)
