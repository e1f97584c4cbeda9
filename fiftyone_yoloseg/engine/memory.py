"""How much memory a training takes, and the batch that fits."""

from __future__ import annotations

import copy
import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import AUTO_BATCH, STRIDE, TrainSettings
from ..data.loaders import Draw, TrainDataset, collate, sizes_of
from ..data.store import Budget
from ..errors import SettingsError
from ..nn.loss import SegmentationLoss
from ..nn.model import YOLOv8Seg
from ..types import Batch, ImageRecord
from .devices import free_memory, precision
from .distributed import World, check_batch

log = logging.getLogger(__name__)
CPU_BATCH, CPU_SHARE, CPU_STEPS = 16, 0.5, 4
GPU_SHARE, GPU_MOST = 0.7, 512
SAMPLES = 8
_TRIAL_SIZE = 64
STATES = 5
"""Copies of the weights: themselves, their average, gradients, and two moments of the optimizer."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes: of weights and optimizer, and of one image's activations that the backward pass needs."""

    fixed: int
    image: int

    def total(self, batch: int) -> int:
        return self.fixed + batch * self.image


def estimate(net: YOLOv8Seg, size: int, half: bool) -> Need:
    """Counted in a pass over a small image: every tensor that autograd keeps, once; they grow with the pixels. The peak is somewhat higher."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    trial = copy.deepcopy(net).train().requires_grad_(True)  # batch norms must not learn from this
    device = next(trial.parameters()).device
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = trial.heads(torch.zeros(2, 3, _TRIAL_SIZE, _TRIAL_SIZE, device=device))  # batch norms want more than one
    weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in trial.parameters()}
    image = sum(length for pointer, length in kept.items() if pointer not in weights) / 2 * (size / _TRIAL_SIZE) ** 2
    del out
    return Need(STATES * sum(weights.values()), int(image / 2 if half else image))


def with_batch(settings: TrainSettings, net: YOLOv8Seg, records: Sequence[ImageRecord], world: World) -> tuple[TrainSettings, str | None]:
    """The settings with `batch=-1` resolved, and how.

    CPU: the largest power of two up to 16 that leaves four steps an epoch and half of the free memory; a larger batch is no faster there.
    CUDA: tried out with real images, so that 70 % of the free memory are used.
    With several processes: found for each, and the smallest times their number. Raises SettingsError if a given batch cannot be shared out.
    """
    device = world.device
    if settings.batch != AUTO_BATCH:
        check_batch(settings.batch, world.size)
        return settings, None
    if device.type == "cuda":
        batch, why = _cuda_batch(settings, net, records, device, -(-len(records) // world.size))
        gc.collect()
        torch.cuda.empty_cache()
    else:
        need = estimate(net, sizes_of(settings.imgsz, settings.multi_scale)[-1], half=False)
        batch = cpu_batch(need, len(records) // world.size, free_memory() // world.local_size)
        why = f"the CPU's rule: up to {CPU_BATCH}, at least {CPU_STEPS} steps an epoch, half of the free memory"
    if world.size > 1:
        why = f"{world.size} devices, each: {why}"
    batch = world.smallest(batch) * world.size
    return settings.model_copy(update={"batch": batch}), f"batch={batch}: {why}"


def check_norms(settings: TrainSettings, images: int, processes: int) -> None:
    """Raise SettingsError if a process would get a batch of one image whose coarsest map is a single cell: one value has no variance.

    Only at imgsz=32, by which the network divides; `sync_bn` puts the values of all processes together.
    """
    if sizes_of(settings.imgsz, settings.multi_scale)[0] > STRIDE or (settings.sync_bn and processes > 1):
        return
    last = images % settings.batch
    for size, which in ((min(settings.batch, images), "a batch"), (last, "the last batch of each epoch")):
        if 1 in (len(range(rank, size, processes)) for rank in range(processes)):
            where = "" if processes == 1 else " on one of the devices"
            raise SettingsError(
                f"imgsz={settings.imgsz} with batch={settings.batch} and {images} training images: {which} would be one image{where}, of one cell "
                "at the coarsest level, and batch normalisation cannot learn from a single value. Train with imgsz=64, or with another batch"
            )


def cpu_batch(need: Need, images: int, free: int) -> int:
    batch = CPU_BATCH
    while batch > 2 and (batch * CPU_STEPS > images or need.total(batch) > CPU_SHARE * free):
        batch //= 2
    return batch


def fitting_batch(measure: Callable[[int], int | None], budget: int, most: int) -> int:
    """The largest batch, up to `most`, whose measured bytes stay in the budget: doubled until it does not fit, then halved in between.

    measure: batch -> peak bytes, None if they are not to be had. Raises SettingsError if not even one image fits.
    """

    def fits(batch: int) -> bool:
        used = measure(batch)
        return used is not None and used <= budget

    good, bad = 0, 1
    while bad <= most and fits(bad):
        good, bad = bad, 2 * bad
    if good == 0:
        raise SettingsError("batch=-1: not even one image fits into the memory of this GPU: lower imgsz, or take a smaller model")
    bad = min(bad, most + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def _cuda_batch(
    settings: TrainSettings, net: YOLOv8Seg, records: Sequence[ImageRecord], device: torch.device, images: int
) -> tuple[int, str]:
    dtype = precision(settings.amp, device)
    trial = copy.deepcopy(net).to(device).train().requires_grad_(True)  # its batch norms must not learn from this
    trial.head.dfl.requires_grad_(False)
    loss = SegmentationLoss(trial.head, settings.box, settings.cls, settings.dfl)
    size = sizes_of(settings.imgsz, settings.multi_scale)[-1]
    source = TrainDataset(records, settings, Budget())
    samples = [source[Draw(0, i, (size, size), settings.mosaic == 0)] for i in range(min(SAMPLES, len(records)))]
    weights = sum(p.numel() * p.element_size() for p in net.parameters())

    def batch_of(count: int) -> Batch:
        return collate([samples[i % len(samples)] for i in range(count)], ratio=settings.mask_ratio)

    def measure(count: int) -> int | None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            batch = batch_of(count).to(device)
            with torch.autocast(device.type, dtype=dtype or torch.float16, enabled=dtype is not None):
                out = trial.heads(batch.images.float() / 255)
            loss.total(loss(out, batch), count).backward()
            return int(torch.cuda.max_memory_reserved(device)) + 3 * weights  # the average and the optimizer's moments come on top
        except torch.cuda.OutOfMemoryError:
            return None
        finally:
            trial.zero_grad()

    free, _ = torch.cuda.mem_get_info(device)
    budget = int(GPU_SHARE * (free + torch.cuda.memory_reserved(device)))
    batch = fitting_batch(measure, budget, min(images, GPU_MOST))
    return batch, f"as many as take {GPU_SHARE:.0%} of the free {free / 1e9:.1f} GB of {torch.cuda.get_device_name(device)}"
