"""Validation: every image through the model, scored by COCO's rules at the images' own resolution."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..config import ValSettings
from ..data.loaders import ValBatch, val_loader, val_targets
from ..errors import DataError
from ..nn.head import HeadOutput
from ..nn.loss import SegmentationLoss
from ..types import Backend, ImageRecord, Instances, ModelInfo, Names, ProgressFn, RawOutput
from .decode import decode
from .devices import loader_workers
from .distributed import World
from .metrics import CocoScorer, Metrics
from .predictor import Stopwatch, input_size, run, to_input
from .runlog import new_run_folder
from .torch_backend import TorchBackend

log = logging.getLogger(__name__)


def validate(
    backend: Backend,
    records: Sequence[ImageRecord],
    names: Names,
    settings: ValSettings | None = None,
    *,
    progress: ProgressFn | None = None,
    loader: DataLoader[Any] | None = None,
    observer: Callable[[ValBatch], None] | None = None,
    on_image: Callable[[int, Instances], None] | None = None,
    world: World | None = None,
) -> Metrics:
    """Score `backend` on labelled images.

    names: the classes of the labels; they must be the model's. loader: what `make_loader` gave for the same arguments, to keep its
    processes from one validation to the next. observer is called after each forward pass (the trainer computes
    its validation losses there), on_image with the index of each record and what was found. settings.plots: see `plots`.
    world: the processes that share the work; the metrics are of all images, and come to all of them. Raises DataError if the classes differ or there is no image.
    """
    settings, world = settings or ValSettings(), world or World(backend.device)
    check_names(backend.info.names, names)
    if not records:
        raise DataError("nothing to validate: the split has no images")
    folder = new_run_folder(settings.project, settings.name, settings.exist_ok) if settings.plots else None
    everything: dict[int, Instances] = {}
    if loader is None:
        loader = make_loader(backend.info, records, settings, world)
    scorer, watch = CocoScorer(names), Stopwatch(backend.device)
    for number, part in enumerate(loader, 1):
        if part.indices:  # else the other processes have one more batch
            watch.start()
            images = to_input(part.images, backend.device)
            watch.lap("preprocess")
            raw = run(backend, images)
            watch.lap("inference")
            found = decode(raw, part.boxes, conf=settings.conf, iou=settings.iou, max_det=settings.max_det, multi_label=True)
            watch.lap("postprocess")
            for index, instances in zip(part.indices, found, strict=True):
                scorer.add(records[index], instances, order=number * world.size + world.rank)
                if folder:
                    everything[index] = instances
                if on_image:
                    on_image(index, instances)
            watch.images += len(part.indices)
            if observer:
                observer(part)
        if progress:
            progress(number / len(loader), f"validated {watch.images} of {len(records)} images")
    scorer.images = [image for part in world.gather(scorer.images) for image in part]
    metrics = world.from_main(scorer.compute)
    metrics.speed = watch.speed()
    if folder:
        from .plots import plot_validation

        try:
            plot_validation(records, everything, metrics, folder)
            log.info("plots are in %s", folder)
        except Exception:  # the figures took long and are right
            log.exception("the plots in %s are not complete", folder)
    return metrics


class LossBackend(TorchBackend):
    """Remembers the head's output of the last batch, so that losses need no second forward pass."""

    last: HeadOutput

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> RawOutput:
        self.last = self.net.heads(images.to(self.device, self.dtype, memory_format=torch.channels_last))
        raw = self.net.head.decode(self.last)
        return RawOutput(raw.pred.float(), raw.protos.float())


def validate_with_losses(
    backend: LossBackend,
    loss: SegmentationLoss,
    records: Sequence[ImageRecord],
    names: Names,
    settings: ValSettings,
    *,
    progress: ProgressFn,
    on_image: Callable[[int, Instances], None],
    loader: DataLoader[Any] | None,
    world: World,
) -> tuple[Metrics, list[float]]:
    """As `validate`, and the mean losses of an image, from the same forward passes. loss: of the backend's network."""
    total = torch.zeros(4, device=backend.device)

    def observe(batch: ValBatch) -> None:
        nonlocal total
        targets = val_targets(batch, records).to(backend.device)
        total = total + torch.stack(loss(backend.last, targets)) * len(batch.indices)

    metrics = validate(
        backend, records, names, settings, progress=progress, loader=loader, observer=observe, on_image=on_image, world=world
    )
    losses: list[float] = (world.sum(total) / len(records)).tolist()
    return metrics, losses


def make_loader(info: ModelInfo, records: Sequence[ImageRecord], settings: ValSettings, world: World) -> DataLoader[Any]:
    """Batches of letterboxed images, of one size each, as the model takes them: this process's share of them."""
    size, workers = input_size(info, settings.imgsz), loader_workers(settings.workers, world.device, world.local_size)
    batch, stride = (settings.batch, info.stride) if info.dynamic else (info.batch, None)
    return val_loader(records, size, batch, workers, stride=stride, pin=world.device.type == "cuda", share=world.share)


def check_names(model: Names, labels: Names) -> None:
    """Raises DataError unless both have the same classes in the same order."""
    if list(model.values()) != list(labels.values()):
        missing = sorted(set(labels.values()) - set(model.values()))
        detail = (
            f"the model does not know {', '.join(map(repr, missing[:5]))}"
            if missing
            else "same names, but in another order or with further ones"
        )
        raise DataError(
            f"the classes differ: the model has {len(model)}, the data {len(labels)}; {detail}. "
            "Validate on data with the model's classes, or train on these classes first"
        )
