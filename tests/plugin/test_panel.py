"""The panel without a browser: what it shows, what its buttons do, and how long its first paint takes."""

from __future__ import annotations

import copy
import json
import os
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

fo = pytest.importorskip("fiftyone")

from fiftyone.operators.executor import ExecutionContext, Executor  # noqa: E402
from made_runs import add_run  # noqa: E402

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg.bridge import background, job_register, jobs, runs  # noqa: E402
from fiftyone_yoloseg.bridge.worker import write_json  # noqa: E402
from fiftyone_yoloseg.engine.pinned import MOST, picture_path  # noqa: E402
from fiftyone_yoloseg.plugin.panel import YolosegPanel  # noqa: E402
from fiftyone_yoloseg.plugin.panel_tabs import duration  # noqa: E402


class Shown:
    """What an event of the panel sent to the App."""

    def __init__(self, dataset: Any, method: str = "on_load", state: dict[str, Any] | None = None, **params: Any) -> None:
        panel = YolosegPanel()
        panel.plugin_name = "@yoloseg/fiftyone"
        request = {"panel_id": "p", "__method__": method, "panel_state": copy.deepcopy(state or {}), **params}
        name = dataset.name if dataset is not None else None
        ctx = ExecutionContext({"dataset_name": name, "params": request}, executor=Executor(), operator_uri=panel.uri)
        panel.execute(ctx)
        self.messages = [(r.operator_uri, r.params) for r in ctx.executor._requests]
        self.text = json.dumps(self.messages)

    def data(self, path: str) -> Any:
        values = self.sent("patch_panel_data")["data"] if "data" in self.sent("patch_panel_data") else self.sent("patch_panel_data")
        for part in path.split("."):
            values = values[self.name_in(values, part)]
        return values

    @staticmethod
    def name_in(values: dict[str, Any], part: str) -> str:
        """Names of plots and tables end in what they show."""
        return next(name for name in values if name == part or name.startswith(f"{part}_"))

    def sent(self, operator: str) -> dict[str, Any]:
        return next(params for uri, params in self.messages if uri.endswith(operator))


@pytest.fixture
def running(coco: Any, tmp_path: Path) -> background.BackgroundJob:
    """A training that this process pretends to do."""
    job = background.BackgroundJob(tmp_path / "train-20260101-000000")
    job.folder.mkdir()
    write_json(job.folder / "spec.json", {"job": "train", "params": {"dataset": coco.name}})
    write_json(job.folder / "worker.json", {"pid": os.getpid(), "started": time.time()})
    write_json(job.folder / "progress.json", {"share": 0.25, "label": "epoch 3/12 box 1.2", "memory": {"gpu": 3 << 30, "ram": 1 << 30}})
    (job.folder / "log.txt").write_text("first line\nepoch 2/12: mask mAP 0.1\n")
    job_register.enter("train", job.folder, {"dataset": coco.name})
    return job


def test_the_panel_says_what_there_is_not(coco: Any) -> None:
    assert "No training yet" in Shown(coco).text and "#prompt_train" in Shown(coco).text
    assert "Nothing to compare yet" in Shown(coco, state={"tab": "compare"}).text
    assert "No evaluation yet" in Shown(coco, state={"tab": "evaluation"}).text
    assert "No export yet" in Shown(coco, state={"tab": "export"}).text
    assert Shown(coco, "prompt_train").sent("prompt_user_for_operation")["operator_uri"] == "@yoloseg/fiftyone/train"


def test_a_tab_that_is_shown_is_not_set_again(coco: Any) -> None:
    """The browser calls also where tabs appear, and each change of a panel's state makes it load its page again."""
    changed = Shown(coco, "change_tab", state={"tab": "runs"}, value="export")
    assert changed.sent("patch_panel_state")["state"] == {"tab": "export"} and "No export yet" in changed.text
    same = Shown(coco, "change_tab", state={"tab": "export"}, value="export")
    assert "No export yet" in same.text and not any(uri.endswith("_panel_state") for uri, _ in same.messages)


