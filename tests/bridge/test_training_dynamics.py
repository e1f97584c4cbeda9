"""Training dynamics on a dataset in MongoDB: a wrongly labelled object is among the hardest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg.errors import DataError, UserError  # noqa: E402


@pytest.fixture(scope="module")
def trained(fiftyone_db: Any, test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """14 images of shapes, on which a network that knows them trains on for three epochs, and a label that was made wrong; its id."""
    dataset = fy.import_labels(test_data / "shapes" / "data.yaml", "shapes for dynamics")
    kept = {*dataset.match_tags("train").limit(14).values("id"), *dataset.match_tags("val").limit(2).values("id")}
    dataset.delete_samples([i for i in dataset.values("id") if i not in kept])
    classes = sorted(dataset.distinct("ground_truth.detections.label"))
    sample = max(dataset.match_tags("train"), key=lambda s: max(d.bounding_box[2] * d.bounding_box[3] for d in s.ground_truth.detections))
    wrong = max(sample.ground_truth.detections, key=lambda d: d.bounding_box[2] * d.bounding_box[3])
    wrong.label = next(name for name in classes if name != wrong.label)
    sample.save()
    folder = tmp_path_factory.mktemp("runs")
    settings = {"epochs": 3, "imgsz": 192, "batch": 8, "workers": 0, "device": "cpu", "plots": False, "mosaic": 0.0, "lr0": 1e-5}
    fy.train(
        dataset, str(test_data / "peer" / "yolov8n-seg-shapes.pt"), val="tags", project=folder, optimizer="SGD", dynamics=1, **settings
    )  # fmt: skip
    yield dataset, wrong.id
    dataset.delete()


def test_a_wrong_label_is_among_the_hardest_and_never_learnt(trained: tuple[Any, str]) -> None:
    dataset, wrong = trained
    report = fy.training_dynamics(dataset, limit=5)
    labels = {d.id: d for s in dataset for d in s.ground_truth.detections}
    observed = {i: d for i, d in labels.items() if d.get_attribute_value("dynamics", None)}
    assert report.epochs == [1, 2, 3] and sum(report.counts.values()) == len(observed) == len(
        dataset.match_tags("train").values("ground_truth.detections.id", unwind=True)
    )
    assert labels[wrong].dynamics == "never learnt" and labels[wrong].dynamics_iou < 0.1 and labels[wrong].dynamics_forgotten == 0
    sound = [d.dynamics_iou for i, d in observed.items() if i != wrong]
    assert sorted(sound)[len(sound) // 2] > 0.6, "the others are known"
    hardest = dataset.load_saved_view(report.views["hardest"])
    shown = hardest.values("ground_truth.detections.id", unwind=True)
    assert wrong in shown and len(shown) == 5
    never = dataset.load_saved_view(report.views["never learnt"]).values("ground_truth.detections.id", unwind=True)
    assert wrong in never and len(never) == report.counts["never learnt"]
    assert "training objects in 3 epochs" in report.summary()
    again = fy.training_dynamics(dataset, Path(fy_run(dataset)["dir"]), limit=2)
    assert (
        again.counts == report.counts
        and len(dataset.load_saved_view(again.views["hardest"]).values("ground_truth.detections.id", unwind=True)) == 2
    )


def test_what_does_not_go(trained: tuple[Any, str]) -> None:
    dataset, _ = trained
    with pytest.raises(DataError, match=r"run='other': no such training .* is remembered here: 'train'"):
        fy.training_dynamics(dataset, "other")
    with pytest.raises(DataError, match="none of its training samples is in this view"):
        fy.training_dynamics(dataset.match_tags("val"))
    with pytest.raises(UserError, match="key='label'"):
        fy.training_dynamics(dataset, key="label")


def fy_run(dataset: Any) -> dict[str, Any]:
    from fiftyone_yoloseg.bridge import runs

    return runs.recall(dataset, "train")[0]
