"""The operators of the labeling loop, without a browser."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

from fiftyone.operators.executor import ExecutionContext, Executor  # noqa: E402

from fiftyone_yoloseg.bridge import jobs  # noqa: E402
from fiftyone_yoloseg.errors import UserError  # noqa: E402
from fiftyone_yoloseg.plugin.base import JobOperator  # noqa: E402
from fiftyone_yoloseg.plugin.review_operators import Review, SelectToLabel  # noqa: E402

sys.path.append(str(Path(__file__).resolve().parents[1] / "bridge"))
from review_data import drawn, make_dataset, propose, raw  # noqa: E402

A, B = (5, 5, 10, 10), (30, 5, 10, 10)


@pytest.fixture
def dataset(fiftyone_db: Any, tmp_path: Path) -> Iterator[Any]:
    made = make_dataset(fiftyone_db, tmp_path, 2)
    yield made
    made.delete()


def context(operator: JobOperator, dataset: Any, request: dict[str, Any] | None = None, **params: Any) -> ExecutionContext:
    return ExecutionContext(
        request_params={"dataset_name": dataset.name, "params": params, **(request or {})}, executor=Executor(), operator_uri=operator.name
    )


def problems(operator: JobOperator, dataset: Any, **params: Any) -> dict[str, str]:
    fields = operator.resolve_input(context(operator, dataset, **params)).to_json()["type"]["properties"]
    return {name: field["error_message"] for name, field in fields.items() if field["invalid"]}


def run(operator: JobOperator, dataset: Any, request: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    result = operator.execute(context(operator, dataset, request, **params))
    assert isinstance(result, dict)
    return result


def test_the_whole_loop(dataset: Any, lively_file: Path) -> None:
    operator, first = Review(), dataset.first().id
    model = {"model": "file", "model_path": str(lively_file)}
    done = run(operator, dataset, action="prelabel", **model, conf=0, max_det=3, imgsz="64", device="cpu")
    assert done["samples"] == 2 and done["objects"] == dataset.count("review.detections") > 1 and "proposed" in done["summary"]
    assert run(operator, dataset, action="status")["waiting"] == 2
    assert run(operator, dataset, action="edit")["view_name"] in dataset.list_saved_views()
    assert run(operator, dataset, action="mark")["origins"]["model"] == done["objects"]
    chosen = raw(dataset, first, "review")[0]["_id"]
    selected = {"selected_labels": [{"label_id": str(chosen), "sample_id": first, "field": "review"}]}
    accepted = run(operator, dataset, selected, action="accept")
    assert accepted["moved"] == [str(chosen)] and raw(dataset, first, "ground_truth")[0]["_id"] == chosen
    rejected = run(operator, dataset, action="reject")
    assert len(rejected["moved"]) == done["objects"] - 1 and dataset.count("review.detections") == 0
    assert "0 objects moved" in run(operator, dataset, action="accept")["summary"]


def test_confidence_target_and_conflicts(dataset: Any) -> None:
    operator, (one, two) = Review(), dataset.values("id")
    high, low = propose(dataset, one, {A: 0.9, B: 0.3})
    (other,) = propose(dataset, two, {A: 0.9})
    target = {"view_target": "CUSTOM_VIEW_TARGET"}
    accepted = run(operator, dataset, target, action="accept", min_confidence=0.5, custom_view_target=dataset.select(one)._serialize())
    assert accepted["moved"] == [high]
    sample = dataset[two]
    sample["ground_truth"] = fo.Detections(detections=[drawn(A)])
    sample.save()
    rest = run(operator, dataset, action="accept")
    assert rest["moved"] == [low] and [c["label"] for c in rest["conflicts"]] == [other] and "left as they are" in rest["summary"]


@pytest.mark.parametrize(
    ("params", "field", "message"),
    [
        ({"action": "explode"}, "action", "choose one of"),
        ({"action": "accept", "field": "nope"}, "field", "no field 'nope'"),
        ({"action": "accept", "field": "ground_truth"}, "field", "need a field of their own"),
        ({"action": "accept", "overlap": 2}, "overlap", "up to 1"),
        ({"action": "accept", "min_confidence": -1}, "min_confidence", "from 0 to 1"),
        ({"action": "prelabel", "field": "mine"}, "field", "this tool did not write"),
        ({"action": "prelabel", "uncertain_below": 7}, "uncertain_below", "from 0 to 1"),
        ({"action": "prelabel", "model": "file", "model_path": "/no/such.pt"}, "model_path", "no such file"),
        ({"action": "prelabel", "conf": 2}, "conf", "less than or equal to 1"),
        ({"action": "status", "fild": "review"}, "unknown_fild", "did you mean 'field'"),
    ],
)
def test_review_refuses_bad_input(dataset: Any, params: dict[str, Any], field: str, message: str) -> None:
    sample = dataset.first()
    propose(dataset, sample.id, {A: 0.5})
    sample.reload()
    sample["mine"] = fo.Detections(detections=[drawn(A)])
    sample.save()
    operator = Review()
    assert message in problems(operator, dataset, **params)[field]
    with pytest.raises(UserError):
        operator.execute(context(operator, dataset, **params))


def test_select_to_label(dataset: Any) -> None:
    operator, (one, two) = SelectToLabel(), dataset.values("id")
    assert "no field 'predictions'" in problems(operator, dataset)["label_field"]
    propose(dataset, one, {A: 0.99}, field="predictions")
    (label,) = propose(dataset, two, {A: 0.5}, field="predictions")
    assert problems(operator, dataset) == {}
    chosen = run(operator, dataset, budget=1, weight_balance=0)
    assert chosen["samples"] == [two] == dataset.match_tags("to_label").values("id") and "to_label" in chosen["summary"]
    assert fo.DatasetView._build(dataset, chosen["view"]).values("id") == [two]
    assert run(operator, dataset, budget=1, unit="objects", tag="look", weight_balance=0)["labels"] == [label]
    for params, field, message in (
        ({"budget": 0}, "budget", "1 or more"),
        ({"weight_diversity": -1}, "weight_diversity", "0 or more"),
        ({"embeddings": "nope"}, "embeddings", "no field 'nope'"),
        ({"label_field": "nope"}, "label_field", "no field 'nope'"),
    ):
        assert message in problems(operator, dataset, **params)[field]


def test_a_job_of_an_unknown_action_is_refused(dataset: Any) -> None:
    with pytest.raises(UserError, match="choose from prelabel, accept"):
        jobs.run("review", jobs.view_params(dataset, action="explode"))
