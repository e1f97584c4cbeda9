"""An export in a process of its own: toolchains crash, print, and do not stand each other in one process (TensorFlow, then Paddle).

The process is the leader of a group that is ended whatever happens, so Ctrl-C here leaves nothing behind; if we die it ends itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
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
from ..data.processes import context, end_with_parent, without_main
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
        _end(process)
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
            raise ExportError(f"{what}: {_how(process.exitcode)}{_tail(printed)}") from None
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
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=end_with_parent, args=(alive,), daemon=True).start()
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
    try:
        tell(DONE, work(lambda share, label: tell(PROGRESS, share, label), *arguments))
    except UserError as error:
        tell(FAILED, type(error).__name__, str(error))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        tell(LOG, logging.DEBUG, "".join(traceback.format_exception(error)))
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        tell(FAILED, None, f"{type(error).__name__}: {reason} ({Path(last.filename).name}:{last.lineno})")
    sys.stdout.flush()
    sys.stderr.flush()
    told.close()
    os._exit(0)  # toolchains crash or hang when they are taken down in order


def _end(process: BaseProcess) -> None:
    """End it, with all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has no group yet, or is gone
        if process.pid and hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        how = f"its process was killed by {signal.Signals(-code).name}"
        return how + (" (by hand, or because the memory was used up)" if -code == signal.SIGKILL else "")
    return f"its process ended with exit code {code}"


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
