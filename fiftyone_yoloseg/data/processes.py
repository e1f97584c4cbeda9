"""Processes of our own, for work that Python's lock would queue up.

They are started clean, never forked from ours: a fork of a process whose OpenCV, database or OpenMP threads are
running can hang for ever (seen). The user's script is not imported into them, so it needs no `__main__` guard.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import cv2

from ..errors import DataError

log = logging.getLogger(__name__)
T = TypeVar("T")
K = TypeVar("K")
A = TypeVar("A")
_MOST = 8
PRELOADED = "fiftyone_yoloseg.data.loaders"
"""Imported by the server once, with torch, not once a process. There is one server for all that we start."""


class LightPool:
    """Processes for work that needs no torch: spawned, which takes them a fraction of a second.

    first: the id of one of them, done as soon as it has started: until then, work is done sooner here.
    """

    def __init__(self, number: int) -> None:
        self._before = set(multiprocessing.active_children())
        self._pool = ProcessPoolExecutor(number, multiprocessing.get_context("spawn"), one_thread)
        self.first: Future[int] = self._begin(os.getpid)

    @classmethod
    def start(cls, number: int, what: str, otherwise: str) -> LightPool | None:
        """None, with a warning, where no process can be started. what, otherwise: for it: "to read labels", "in threads"."""
        try:
            return cls(number)
        except OSError as error:
            log.warning("No process can be started %s (%s): it goes on %s, more slowly", what, error, otherwise)
            return None

    @property
    def ready(self) -> bool:
        return self.first.done()

    def submit(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        """Have a process do it. If one was killed, or no further one can be started, the result is BrokenProcessPool."""
        try:
            return self._begin(function, *arguments)
        # a pool that breaks while it starts another process closes the pipes under it: any of these (seen)
        except (BrokenProcessPool, OSError, ValueError) as error:
            broken: Future[T] = Future()
            broken.set_exception(BrokenProcessPool(str(error)))
            return broken

    def _begin(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        with without_main():
            return self._pool.submit(function, *arguments)

    def close(self, *, failed: bool) -> None:
        """Drop what is not begun and wait for the processes to end; after a failure end them, for a broken pool can wait for ever (seen)."""
        if failed:
            for process in set(multiprocessing.active_children()) - self._before:
                process.kill()
        self._pool.shutdown(wait=not failed, cancel_futures=True)


class Workers:
    """Does chunks of work in order: in this process, and beside it in others as soon as they have started. Use it as a context.

    what: for a message, as "converted samples".  worth: whether there is enough to do for others.
    """

    def __init__(self, what: str, *, worth: bool) -> None:
        self.what, self._helpers = what, min(cpus() - 1, _MOST)
        self._processes = LightPool.start(self._helpers, "to help", "in this one") if worth and may_have_helpers() else None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if self._processes is not None:
            self._processes.close(failed=error is not None)

    def each(self, function: Callable[[A], T], chunks: Iterable[tuple[K, A]]) -> Iterator[tuple[K, T]]:
        """(what is kept of a chunk here, its result), in order. Function and chunks travel to processes that have not imported anything.

        Raises DataError if a process was killed.
        """
        begun: deque[tuple[K, Future[T]]] = deque()
        for kept, chunk in chunks:
            begun.append((kept, self._begin(function, chunk, sum(not future.done() for _, future in begun))))
            while begun and (begun[0][1].done() or len(begun) > 4 * _MOST):
                kept, future = begun.popleft()
                yield kept, self._result(future)
        while begun:
            kept, future = begun.popleft()
            yield kept, self._result(future)

    def _begin(self, function: Callable[[A], T], chunk: A, waiting: int) -> Future[T]:
        """In a helper, or done here while each of them has its next chunk already."""
        if self._processes is not None and self._processes.ready and waiting < 2 * self._helpers:
            return self._processes.submit(function, chunk)
        done: Future[T] = Future()
        done.set_result(function(chunk))
        return done

    def _result(self, future: Future[T]) -> T:
        try:
            return future.result()
        except BrokenProcessPool:
            raise DataError(f"a process that {self.what} was killed, most likely for want of memory: nothing was written") from None


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


def end_with_parent(alive: Connection) -> None:
    """For a thread of a process that must not outlive the one that started it: ends the process, and the group that it leads.

    Nothing is ever sent through `alive`: reading ends when the other side is gone.
    """
    with contextlib.suppress(EOFError, OSError):
        alive.recv()
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def lead_a_group(alive: Connection) -> None:
    """At the start of a process: it leads a group, which `end_group` ends with it, and does not outlive the one that started it."""
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=end_with_parent, args=(alive,), daemon=True).start()


def end_group(process: BaseProcess) -> None:
    """End a process at once, with all that it started; `join` it afterwards."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has no group yet, or is gone
        if process.pid and hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def how_it_ended(code: int | None) -> str:
    """For a message, by the exit code: "was killed by SIGKILL", ..."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    how = f"was killed by {signal.Signals(-code).name}"
    return how + (" (by hand, or because the memory was used up)" if -code == signal.SIGKILL else "")


def reason_of(error: BaseException) -> str:
    """Of an error that is no user's: its kind, the first line of what it says, and where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {said} ({Path(last.filename).name}:{last.lineno})"


def one_thread(*_: object) -> None:
    """Processes run side by side: one OpenCV thread each."""
    cv2.setNumThreads(1)


def may_have_helpers() -> bool:
    """Whether other processes could do anything beside this one, and this one may start them: daemons may not."""
    return cpus() > 1 and not multiprocessing.current_process().daemon


def cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
