"""The plugin as FiftyOne loads it: manifest, forms, refusals, and every operator run without a browser."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

import fiftyone.operators as foo  # noqa: E402
from fiftyone.operators.executor import ExecutionContext, ExecutionError, Executor  # noqa: E402
from fiftyone.plugins.context import PluginContext  # noqa: E402
from fiftyone.plugins.definitions import PluginDefinition  # noqa: E402

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg.bridge import background, gpu_locks, jobs, runs  # noqa: E402
from fiftyone_yoloseg.errors import Stopped, UserError  # noqa: E402
from fiftyone_yoloseg.plugin.metrics import METRICS  # noqa: E402
from fiftyone_yoloseg.plugin.operators import OPERATORS  # noqa: E402

REPO = Path(__file__).resolve().parents[2]
URI = "@yoloseg/fiftyone/"


@pytest.fixture(scope="module")
def plugin() -> PluginContext:
    context = PluginContext(PluginDefinition.from_disk(str(REPO / "fiftyone.yml")))
    context.register_all()
    return context


@pytest.fixture
def execute(fiftyone_db: Any, tmp_path: Path) -> Any:
    """foo.execute_operator with a plugins folder that has a link to this repository."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "yoloseg").symlink_to(REPO)
    before, fo.config.plugins_dir = fo.config.plugins_dir, str(tmp_path / "plugins")
    yield lambda operator, dataset, /, **params: foo.execute_operator(URI + operator, dataset=dataset, params=params)
    fo.config.plugins_dir = before


def form(plugin: PluginContext, name: str, dataset: Any, **params: Any) -> dict[str, Any]:
    operator = next(i for i in plugin.instances if i.name == name)
    request = {"dataset_name": dataset.name, "params": params}
    context = ExecutionContext(request_params=request, executor=Executor(), operator_uri=operator.uri)
    fields: dict[str, Any] = operator.resolve_type(context, "inputs").to_json()["type"]["properties"]
    return fields


def problems(fields: dict[str, Any]) -> dict[str, str]:
    return {name: field["error_message"] for name, field in fields.items() if field["invalid"]}


def test_manifest_and_registered_operators_agree(plugin: PluginContext) -> None:
    assert plugin.errors == [] and plugin.name == "@yoloseg/fiftyone"
    definition = plugin.plugin_definition
    assert [i.uri for i in plugin.instances] == [URI + name for name in definition.operators]
    assert sorted(definition.operators) == sorted([*(o().config.name for o in (*OPERATORS, *METRICS)), "yoloseg_panel"])
    for operator in plugin.instances[: len(OPERATORS)]:
        config = operator.config
        assert config.label.startswith("YOLO-seg: ") and config.icon and len(config.description) > 30
        assert config.allow_delegated_execution and config.risk_level.value != "DANGEROUS"
        assert config.unlisted or config.dynamic


def test_fiftyones_registry_has_no_errors_and_knows_the_buttons(execute: Any, fiftyone_db: Any) -> None:
    registry = foo.OperatorRegistry()
    assert registry.list_errors() == []
    names = {o.name for o in registry.list_operators() if o.uri.startswith(URI)} - {"yoloseg_panel"}
    assert names == {o().config.name for o in (*OPERATORS, *METRICS)}
    placed = {o.name for o in registry.list_operators() if o.uri.startswith(URI) and o.resolve_placement(None)}
    assert placed == {"train", "predict", "evaluate", "review", "predict_sample", "accept_sample", "reject_sample"}