def test_runs_are_listed_and_the_clicked_one_is_drawn(coco: Any, tmp_path: Path) -> None:
    add_run(coco, tmp_path, "first", epochs=40)
    add_run(
        coco,
        tmp_path,
        "second",
        epochs=40,
        done=12,
        state="running",
        process={"pid": 2**22 + 1, "started": 0, "host": socket.gethostname()},
    )
    shown = Shown(coco)
    table = shown.data("runs_tab.runs")
    assert [row[:3] for row in table["rows"]] == [["second", "interrupted", "12 of 40"], ["first", "done", "40 of 40"]]
    assert table["selectedRows"] == [0] and "This training was interrupted" in shown.text and '"Resume"' in shown.text
    assert '"x0": 30.5' not in shown.text  # a mark at an epoch that it did not reach would stretch the axis to there
    keys = [run.key for run in fy.runs(coco)]
    clicked = Shown(coco, "select", {"keys": keys}, row=1)
    assert clicked.data("runs_tab.runs")["selectedRows"] == [1]
    mask, box, best = clicked.data("runs_tab.curves.scores")
    assert '"range": [0.5' not in clicked.text  # a training that has ended: its curves fill their plots
    assert len(mask["x"]) == 40 and mask["name"] == "mask mAP" and box["y"][-1] > mask["y"][-1] and best["y"][0] == max(mask["y"])
    assert '"x0": 30.5' in clicked.text and "no mosaic" in clicked.text  # where mosaic was switched off: before epoch 31
    assert Shown(coco, "select", {"keys": keys}, row=7).data("runs_tab.runs")["selectedRows"] == [0]  # a table that is older than the runs
    view = Shown(coco, "show", run="first", split="val").sent("set_view")["view"]
    assert sorted(view[0]["kwargs"][0][1]) == sorted(fy.runs(coco)[1].sample_ids("val"))
    assert "has no run" in Shown(coco, "show", run="third", split="val").sent("notify")["message"]


def test_a_running_job_is_found_again_and_can_be_ended(coco: Any, tmp_path: Path, running: background.BackgroundJob) -> None:
    add_run(coco, tmp_path, "live", epochs=12, done=2, job=running.name, state="running",
            process={"pid": os.getpid(), "started": time.time(), "host": socket.gethostname()})  # fmt: skip
    shown = Shown(coco)  # a page that knows nothing yet
    assert "epoch 3/12 box 1.2" in shown.text and "GPU 3.0 GB - RAM 1.0 GB" in shown.text and "mask mAP 0.1" in shown.text
    assert shown.data("job_0") == {"progress_0": 0.25} and '"interval": 2000' in shown.text
    assert shown.data("runs_tab.runs")["rows"][0][:3] == ["live", "running", "2 of 12"]
    assert shown.text.count('"range": [0.5, 10.5]') == 2  # of the curves' epochs: not 12, which two epochs would leave empty
    Shown(coco, "stop", job="../../etc")  # no job of that name
    assert not (running.folder / "stop").exists()
    stopping = Shown(coco, "stop", job=running.name)
    assert (running.folder / "stop").exists() and "is stopping" in stopping.text and "#cancel" not in stopping.text
    write_json(running.folder / "error.json", {"message": "out of memory\nits last lines:\nepoch 3"})
    failed = Shown(coco)
    assert "train failed" in failed.text and "out of memory" in failed.text and '"interval": 6000' in failed.text


def test_buttons_of_a_run_resume_it_once_and_open_its_management(
    coco: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: background.BackgroundJob
) -> None:
    add_run(coco, tmp_path, "old", epochs=40, done=12, state="stopped")
    begun: list[tuple[str, dict[str, Any], Path]] = []
    monkeypatch.setattr(background, "start", lambda *given: begun.append(given))
    assert '"Resume"' in Shown(coco).text
    resumed = Shown(coco, "resume", run="old")
    ((kind, params, folder),) = begun
    assert kind == "train" and params["dataset_id"] == str(coco._doc.id) and folder.name == "jobs"
    last = str(tmp_path / "old" / "weights" / "last.pt")
    assert params["options"] | {"model": last, "resume": True, "label_field": "ground_truth"} == params["options"]
    assert resumed.sent("patch_panel_state")["state"]["selected"] == fy.runs(coco)[0].key
    write_json(running.folder / "spec.json", {"job": "train", "params": params})  # the job that does it now
    assert "'old' is being resumed already" in Shown(coco, "resume", run="old").sent("notify")["message"]
    assert "has no run 'new'" in Shown(coco, "resume", run="new").sent("notify")["message"] and len(begun) == 1
    asked = Shown(coco, "manage", run="old").sent("prompt_user_for_operation")
    assert (asked["operator_uri"], asked["params"]) == ("@yoloseg/fiftyone/manage_runs", {"run": "old", "action": "rename"})


