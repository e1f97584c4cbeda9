"""Where to compute, and how much memory there is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from ..errors import SettingsError


def select_device(name: str | None = None) -> torch.device:
    """None: the first GPU if there is one, else the CPU. "cpu", "cuda", "cuda:1", "1" (a GPU number)."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(f"cuda:{name}" if name.isdigit() else name)
    except RuntimeError:
        raise SettingsError(f"device={name!r} is not a device: use cpu, cuda, cuda:1 or a GPU number") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"device={name!r}: torch sees {torch.cuda.device_count()} GPU(s) here; use device=cpu")
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device={name!r} is not supported: use cpu, cuda, cuda:1 or a GPU number")
    return device


def loader_workers(asked: int | None, device: torch.device) -> int:
    """Loader processes: those asked for; else up to 8 beside a GPU, and on the CPU as many as leave two cores to the network."""
    if asked is not None:
        return asked
    cores = os.cpu_count() or 1
    return min(8, cores) if device.type == "cuda" else min(8, max(cores - 2, 0))


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Let torch use only deterministic algorithms, where it has them; leaves torch as it was."""
    before, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    torch.backends.cudnn.benchmark = not wanted
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


def free_memory() -> int:
    """Bytes of main memory that can be used now."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except OSError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
