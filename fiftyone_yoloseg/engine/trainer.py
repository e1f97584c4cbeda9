"""Training: one readable loop, `Trainer.run`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import TrainSettings, ValSettings
from ..data.loaders import train_loader
from ..errors import Stopped, UserError
from ..nn.loss import Losses, SegmentationLoss, WholeBatch
from ..nn.model import YOLOv8Seg
from ..types import Batch, ImageRecord, Instances, ModelInfo, Names, ProgressFn
from .checkpoint import Checkpoint, load_checkpoint
from .devices import compiled, compiling, loader_workers, precision, select_device
from .distributed import World
from .dynamics import Observer
from .events import EpochInfo, Listeners, TrainResult, calm_phase
from .memory import check_norms, with_batch
from .metrics import Metrics
from .optim import Average, Schedule, build_optimizer, resolve
from .pinned import pinned_images
from .prepare import image_cache, starting_network
from .runlog import Pace, ResultsCsv, write_yaml
from .state import Position, fingerprint, keep, keep_stopped, restore, strip
from .stopping import StopRequests
from .summary import conclude, describe
from .torch_backend import TorchBackend
from .validator import LossBackend, make_loader, validate, validate_with_losses

log = logging.getLogger(__name__)
CLIP = 10.0
PICTURED = 3  # first training batches that listeners get


class Trainer:
    """The state of one run."""

    stop: StopRequests

    def __init__(
        self,
        checkpoint: Checkpoint,
        names: Names,
        training: Sequence[ImageRecord],
        validation: Sequence[ImageRecord],
        settings: TrainSettings,
        folder: Path,
        origin: str,
        listeners: Listeners | None = None,
        world: World | None = None,
    ) -> None:
        self.listeners, self.found = listeners or Listeners([]), dict[int, Instances]()
        self.folder, self.names, self.validation = folder, names, validation
        self.world = world or World(select_device(settings.device))
        self.device = self.world.device
        self.dtype = precision(settings.amp, self.device)
        torch.manual_seed(settings.seed)
        self.origin = checkpoint.origin if checkpoint.trained else "trained from random weights"
        net, self.notes = starting_network(checkpoint, names, settings.freeze)
        self.order = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.net: YOLOv8Seg = net.to(self.device, memory_format=self.order)  # type: ignore[call-overload]
        self.average = Average(self.net)
        self.settings, chosen = with_batch(settings, self.net, training, self.world)
        self.notes += [note for note in (chosen, settings.rect and "rect: mosaic is off") if note]
        settings = self.settings

        self.cuda = self.device.type == "cuda"
        processes, share = self.world.local_size, self.world.share
        workers, cache = loader_workers(settings.workers, self.device, processes), image_cache(settings, training, processes)
        self.loader, self.sampler = train_loader(training, settings, workers=workers, cache=cache, pin=self.cuda, share=share)
        self.val_loader = make_loader(self._info(), validation, self._val_settings(), self.world) if validation else None
        self.recipe = resolve(settings, len(training), len(names))
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = self.recipe.bn_momentum
        self.schedule = Schedule(settings, self.recipe, len(self.sampler))
        decay = settings.weight_decay * settings.batch * self.schedule.accumulate / self.recipe.nbs
        self.optimizer = build_optimizer(self.net, self.recipe, decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        forward = compiled(self.net) if settings.compile else self.net.heads
        self.forward = self.world.replicate(self.net, forward, settings.sync_bn)
        self.loss = self._loss_of(self.net, self.world.whole_batch)

        self.at, self.best_fitness, self.best_epoch = Position(mean=torch.zeros(4, device=self.device)), -math.inf, 0
        self.best_metrics: Metrics | None = None
        self.data = {"train": fingerprint(training), "val": fingerprint(validation)}
        self.started = time.monotonic()
        if settings.resume and checkpoint.train is not None:
            restore(self, checkpoint)
            self.started -= checkpoint.train["seconds"]
        check_norms(settings, len(training), self.world.size)
        self.first_epoch = self.at.epoch
        self.results = ResultsCsv(folder / "results.csv", self.first_epoch + 1, self.world.main)
        self.pinned = pinned_images(validation, settings.pinned, strict=not settings.resume) if settings.plots else []
        self.observer = Observer(self, training) if settings.dynamics else None
        self.pace = Pace()
        if self.world.main:
            write_yaml(folder / "args.yaml", settings.model_dump(mode="json"))
            write_yaml(folder / "dataset.yaml", {"origin": origin, "train": len(training), "val": len(validation), "names": dict(names)})
        describe(self, training, origin, workers, cache)

    @property
    def best(self) -> Path:
        return self.folder / "weights" / "best.pt"

    @property
    def last(self) -> Path:
        return self.folder / "weights" / "last.pt"

    def seconds(self) -> float:
        """Time spent on this run, over all its sessions."""
        return time.monotonic() - self.started

    def run(self, progress: ProgressFn, should_stop: Callable[[], bool | str]) -> TrainResult:
        s, stopped = self.settings, False
        self.stop = StopRequests(self.folder if self.world.main else None, should_stop, self.world.any)
        with self.stop:
            for epoch in range(self.first_epoch, s.epochs):
                try:
                    losses = self._epoch(epoch, progress)
                    self._fit_time(epoch + 1)
                    last = epoch + 1 >= self.schedule.epochs
                    rates = {f"lr/pg{i}": float(group["lr"]) for i, group in enumerate(self.optimizer.param_groups)}
                    row: dict[str, Any] = {"epoch": epoch + 1, **_named("train", losses), **rates}
                    metrics, pinned = None, dict[int, Instances]()
                    if self.validation and (last or (s.val and (epoch + 1) % s.val_period == 0)):
                        metrics, val_losses, pinned = self._validate()
                        row |= {**metrics.results_dict, **_named("val", val_losses)}
                        log.info(
                            "epoch %d/%d: box %.3f seg %.3f cls %.3f dfl %.3f, box mAP %.3f, mask mAP %.3f",
                            epoch + 1, self.schedule.epochs, *losses, metrics.box.map, metrics.seg.map,
                        )  # fmt: skip
                    if self.observer and (last or (epoch + 1) % s.dynamics == 0):
                        self.observer.observe(epoch + 1, self.stop.check)
                except Stopped:
                    keep_stopped(self)
                    stopped = True
                    break
                self.results.add({**row, "time": self.seconds()})
                self.at = Position(epoch + 1, mean=torch.zeros_like(self.at.mean))
                keep(self, metrics)
                self.listeners.on_epoch_end(EpochInfo(epoch + 1, self.schedule.epochs, row, metrics, self.best_epoch == epoch + 1, pinned))
                if last:
                    break
                if metrics and s.patience and epoch + 1 - self.best_epoch >= s.patience:
                    log.info("no better epoch since %d: stopping early (patience=%d)", self.best_epoch, s.patience)
                    break
            if not stopped and self.world.main:
                strip(self.last)
            return self._result(stopped)

    def _epoch(self, epoch: int, progress: ProgressFn) -> list[float]:
        """One pass over the training images, or the rest of one that was interrupted; returns the mean losses. Raises Stopped."""
        s, at, steps = self.settings, self.at, len(self.sampler)
        closed = epoch >= self.schedule.epochs - s.close_mosaic
        if closed and epoch > 0 and not self.sampler.closed:
            log.info("epoch %d: mosaic, mixup and copy-paste are off from here on", epoch + 1)
            if phase := calm_phase(s, self.schedule.epochs):
                self.listeners.on_phase(phase)
        self.sampler.epoch, self.sampler.start, self.sampler.closed = epoch, at.step, closed
        self.net.train()
        for layer in self.net.model[: s.freeze]:
            layer.eval()  # frozen layers keep their batch-norm statistics too
        clock, label = time.perf_counter(), ""
        for i, batch in enumerate(self.loader if at.step < steps else (), at.step):
            if epoch == 0 and i < PICTURED:
                before = time.perf_counter()
                self.listeners.on_batch(i, batch)
                clock += time.perf_counter() - before  # drawing is no part of a step
            accumulate = self.schedule.apply(self.optimizer, epoch * steps + i)
            at.step, at.pending = i + 1, at.pending + 1
            update = at.pending >= accumulate or i + 1 == steps
            with self.world.step(self.forward, update):
                losses = self._backward(batch.to(self.device))
            at.mean = (at.mean * i + losses) / (i + 1)
            if update:
                self._update()
            now = time.perf_counter()
            self.pace.add(now - clock)
            clock = now
            done = (epoch - self.first_epoch + (i + 1) / steps) / (self.schedule.epochs - self.first_epoch)
            if not label or i % 10 == 0 or i + 1 == steps:
                label = "box {:.3f} seg {:.3f} cls {:.3f} dfl {:.3f}".format(*self._losses(epoch))
            progress(min(done, 1.0), f"epoch {epoch + 1}/{self.schedule.epochs} {label}")
            if self.stop():
                self._losses(epoch)
                raise Stopped("stopped between two steps")
        return self._losses(epoch)

    def _losses(self, epoch: int) -> list[float]:
        """Mean losses of the epoch so far. Raises UserError if they are no numbers."""
        values: list[float] = self.world.sum(self.at.mean).tolist()
        if not all(math.isfinite(v) for v in values):
            kept = f"{self.last} holds epoch {epoch}" if epoch else "nothing was saved in this session"
            raise UserError(f"the loss became {values} in epoch {epoch + 1}: lower lr0, or train with amp=false; {kept}")
        return values

    def _backward(self, batch: Batch) -> torch.Tensor:
        images = batch.images.to(memory_format=self.order).float() / 255
        with compiling(self.settings.compile):
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                out = self.forward(images)
            losses = self.loss(out, batch)
            self.scaler.scale(self.loss.total(losses, self.world.count(len(images)))).backward()
        self.world.share_statistics(self.net, len(images))
        return torch.stack(losses).detach()

    def _loss_of(self, net: YOLOv8Seg, whole: WholeBatch | None = None) -> SegmentationLoss:
        return SegmentationLoss(net.head, self.settings.box, self.settings.cls, self.settings.dfl, whole)

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.average.update(self.net)
        self.at.pending = 0

    def _fit_time(self, done: int) -> None:
        """With a limited time: as many epochs as it has room for at the pace of those that are done, and a schedule of that length."""
        if self.settings.time:
            fitting = int(self.settings.time * 3600 / (self.world.from_main(self.seconds) / done))
            epochs = min(self.settings.epochs, max(done, fitting))
            if epochs != self.schedule.epochs:
                log.info("time=%g: room for %d epochs in all", self.settings.time, epochs)
            self.schedule.epochs = epochs

    def _validate(self) -> tuple[Metrics, list[float], dict[int, Instances]]:
        """Metrics and losses of the averaged network, and in the first process what it finds in the pinned images."""
        backend = LossBackend(self.average.net, self._info(), self.device, half=self.dtype == torch.float16)
        loss, check = self._loss_of(backend.net), self.stop.check
        found: dict[int, Instances] = {}

        def look(index: int, instances: Instances) -> None:
            if index in self.pinned:
                found[index] = instances

        metrics, losses = validate_with_losses(
            backend,
            loss,
            self.validation,
            self.names,
            self._val_settings(),
            progress=check,
            on_image=look,
            loader=self.val_loader,
            world=self.world,
        )
        seen = self._of_all(found)
        return metrics, losses, {index: seen[index] for index in self.pinned if index in seen}

    def _of_all(self, found: dict[int, Instances]) -> dict[int, Instances]:
        """What all processes found, in the first one; nothing in the others."""
        return {index: instances for part in self.world.gather(found) for index, instances in part.items()}

    def _validate_best(self) -> Metrics:
        wanted = self.world.from_main(
            lambda: self.listeners.looks_at_predictions
        )  # predictions of all images are worth memory only if somebody looks
        best = self.world.from_main(lambda: load_checkpoint(self.best))
        backend = TorchBackend(best.net, best.info, self.device)
        metrics = validate(
            backend, self.validation, self.names, self._val_settings(), progress=self.stop.check, loader=self.val_loader,
            on_image=self.found.__setitem__ if wanted else None, world=self.world,
        )  # fmt: skip
        self.found = self._of_all(self.found)
        return metrics

    def _val_settings(self) -> ValSettings:
        s = self.settings
        return ValSettings(batch=2 * s.batch // self.world.size, workers=s.workers)

    def _info(self) -> ModelInfo:
        return ModelInfo(self.names, (self.settings.imgsz, self.settings.imgsz))

    def _result(self, stopped: bool) -> TrainResult:
        metrics = self.best_metrics
        if self.validation and not stopped:
            try:
                metrics = self._validate_best()
            except Stopped:
                log.info("stopped while best.pt was validated again; the run is complete")
        result = TrainResult(
            self.folder, self.best, self.last, metrics, self.at.epoch, self.best_epoch, self.pace.seconds, stopped, tuple(self.notes)
        )
        conclude(self, result)
        return result


def _named(prefix: str, losses: list[float]) -> dict[str, float]:
    return {f"{prefix}/{name}_loss": value for name, value in zip(Losses._fields, losses, strict=True)}
