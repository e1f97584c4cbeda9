"""Chunks of work in this process and in others."""

from __future__ import annotations

import os
import time

import pytest

from fiftyone_yoloseg.data import processes
from fiftyone_yoloseg.data.processes import Workers


def _slowly(chunk: int) -> tuple[int, int]:
    time.sleep(0.05)
    return chunk, os.getpid()


@pytest.mark.skipif(processes.cpus() < 2, reason="one processor: nobody could help")
def test_this_process_works_beside_its_helpers_and_results_come_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_MOST", 1)
    with Workers("tested chunks", worth=True) as workers:
        assert workers._processes is not None
        helper = workers._processes.first.result()
        done = list(workers.each(_slowly, ((str(i), i) for i in range(12))))
    assert [(kept, chunk) for kept, (chunk, _) in done] == [(str(i), i) for i in range(12)]
    by = [pid for _, (_, pid) in done]
    assert set(by) == {os.getpid(), helper} and by[0] == helper, "this one takes what the helper has no room for"


def test_without_enough_to_do_this_process_works_alone() -> None:
    with Workers("tested chunks", worth=False) as workers:
        assert {pid for _, (_, pid) in workers.each(_slowly, ((i, i) for i in range(3)))} == {os.getpid()}
