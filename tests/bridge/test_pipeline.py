"""Work ahead of its consumer: order, bounds, errors, leaving early."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from fiftyone_yoloseg.bridge.pipeline import ahead


def test_results_come_in_order_and_no_more_than_depth_are_ahead() -> None:
    drawn, ready = 0, threading.Event()

    def items() -> Iterator[int]:
        nonlocal drawn
        for i in range(20):
            drawn += 1
            yield i

    def work(i: int) -> int:
        if i == 0:
            ready.wait(10)  # the first is the last to be done
        else:
            ready.set()
        return i * i

    out = []
    for result in ahead(items(), work, depth=3, threads=2):
        out.append(result)
        assert drawn <= len(out) + 3
    assert out == [i * i for i in range(20)]
    assert list(ahead([], work)) == []


def test_stages_overlap() -> None:
    """Each of two stages waits for the other to have begun its next item: one after the other they would wait for ever."""
    second_began = threading.Event()

    def first(i: int) -> int:
        assert i < 2 or second_began.wait(10)
        return i

    def second(i: int) -> int:
        second_began.set()
        return i

    assert list(ahead(ahead(range(5), first), second)) == [0, 1, 2, 3, 4]


def test_an_error_comes_where_its_result_would_have_come() -> None:
    seen = []
    with pytest.raises(ZeroDivisionError):
        for result in ahead([1, 2, 0, 4], lambda i: 1 / i, depth=3):
            seen.append(result)
    assert seen == [1, 0.5]


def test_who_leaves_early_leaves_no_threads() -> None:
    before = threading.active_count()
    done = []
    for _ in ahead(ahead(range(1000), lambda i: i, threads=4, depth=8), done.append):
        break
    assert threading.active_count() == before and len(done) < 10
