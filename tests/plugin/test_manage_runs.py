"""The operator `manage_runs`: what it offers for a run, how two are compared, and that one goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

from fiftyone.operators.executor import ExecutionContext, Executor  # noqa: E402
from made_runs import add_run  # noqa: E402

from fiftyone_yoloseg.bridge import background, jobs, run_jobs, run_registry  # noqa: E402
from fiftyone_yoloseg.errors import UserError  # noqa: E402
from fiftyone_yoloseg.plugin.run_operators import ManageRuns  # noqa: E402


def context(dataset: Any, *, app: bool = False, **params: Any) -> ExecutionContext:
    request = {"dataset_name": dataset.name, "params": params, **({"spaces": None} if app else {})}
    return ExecutionContext(request_params=request, executor=Executor(), operator_uri="@yoloseg/fiftyone/manage_runs")


def form(dataset: Any, **params: Any) -> dict[str, Any]:
    fields: dict[str, Any] = ManageRuns().resolve_input(context(dataset, **params)).to_json()["type"]["properties"]
    return fields


def offered(field: dict[str, Any]) -> list[str]:
    return [choice["value"] for choice in field["view"]["choices"]]


@pytest.fixture
def two_runs(coco: Any, tmp_path: Path) -> Any:
    """A finished one, and one that was stopped."""
    add_run(coco, tmp_path, "first", settings={"lr0": 0.01, "imgsz": 320})
    add_run(coco, tmp_path, "second", epochs=40, done=12, state="stopped", settings={"lr0": 0.02, "imgsz": 320, "device": "cpu"})
    return coco


def test_a_form_offers_what_the_run_is_for(two_runs: Any) -> None:
    assert offered(form(two_runs)["run"]) == ["second", "first"]
    assert offered(form(two_runs, run="second")["action"]) == ["samples", "compare", "rename", "resume", "delete"]
    assert offered(form(two_runs, run="first")["action"]) == ["samples", "compare", "rename", "delete"]
    assert offered(form(two_runs, run="first", action="compare")["other"]) == ["second"]
    assert "'third'" in form(two_runs, run="third")["run"]["error_message"]


def test_two_runs_are_compared(two_runs: Any) -> None:
    result = ManageRuns().execute(context(two_runs, run="first", action="compare", other="second"))
    assert isinstance(result, dict) and result["settings"]["lr0"] == [0.01, 0.02] and "imgsz" not in result["settings"]
    lines = result["summary"].splitlines()
    assert lines[0] == "| | first | second |" and "| lr0 | 0.01 | 0.02 |" in lines
    (scores,) = (line for line in lines if line.startswith("| mAP50-95(M) "))
    first, second = map(float, scores.split("|")[2:4])
    assert first > second > 0, "after 100 epochs and after 12"
    with pytest.raises(UserError, match="name the run to compare with"):
        jobs.run("manage_runs", jobs.view_params(two_runs, action="compare", run="first"))


def test_a_run_goes_on_from_a_script_and_from_the_app(two_runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def begin(job: str, params: dict[str, Any], *_: Any) -> dict[str, Any]:
        asked.append((job, params))
        return {"summary": "trained"}

    def follow(result: dict[str, Any], limit: float | None) -> Any:
        yield 0.5, "epoch 20/40"
        return result

    monkeypatch.setattr(jobs, "run", begin)
    assert ManageRuns().execute(context(two_runs, run="second", action="resume")) == {"summary": "trained"}
    monkeypatch.setattr(background, "start", begin)
    monkeypatch.setattr(background, "follow", follow)
    messages = [m.body for m in ManageRuns().execute(context(two_runs, app=True, run="second", action="resume"))]
    assert [m.operator_uri for m in messages] == ["set_progress", "show_output"] and messages[-1].params["results"] == {
        "summary": "trained"
    }
    assert [job for job, _ in asked] == ["train", "train"] and asked[0] == asked[1]
    options = asked[0][1]["options"]
    assert options["resume"] and options["model"] == str(tmp_path / "second" / "weights" / "last.pt") and options["device"] == "cpu"
    with pytest.raises(UserError, match="action='resume': choose one of samples, compare, rename, delete"):
        ManageRuns().execute(context(two_runs, run="first", action="resume"))
    with pytest.raises(UserError, match="run 'first' is done"):
        run_jobs.resumed(run_registry.find(two_runs, "first"))
