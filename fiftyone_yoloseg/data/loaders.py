"""Batches for training and for validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import TrainSettings
from ..geometry import letterbox
from ..geometry.letterbox import Letterbox
from ..types import Batch, ImageRecord
from .augment import Augmenter, Sample, Target, hide, place_target
from .images import read_image
from .processes import context, one_thread, without_main
from .store import ImageStore
from .warp import shift, stretch

WORTH_WORKERS = 500
"""Images below which a validation has decoded them before a loader process has started."""


def collate(samples: Sequence[Sample], *, ratio: int = 4, exclusive: bool = False) -> Batch:
    """Samples of one size -> a batch. exclusive: a pixel that several objects cover stays with the smallest of them."""
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


class TrainDataset(Dataset[Sample]):
    """Indexed by (epoch, image index)."""

    def __init__(self, records: Sequence[ImageRecord], settings: TrainSettings, cache_bytes: int) -> None:
        self.augment = Augmenter(records, ImageStore(records, settings.imgsz, cache_bytes), settings)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        return self.augment(*key)


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) in an order that depends on the seed and the epoch only. Set `epoch` before iterating."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self.count, self.batch, self.seed, self.epoch = count, batch, seed, 0

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count).tolist()
        for start in range(0, self.count, self.batch):
            yield [(self.epoch, i) for i in order[start : start + self.batch]]


class _Collate:
    """Picklable, for loader processes that are spawned."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        return collate(samples, ratio=self.settings.mask_ratio, exclusive=self.settings.overlap_mask)


class _Loader(DataLoader[Any]):
    """Starts its processes without importing the user's script into them, so that a script needs no __main__ guard."""

    def __init__(self, dataset: Dataset[Any], batches: Any, workers: int, collate_fn: Any, pin: bool) -> None:
        processes: dict[str, Any] = {}
        if workers:
            processes = {
                "multiprocessing_context": context(),
                "persistent_workers": True,
                "worker_init_fn": one_thread,
                "prefetch_factor": 4,
            }
        super().__init__(dataset, batch_sampler=batches, num_workers=workers, collate_fn=collate_fn, pin_memory=pin, **processes)

    def __iter__(self) -> Any:
        with without_main():
            return super().__iter__()


def train_loader(
    records: Sequence[ImageRecord], settings: TrainSettings, *, workers: int = 0, cache_bytes: int = 0, pin: bool = False
) -> tuple[DataLoader[Any], EpochSampler]:
    """The loader of training batches, and the sampler whose `epoch` the trainer sets."""
    sampler = EpochSampler(len(records), settings.batch, settings.seed)
    workers = min(workers, len(sampler))
    dataset = TrainDataset(records, settings, cache_bytes // max(workers, 1))
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
    indices, boxes, images = zip(*items, strict=True)
    return ValBatch(torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()), list(indices), list(boxes))


def val_loader(
    records: Sequence[ImageRecord], size: tuple[int, int], batch: int, workers: int, *, stride: int | None = 32, pin: bool = False
) -> DataLoader[Any]:
    """Every image once, in batches of one input size."""
    dataset = ValDataset(records, size, stride)
    order = sorted(range(len(records)), key=lambda i: dataset.boxes[i].size)
    batches: list[list[int]] = []
    for i in order:
        if not batches or len(batches[-1]) == batch or dataset.boxes[batches[-1][0]].size != dataset.boxes[i].size:
            batches.append([])
        batches[-1].append(i)
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
