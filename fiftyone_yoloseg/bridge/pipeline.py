"""Stages of long work that overlap, in threads, with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(items: Iterable[T], work: Callable[[T], R], *, depth: int = 2, threads: int = 1) -> Iterator[R]:
    """`map(work, items)` in order, done in `threads` threads while the caller is busy with earlier results.

    At most depth + 1 items are under way or done and not yet taken; `items` is drawn from in the caller's thread, so that stages can be put one after the
    other. An error of `work` comes where its result would have come. When the caller leaves, what has not been started is dropped, and what has is waited for.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
