"""The skill for agents: FiftyOne finds it, and every call in it is one that the operator's form takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

from fiftyone.operators.executor import ExecutionContext, Executor  # noqa: E402
from fiftyone.plugins.context import PluginContext  # noqa: E402
from fiftyone.plugins.definitions import PluginDefinition  # noqa: E402

REPO = Path(__file__).resolve().parents[2]
CALLS = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", (REPO / "skills/yoloseg/SKILL.md").read_text(), re.DOTALL)]


def test_fiftyone_lists_it(fiftyone_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fiftyone.plugins.skills import list_skills

    (tmp_path / "yoloseg").symlink_to(REPO)
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path))
    found = {skill.name: skill for skill in list_skills()}
    assert "wrong labels" in found["yoloseg"].description


def test_every_call_is_one_that_its_form_takes(coco: Any, lively_file: Path) -> None:
    context = PluginContext(PluginDefinition.from_disk(str(REPO / "fiftyone.yml")))
    context.register_all()
    operators = {i.name: i for i in context.instances}
    coco.clone_sample_field("ground_truth", "predictions")
    coco.set_values("predictions.detections.confidence", [[0.5] * n for n in coco.values(fo.ViewField("predictions.detections").length())])
    coco.set_values("ground_truth", {coco.first().id: None}, key_field="id")
    assert len(CALLS) == 7
    for call in CALLS:
        params, operator = dict(call["params"]), operators[call["operator"]]
        known = {"model": str(lively_file)} if call["operator"] in ("predict", "export") else {}
        free = {"label_field": "new"} if call["operator"] == "predict" else {}
        request = {"dataset_name": coco.name, "params": {**params, **known, **free}}
        execution = ExecutionContext(request_params=request, executor=Executor(), operator_uri=operator.uri)
        fields = operator.resolve_type(execution, "inputs").to_json()["type"]["properties"]
        assert params.keys() <= fields.keys(), call
        assert {name: field["error_message"] for name, field in fields.items() if field["invalid"]} == {}, call