def test_a_saved_view_is_shown_if_it_is_still_there(coco: Any) -> None:
    coco.save_view("kinds of errors", coco.limit(1))
    assert Shown(coco, "show_saved", view="kinds of errors").sent("set_view")["name"] == "kinds of errors"
    coco.delete_saved_view("kinds of errors")
    gone = Shown(coco, "show_saved", view="kinds of errors")
    assert "no saved view 'kinds of errors' any more" in gone.sent("notify")["message"] and "set_view" not in gone.text


def test_evaluations_are_drawn_and_lead_to_views(coco: Any) -> None:
    coco.clone_sample_field("ground_truth", "predictions")
    for sample in coco:
        for label in sample.predictions.detections:
            label.confidence = 0.5
        sample.save()
    first = coco.first()
    true = first.predictions.detections[0].label
    first.predictions.detections[0].label = "unicorn"
    first.save()
    jobs.run("evaluate", jobs.view_params(coco, pred_field="predictions", gt_field="ground_truth", eval_key="eval", iou=0.5))
    shown = Shown(coco, state={"tab": "evaluation"})
    masks, boxes = shown.data("evaluation_tab.numbers_plots.sizes")
    assert masks["name"] == "masks" and masks["y"][-1] > 0.8 and boxes["x"] == ["small", "medium", "large", "all"]
    (heat,) = shown.data("evaluation_tab.confusion")
    assert sum(map(sum, heat["customdata"])) >= coco.count("ground_truth.detections")
    assert shown.data("evaluation_tab.numbers_plots.pr")[0]["name"] == "all classes"
    view = Shown(coco, "show_verdict", evaluation="eval", verdict="fp").sent("set_view")["view"]
    assert fo.DatasetView._build(coco, view).values("predictions.detections.label", unwind=True) == ["unicorn"]
    said = Shown(coco, "show_confused", y=true, x="zebra crossing").sent("notify")
    assert said["variant"] == "error" and f"no object of {true} was predicted as zebra crossing" in said["message"]


def test_what_differs_has_another_name(coco: Any, tmp_path: Path) -> None:
    """FiftyOne merges what is sent under a name into what was shown under it: a longer curve or table would keep its end."""
    add_run(coco, tmp_path, "long", epochs=40)
    add_run(coco, tmp_path, "short", epochs=5)
    state = {"keys": [run.key for run in fy.runs(coco)]}
    short, long = (Shown(coco, "select", state, row=row).data("runs_tab") for row in (0, 1))
    assert not short["curves"].keys() & long["curves"].keys() and len(short["curves"]) == len(long["curves"]) == 2
    fy.runs(coco)[0].delete()
    after = Shown(coco).data("runs_tab")
    assert Shown.name_in(after, "runs") != Shown.name_in(short, "runs")
    coco.clone_sample_field("ground_truth", "predictions")
    coco.set_values("predictions.detections.confidence", [[0.5] * n for n in coco.values(fo.ViewField("predictions.detections").length())])
    names = []
    for _ in range(2):  # the second replaces the first
        fy.evaluate(coco, "predictions", eval_key="eval")
        names.append(Shown.name_in(Shown(coco, state={"tab": "evaluation"}).data("evaluation_tab"), "confusion"))
    assert names[0] != names[1]


