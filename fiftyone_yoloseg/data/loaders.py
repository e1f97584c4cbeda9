"""Batches for training and for validation."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import STRIDE, TrainSettings
from ..geometry import letterbox
from ..geometry.letterbox import Letterbox
from ..types import Batch, ImageRecord
from .augment import Augmenter, Sample, Target, hide, place_target
from .disk_cache import DiskCache
from .images import read_image
from .processes import context, one_thread, without_main
from .store import Budget, ImageStore
from .warp import shift, stretch

WORTH_WORKERS = 500
"""Images below which a validation has decoded them before a loader process has started."""


def collate(samples: Sequence[Sample], *, ratio: int = 4, exclusive: bool = False) -> Batch:
    """Samples of one size -> a batch. exclusive: a pixel that several objects cover stays with the smallest of them.

    No samples (a process without a share in a short batch) -> a batch of no images.
    """
    if not samples:
        nothing = torch.zeros(0, dtype=torch.int64)
        return Batch(_no_images(), nothing, nothing, torch.zeros(0, 4), torch.zeros(0, STRIDE // ratio, STRIDE // ratio, dtype=torch.uint8))
    height, width = samples[0].image.shape[:2]
    images = torch.from_numpy(np.stack([s.image for s in samples]).transpose(0, 3, 1, 2).copy())
    targets: list[tuple[int, Target]] = []
    for i, sample in enumerate(samples):
        own = sorted(sample.targets, key=lambda t: -int(t.soft.sum())) if exclusive else sample.targets
        if exclusive:
            for j, behind in enumerate(own):
                for front in own[j + 1 :]:
                    hide(behind, front)
        targets += [(i, t) for t in own]
    coverage = np.zeros((len(targets), height // ratio, width // ratio), np.uint8)
    for cells, (_, t) in zip(coverage, targets, strict=True):
        h, w = t.soft.shape[0] // ratio, t.soft.shape[1] // ratio
        cells[t.y // ratio : t.y // ratio + h, t.x // ratio : t.x // ratio + w] = cv2.resize(t.soft, (w, h), interpolation=cv2.INTER_AREA)
    return Batch(
        images,
        torch.tensor([i for i, _ in targets], dtype=torch.int64),
        torch.tensor([t.cls for _, t in targets], dtype=torch.int64),
        torch.tensor([t.box for _, t in targets], dtype=torch.float32).view(-1, 4),
        torch.from_numpy(coverage),
    )


def _no_images() -> torch.Tensor:
    return torch.zeros(0, 3, STRIDE, STRIDE, dtype=torch.uint8)


class TrainDataset(Dataset[Sample]):
    """Indexed by what the sampler draws."""

    def __init__(self, records: Sequence[ImageRecord], settings: TrainSettings, cache: Budget) -> None:
        size = sizes_of(settings.imgsz, settings.multi_scale)[-1]
        disk = DiskCache(cache.folder, size, cache.bytes) if cache.folder else None
        self.augment = Augmenter(records, ImageStore(records, size, 0 if disk else cache.bytes, disk), settings)

    def __getitem__(self, drawn: Draw) -> Sample:
        return self.augment(*drawn)


class Draw(NamedTuple):
    """One sample to make: image number `image` in `epoch`, as an input of `size` (height, width); with `closed`, no mosaic, mixup and copy-paste."""

    epoch: int
    image: int
    size: tuple[int, int]
    closed: bool


def sizes_of(imgsz: int, share: float) -> list[int]:
    """Multiples of 32 within imgsz +- share, rising; not under 64, where the coarsest level has a single cell."""
    low, high = max(imgsz * (1 - share), min(2 * STRIDE, imgsz)), imgsz * (1 + share)
    return list(range(math.ceil(low / STRIDE) * STRIDE, math.floor(high / STRIDE) * STRIDE + 1, STRIDE))


class EpochSampler(Sampler[list[Draw]]):
    """Batches of an epoch, in an order that depends on the seed and the epoch only.

    Before iterating, set `epoch`; `start`, the first batch to give (a run goes on in the middle of an epoch); and `closed`.
    shapes: (height, width) of each image for rectangular batches: images of similar shape come together.
    share: (rank, processes): of each batch, which images this process makes; all processes together make those of a single one.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        seed: int,
        imgsz: int = 640,
        multi_scale: float = 0.0,
        shapes: Sequence[tuple[int, int]] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.count, self.batch, self.seed, self.shapes, self.share = count, batch, seed, shapes, share
        self.sizes = sizes_of(imgsz, multi_scale)
        self.epoch, self.start, self.closed = 0, 0, False

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch)

    def __iter__(self) -> Iterator[list[Draw]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count).tolist()
        rng = np.random.default_rng((self.seed, self.epoch, self.count))  # samples use the numbers below
        if self.shapes:
            order.sort(key=lambda i: self._aspect(i))
        batches = [order[start : start + self.batch] for start in range(0, self.count, self.batch)]
        if self.shapes:
            rng.shuffle(batches)
        sizes = rng.choice(self.sizes, len(batches)).tolist()
        for indices, size in list(zip(batches, sizes, strict=True))[self.start :]:
            shape = self._shape(indices, size)
            rank, processes = self.share
            yield [Draw(self.epoch, i, shape, self.closed) for i in indices[rank::processes]]

    def _aspect(self, index: int) -> float:
        """Height over width of the padded image, so that images of one padded shape are mixed anew in each epoch."""
        height, width = self._shape([index], self.sizes[-1])
        return height / width

    def _shape(self, indices: Sequence[int], size: int) -> tuple[int, int]:
        """(height, width) into which these images fit at this size."""
        if not self.shapes:
            return size, size
        padded = [letterbox.fit(self.shapes[i], (size, size), stride=STRIDE).size for i in indices]
        return max(h for h, _ in padded), max(w for _, w in padded)


