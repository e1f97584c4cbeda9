"""What a person sees in a terminal while long work goes on: log lines, and one bar with a time estimate."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .types import ProgressFn

log = logging.getLogger("fiftyone_yoloseg")
console = Console(stderr=True)
SPEAKS = int(os.environ.get("RANK", 0)) == 0
"""Of the processes that torchrun starts, only the first speaks."""


def show_log() -> None:
    """Let our log lines through to the terminal, unless the application has set up logging of its own."""
    if SPEAKS and not log.handlers and not logging.getLogger().handlers:
        log.addHandler(
            RichHandler(console=console, show_path=False, show_level=False, log_time_format="%H:%M:%S", omit_repeated_times=False)
        )
        log.setLevel(logging.INFO)


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[ProgressFn]:
    """A bar for one piece of long work. Without a terminal only the log lines are shown."""
    show_log()
    columns = (
        TextColumn("{task.fields[title]}"),
        BarColumn(20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not (SPEAKS and console.is_terminal)) as bar:
        task = bar.add_task("", total=1.0, title=title)

        def update(share: float, label: str) -> None:
            bar.update(task, completed=share, description=label)

        yield update