def test_the_plugin_is_light_and_works_where_the_repository_was_only_downloaded() -> None:
    """No package installed: isolated mode without site-packages of the project, only what FiftyOne itself has."""
    code = (
        "import sys; sys.path = [p for p in sys.path if p not in ('', sys.argv[1])]\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
        "from fiftyone.plugins.context import PluginContext; from fiftyone.plugins.definitions import PluginDefinition\n"
        "import importlib.util; assert importlib.util.find_spec('fiftyone_yoloseg') is None\n"
        "c = PluginContext(PluginDefinition.from_disk(sys.argv[1] + '/fiftyone.yml')); c.register_all()\n"
        "print(len(c.instances), c.errors, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(REPO)], cwd="/", capture_output=True, text=True, timeout=120)
    assert out.stdout.strip().splitlines()[-1:] == [f"{len(OPERATORS) + len(METRICS) + 1} [] False"], out.stderr


def test_forms_suggest_what_the_dataset_says(plugin: PluginContext, coco: Any) -> None:
    fields = form(plugin, "train", coco)
    assert problems(fields) == {}
    defaults = {name: field["default"] for name, field in fields.items()}
    assert defaults["label_field"] == "ground_truth" and defaults["split"] == "tags" and defaults["model"] == "yolov8n-seg.yaml"
    assert defaults["imgsz"] == 640 and defaults["epochs"] == 100 and "lr0" not in fields
    labels = [c["label"] for c in fields["label_field"]["view"]["choices"]]
    assert labels == [f"ground_truth ({coco.count('ground_truth.detections')} masks)"]
    opened = form(plugin, "train", coco, advanced=True)
    assert opened["lr0"]["default"] == 0.01 and "learning rate" in opened["lr0"]["view"]["description"]
    assert Path(form(plugin, "convert", coco)["out_dir"]["default"]).is_absolute()
    assert form(plugin, "predict", coco)["label_field"]["default"] == "predictions"
    assert form(plugin, "predict", coco)["model"]["default"] == "file"  # nothing was trained yet


@pytest.mark.parametrize(
    ("operator", "params", "field", "message"),
    [
        ("loop", {"epochs": 0}, "epochs", "greater than or equal to 1"),
        ("loop", {"predictions": "ground_truth"}, "predictions", "holds ground truth"),
        ("loop", {"format": "tiff"}, "format", "choose one of"),
        ("check", {"imgsz": 7}, "imgsz", "from 32 to 8192"),
        ("check", {"remap": "car"}, "remap", "write old:new pairs"),
        ("check", {"label_field": "nope"}, "label_field", "no field 'nope'"),
        ("convert", {"out_dir": "relative/folder"}, "out_dir", "give the full path"),
        ("convert", {"out_dir": "/usr"}, "out_dir", "not empty and was not written by an earlier conversion"),
        ("convert", {"label_field": "nope"}, "label_field", "no field 'nope'"),
        ("convert", {"label_field": "boxes"}, "label_field", "none with a mask; fields with masks: ground_truth"),
        ("convert", {"media": "move"}, "media", "'copy', 'symlink' or 'reference'"),
        ("train", {"epochs": 0}, "epochs", "greater than or equal to 1"),
        ("train", {"imgsz": 7}, "imgsz", "from 32 to 8192"),
        ("train", {"lr0": -1, "advanced": True}, "lr0", "greater than 0"),
        ("train", {"epoch": 3}, "unknown_epoch", "did you mean 'epochs'"),
        ("train", {"split": "random", "val_fraction": 1.5}, "val_fraction", "above 0 and below 1"),
        ("train", {"split": "field", "split_field": "nope"}, "split_field", "nor a field"),
        ("train", {"model": "file", "model_path": "/no/such.pt"}, "model_path", "no such file"),
        ("validate", {"model": "/no/such.pt"}, "model", "no such file"),
        ("validate", {"model": "runs/best.pt"}, "model", "give the full path"),
        ("validate", {"conf": 2}, "conf", "less than or equal to 1"),
        ("predict", {"label_field": "ground_truth"}, "label_field", "holds ground truth"),
        ("predict", {"label_field": "boxes"}, "label_field", "this tool did not write"),
        ("evaluate", {"gt_field": "nope"}, "gt_field", "no field 'nope'"),
        ("evaluate", {"pred_field": "ground_truth"}, "pred_field", "these are the ground truth"),
        ("evaluate", {"pred_field": "boxes", "iou": 1.5}, "iou", "above 0 and at most 1"),
        ("evaluate", {"pred_field": "boxes", "eval_key": "my eval"}, "eval_key", "letters, digits and underscores"),
        ("evaluate", {"pred_field": "boxes", "maskless": "guess"}, "maskless", "choose one of box, skip"),
        ("evaluate", {"evalkey": "x"}, "unknown_evalkey", "did you mean 'eval_key'"),
        ("export", {"format": "tiff"}, "format", "choose one of onnx"),
        ("export", {"model": "file", "model_path": "/etc/hostname"}, "model_path", "is not a checkpoint"),
        ("export", {"output": "here.onnx"}, "output", "give the full path"),
    ],
)
def test_forms_refuse_bad_input_beside_the_field(
    plugin: PluginContext, coco: Any, operator: str, params: dict[str, Any], field: str, message: str
) -> None:
    coco.clone_sample_field("ground_truth", "boxes")
    coco.set_values("boxes.detections.mask", [[None] * len(m) for m in coco.values("boxes.detections.mask")])
    shown = form(plugin, operator, coco, **params)
    if field == "conf":
        shown = form(plugin, operator, coco, advanced=True, **params)
    assert message in problems(shown)[field]


def test_forms_refuse_what_has_no_field(plugin: PluginContext, fiftyone_db: Any) -> None:
    empty = fiftyone_db.Dataset()
    for operator in plugin.instances[: len(OPERATORS)]:  # metrics and the panel have no form
        if operator.name == "loop_step":
            continue
        if operator.name == "manage_runs":
            assert "no training yet" in problems(form(plugin, operator.name, empty))["problem"]
            continue
        if operator.name == "import_labels":  # fills empty datasets
            assert problems(form(plugin, operator.name, empty)) == {}
            continue
        message = "open a sample, or select one" if operator.name.endswith("_sample") else "is empty"
        assert message in problems(form(plugin, operator.name, empty))["problem"]
    empty.add_sample(fo.Sample(filepath="/tmp/x.jpg"))
    assert "no field of this dataset holds instance masks" in problems(form(plugin, "train", empty))["problem"]
    empty.delete()


def test_labels_partly_without_masks_ask_for_a_decision(plugin: PluginContext, coco: Any) -> None:
    sample = coco.first()
    sample.ground_truth.detections[0].mask = None
    sample.save()
    assert "1 of" in problems(form(plugin, "train", coco))["maskless"]
    assert problems(form(plugin, "train", coco, maskless="skip")) == {}


@pytest.mark.slow
def test_every_operator_runs_from_a_script(execute: Any, coco: Any, tmp_path: Path) -> None:
    checked = execute("check", coco, remap="person:being").result
    assert checked["images"] == 6 and checked["verdict"] == "warnings" and set(checked["views"].values()) <= set(coco.list_saved_views())
    converted = execute("convert", coco, out_dir=str(tmp_path / "out")).result
    assert converted["rows"] == len([1 for f in (tmp_path / "out/labels").rglob("*.txt") for _ in f.open()])
    trained = execute("train", coco, epochs=1, imgsz=64, batch=2, workers=0, device="cpu").result
    best = trained["best"]
    assert Path(best).is_file() and "Checkpoint" in trained["summary"]
    # from here on, the forms know the training
    validated = execute("validate", coco, imgsz="64", workers=0, device="cpu").result
    assert validated["images"] == 6 and "mask mAP" in validated["summary"]
    predicted = execute("predict", coco, model=best, conf=0, max_det=3, device="cpu", scores="mask").result
    assert coco.count("predictions.detections.mask_certainty") == coco.count("predictions.detections.box_mask_gap") == predicted["objects"]
    assert execute("predict", coco, model=best, conf=0, max_det=3, device="cpu", scores="mask", resume=True).result["skipped"] == 6
    assert predicted["images"] == 6 and predicted["objects"] == coco.count("predictions.detections") and predicted["failed"] == []
    evaluated = execute("evaluate", coco, eval_key="judged").result
    assert evaluated["tp"] + evaluated["fp"] + evaluated["facts"]["ignored"] == predicted["objects"] and "mask mAP" in evaluated["summary"]
    assert coco.list_evaluations() == ["judged"] and set(evaluated["views"]) <= {"wrong predictions", "missed objects"}
    exported = execute("export", coco, model=best, imgsz="64").result
    (row,) = exported["formats"]
    assert Path(row["report"]["path"]).is_file() and row["verdict"] == "verified" and row["report"]["accuracy"]["images"] == 2
    imported = execute("import_labels", coco, source=str(tmp_path / "out"), into="this", label_field="again").result
    assert imported["added"] == 6 and imported["objects"] == converted["rows"]
    with pytest.raises(ExecutionError, match="greater than or equal to 1"):
        execute("train", coco, epochs=0)
    (run,) = fy.runs(coco)
    assert execute("manage_runs", coco).result["run"] == run.name  # shows its samples if nothing else is said
    with pytest.raises(ExecutionError, match="choose another name"):
        execute("manage_runs", coco, action="rename")  # to its own name, which the form begins with and does not complain about
    assert execute("manage_runs", coco, action="rename", name="renamed").result["run"] == "renamed"
    with pytest.raises(ExecutionError, match="confirm that its files"):
        execute("manage_runs", coco, action="delete", files=True)
    assert Path(best).is_file()
    deleted = execute("manage_runs", coco, action="delete", files=True, sure=True).result
    assert "deleted" in deleted["summary"] and not Path(best).exists() and fy.runs(coco) == []


@pytest.mark.slow
def test_not_waiting_for_a_gpu_can_be_chosen_while_a_job_holds_one(
    plugin: PluginContext, coco: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_locks, "_folder", lambda: tmp_path)
    networks = ("train", "predict", "loop")
    assert not [name for name in networks if "share_gpu" in form(plugin, name, coco)]
    assert not problems(form(plugin, "loop", coco, share_gpu=True)), "a script can always say it"
    with gpu_locks.held(["gpu"], "train-7", lambda *_: None, bool):
        for name in networks:
            field = form(plugin, name, coco)["share_gpu"]
            assert field["view"]["description"] == "train-7 uses it: this one begins when that has ended"
        assert "share_gpu" not in form(plugin, "check", coco)
    operator = next(i for i in plugin.instances if i.name == "loop")
    for given in ({}, {"share_gpu": True}):
        request = {"dataset_name": coco.name, "params": given}
        stages = operator.resolve_pipeline(ExecutionContext(request_params=request, executor=Executor(), operator_uri=operator.uri)).stages
        assert [s.params["loop"].get("share_gpu") for s in stages] == [given.get("share_gpu")] * 4


def test_the_loop_is_a_pipeline_from_a_script_and_one_job_from_the_app(execute: Any, coco: Any, tmp_path: Path) -> None:
    settings = {"epochs": 1, "imgsz": 64, "batch": 2, "workers": 0, "device": "cpu", "plots": False, "optimizer": "SGD"}
    done = execute("loop", coco, **settings)
    assert done.error is None, done.error
    coco.reload()
    (run,) = fy.runs(coco)
    assert run.name == "loop" and (run.dir / "weights" / "best.onnx").is_file()
    assert [facts["about"] for facts in runs.recall(coco, "predict")] == ["predictions"] and coco.list_evaluations() == ["eval"]
    judged = coco.load_evaluation_view("eval")
    assert set(judged.values("id")) == set(run.sample_ids("val")) != set()  # not on what it was trained on
    operator = foo.OperatorRegistry().get_operator(URI + "loop")
    request = {"dataset_name": coco.name, "params": settings, "spaces": None}
    stages = operator.resolve_pipeline(ExecutionContext(request_params=request, executor=Executor(), operator_uri=operator.uri)).stages
    assert [s.name for s in stages] == ["start"] and stages[0].params["loop"]["options"]["train"]["name"] == "loop2"
    request["request_delegation"] = True
    stages = operator.resolve_pipeline(ExecutionContext(request_params=request, executor=Executor(), operator_uri=operator.uri)).stages
    assert [s.name for s in stages] == ["train", "predict", "evaluate", "export"]
    stopped = iter([False] * 3 + [True] * 99)
    params = {**stages[0].params["loop"]}
    with pytest.raises(Stopped, match="stopped after 'train', whose result is kept"):
        jobs.run("loop", params, should_stop=lambda: next(stopped))
    assert [r.name for r in fy.runs(coco)] == ["loop2", "loop"]


def test_a_training_longer_than_the_operators_limit_survives(plugin: PluginContext, coco: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is 600 seconds by default: here the operator has two."""
    monkeypatch.setattr(fo.config, "operator_timeout", 2)
    operator = next(i for i in plugin.instances if i.name == "train")
    params = {"epochs": 1000, "imgsz": 32, "batch": 2, "workers": 0, "device": "cpu", "plots": False}
    request = {"dataset_name": coco.name, "params": params, "spaces": None}
    begun = time.monotonic()
    stream = operator.execute(ExecutionContext(request_params=request, executor=Executor(), operator_uri=operator.uri))
    shown = [m.body for m in stream][-1]
    assert time.monotonic() - begun < 20 and shown.params["results"]["unfinished"]
    assert shown.params["outputs"]["type"]["properties"]["open_panel"]["view"]["params"]["name"] == "yoloseg_panel"
    (job,) = background.active_jobs(coco)
    while "epoch 2" not in job.status().label:  # it has only just begun, and goes on
        assert job.status().active
        time.sleep(0.1)
    job.stop()
    while job.status().active:
        time.sleep(0.1)
    assert "stopped on request" in job.status().result["summary"] and fy.runs(coco)[0].state == "stopped"


def test_forms_name_the_formats_without_what_exports_to_them(plugin: PluginContext, coco: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is torch, and takes seconds to import."""
    for name in ("fiftyone_yoloseg.export", "fiftyone_yoloseg.export.registry"):
        monkeypatch.setitem(sys.modules, name, None)  # to import it is an error now
    assert "onnx, torchscript, openvino" in form(plugin, "export", coco)["format"]["view"]["description"]
    assert "format" in problems(form(plugin, "export", coco, format="onxx")) and "format" in form(plugin, "loop", coco)


def test_forms_count_labels_where_there_are_some(plugin: PluginContext, coco: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first samples that have any, however late they come: a loop of labeling begins with few."""
    from fiftyone_yoloseg.plugin import forms

    monkeypatch.setattr(forms, "COUNTED", 2)
    ids = coco.values("id")
    coco.set_values("ground_truth", dict.fromkeys(ids[:3]), key_field="id")
    expected = sum(len(labels) for labels in coco.values("ground_truth.detections")[3:5])
    forms.forget_fields()
    fields = form(plugin, "validate", coco)
    assert problems(fields).keys() <= {"model", "model_path"}
    (choice,) = fields["label_field"]["view"]["choices"]
    assert f"({expected} masks in the first 2 samples that have any)" in choice["label"]
    forms.forget_fields()


def test_labels_without_masks_may_come_late(plugin: PluginContext, coco: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form that has counted the first samples only lets its user decide on the others; the job counts them all."""
    from fiftyone_yoloseg.plugin import forms

    monkeypatch.setattr(forms, "COUNTED", 2)
    last = coco.last()
    last.ground_truth.detections[0].mask = None
    last.save()
    forms.forget_fields()
    fields = form(plugin, "train", coco)
    assert problems(fields) == {} and fields["maskless"]["default"] == "error"
    assert next(iter(fields["maskless"]["view"]["choices"]))["label"] == "Refuse, if there are any"
    assert problems(form(plugin, "train", coco, maskless="skip")) == {}
    assert "maskless" in form(plugin, "evaluate", coco)
    with pytest.raises(UserError, match="1 labels in 1 samples have no mask .*Use maskless='skip'"):
        jobs.run("convert", jobs.view_params(coco, out_dir="/tmp/out"))
    for sample in coco[:5]:  # now all but the last
        for label in sample.ground_truth.detections:
            label.mask = None
        sample.save()
    forms.forget_fields()
    assert "labels have no mask: leave them out" in problems(form(plugin, "train", coco))["maskless"]
    assert problems(form(plugin, "train", coco, maskless="skip")) == {}
    forms.forget_fields()


def test_the_app_gets_progress_then_the_result(plugin: PluginContext, coco: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    operator = next(i for i in plugin.instances if i.name == "convert")
    monkeypatch.setattr(type(operator), "own_process", False)  # the process is tested elsewhere

    def messages(**params: Any) -> list[tuple[str, dict[str, Any]]]:
        request = {"dataset_name": coco.name, "params": params, "spaces": None}
        stream = operator.execute(ExecutionContext(request_params=request, executor=Executor(), operator_uri=operator.uri))
        return [(m.body.operator_uri, m.body.params) for m in stream]

    *progress, (last, shown) = messages(out_dir=str(tmp_path / "out"))
    assert {uri for uri, _ in progress} <= {"set_progress"} and last == "show_output"
    assert "mask IoU after reading the rows back: mean 1.0000" in shown["results"]["summary"]
    (_, failed) = messages(out_dir=str(tmp_path / "out"), label_field="nope")[-1]
    assert "no field 'nope'" in failed["results"]["error"]


def test_the_check_has_a_button_for_each_view(plugin: PluginContext, coco: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = next(i for i in plugin.instances if i.name == "check")
    monkeypatch.setattr(type(operator), "own_process", False)
    request = {"dataset_name": coco.name, "params": {"save_views": True}, "spaces": None}
    stream = operator.execute(ExecutionContext(request_params=request, executor=Executor(), operator_uri=operator.uri))
    shown = [m.body for m in stream][-1]
    rows = [f for name, f in shown.params["outputs"]["type"]["properties"].items() if name.startswith("show_")]
    buttons = [button["view"] for row in rows for button in row["type"]["properties"].values()]
    assert {b["params"]["name"] for b in buttons} == set(shown.params["results"]["views"].values()) == set(coco.list_saved_views()) != set()
    assert all(b["operator"] == "set_view" for b in buttons)


def test_an_evaluation_has_buttons_that_show_what_is_wrong(plugin: PluginContext, coco: Any) -> None:
    coco.clone_sample_field("ground_truth", "predictions")
    for sample in coco.exists("predictions"):
        for label in sample.predictions.detections:
            label.confidence = 0.5
        sample.save()
    first = coco.exists("predictions").first()
    first.predictions.detections[0].label = "unicorn"
    first.predictions.detections[1].mask = None
    first.save()
    operator = next(i for i in plugin.instances if i.name == "evaluate")
    fields = form(plugin, "evaluate", coco)
    assert problems(fields) == {}
    assert {n: fields[n]["default"] for n in ("gt_field", "pred_field", "iou", "eval_key", "maskless")} == {
        "gt_field": "ground_truth", "pred_field": "predictions", "iou": 0.5, "eval_key": "eval", "maskless": "box"
    }  # fmt: skip
    request = {"dataset_name": coco.name, "params": {}, "spaces": None}
    stream = operator.execute(ExecutionContext(request_params=request, executor=Executor(), operator_uri=operator.uri))
    shown = [m.body for m in stream][-1]
    assert "1 labels of `predictions` have no mask" in shown.params["results"]["summary"]
    buttons = shown.params["outputs"]["type"]["properties"]["look"]["type"]["properties"]
    assert buttons["panel"]["view"]["operator"] == "open_panel" and buttons["wrong_predictions"]["view"]["operator"] == "set_view"
    coco.reload()
    view = fo.DatasetView._build(coco, buttons["wrong_predictions"]["view"]["params"]["view"])
    assert "unicorn" in view.values("predictions.detections.label", unwind=True) and set(
        view.values("predictions.detections.eval", unwind=True)
    ) == {"fp"}
    coco.evaluate_detections("predictions", eval_key="other", method="coco", progress=False)
    assert "Cannot overwrite existing evaluation 'other'" in problems(form(plugin, "evaluate", coco, eval_key="other"))["eval_key"]


def test_labels_of_which_none_has_a_mask_can_be_checked(plugin: PluginContext, coco: Any) -> None:
    coco.clone_sample_field("ground_truth", "boxes")
    coco.set_values("boxes.detections.mask", [[None] * len(m) for m in coco.values("boxes.detections.mask")])
    assert problems(form(plugin, "check", coco, label_field="boxes")) == {}


def test_train_form_offers_to_watch_and_stop_what_runs(
    plugin: PluginContext, coco: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = background.BackgroundJob(tmp_path / "train-20260101-000000")
    monkeypatch.setattr(background, "active_jobs", lambda dataset, *kinds: {job: background.Status("running", 0.5, "epoch 3/6")})
    fields = form(plugin, "train", coco)
    assert fields["action"]["default"] == f"watch:{job.name}" and "epochs" not in fields
    assert "epoch 3/6" in str(fields["action"]["view"]["choices"])
    assert "epochs" in form(plugin, "train", coco, action="new")
    operator = next(i for i in plugin.instances if i.name == "train")
    context = ExecutionContext(request_params={"dataset_name": coco.name, "params": {}}, executor=Executor(), operator_uri=operator.uri)
    with pytest.raises(UserError, match="for the App"):
        operator.execute(context)


def test_requirements_are_the_core_dependencies() -> None:
    import re

    project = (REPO / "pyproject.toml").read_text()
    block = re.search(r"^dependencies = \[(.*?)^\]", project, re.M | re.S)
    assert block is not None
    wanted = re.findall(r'^\s*"([^"]+)"', block[1], re.M)
    lines = (REPO / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == wanted
