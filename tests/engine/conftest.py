"""Fixtures of the tests of training."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fiftyone_yoloseg.data.synthetic import write_synthetic
from fiftyone_yoloseg.types import SegmentationData


@pytest.fixture(scope="session")
def shapes_data(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    """8 training and 3 validation images."""
    return write_synthetic(tmp_path_factory.mktemp("shapes"), train=8, val=3)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums come out in one order, in this process and in one that a test starts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
