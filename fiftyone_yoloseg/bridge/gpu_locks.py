"""One job at a time on a GPU: a second one waits for the first, unless it is told to share.

A lock is a file that the operating system locks for the process of the job: it is free again however that process ends.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from ..errors import Stopped, UserError
from ..types import ProgressFn

_POLL = 0.5


def gpus(device: str | None) -> list[str]:
    """The GPUs that a `device` setting means, by the ids that the hardware has; none on the CPU. Imports torch. Raises SettingsError."""
    import torch

    from ..engine.devices import device_names, select_device

    named: list[str | None] = [*device_names(device)] or [None]
    found = [select_device(name) for name in named]
    return [str(torch.cuda.get_device_properties(d).uuid) for d in found if d.type == "cuda"]


@contextlib.contextmanager
def held(names: Sequence[str], who: str, progress: ProgressFn, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Inside the block, no other job of this user on this machine holds one of these GPUs. who: told to those that wait.

    Raises Stopped if should_stop says so while this one waits.
    """
    with contextlib.ExitStack() as stack:
        for name in sorted(names):  # in one order, so that two jobs never wait for each other
            file = stack.enter_context(_folder().joinpath(f"{name}.lock").open("a+", encoding="utf-8"))
            while not _lock(file):
                if should_stop():
                    raise Stopped("stopped while it waited for the GPU")
                file.seek(0)
                progress(0.0, f"waiting for the GPU, which {file.read() or 'another job'} uses")
                time.sleep(_POLL)
            file.truncate(0)
            file.write(who)
            file.flush()
        yield


def holder() -> str | None:
    """The job that holds a GPU of this machine now, of several any; None if none does. Imports no torch."""
    for path in sorted(_folder().glob("*.lock")):
        with path.open("a+", encoding="utf-8") as file:  # closed, and so released, at once
            if not _lock(file):
                file.seek(0)
                return file.read() or "another job"
    return None


def _folder() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    folder = Path(tempfile.gettempdir()) / f"yoloseg-gpus-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be used to take turns on the GPU ({error.strerror}); remove it, or do not wait (share_gpu)"
        ) from None
    return folder


def _lock(file: IO[str]) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows has no such locks: there, jobs share a GPU
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
