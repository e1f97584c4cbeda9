"""Where to compute, and how much memory there is."""

from __future__ import annotations

import os

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


def free_memory() -> int:
    """Bytes of main memory that can be used now."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except OSError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
