"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fiftyone_yoloseg.engine.checkpoint import Checkpoint

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The shared data sets (shapes, coco_tiny, peer); tests that need them are skipped where they are absent."""
    folder = Path(os.environ.get("YOLOSEG_TEST_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set YOLOSEG_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def lively_checkpoint() -> Checkpoint:
    """An untrained network of size n whose outputs vary as those of a trained one: a fresh one answers nearly the same everywhere."""
    import torch

    from fiftyone_yoloseg.engine.checkpoint import Checkpoint
    from fiftyone_yoloseg.nn.model import YOLOv8Seg

    torch.manual_seed(0)
    net = YOLOv8Seg(3, "n").train()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.3
                module.weight.uniform_(0.8, 1.6)
                module.bias.uniform_(-0.3, 0.3)
        for tower in net.head.cv3:
            tower[2].bias.zero_()
            tower[2].weight.mul_(6)
        for _ in range(8):
            net(torch.rand(2, 3, 96, 96))
    return Checkpoint(net.eval(), {0: "disc", 1: "it's a \"square\"", 2: "star"}, imgsz=96)
