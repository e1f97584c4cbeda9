"""Training: one readable loop. `train` prepares a run, `Trainer.run` goes through its epochs."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import TrainSettings, ValSettings, parse
from ..data.load import one_class
from ..data.loaders import ValBatch, train_loader, val_targets
from ..errors import CheckpointError, DataError, Stopped, UserError
from ..nn.head import HeadOutput
from ..nn.loss import Losses, SegmentationLoss
from ..nn.model import YOLOv8Seg
from ..types import Batch, ImageRecord, Instances, ModelInfo, Names, ProgressFn, RawOutput, SegmentationData
from .checkpoint import Checkpoint, fit_to_classes, load_checkpoint, save_checkpoint
from .devices import deterministic, free_memory, loader_workers, select_device
from .events import EpochInfo, Listeners, RunEnd, RunInfo, TrainingListener, calm_phase, default_listeners
from .metrics import Metrics
from .optim import Average, Schedule, build_optimizer, resolve
from .runlog import ResultsCsv, new_run_folder, write_yaml
from .torch_backend import TorchBackend
from .validator import make_loader, validate

log = logging.getLogger(__name__)
CLIP = 10.0
PICTURED = 3  # first training batches that listeners get


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Where a training put its files, and how good its best epoch is. epochs: finished ones, of all sessions of the run."""

    dir: Path
    best: Path
    last: Path
    metrics: Metrics | None
    epochs: int
    best_epoch: int
    seconds_per_step: float
    stopped: bool = False


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
    interrupted run, whose own settings then count. should_stop is asked between steps. listeners are told what happens, beside
    those of settings.plots and settings.loggers.
    Raises DataError without training or validation images, Stopped if stopped before the first epoch was complete.
    """
    if settings.resume:
        if checkpoint.train is None or checkpoint.path is None:
            raise CheckpointError(f"{checkpoint.path or 'a new network'}: nothing to resume; give the last.pt of an interrupted run")
        settings = parse(TrainSettings, {**checkpoint.train_args, "device": settings.device, "resume": True})
        folder = checkpoint.path.absolute().parent.parent
    names, training, validation = _splits(data, settings)
    if settings.resume and list(names.values()) != list(checkpoint.names.values()):
        raise DataError(
            f"{data.origin}: its classes are not those of the run in {folder}: start a new run from that checkpoint, without resume"
        )
    told = Listeners([*default_listeners(settings), *listeners])
    known = settings.resume or (settings.exist_ok and (settings.project / settings.name).exists())
    if not settings.resume:
        folder = new_run_folder(settings.project, settings.name, settings.exist_ok)
        (folder / "weights").mkdir(exist_ok=True)
    try:
        with deterministic(settings.deterministic):
            trainer = Trainer(checkpoint, names, training, validation, settings, folder, data.origin, told)
            told.on_run_start(RunInfo(folder, settings, names, training, validation, trainer.first_epoch + 1))
            result = trainer.run(progress or (lambda share, label: None), should_stop or (lambda: False))
        told.on_run_end(RunEnd(result, trainer.found))
        return result
    except BaseException as error:
        told.on_run_failed(error)
        if not known and not any((folder / "weights").iterdir()):
            shutil.rmtree(folder, ignore_errors=True)  # a run that came to nothing leaves nothing behind
        raise


def _splits(data: SegmentationData, settings: TrainSettings) -> tuple[Names, list[ImageRecord], list[ImageRecord]]:
    """Training and validation records with the classes that the settings ask for."""
    training, validation = list(data.splits.get("train", ())), list(data.splits.get("val", ()))
    if not training:
        raise DataError(f"{data.origin}: the training split has no images")
    if not any(not r.crowd for image in training for r in image.instances):
        raise DataError(f"{data.origin}: no training image has an object; is the label field or the label folder the right one?")
    if not validation and settings.val:
        raise DataError(f"{data.origin}: the validation split has no images; name one, or train with val=false")
    if settings.single_cls:
        data = one_class(data)
        return dict(data.names), list(data.splits["train"]), list(data.splits.get("val", ()))
    return data.names, training, validation


class Trainer:
    """The state of one run."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        names: Names,
        training: list[ImageRecord],
        validation: list[ImageRecord],
        settings: TrainSettings,
        folder: Path,
        origin: str,
        listeners: Listeners,
    ) -> None:
        self.listeners, self.found = listeners, dict[int, Instances]()
        self.settings, self.folder, self.names, self.validation = settings, folder, names, validation
        self.device = select_device(settings.device)
        torch.manual_seed(settings.seed)
        self.origin = checkpoint.origin if checkpoint.trained else "trained from random weights"
        net, left_out = fit_to_classes(checkpoint, names)
        if left_out:
            log.info(
                "starting from %s for other classes: %d of %d tensors start anew", checkpoint.path, len(left_out), len(net.state_dict())
            )
        self.net: YOLOv8Seg = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net.requires_grad_(True)
        self.net.head.dfl.requires_grad_(False)
        for layer in self.net.model[: settings.freeze]:
            layer.requires_grad_(False)
        self.average = Average(self.net)

        cache = free_memory() // 4 if settings.cache else 0
        self.cuda = self.device.type == "cuda"
        workers = loader_workers(settings.workers, self.device)
        self.loader, self.sampler = train_loader(training, settings, workers=workers, cache_bytes=cache, pin=self.cuda)
        self.val_loader = make_loader(self._info(), self.device, validation, self._val_settings()) if validation else None
        self.recipe = resolve(settings, len(training), len(names))
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = self.recipe.bn_momentum
        self.schedule = Schedule(settings, self.recipe, len(self.sampler))
        decay = settings.weight_decay * settings.batch * self.schedule.accumulate / self.recipe.nbs
        self.optimizer = build_optimizer(self.net, self.recipe, decay)
        self.amp = settings.amp and self.cuda
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.amp)
        self.loss = SegmentationLoss(self.net.head, settings.box, settings.cls, settings.dfl)
        self.first_epoch, self.best_fitness, self.best_epoch = 0, -math.inf, 0
        if settings.resume and checkpoint.train is not None:
            self._restore(checkpoint)
        self.results = ResultsCsv(folder / "results.csv", self.first_epoch + 1)
        self.step_seconds: list[float] = []
        write_yaml(folder / "args.yaml", settings.model_dump(mode="json"))
        write_yaml(folder / "dataset.yaml", {"origin": origin, "train": len(training), "val": len(validation), "names": dict(names)})
        log.info("%s: %d training and %d validation images, %d classes", origin, len(training), len(validation), len(names))
        log.info(
            "YOLOv8%s-seg on %s, images of %d px, %s at lr %g (%s), %d images an update",
            self.net.size, self.device, settings.imgsz, self.recipe.optimizer, self.recipe.lr0, self.recipe.reason,
            self.schedule.accumulate * settings.batch,
        )  # fmt: skip

    @property
    def best(self) -> Path:
        return self.folder / "weights" / "best.pt"

    @property
    def last(self) -> Path:
        return self.folder / "weights" / "last.pt"

    def run(self, progress: ProgressFn, should_stop: Callable[[], bool]) -> TrainResult:
        s, metrics, epoch, stopped = self.settings, None, self.first_epoch, False
        start, calm = time.monotonic() - self.results.seconds, calm_phase(s)
        for epoch in range(self.first_epoch, s.epochs):
            if calm and epoch == max(calm.epoch - 1, self.first_epoch):
                log.info("epoch %d: %s from here on", calm.epoch, calm.what)
                self.listeners.on_phase(calm)
            try:
                losses = self._epoch(epoch, progress, should_stop)
            except Stopped:
                if epoch == 0:
                    raise
                log.info("stopped in epoch %d; %s holds epoch %d", epoch + 1, self.last, epoch)
                stopped = True
                break
            rates = {f"lr/pg{i}": float(group["lr"]) for i, group in enumerate(self.optimizer.param_groups)}
            row: dict[str, Any] = {"epoch": epoch + 1, **_named("train", losses), **rates}
            if self.validation and (s.val or epoch == s.epochs - 1):
                metrics, val_losses = self._validate()
                row |= {**metrics.results_dict, **_named("val", val_losses)}
                log.info(
                    "epoch %d/%d: box %.3f seg %.3f cls %.3f dfl %.3f, box mAP %.3f, mask mAP %.3f",
                    epoch + 1, s.epochs, *losses, metrics.box.map, metrics.seg.map,
                )  # fmt: skip
            self.results.add({**row, "time": time.monotonic() - start})
            fitness = metrics.fitness if metrics and math.isfinite(metrics.fitness) else 0.0
            if fitness >= self.best_fitness or not s.val:
                self.best_fitness, self.best_epoch = fitness, epoch + 1
                self._save(self.best, metrics)
            self._save(self.last, metrics, epoch + 1)
            self.listeners.on_epoch_end(EpochInfo(epoch + 1, s.epochs, row, metrics, self.best_epoch == epoch + 1))
            if s.patience and epoch + 1 - self.best_epoch >= s.patience:
                log.info("no better epoch since %d: stopping early (patience=%d)", self.best_epoch, s.patience)
                break
        done = epoch if stopped else epoch + 1
        if not stopped:
            self._finish()
        final = self._validate_best() if self.validation else None
        times = self.step_seconds[1:] or self.step_seconds  # the first step includes the start of the loaders
        seconds = sum(times) / max(len(times), 1)
        return TrainResult(self.folder, self.best, self.last, final, done, self.best_epoch, seconds, stopped)

    def _epoch(self, epoch: int, progress: ProgressFn, should_stop: Callable[[], bool]) -> list[float]:
        """One pass over the training images; returns the mean losses."""
        s, steps = self.settings, len(self.sampler)
        self.sampler.epoch = epoch
        self.net.train()
        for layer in self.net.model[: s.freeze]:
            layer.eval()  # frozen layers keep their batch-norm statistics too
        self.optimizer.zero_grad()
        mean, pending = torch.zeros(4, device=self.device), 0
        clock = time.perf_counter()
        for i, batch in enumerate(self.loader):
            if should_stop():
                raise Stopped("training was stopped before its first epoch was complete: nothing was saved")
            if epoch == 0 and i < PICTURED:
                before = time.perf_counter()
                self.listeners.on_batch(i, batch)
                clock += time.perf_counter() - before  # drawing is no part of a step
            accumulate = self.schedule.apply(self.optimizer, epoch * steps + i)
            losses = self._backward(batch.to(self.device))
            mean = (mean * i + losses) / (i + 1)
            pending += 1
            if pending >= accumulate or i + 1 == steps:
                self._update()
                pending = 0
            now = time.perf_counter()
            self.step_seconds.append(now - clock)
            clock = now
            done = (epoch - self.first_epoch + (i + 1) / steps) / (s.epochs - self.first_epoch)
            if i % 10 == 0 or i + 1 == steps:
                values = mean.tolist()
                if not all(math.isfinite(v) for v in values):
                    kept = f"{self.last} holds epoch {epoch}" if epoch else "nothing was saved"
                    raise UserError(f"the loss became {values} in epoch {epoch + 1}: lower lr0, or train with amp=false; {kept}")
                label = "box {:.3f} seg {:.3f} cls {:.3f} dfl {:.3f}".format(*values)
            progress(done, f"epoch {epoch + 1}/{s.epochs} {label}")
        return mean.tolist()

    def _backward(self, batch: Batch) -> torch.Tensor:
        images = batch.images.to(memory_format=torch.channels_last).float() / 255
        with torch.autocast(self.device.type, enabled=self.amp):
            out = self.net(images)
        losses = self.loss(out, batch)
        self.scaler.scale(self.loss.total(losses, len(images))).backward()
        return torch.stack(losses).detach()

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.average.update(self.net)

    def _validate(self) -> tuple[Metrics, list[float]]:
        """Metrics and losses of the averaged network."""
        backend = _LossBackend(self.average.net, self._info(), self.device, half=self.amp)
        s = self.settings
        loss = SegmentationLoss(backend.net.head, s.box, s.cls, s.dfl)
        total, images = torch.zeros(4, device=self.device), 0

        def observe(batch: ValBatch) -> None:
            nonlocal total, images
            targets = val_targets(batch, self.validation).to(self.device)
            total = total + torch.stack(loss(backend.last, targets)) * len(batch.indices)
            images += len(batch.indices)

        metrics = validate(backend, self.validation, self.names, self._val_settings(), loader=self.val_loader, observer=observe)
        return metrics, (total / images).tolist()

    def _validate_best(self) -> Metrics:
        best = load_checkpoint(self.best)
        return validate(
            TorchBackend(best.net, best.info, self.device), self.validation, self.names, self._val_settings(), loader=self.val_loader,
            on_image=self.found.__setitem__,
        )  # fmt: skip

    def _val_settings(self) -> ValSettings:
        s = self.settings
        return ValSettings(batch=2 * s.batch, workers=s.workers)

    def _info(self) -> ModelInfo:
        return ModelInfo(self.names, (self.settings.imgsz, self.settings.imgsz))

    def _save(self, path: Path, metrics: Metrics | None, epoch: int | None = None) -> None:
        """best.pt holds the averaged network; last.pt, given the number of finished epochs, also what it takes to go on."""
        state = None
        if epoch is not None:
            state = {
                "epoch": epoch,
                "weights": self.net.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "updates": self.average.updates,
                "best_fitness": self.best_fitness,
                "best_epoch": self.best_epoch,
            }
        save_checkpoint(
            path,
            self.average.net,
            names=self.names,
            imgsz=self.settings.imgsz,
            train_args=self.settings.model_dump(mode="json"),
            origin=self.origin,
            metrics=metrics.results_dict if metrics else None,
            train=state,
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.train
        assert state is not None
        if state["epoch"] >= self.settings.epochs:
            raise CheckpointError(f"{checkpoint.path}: this run has finished all its {self.settings.epochs} epochs")
        self.average.net.load_state_dict(checkpoint.net.state_dict())
        self.average.updates = state["updates"]
        self.net.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.first_epoch, self.best_fitness, self.best_epoch = state["epoch"], state["best_fitness"], state["best_epoch"]

    def _finish(self) -> None:
        """Strip last.pt of what only an unfinished run needs."""
        last = load_checkpoint(self.last)
        save_checkpoint(
            self.last, last.net, names=last.names, imgsz=last.imgsz, train_args=last.train_args, origin=last.origin, metrics=last.metrics
        )


class _LossBackend(TorchBackend):
    """Remembers the head's output of the last batch, so that losses need no second forward pass."""

    last: HeadOutput

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> RawOutput:
        self.last = self.net.heads(images.to(self.device, self.dtype, memory_format=torch.channels_last))
        raw = self.net.head.decode(self.last)
        return RawOutput(raw.pred.float(), raw.protos.float())


def _named(prefix: str, losses: list[float]) -> dict[str, float]:
    return {f"{prefix}/{name}_loss": value for name, value in zip(Losses._fields, losses, strict=True)}
