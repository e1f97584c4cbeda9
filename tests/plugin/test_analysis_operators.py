"""The operators of error analysis as FiftyOne runs them, without a browser: metrics of an evaluation, kinds of errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

fo = pytest.importorskip("fiftyone")

import fiftyone.operators as foo  # noqa: E402
from fiftyone.operators.executor import ExecutionContext, ExecutionError, Executor  # noqa: E402
from fiftyone.plugins.context import PluginContext  # noqa: E402
from fiftyone.plugins.definitions import PluginDefinition  # noqa: E402

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg.bridge.labels import to_detection  # noqa: E402
from fiftyone_yoloseg.geometry import masks  # noqa: E402
from fiftyone_yoloseg.plugin.metrics import METRICS  # noqa: E402

REPO = Path(__file__).resolve().parents[2]
URI = "@yoloseg/fiftyone/"
SIZE = 100


def thing(name: str, x: int, y: int, w: int, h: int, **attributes: Any) -> Any:
    return to_detection(masks.from_bitmap(np.ones((h, w)), x, y), name, SIZE, SIZE, **attributes)


@pytest.fixture
def dataset(fiftyone_db: Any, tmp_path: Path) -> Iterator[Any]:
    """Two cats, one of them found at IoU 0.5; a wrong cat, and a dog where there is none."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "yoloseg").symlink_to(REPO)
    before, fo.config.plugins_dir = fo.config.plugins_dir, str(tmp_path / "plugins")
    made = fo.Dataset()
    sample = fo.Sample(str(tmp_path / "none.png"), metadata=fo.ImageMetadata(width=SIZE, height=SIZE))
    sample["ground_truth"] = fo.Detections(detections=[thing("cat", 0, 0, 20, 20), thing("cat", 60, 60, 20, 20)])
    found = [
        thing("cat", 0, 0, 20, 10, confidence=0.9),
        thing("cat", 0, 80, 10, 10, confidence=0.6),
        thing("dog", 40, 0, 9, 9, confidence=0.7),
    ]
    sample["predictions"] = fo.Detections(detections=found)
    made.add_sample(sample)
    yield made
    made.delete()
    fo.config.plugins_dir = before


@pytest.mark.parametrize("method", ["yoloseg-coco", "coco"])
def test_metrics_that_an_evaluation_can_have(dataset: Any, method: str) -> None:
    """With our method and with FiftyOne's own, by hand: cats 1 TP, 1 FP, 1 FN at IoU 0.5; dogs 1 FP."""
    fy.register_evaluation()
    chosen = {URI + metric.name: None for metric in METRICS}
    chosen[URI + "calibration_error"] = {"bins": 5}
    results = dataset.evaluate_detections(
        "predictions", gt_field="ground_truth", eval_key="eval", method=method, use_masks=True, custom_metrics=chosen, progress=False
    )
    metrics = results.metrics()
    # PQ: cat 0.5 / (1 + 0.5 + 0.5), dog 0.  ECE: 0.9 right, 0.7 and 0.6 wrong, the latter two in the bins (0.6, 0.8] and (0.4, 0.6]
    expected = {"PQ": 0.125, "SQ": 0.25, "RQ": 0.25, "ECE": (0.1 + 0.7 + 0.6) / 3, "best_confidence": 0.9, "best_f1": 2 / 3}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    dataset._evaluation_cache.clear()
    stored = dataset.load_evaluation_results("eval").custom_metrics
    assert {uri: (m["label"], m["lower_is_better"]) for uri, m in stored.items()} == {
        URI + metric.name: (metric.label, metric.lower_is_better) for metric in METRICS
    }
    results.add_custom_metrics({URI + "best_f1": {"class_name": "cat"}})
    assert results.metrics()["best_f1"] == pytest.approx(2 / 3)
    context = PluginContext(PluginDefinition.from_disk(str(Path(fo.__file__).parents[1] / "plugins" / "panels" / "fiftyone.yml")))
    context.register_all()
    panel = next(i for i in context.instances if i.config.name == "model_evaluation_panel_builtin")
    request = {"dataset_name": dataset.name, "params": {"panel_id": "p", "panel_state": {}, "key": "eval"}}
    data = panel.get_evaluation_data(ExecutionContext(request_params=request, executor=Executor()))
    assert data["custom_metrics"][URI + "panoptic_quality"]["value"] == pytest.approx(0.125)


def test_a_metric_without_confidences_is_left_out(dataset: Any, caplog: pytest.LogCaptureFixture) -> None:
    dataset.set_values("predictions.detections.confidence", [[None] * 3])
    chosen = [URI + "best_confidence", URI + "panoptic_quality"]
    results = dataset.evaluate_detections("predictions", gt_field="ground_truth", use_masks=True, custom_metrics=chosen, progress=False)
    assert set(results.custom_metrics) == {URI + "panoptic_quality"} and "have no confidence" in caplog.text


def test_evaluate_with_more_metrics_and_boundaries(dataset: Any) -> None:
    result = foo.execute_operator(URI + "evaluate", dataset=dataset, params={"quality": True, "iou_type": "boundary"}).result
    assert set(dataset.load_evaluation_results("eval").custom_metrics) == {URI + metric.name for metric in METRICS}
    assert "boundary" in result["coco"] and "boundary mAP" in result["summary"]


def test_kinds_of_errors(dataset: Any, tmp_path: Path) -> None:
    page = tmp_path / "errors.html"
    result = foo.execute_operator(URI + "error_types", dataset=dataset, params={"report": str(page), "key": "why"}).result
    assert result["views"] == {"background": "why: background", "missed": "why: missed"} and result["counts"]["background"] == 2
    assert dataset.list_saved_views() == list(result["views"].values()) and page.is_file() and str(page) in result["summary"]
    assert "| background | 2 |" in result["summary"]
    operator = foo.get_operator(URI + "error_types")
    shown = operator._output(result).to_json()["type"]["properties"]
    buttons = [p for row in shown.values() for p in row["type"].get("properties", {}).values()]
    assert [b["view"]["params"] for b in buttons] == [{"name": name} for name in result["views"].values()]
    for params, message in (
        ({"report": "errors.html"}, "give the full path"),
        ({"report": str(tmp_path / "errors.txt")}, "give the name of an .html file"),
        ({"key": "label"}, "that is not ours"),
        ({"pred_field": "ground_truth"}, "these are the ground truth"),
    ):
        with pytest.raises(ExecutionError, match=message):
            foo.execute_operator(URI + "error_types", dataset=dataset, params=params)
