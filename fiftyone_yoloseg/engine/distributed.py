"""What several processes of one training have to say to each other; `World`, a single process, has nothing to say.

Each process (rank) makes its share of every batch and computes its part of the losses, which are parts of those of the whole batch, so the gradients
are summed, not averaged. Whatever the loop decides is decided by all of them alike. Only `main` writes and reports.
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import cv2
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data.processes import cpus
from ..errors import ProcessError, SettingsError
from ..nn.head import MASKS, REG_MAX, HeadOutput
from ..nn.model import YOLOv8Seg
from .devices import device_names, select_device
from .shared_norm import SharedNorm, share_norms

T = TypeVar("T")
Forward = Callable[[Tensor], HeadOutput]
TIMEOUT = datetime.timedelta(hours=1)
"""How long a process waits for the others: the first of them scores a whole validation while they wait."""


SYNC_BUFFERS = next(
    name for name in ("forward_sync_buffers", "broadcast_buffers") if name in inspect.signature(DistributedDataParallel).parameters
)
"""The option's name, in newer and older torch."""


class World:
    """One process. rank: its number, of `size` in all, `local_size` of them on this machine. device: where it computes."""

    rank, size, local_size = 0, 1, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def main(self) -> bool:
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        return self.rank, self.size

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        return tensor

    def count(self, number: int) -> int:
        """As `sum`, of a number that the loop needs now."""
        return number

    def smallest(self, value: int) -> int:
        return value

    def any(self, flag: bool) -> bool:
        """Whether it is set in any process."""
        return flag

    def from_main(self, make: Callable[[], T]) -> T:
        """What the first process makes, for all."""
        return make()

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank, in the first one; nothing in the others."""
        return [value]

    def whole_batch(self, weight: Tensor, count: int) -> tuple[Tensor, int | Tensor]:
        """See `SegmentationLoss`."""
        return weight, count

    def replicate(self, net: YOLOv8Seg, forward: Forward, sync_bn: bool = False) -> Forward:
        """The forward pass of training, whose backward pass adds up the gradients of all processes.

        sync_bn: the batch norms of `net` normalise with the statistics of all processes from now on.
        """
        return forward

    def step(self, forward: Forward, update: bool) -> AbstractContextManager[None]:
        """Around a step; without an `update` of the weights after it, gradients are not exchanged yet."""
        return contextlib.nullcontext()

    def share_statistics(self, net: nn.Module, images: int) -> None:
        """After a step: running statistics of batch norms become the mean over all images."""


class Processes(World):
    """One of several processes. Tensors go by NCCL between GPUs, by gloo between CPUs; everything else by gloo."""

    def __init__(self, device: torch.device, rank: int, size: int, local_size: int, store: Any = None) -> None:
        super().__init__(device)
        self.rank, self.size, self.local_size = rank, size, local_size
        if device.type == "cuda":
            torch.cuda.set_device(device)
        elif "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(cpus() // local_size, 1))
        cv2.setNumThreads(max(cpus() // local_size, 1))
        if not dist.is_initialized():  # Ray has done that for its workers
            backend = "nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        self._talk: Any = dist.new_group(backend="gloo", timeout=TIMEOUT)

    def close(self) -> None:
        dist.destroy_process_group()

    def sum(self, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def count(self, number: int) -> int:
        return self._agree(number, dist.ReduceOp.SUM)

    def smallest(self, value: int) -> int:
        return self._agree(value, dist.ReduceOp.MIN)

    def any(self, flag: bool) -> bool:
        return bool(self._agree(int(flag), dist.ReduceOp.MAX))

    def _agree(self, number: int, how: Any) -> int:
        agreed = torch.tensor(number)
        dist.all_reduce(agreed, how, self._talk)
        return int(agreed)

    def from_main(self, make: Callable[[], T]) -> T:
        box: list[Any] = [make() if self.main else None]
        dist.broadcast_object_list(box, 0, self._talk)
        value: T = box[0]
        return value

    def gather(self, value: T) -> list[T]:
        box: list[Any] | None = [None] * self.size if self.main else None
        dist.gather_object(value, box, 0, self._talk)
        return box or []

    def whole_batch(self, weight: Tensor, count: int) -> tuple[Tensor, int | Tensor]:
        both = self.sum(torch.stack((weight, weight.new_tensor(count))))
        return both[0], both[1]

    def replicate(self, net: YOLOv8Seg, forward: Forward, sync_bn: bool = False) -> Forward:
        if sync_bn:
            share_norms(net, dist.new_group(timeout=TIMEOUT))  # one of its own: gradients are exchanged at the same time
        devices = [self.device] if self.device.type == "cuda" else None
        options: dict[str, Any] = {"device_ids": devices, SYNC_BUFFERS: False}
        replica = DistributedDataParallel(_Heads(net, forward, sync_bn), **options)
        replica.register_comm_hook(None, lambda _, bucket: _add_up(bucket.buffer()))
        return replica

    def step(self, forward: Forward, update: bool) -> AbstractContextManager[None]:
        assert isinstance(forward, DistributedDataParallel)
        quiet: AbstractContextManager[None] = forward.no_sync()
        return contextlib.nullcontext() if update else quiet

    def share_statistics(self, net: nn.Module, images: int) -> None:
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d) and m.training and not isinstance(m, SharedNorm)]
        buffers = [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]
        if not buffers:
            return
        weighted = torch.cat([*(b * images for b in buffers), buffers[0].new_tensor([images])])
        dist.all_reduce(weighted)
        mean = weighted[:-1] / weighted[-1]
        for buffer, value in zip(buffers, mean.split([len(b) for b in buffers]), strict=True):
            buffer.copy_(value)


class _Heads(nn.Module):
    """The forward pass as a module, as DistributedDataParallel wants it; without images, an output that gives every weight a gradient of 0.

    always: go through the network without images too, because the batch norms of the other processes wait for those of this one.
    """

    def __init__(self, net: YOLOv8Seg, forward: Forward, always: bool) -> None:
        super().__init__()
        self.net, self._heads, self._always = net, forward, always

    def forward(self, images: Tensor) -> HeadOutput:
        if len(images) or self._always:
            return self._heads(images)
        zero = torch.stack([p.sum() for p in self.net.parameters() if p.requires_grad]).sum() * 0
        shapes = (0, 4 * REG_MAX, 1), (0, self.net.nc, 1), (0, MASKS, 1), (0, MASKS, *(side // 4 for side in images.shape[2:]))
        distances, scores, coefficients, protos = (images.new_zeros(shape) + zero for shape in shapes)
        return HeadOutput(distances, scores, coefficients, protos, images.new_zeros(1, 2), images.new_ones(1, 1))


def _add_up(gradients: Tensor) -> torch.futures.Future[Tensor]:
    """Gradients are summed; DistributedDataParallel's own way would be their mean."""
    work = dist.all_reduce(gradients, async_op=True)
    assert work is not None
    result: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return result