def test_runs_are_compared_and_exports_judged(coco: Any, tmp_path: Path, lively_file: Path) -> None:
    add_run(coco, tmp_path, "first", settings={"lr0": 0.01})
    add_run(coco, tmp_path, "second", settings={"lr0": 0.02})
    report = {
        "format": "engine",
        "path": "/x/best.engine",
        "size_bytes": 3_100_000,
        "verdict": "unverified",
        "max_abs_error": {},
        "half": False,
    }
    runs.remember(coco, "export", "second_best.engine", training="second", report={**report, "int8": False})
    # a real one, as the operator makes it
    exported = fy.YOLO(lively_file).export(format="torchscript", imgsz=64, output=tmp_path / "best.torchscript")
    made = json.loads(exported.with_name(exported.name + ".report.json").read_text())
    runs.remember(coco, "export", "best.torchscript", training=None, report=made)
    shown = Shown(coco, state={"tab": "compare"})
    rows = {row[0]: row[1:] for row in shown.data("compare_tab.differences")["rows"]}
    assert rows["lr0"] == ["0.01", "0.02", ""] and rows["mAP50-95(M)"][2].startswith(("+", "-"))
    assert [t["name"] for t in shown.data("compare_tab.overlay")] == ["first", "second"]
    swapped = Shown(coco, state={"tab": "compare", "compare": {"first": "second", "second": "first"}})
    assert ["lr0", "0.02", "0.01", ""] in swapped.data("compare_tab.differences")["rows"]
    rows = {row[1]: row for row in Shown(coco, state={"tab": "export"}).data("export_tab.exports")["rows"]}
    assert rows["engine"] == ["second", "engine", "3.1 MB", "not verified here", "-", "/x/best.engine"]
    assert rows["torchscript"][0] == "-" and rows["torchscript"][3] == "same answers" and "boxes_px" in rows["torchscript"][4]


def test_the_first_paint_of_fifty_runs_takes_less_than_a_second(coco: Any, tmp_path: Path) -> None:
    for i in range(50):
        add_run(coco, tmp_path, f"run{i}")
    begun = time.perf_counter()
    shown = Shown(coco)
    assert time.perf_counter() - begun < 1
    assert len(shown.data("runs_tab.runs")["rows"]) == 50 and len(shown.data("runs_tab.curves.scores")[0]["x"]) == 100


def pin(run: Any, *epochs: int) -> None:
    for epoch in epochs:
        path = picture_path(run.dir, epoch)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\xff\xd8" + bytes([epoch]) * 100_000)


def picture(shown: Shown) -> Path:
    """The file whose address was sent."""
    address = urlsplit(shown.data("runs_tab.picture"))
    assert address.path == "../media"  # of the server of the page, which is /datasets/<name> there
    return Path(parse_qs(address.query)["filepath"][0])


def test_pinned_pictures_are_turned_like_pages(coco: Any, tmp_path: Path) -> None:
    add_run(coco, tmp_path / "with ü & space", "pinned", epochs=40)
    (run,) = fy.runs(coco)
    assert "Pinned pictures" not in Shown(coco).text
    pin(run, 1, 5, 9)
    newest = Shown(coco)
    assert picture(newest) == picture_path(run.dir, 9) and "Newest: epoch 9" in newest.text
    assert '"Later"' not in newest.text and '"Earlier"' in newest.text
    turned = Shown(coco, "pinned_epoch", value="5")
    assert picture(turned) == picture_path(run.dir, 5) and '"Later"' in turned.text
    changes = [params["state"] for uri, params in turned.messages if uri.endswith("patch_panel_state")]
    assert {"pinned": "5"} in changes and {"runs_tab.pinned.epoch": "5"} in changes, "the dropdown shows what a button has chosen"
    again = Shown(coco, "pinned_epoch", {"pinned": "5", "keys": [run.key], "tab": "runs"}, value="5")
    assert "patch_panel_state" not in again.text, (
        "a browser that draws the dropdown calls too: answered with a change, it would draw for ever"
    )
    pin(run, 13)
    assert picture(Shown(coco, "tick")) == picture_path(run.dir, 13), "follows the training"
    thinned = Shown(coco, "tick", {"pinned": "8"})
    assert picture(thinned) == picture_path(run.dir, 5) and "Epoch 5, as the picture of 8 is not kept" in thinned.text
    assert '"default": "8"' in thinned.text and "not kept" not in turned.text, "a dropdown shows what is among its choices only"


def test_pinned_pictures_are_not_sent_with_each_event(coco: Any, tmp_path: Path) -> None:
    """The App copies a panel's data into its state, which goes to the server and back with each event."""
    add_run(coco, tmp_path, "pinned")
    (run,) = fy.runs(coco)
    pin(run, *range(1, MOST + 1))
    assert len(Shown(coco).text) < 80_000


def test_durations_are_said_as_people_do() -> None:
    assert [duration(s) for s in (4.4, 89, 91, 5300, 36000)] == ["4 s", "89 s", "2 min", "88 min", "10 h"]