class _Collate:
    """Picklable, for loader processes that are spawned."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        return collate(samples, ratio=self.settings.mask_ratio, exclusive=self.settings.instance_masks == "exclusive")


def _start_worker(_: int) -> None:
    """Loader processes run side by side: one OpenCV thread each. Ctrl-C in a terminal reaches them too; the trainer decides what it means."""
    one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Loader(DataLoader[Any]):
    """Starts its processes without importing the user's script into them, so that a script needs no __main__ guard."""

    def __init__(self, dataset: Dataset[Any], batches: Any, workers: int, collate_fn: Any, pin: bool) -> None:
        processes: dict[str, Any] = {}
        if workers:
            processes = {
                "multiprocessing_context": context(),
                "persistent_workers": True,
                "worker_init_fn": _start_worker,
                "prefetch_factor": 4,
            }
        own = torch.Generator()  # a loader draws seeds for its processes: not from the generator whose state a run saves
        super().__init__(
            dataset, batch_sampler=batches, num_workers=workers, collate_fn=collate_fn, pin_memory=pin, generator=own, **processes
        )

    def __iter__(self) -> Any:
        with without_main():
            return super().__iter__()


def train_loader(
    records: Sequence[ImageRecord],
    settings: TrainSettings,
    *,
    workers: int = 0,
    cache: Budget | None = None,
    pin: bool = False,
    share: tuple[int, int] = (0, 1),
) -> tuple[DataLoader[Any], EpochSampler]:
    """The loader of training batches, and the sampler whose `epoch` the trainer sets.

    cache: what all loader processes together may keep. share: see `EpochSampler`.
    """
    s, cache = settings, cache or Budget()
    shapes = [(r.height, r.width) for r in records] if s.rect else None
    sampler = EpochSampler(len(records), s.batch, s.seed, s.imgsz, s.multi_scale, shapes, share)
    workers = min(workers, len(sampler))
    dataset = TrainDataset(records, settings, Budget(cache.bytes // max(workers, 1), cache.folder))
    return _Loader(dataset, sampler, workers, _Collate(settings), pin), sampler


@dataclass(slots=True)
class ValBatch:
    """images: (B, 3, H, W) uint8 RGB, all of one input size; `indices` and `boxes` say which records and how they were placed."""

    images: torch.Tensor
    indices: list[int]
    boxes: list[Letterbox]

    def pin_memory(self) -> ValBatch:
        return ValBatch(self.images.pin_memory(), self.indices, self.boxes)


class ValDataset(Dataset[tuple[int, Letterbox, np.ndarray[Any, Any]]]):
    """Letterboxed images. rect: pad to the next multiple of the stride only, else to the full `size` (height, width)."""

    def __init__(self, records: Sequence[ImageRecord], size: tuple[int, int], stride: int | None) -> None:
        self.records = records
        self.boxes = [letterbox.fit((r.height, r.width), size, stride=stride) for r in records]

    def __getitem__(self, index: int) -> tuple[int, Letterbox, np.ndarray[Any, Any]]:
        return index, self.boxes[index], letterbox.apply(read_image(self.records[index].path), self.boxes[index])


def _collate_val(items: Sequence[tuple[int, Letterbox, np.ndarray[Any, Any]]]) -> ValBatch:
    if not items:
        return ValBatch(_no_images(), [], [])
    indices, boxes, images = zip(*items, strict=True)
    return ValBatch(torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()), list(indices), list(boxes))


def val_loader(
    records: Sequence[ImageRecord],
    size: tuple[int, int],
    batch: int,
    workers: int,
    *,
    stride: int | None = 32,
    pin: bool = False,
    share: tuple[int, int] = (0, 1),
) -> DataLoader[Any]:
    """Every image once, in batches of one input size.

    share: (rank, processes): this process gets every n-th batch; all get equally many, the last of them may be empty.
    """
    dataset = ValDataset(records, size, stride)
    order = sorted(range(len(records)), key=lambda i: dataset.boxes[i].size)
    batches: list[list[int]] = []
    for i in order:
        if not batches or len(batches[-1]) == batch or dataset.boxes[batches[-1][0]].size != dataset.boxes[i].size:
            batches.append([])
        batches[-1].append(i)
    rank, processes = share
    batches += [[]] * (-len(batches) % processes)
    batches = batches[rank::processes]
    workers = min(workers, len(batches)) if len(records) >= WORTH_WORKERS else 0
    return _Loader(dataset, batches, workers, _collate_val, pin)


def val_targets(batch: ValBatch, records: Sequence[ImageRecord], ratio: int = 4) -> Batch:
    """The labels of a validation batch as training targets, to compute its losses."""
    samples = []
    height, width = batch.images.shape[2:]
    for index, box in zip(batch.indices, batch.boxes, strict=True):
        sx, sy = box.scale
        matrix = shift(box.left, box.top) @ stretch(sx, sy)
        placed = (place_target(r, matrix, (height, width), ratio) for r in records[index].instances)
        samples.append(Sample(np.empty((height, width, 0), np.uint8), [t for t in placed if t is not None]))
    targets = collate(samples, ratio=ratio)
    return Batch(batch.images, targets.image_index, targets.classes, targets.boxes, targets.masks)
