"""Fixtures for all tests."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from app import App, Server

    from fiftyone_yoloseg.engine.checkpoint import Checkpoint
    from fiftyone_yoloseg.types import SegmentationData

REPO = Path(__file__).resolve().parents[1]

# Some build machines forbid bytecode: each of the hundreds of processes that tests start would then compile torch and fiftyone anew, 9 s each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if worker_count := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    # Each worker, and each process that its tests start, takes its share of the cores: more threads than cores make a small network ten times as slow.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // worker_count)))


def unavailable(reason: str) -> None:
    """Skip a test that needs a part which is not here. With YOLOSEG_CI set every part must be here, so the test fails."""
    if os.environ.get("YOLOSEG_CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Scans are cached in a temporary folder, also those of processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("YOLOSEG_CACHE_DIR", str(folder))
        yield folder


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
    return Checkpoint(net.eval(), {0: "disc", 1: 'it\'s a "square"', 2: "star"}, imgsz=96)


@pytest.fixture(scope="session")
def fiftyone_db(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The fiftyone module, connected to a MongoDB of our own in a temporary folder."""
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    from fiftyone_yoloseg.bridge.database import ensure_database, mongod_problem, use_private_database

    if problem := mongod_problem():
        unavailable(f"no MongoDB: {problem}")
    use_private_database(tmp_path_factory.mktemp("db"))
    ensure_database()
    import fiftyone as fo

    fo.config.show_progress_bars = False
    fo.config.default_dataset_dir = str(tmp_path_factory.mktemp("fiftyone"))
    return fo


@pytest.fixture
def coco(fiftyone_db: Any, test_data: Path) -> Iterator[Any]:
    """A FiftyOne dataset of 6 real images with their COCO instances: 4 tagged train, 2 tagged val."""
    dataset = fiftyone_db.Dataset()
    for split, n in (("train", 4), ("val", 2)):
        dataset.add_dir(
            dataset_type=fiftyone_db.types.COCODetectionDataset,
            data_path=str(test_data / "coco_tiny" / f"{split}2017"),
            labels_path=str(test_data / "coco_tiny" / "annotations" / f"instances_{split}2017.json"),
            label_field="ground_truth",
            label_types="segmentations",
            tags=split,
            max_samples=n,
        )
    yield dataset
    dataset.delete()


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory, lively_checkpoint: Checkpoint) -> Path:
    """The dataset.yaml of six training and three validation images with squares of the classes of `lively_checkpoint`."""
    import cv2
    import numpy as np

    from fiftyone_yoloseg.data.dataset_yaml import write_dataset_yaml

    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 256, (60 + 10 * (i % 3), 90, 3), dtype=np.uint8)
            rows = []
            for cls in range(1 + i % 3):
                x, y, side = rng.uniform(0.05, 0.5, 3)
                rows.append(f"{cls} {x} {y} {x + side} {y} {x + side} {y + side} {x} {y + side}")
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), image)
            (root / "labels" / split / f"{i}.txt").write_text("\n".join(rows) + "\n")
    write_dataset_yaml(root / "dataset.yaml", lively_checkpoint.names, {"train": "images/train", "val": "images/val"})
    return root / "dataset.yaml"


@pytest.fixture(scope="session")
def lively_file(tmp_path_factory: pytest.TempPathFactory, lively_checkpoint: Checkpoint) -> Path:
    """`lively_checkpoint` as best.pt."""
    from fiftyone_yoloseg.engine.checkpoint import save_checkpoint

    path = tmp_path_factory.mktemp("lively") / "best.pt"
    save_checkpoint(
        path, lively_checkpoint.net, names=lively_checkpoint.names, imgsz=lively_checkpoint.imgsz, train_args={}, origin="a test"
    )
    return path


@pytest.fixture(scope="session")
def shapes_data(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    """8 training and 3 validation images."""
    from fiftyone_yoloseg.data.synthetic import write_synthetic

    return write_synthetic(tmp_path_factory.mktemp("shapes"), train=8, val=3)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums come out in one order, in this process and in one that a test starts."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tensorflow_process() -> Iterator[Callable[..., Any]]:
    """Calls a function of a test module in one process that is there for TensorFlow: it and Paddle crash each other."""
    import torch

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        yield lambda function, *arguments, **options: pool.submit(function, *arguments, **options).result()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The App's server for all browser tests of this process (tests/e2e)."""
    from app import missing_part, serving

    if problem := missing_part():
        unavailable(problem)
    with serving(tmp_path_factory.mktemp("app")) as served:
        yield served


@pytest.fixture(scope="session")
def app(server: Server) -> Iterator[App]:
    """The page of all browser tests of this process; each begins with an address of its own."""
    from app import browsing

    with browsing() as page:
        yield page
