"""Where to compute, and how much memory there is."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import platform
import sys
from collections.abc import Callable, Iterator

import torch

from ..errors import SettingsError
from ..nn.head import HeadOutput
from ..nn.model import YOLOv8Seg


def device_names(device: str | None) -> list[str]:
    """ "0,1" -> ["0", "1"]: the devices of a training, one process each. Raises SettingsError if a GPU is named twice or the kinds differ."""
    names = _split(device or "")
    if len(names) > 1:
        kinds = [select_device(name) for name in names]
        gpus = [kind for kind in kinds if kind.type == "cuda"]
        if len(set(gpus)) < len(gpus) or 0 < len(gpus) < len(names):
            raise SettingsError(f"device={device!r}: name different GPUs, as in device=0,1; or CPU processes only, as in device=cpu,cpu")
    return names


def _split(devices: str) -> list[str]:
    return [name.strip() for name in devices.strip("[]() ").split(",") if name.strip()]


def select_device(name: str | None = None) -> torch.device:
    """None: the first GPU if there is one, else the CPU. "cpu", "cuda", "cuda:1", "1" (a GPU number)."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if "," in name:
        names = _split(name)
        if len(names) != 1:
            raise SettingsError(f"device={name!r}: only a training takes several devices; name one")
        name = names[0]
    try:
        device = torch.device(f"cuda:{name}" if name.isdigit() else name)
    except RuntimeError:
        raise SettingsError(f"device={name!r} is not a device: use cpu, cuda, cuda:1 or a GPU number") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"device={name!r}: torch sees {torch.cuda.device_count()} GPU(s) here; use device=cpu")
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device={name!r} is not supported: use cpu, cuda, cuda:1 or a GPU number")
    return device


def precision(amp: bool | str, device: torch.device) -> torch.dtype | None:
    """The type of mixed precision, None for none. true: float16 on a GPU. Raises SettingsError if the device has not got it."""
    if amp is False or (amp is True and device.type == "cpu"):
        return None
    if device.type == "cpu" and amp == "fp16":
        raise SettingsError("amp=fp16: only on a GPU; on the CPU use amp=bf16 or amp=false")
    if device.type == "cuda" and amp == "bf16" and not torch.cuda.is_bf16_supported():
        raise SettingsError(f"amp=bf16: {torch.cuda.get_device_name(device)} has no bfloat16; use amp=fp16")
    return torch.bfloat16 if amp == "bf16" else torch.float16


def compiled(net: YOLOv8Seg) -> Callable[[torch.Tensor], HeadOutput]:
    """The forward pass of training, compiled at its first call: as a whole, no part is left to run uncompiled unnoticed."""
    forward: Callable[[torch.Tensor], HeadOutput] = torch.compile(net.heads, fullgraph=True)
    return forward


@contextlib.contextmanager
def compiling(wanted: bool) -> Iterator[None]:
    """Around a step of a compiled network: turns a failure of the compiler into a SettingsError."""
    if not wanted:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(str(error).split("\n")[:2])[:300]
        raise SettingsError(f"compile=true: torch cannot compile the network here ({reason}): train with compile=false") from error


def loader_workers(asked: int | None, device: torch.device, processes: int = 1) -> int:
    """Loader processes: those asked for; else up to 8 beside a GPU, and on the CPU as many as leave two cores to the network.

    processes: of the training on this machine, which share them; what is left over is rounded up.
    """
    if asked is not None:
        return -(-asked // processes)
    cores = os.cpu_count() or 1
    return min(8, cores // processes) if device.type == "cuda" else min(8, max(cores - 2, 0) // processes)


def import_compiler() -> None:
    """torch's compiler, beside TensorFlow if that is here already.

    The compiler imports triton, and triton ends the process without a word where TensorFlow came first: both register the options of LLVM. Without
    triton all but compile=true on a GPU works, and that says so.
    """
    clash = "tensorflow" in sys.modules and "triton" not in sys.modules
    if clash:
        sys.modules["triton"] = None  # type: ignore[assignment]  # an ImportError for whoever wants it
    try:
        importlib.import_module("torch._dynamo")
    finally:
        if clash:
            del sys.modules["triton"]


@contextlib.contextmanager
def deterministic(wanted: bool, compiler: bool = False) -> Iterator[None]:
    """Let torch use only deterministic algorithms, where it has them; leaves torch as it was.

    compiler: also in what torch's compiler makes. It is imported for that, which takes longer than all else at the start of a training.
    """
    before, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    if compiler:
        torch.use_deterministic_algorithms(wanted, warn_only=True)
    torch.set_deterministic_debug_mode("warn" if wanted else "default")
    torch.backends.cudnn.benchmark = not wanted
    try:
        yield
    finally:
        if compiler:
            torch.use_deterministic_algorithms(before > 0)
        torch.set_deterministic_debug_mode(before)
        torch.backends.cudnn.benchmark = benchmark


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt


@contextlib.contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """On a CPU: let glibc keep the memory of one step for the next, as torch does on a GPU; give it back at the end.

    Else every large tensor is mapped anew and its pages are zeroed at each step, which costs 5 % (n, 320 px) to 20 % (s, 640 px) of a step (measured).
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, 65536)  # glibc's defaults
        libc.mallopt(_TRIM_THRESHOLD, 128 * 1024)
        libc.malloc_trim(0)


def free_memory() -> int:
    """Bytes of main memory that can be used now."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except OSError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
