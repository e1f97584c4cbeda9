"""An export in a process of its own: toolchains crash, print, and do not stand each other in one process (TensorFlow, then Paddle).

The process is the leader of a group that is ended whatever happens, so Ctrl-C here leaves nothing behind; if we die it ends itself.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing.util
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from .. import errors
from ..data.processes import context, end_group, how_it_ended, lead_a_group, reason_of, without_main
from ..errors import ExportError, Stopped, UserError
from ..types import ProgressFn

ours = logging.getLogger("fiftyone_yoloseg")
DONE, FAILED, PROGRESS, LOG = "done", "failed", "progress", "log"
POLL = 0.2
LAST_LINES = 4
Work = Callable[..., Any]
"""work(progress, *arguments), a function of a module."""


def run_alone(
    what: str,
    folder: Path,
    work: Work,
    *arguments: Any,
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Any:
    """Do some work in a new process and return what it returns.

    what: for messages, e.g. "export to ONNX".  folder: for the temporary files of the process, and for what it prints.
    Raises the UserError of the process, ExportError with the last lines that it printed if it crashed or was killed, Stopped.
    """
    new: Any = context()
    printed = folder / "printed.txt"
    (up, told), (alive, life) = new.Pipe(duplex=False), new.Pipe(duplex=False)
    process = new.Process(
        target=_live, args=(told, alive, folder, printed, Path.cwd(), ours.getEffectiveLevel(), work, arguments), name="yoloseg-export"
    )
    with without_main():
        process.start()
    told.close()
    alive.close()
    try:
        return _follow(what, process, up, printed, progress, should_stop)
    finally:
        end_group(process)
        process.join()
        up.close()
        life.close()


def _follow(
    what: str,
    process: BaseProcess,
    up: Connection,
    printed: Path,
    progress: ProgressFn | None,
    should_stop: Callable[[], bool] | None,
) -> Any:
    while True:
        if should_stop and should_stop():
            raise Stopped(f"the {what} was stopped; nothing was written")
        if not wait([up], POLL):
            continue
        try:
            kind, *values = up.recv()
        except (EOFError, OSError):
            process.join()
            raise ExportError(f"{what}: its process {how_it_ended(process.exitcode)}{_tail(printed)}") from None
        if kind == DONE:
            return values[0]
        if kind == PROGRESS and progress:
            progress(*values)
        elif kind == LOG:
            ours.log(*values)
        elif kind == FAILED:
            name, message = values
            if name is None:
                raise ExportError(f"{what}: failed with {message}{_tail(printed)}")
            error = UserError.__new__(getattr(errors, name))
            error.args = (message,)
            raise error


def _live(
    told: Connection, alive: Connection, folder: Path, printed: Path, place: Path, level: int, work: Work, arguments: tuple[Any, ...]
) -> None:
    """The life of the process."""
    lead_a_group(alive)
    os.chdir(place)  # multiprocessing has gone to where the program was started
    tempfile.tempdir = str(folder.absolute())
    with printed.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    lock = threading.Lock()

    def tell(*message: Any) -> None:
        with lock, contextlib.suppress(OSError):  # the parent is gone
            told.send(message)

    ours.setLevel(level)
    ours.propagate = False
    ours.addHandler(_Handler(tell))
    end: tuple[Any, ...]
    try:
        end = (DONE, work(lambda share, label: tell(PROGRESS, share, label), *arguments))
    except UserError as error:
        end = (FAILED, type(error).__name__, str(error))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        tell(LOG, logging.DEBUG, "".join(traceback.format_exception(error)))
        end = (FAILED, None, reason_of(error))
    sys.stdout.flush()
    sys.stderr.flush()
    # what multiprocessing does at the end of a process: semaphores are given back (coremltools' progress bars have one), else Python complains of them
    multiprocessing.util._run_finalizers(0)  # type: ignore[attr-defined]
    tell(*end)  # at last, as the parent then ends this process
    told.close()
    os._exit(0)  # toolchains crash or hang when they are taken down in order


def _tail(printed: Path) -> str:
    """The last lines that the process printed."""
    try:
        lines = printed.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    last = [line.strip()[:300] for line in lines if line.strip()][-LAST_LINES:]
    return "; it printed last: " + " | ".join(last) if last else "; it printed nothing"


class _Handler(logging.Handler):
    """Our log lines, to the parent."""

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__()
        self.tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self.tell(LOG, record.levelno, record.getMessage())
