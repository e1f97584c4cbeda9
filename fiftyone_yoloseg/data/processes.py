"""Processes of our own, for work that Python's lock would queue up.

They are started clean, never forked from ours: a fork of a process whose OpenCV, database or OpenMP threads are
running can hang for ever (seen). The user's script is not imported into them, so it needs no `__main__` guard.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

import cv2

T = TypeVar("T")
PRELOADED = "fiftyone_yoloseg.data.loaders"
"""Imported by the server once, with torch, not once a process. There is one server for all that we start."""


class LightPool:
    """Processes for work that needs no torch: spawned, which takes them a fraction of a second."""

    def __init__(self, most: int) -> None:
        self._before = set(multiprocessing.active_children())
        self._pool = ProcessPoolExecutor(min(cpus(), most), multiprocessing.get_context("spawn"), one_thread)

    def submit(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        """Have a process do it. If one was killed, the result is BrokenProcessPool."""
        try:
            with without_main():
                return self._pool.submit(function, *arguments)
        except BrokenProcessPool as error:
            broken: Future[T] = Future()
            broken.set_exception(error)
            return broken

    def close(self, *, failed: bool) -> None:
        """Drop what is not begun and wait for the processes to end; after a failure end them, for a broken pool can wait for ever (seen)."""
        if failed:
            for process in set(multiprocessing.active_children()) - self._before:
                process.kill()
        self._pool.shutdown(wait=not failed, cancel_futures=True)


def context() -> BaseContext:
    """How to start a process that needs torch; do it inside `without_main`."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    started = multiprocessing.get_context(method)
    if method == "forkserver":
        started.set_forkserver_preload([PRELOADED])
    return started


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Processes started meanwhile do not import the user's script."""
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__spec__ = None  # multiprocessing reads it
    try:
        yield
    finally:
        del main.__spec__
        main.__dict__.update(hidden)


def one_thread(*_: object) -> None:
    """Processes run side by side: one OpenCV thread each."""
    cv2.setNumThreads(1)


def cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
