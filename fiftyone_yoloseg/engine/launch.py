"""Starts one process a device for a training, follows them, and ends them all when one fails.

They are started clean and without the user's script, each as the leader of a process group of its own, so that its loader processes end with it and Ctrl-C
reaches only us. We keep what cannot travel: progress, requests to stop, listeners. If we die, they end themselves.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from .. import errors
from ..data.processes import context, end_group, how_it_ended, lead_a_group, reason_of, without_main
from ..errors import UserError
from .devices import select_device
from .distributed import Processes, World, lost, only_main_speaks

ours = logging.getLogger("fiftyone_yoloseg")
DONE, FAILED, LOG = "done", "failed", "log"
GRACE, MOMENT = 5.0, 0.2
"""Seconds to find out why a process has lost another one; to hear of others once a cause is known."""
FAREWELL = 10.0
"""Seconds for processes to end by themselves after their work."""

Handle = Callable[[str, Any], Any]
Task = Callable[[World, "Link", Any], Any]


class Link:
    """From a process to the one that started it."""

    def __init__(self, up: Connection, down: Connection) -> None:
        self._up, self._down, self._lock = up, down, threading.Lock()

    def tell(self, kind: str, value: Any = None) -> None:
        with self._lock:
            self._up.send((kind, value, False))

    def say(self, record: logging.LogRecord) -> None:
        """Pass a log line on. A signal handler may speak while the thread that it interrupts is sending: then the line is left out."""
        if self._lock.acquire(timeout=1):
            try:
                self._up.send((LOG, record, False))
            finally:
                self._lock.release()

    def ask(self, kind: str, value: Any = None) -> Any:
        with self._lock:
            self._up.send((kind, value, True))
            return self._down.recv()


@dataclass(frozen=True, slots=True)
class Failure:
    """kind: name of a class of UserError. lost: the process only misses another one. silent: it ended without a word."""

    rank: int
    message: str
    kind: str = "ProcessError"
    lost: bool = False
    silent: bool = False
    trace: str = ""


def error_of(found: Sequence[Failure]) -> UserError:
    """The error of the failure that the others follow from."""
    cause = next((f for f in found if f.silent), None) or next((f for f in found if not f.lost), found[0])
    ours.debug("%s", cause.trace)
    error: UserError = getattr(errors, cause.kind).__new__(getattr(errors, cause.kind), cause.message)
    return error


def launch(devices: Sequence[str], task: Task, argument: Any, handle: Handle) -> Any:
    """Run `task(world, link, argument)` in one process a device; what it returns in the first one is returned.

    task: a function of a module. handle: gets what the processes tell by their links, and answers what they ask.
    Raises the UserError of a process that failed, ProcessError for any other failure. No process is left in any case.
    """
    ranks = _Ranks(devices, task, argument)
    try:
        return ranks.follow(handle)
    finally:
        ranks.end()


class _Ranks:
    def __init__(self, devices: Sequence[str], task: Task, argument: Any) -> None:
        self.devices, self._links = devices, list[tuple[Connection, Connection, Connection]]()
        self._processes: list[BaseProcess] = []
        self._finished = False
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # here it outlives any of them
        gpu = select_device(devices[0]).type == "cuda"
        new: Any = multiprocessing.get_context("spawn") if gpu else context()  # CUDA wants processes that nothing has forked
        if new.get_start_method() == "forkserver":
            new.set_forkserver_preload(["fiftyone_yoloseg.engine.train"])  # once, not in each process
        try:
            for rank in range(len(devices)):
                (up, told), (answers, down), (alive, life) = (new.Pipe(duplex=False) for _ in range(3))
                place = (rank, tuple(devices), self._store.port, ours.getEffectiveLevel())
                process = new.Process(target=_run, args=(place, task, argument, told, answers, alive), name=f"yoloseg-{rank}")
                self._links.append((up, down, life))
                with without_main():
                    process.start()
                self._processes.append(process)
                for theirs in (told, answers, alive):
                    theirs.close()
        except BaseException:
            self.end()
            raise

    def follow(self, handle: Handle) -> Any:
        """Until all are done."""
        results: dict[int, Any] = {}
        running: dict[Connection, tuple[int, Connection]] = {up: (rank, down) for rank, (up, down, _) in enumerate(self._links)}
        while len(results) < len(self.devices):
            for up in wait(list(running)):
                assert isinstance(up, Connection)
                rank, down = running[up]
                try:
                    kind, value, asked = up.recv()
                except (EOFError, OSError):
                    del running[up]
                    if rank not in results:
                        raise self._cause(self._gone(rank), running) from None
                    continue
                if kind == DONE:
                    results[rank] = value
                elif kind == FAILED:
                    raise self._cause(value, running)
                elif kind == LOG:
                    logging.getLogger(value.name).handle(value)
                else:
                    answer = handle(kind, value)
                    if asked:
                        down.send(answer)
        self._finished = True
        return results[0]

    def _cause(self, first: Failure, running: dict[Connection, tuple[int, Connection]]) -> UserError:
        """Of all failures that come in now, the one that the others follow from."""
        found, start = [first], time.monotonic()
        while running:
            certain = any(f.silent or not f.lost for f in found)
            ready = wait(list(running), max(start + (MOMENT if certain else GRACE) - time.monotonic(), 0))
            if not ready:
                break
            for up in ready:
                assert isinstance(up, Connection)
                rank = running[up][0]
                try:
                    kind, value, _ = up.recv()
                except (EOFError, OSError):
                    del running[up]
                    if all(f.rank != rank for f in found):
                        found.append(self._gone(rank))
                else:
                    found += [value] if kind == FAILED else []
        return error_of(found)

    def _gone(self, rank: int) -> Failure:
        """A process that ended without a word."""
        process = self._processes[rank]
        process.join(FAREWELL)
        name = _name(rank, len(self.devices), self.devices[rank])
        return Failure(rank, f"{name} {how_it_ended(process.exitcode)}; the others were ended", silent=True)

    def end(self) -> None:
        """Wait for those that have done their work; end all others, with all that they started."""
        if self._finished:
            deadline = time.monotonic() + FAREWELL
            for process in self._processes:
                process.join(max(deadline - time.monotonic(), 0))
        for process in self._processes:
            if process.is_alive() or not self._finished:
                end_group(process)
        for process in self._processes:
            process.join()
        for ends in self._links:
            for end in ends:
                end.close()


def _run(
    place: tuple[int, Sequence[str], int, int], task: Task, argument: Any, up: Connection, down: Connection, alive: Connection
) -> None:
    """The life of one process."""
    rank, devices, port, level = place
    lead_a_group(alive)
    link = Link(up, down)
    ours.setLevel(level)
    ours.propagate = False
    if rank == 0:
        ours.addHandler(ToParent(link))
    mute = "ignore:resource_tracker"  # what cleans up after a killed process would print its warning below our message
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), mute]))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        store = TCPStore("127.0.0.1", port, is_master=False)
        world = Processes(select_device(devices[rank]), rank, len(devices), len(devices), store)
        with only_main_speaks(world):
            link.tell(DONE, task(world, link, argument))
        world.close()
    except BaseException as error:  # noqa: BLE001 - whatever ends this process, its parent must hear of it
        with contextlib.suppress(OSError):  # the parent is gone
            link.tell(FAILED, failure_of(rank, len(devices), devices[rank], error))
        sys.stderr.flush()
        os._exit(1)  # leaving in order could wait for the others


def failure_of(rank: int, size: int, place: str, error: BaseException) -> Failure:
    """What is left of an error on its way out of a process."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, UserError):
        return Failure(rank, str(error), type(error).__name__, trace=trace)
    return Failure(rank, f"{_name(rank, size, place)} failed: {reason_of(error)}; the others were ended", lost=lost(error), trace=trace)


def _name(rank: int, size: int, place: str) -> str:
    return f"process {rank} ({place}) of {size}"


class ToParent(logging.handlers.QueueHandler):
    def __init__(self, link: Link) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.link = link

    def enqueue(self, record: logging.LogRecord) -> None:
        self.link.say(record)
