"""Training dynamics: numbers computed by hand, and the record of a run that is stopped and goes on, on one process and on two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_runs import At, fresh, options
from test_metrics import LARGE, MEDIUM, SMALL, image, predictions, rectangle

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.engine.checkpoint import load_checkpoint
from fiftyone_yoloseg.engine.dynamics import FILE, Dynamics, how_well, read_dynamics
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.errors import DataError
from fiftyone_yoloseg.types import SegmentationData

A, B = 0, 1


def test_only_predictions_of_the_same_class_count_and_only_sure_ones_for_the_mask() -> None:
    half = rectangle(0, 0, 10, 5)
    record = image((A, rectangle(0, 0, 10, 10)), (B, MEDIUM), (A, SMALL), (B, LARGE), crowds=((B, LARGE),))
    found = predictions((A, half, 0.9), (A, rectangle(0, 0, 10, 10), 0.2), (A, MEDIUM, 0.9), (B, LARGE, 0.25))
    iou, confidence = how_well(record, found)
    assert iou.tolist() == [0.5, 0, 0.125, 1], "the whole one is not sure enough; the medium one is of another class; the crowd is left out"
    assert confidence.tolist() == pytest.approx([0.9, 0, 0, 0.25])
    assert how_well(record, predictions()).tolist() == [[0] * 4] * 2 and how_well(image(), found).shape == (2, 0)


def test_what_is_learnt_and_forgotten() -> None:
    iou = np.array([[0.9, 0.5, 0.1, 0.6], [0.9, 0.4, 0.2, 0.1], [0.9, 0.6, 0.3, 0.1], [0.9, 0.1, 0.4, 0.1]], np.float32)
    seen = Dynamics(np.array([2, 4, 6, 7]), np.array(["i"]), np.zeros(4, int), np.arange(4), np.array([""] * 4), iou, iou)
    assert seen.forgotten.tolist() == [0, 2, 0, 1] and seen.learnt.tolist() == [2, 2, 0, 2]


def test_a_run_records_its_training_objects_and_goes_on(shapes_data: SegmentationData, tmp_path: Path, one_thread: None) -> None:
    plan = {"dynamics": 2, "epochs": 5}
    stopped = train(fresh(shapes_data), shapes_data, options(tmp_path, **plan), **At(4, 1).stop)
    before = read_dynamics(stopped.dir)
    ended = train(load_checkpoint(stopped.last), shapes_data, TrainSettings(resume=True, device="cpu"))
    seen, records = read_dynamics(ended.dir), shapes_data.splits["train"]
    assert before.epochs.tolist() == [2] and seen.epochs.tolist() == [2, 4, 5]
    assert np.array_equal(seen.iou[0], before.iou[0]) and seen.iou.shape == (3, sum(len(r.instances) for r in records))
    assert seen.images.tolist() == [str(r.path.absolute()) for r in records]
    assert list(zip(seen.image.tolist(), seen.index.tolist(), strict=True)) == [
        (i, n) for i, r in enumerate(records) for n in range(len(r.instances))
    ]
    both = train(fresh(shapes_data), shapes_data, options(tmp_path, device="cpu,cpu", dynamics=1, epochs=1))
    assert read_dynamics(both.dir).iou.shape == (1, len(seen.image))


def test_a_record_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train with dynamics=1"):
        read_dynamics(tmp_path)
    for content in (b"", b"PK\x03\x04 not whole", b"x" * 100):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(DataError, match=r"dynamics\.npz: is damaged"):
            read_dynamics(tmp_path)
    np.savez(tmp_path / FILE, **{name: np.zeros(3) for name in Dynamics.__slots__})
    with pytest.raises(DataError, match="its tables have"):
        read_dynamics(tmp_path)
