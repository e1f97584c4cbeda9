"""Requests to stop a training: by signal, by a file in the run folder, or by the caller's own function.

Ctrl-C (SIGINT) once or SIGTERM: the batch is finished, everything is saved, the run can go on later. Ctrl-C twice: the end at once.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import Stopped

log = logging.getLogger(__name__)
STOP_FILE = "stop"


class StopRequests:
    """`with StopRequests(...) as stop`: signals are caught inside the block, in the main thread; `stop()` tells whether to stop.

    folder: where the file may appear; None: nowhere. asked: the caller's function; it may answer with the reason.
    common: with several processes, turns the answer of this one into that of all.
    """

    def __init__(self, folder: Path | None, asked: Callable[[], bool | str], common: Callable[[bool], bool] = bool) -> None:
        self.file, self.asked, self.common = folder / STOP_FILE if folder else None, asked, common
        self.reason: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        if self.file:
            self.file.unlink(missing_ok=True)  # a request to an earlier session
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def __call__(self) -> bool:
        if self.reason is None:
            if self.file and self.file.exists():
                self.file.unlink(missing_ok=True)
                self.reason = f"the file {self.file}"
            elif asked := self.asked():
                self.reason = asked if isinstance(asked, str) else "request"
        stop = self.common(self.reason is not None)
        if stop and self.reason is None:
            self.reason = "request to another process"
        return stop

    def check(self, share: float = 0.0, label: str = "") -> None:
        """Usable as a progress function. Raises Stopped."""
        if self():
            raise Stopped("stopped")

    def _receive(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGINT and self.reason == name:
            raise KeyboardInterrupt
        self.reason = name
        log.info("%s: finishing this batch, then saving%s", name, "; once more ends at once" if number == signal.SIGINT else "")
