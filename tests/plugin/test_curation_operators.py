"""The operator that searches for label errors, without a browser."""

from __future__ import annotations

from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

from fiftyone.operators.executor import ExecutionContext, Executor  # noqa: E402

from fiftyone_yoloseg.errors import UserError  # noqa: E402
from fiftyone_yoloseg.plugin.curation_operators import FindLabelErrors  # noqa: E402
from fiftyone_yoloseg.plugin.forms import forget_fields  # noqa: E402


def context(dataset: Any, app: bool = False, **params: Any) -> Any:
    request = {"dataset_name": dataset.name, "params": params, **({"spaces": None} if app else {})}
    return ExecutionContext(request_params=request, executor=Executor(), operator_uri="@yoloseg/fiftyone/find_label_errors")


def problems(dataset: Any, **params: Any) -> dict[str, str]:
    fields = FindLabelErrors().resolve_input(context(dataset, **params)).to_json()["type"]["properties"]
    return {name: field["error_message"] for name, field in fields.items() if field["invalid"]}


@pytest.fixture
def predicted(coco: Any) -> Any:
    """Predictions that repeat the labels, but for one whose label is lost."""
    coco.clone_sample_field("ground_truth", "predictions")
    coco.set_values("predictions.detections.confidence", [[0.9] * len(x) for x in coco.values("predictions.detections.id")])
    sample = max(coco, key=lambda s: max(d.mask.sum() for d in s.ground_truth.detections))
    lost = max(sample.ground_truth.detections, key=lambda d: d.mask.sum())
    sample.ground_truth.detections = [d for d in sample.ground_truth.detections if d.id != lost.id]
    sample.save()
    return coco


def test_forms(predicted: Any) -> None:
    assert problems(predicted) == {}
    fields = FindLabelErrors().resolve_input(context(predicted)).to_json()["type"]["properties"]
    assert fields["pred_field"]["default"] == "predictions" and fields["label_field"]["default"] == "ground_truth"
    assert fields["save_views"]["default"] is True and fields["write"]["default"] is False
    assert "choose the field of the predictions" in problems(predicted, pred_field="ground_truth")["pred_field"]
    assert "less than or equal to 1" in problems(predicted, min_score=2)["min_score"]
    assert "kinds" in problems(predicted, kinds="missing, lost")["kinds"]
    assert "did you mean 'min_score'" in problems(predicted, min_scor=0.2)["unknown_min_scor"]
    assert "no field 'nope'" in problems(predicted, pred_field="nope")["pred_field"]
    predicted.delete_sample_field("predictions")
    forget_fields()
    assert "predict first" in problems(predicted)["problem"]


def test_a_script_gets_the_cases(predicted: Any) -> None:
    result = FindLabelErrors().execute(context(predicted, kinds="missing", write=True))
    assert result["counts"] == {"missing": 1} and result["cases"]["missing"][0]["score"] > 0.5 and result["written"] == 1
    assert predicted.list_saved_views() == ["yoloseg label errors: missing"] and "1 missing" in result["summary"]
    with pytest.raises(UserError, match="less than or equal to 1"):
        FindLabelErrors().execute(context(predicted, min_score=2))


def test_the_app_gets_a_button_for_each_view(predicted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FindLabelErrors, "own_process", False)  # the process is tested elsewhere
    shown = [m.body for m in FindLabelErrors().execute(context(predicted, app=True, save_views=True))][-1]
    outputs = shown.params["outputs"]["type"]["properties"]
    buttons = [b["view"] for name, row in outputs.items() if name.startswith("show_") for b in row["type"]["properties"].values()]
    assert "missing" in shown.params["results"]["views"]
    assert {b["params"]["name"] for b in buttons} == set(predicted.list_saved_views()) and all(b["operator"] == "set_view" for b in buttons)
