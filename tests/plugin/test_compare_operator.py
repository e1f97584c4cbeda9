"""The operator that compares two models, without a browser."""

from __future__ import annotations

from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

from fiftyone.operators.executor import ExecutionContext, Executor  # noqa: E402

from fiftyone_yoloseg.plugin.compare_operator import Compare  # noqa: E402


def context(dataset: Any, **params: Any) -> Any:
    request = {"dataset_name": dataset.name, "params": params}
    return ExecutionContext(request_params=request, executor=Executor(), operator_uri="@yoloseg/fiftyone/compare")


def problems(dataset: Any, **params: Any) -> dict[str, str]:
    fields = Compare().resolve_input(context(dataset, **params)).to_json()["type"]["properties"]
    return {name: field["error_message"] for name, field in fields.items() if field["invalid"]}


@pytest.fixture
def predicted(coco: Any) -> Any:
    """Two fields of predictions: `a` has everything, `b` has lost the first object of each image."""
    for name in ("a", "b"):
        coco.clone_sample_field("ground_truth", name)
        ids = coco.values(f"{name}.detections.id")
        coco.set_values(f"{name}.detections.confidence", [[0.5] * len(x or ()) for x in ids])
    coco.set_values("b.detections", [(x or [])[1:] for x in coco.values("b.detections")])
    return coco


def test_it_runs_and_saves_views(predicted: Any) -> None:
    result = Compare().execute(context(predicted, first="a", second="b", key="ab"))
    assert 0 < result["objects"]["broken"] <= len(predicted) and result["objects"]["fixed"] == 0 < result["objects"]["right"]
    assert result["masks"]["second"] < result["masks"]["first"] == pytest.approx(1) and "mask mAP" in result["summary"]
    assert result["views"] == {"broken": "ab: broken", "right": "ab: right"}
    assert set(predicted.list_saved_views()) == set(result["views"].values())


@pytest.mark.parametrize(
    ("params", "field", "message"),
    [
        ({"second": "a", "first": "a"}, "second", "three different fields"),
        ({"first": "ground_truth"}, "first", "three different fields"),
        ({"gt_field": "nope"}, "gt_field", "no field 'nope'"),
        ({"iou": 0}, "iou", "above 0 and at most 1"),
        ({"key": "a b"}, "key", "letters, digits and underscores"),
        ({"frst": "a"}, "unknown_frst", "did you mean 'first'"),
    ],
)
def test_refusals(predicted: Any, params: dict[str, Any], field: str, message: str) -> None:
    assert message in problems(predicted, **params)[field]


def test_what_the_form_suggests(predicted: Any) -> None:
    assert problems(predicted) == {}
    fields = Compare().resolve_input(context(predicted)).to_json()["type"]["properties"]
    assert [fields[name]["default"] for name in ("gt_field", "first", "second", "iou", "key")] == ["ground_truth", "a", "b", 0.5, "compare"]


def test_one_model_is_too_few(coco: Any) -> None:
    assert "predict with both models first" in problems(coco)["problem"]