def check_batch(batch: int, world_size: int) -> None:
    """Raises SettingsError if a batch cannot be shared out evenly."""
    if batch % world_size:
        near = max(batch // world_size, 1) * world_size
        raise SettingsError(
            f"batch={batch}: it is shared by {world_size} devices, so it must be a multiple of {world_size}: "
            f"use batch={near} or {near + world_size}, or another number of devices"
        )


def by_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several that torchrun, or something like it, has started."""
    return {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys() and int(environment.get("WORLD_SIZE", 1)) > 1


@contextlib.contextmanager
def joined(device: str | None) -> Iterator[World]:
    """The processes that torchrun started, by its environment variables; else this process alone. Raises SettingsError, ProcessError."""
    if not by_torchrun():
        yield World(select_device(device))
        return
    local = int(os.environ.get("LOCAL_RANK", 0))
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if len(device_names(device)) > 1 or (device or "cuda") not in ("cpu", "cuda"):
        raise SettingsError(f"device={device}: torchrun gives each process its device: leave it out, or give device=cpu")
    cpu = device == "cpu" or (device is None and not torch.cuda.is_available())
    world = Processes(select_device("cpu" if cpu else f"cuda:{local}"), rank, size, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
    with only_main_speaks(world):
        try:
            yield world
        except Exception as error:
            if lost(error):
                reason = str(error).strip().splitlines()[0][:200]
                raise ProcessError(
                    f"process {rank} of {size}: another process of this training has ended, see its message ({reason})"
                ) from None
            raise
        world.close()


@contextlib.contextmanager
def only_main_speaks(world: World) -> Iterator[None]:
    """Log lines of the other processes are left out, errors apart."""
    ours = logging.getLogger("fiftyone_yoloseg")
    before = ours.level
    if not world.main:
        ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ours.setLevel(before)


def lost(error: BaseException) -> bool:
    """Whether an error says no more than that another process cannot be reached."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and ("gloo" in str(error) or "NCCL" in str(error)))
