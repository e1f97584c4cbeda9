"""Reading the headers and labels of many images: in threads, and in processes when there is so much to read that starting them pays."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from ..errors import DataError
from .files import read_text
from .images import image_size
from .packed import PackedInstances, pack
from .places import LEFT_OUT
from .processes import LightPool, cpus, may_have_helpers
from .yolo_labels import parse_label_file

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R", covariant=True)

THREADS = 4
"""Reading is mostly Python: more threads wait for its lock more often than for a disk."""
WORTH_PROCESSES = 4000
"""Images likely to be read below which threads are done before processes have started; see benchmarks/scan.py."""
MOST_PROCESSES = 16


class Facts(NamedTuple):
    """What the objects of an image depend on: its size in pixels and the digest of its label text."""

    height: int
    width: int
    digest: bytes


class Task(NamedTuple):
    """One image to read. label: None for a background. known: what was found last time; if it is so still, no row is parsed."""

    image: str
    label: str | None
    known: Facts | None


class Reading(NamedTuple):
    """facts: None if the image cannot be used. instances: None if the facts are those that were known."""

    facts: Facts | None
    instances: PackedInstances | None
    problems: Sequence[str] = ()
    duplicates: int = 0


def read(tasks: Sequence[Task], nc: int) -> list[Reading]:
    """One reading a task, in order."""
    return [_read(*task, nc) for task in tasks]


def _read(image: str, label: str | None, known: Facts | None, nc: int) -> Reading:
    try:
        height, width = image_size(image)
    except DataError as error:
        return Reading(None, None, [str(error)])
    try:
        text = "" if label is None else read_text(Path(label))
    except DataError as error:
        return Reading(None, None, [f"{error}{LEFT_OUT}"])
    facts = Facts(height, width, hashlib.blake2b(text.encode(), digest_size=16).digest())
    if facts == known:
        return Reading(facts, None)
    if label is None:
        return Reading(facts, pack(()))
    labels = parse_label_file(label, text, height, width, nc)
    return Reading(facts, pack(labels.records), labels.problems, labels.duplicates)


class Readers:
    """Threads, and processes once they are worth it and have started. Use it as a context; leaving it drops what is not begun."""

    def __init__(self, nc: int) -> None:
        self.nc, self._sent = nc, 0
        self._threads = ThreadPoolExecutor(THREADS)
        self._processes: LightPool | None = None
        self._may_start = may_have_helpers()

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        if self._processes is not None:
            self._processes.close(failed=error is not None)

    def submit(self, tasks: Sequence[Task], before: int, left: int) -> Future[list[Reading]]:
        """before, left: images that came before these and that come after them. The share of those that were to be read may go on."""
        if self._may_start and self._sent * left >= WORTH_PROCESSES * max(before, 1):
            self._may_start = False
            self._processes = LightPool.start(min(cpus(), MOST_PROCESSES), "to read labels", "in threads")
        self._sent += len(tasks)
        if self._processes is not None and self._processes.ready:
            return self._processes.submit(read, tasks, self.nc)
        return self._threads.submit(read, tasks, self.nc)


class Pending(Protocol[R]):
    """A future, or what looks like one."""

    def result(self) -> R: ...


def ahead(start: Callable[[T], Pending[R]], items: Iterable[T], depth: int) -> Iterator[R]:
    """The results in order, `depth` of them begun before they are asked for."""
    begun: deque[Pending[R]] = deque()
    for item in items:
        begun.append(start(item))
        if len(begun) > depth:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
