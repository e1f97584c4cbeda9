"""The trainings of a dataset: what is remembered of them, and what can be done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg.bridge import jobs, run_registry  # noqa: E402
from fiftyone_yoloseg.errors import UserError  # noqa: E402

OPTIONS = {"imgsz": 32, "batch": 2, "workers": 0, "device": "cpu", "plots": False}


def test_a_run_knows_its_samples_and_warns_when_it_is_judged_on_them(coco: Any, tmp_path: Path) -> None:
    coco.persistent = True
    view = coco.match_tags(["train", "val"])
    result = fy.train(view, epochs=2, close_mosaic=1, name="first", project=str(tmp_path), **OPTIONS)
    (run,) = fy.runs(coco)
    assert (run.name, run.state, run.dir, run.resumable) == ("first", "done", result.dir, False)
    assert run.facts["calm"] == {"epoch": 2, "what": "no mosaic"} and run.facts["epochs_done"] == 2 and len(run.facts["sha256"]) == 64
    assert run.facts["origin"] and set(run.facts["versions"]) == {"fiftyone_yoloseg", "fiftyone", "torch", "python"}
    assert run.facts["data"]["train"]["count"] == 4 and len(run.facts["data"]["train"]["labels"]) == 64
    assert sorted(run.view().values("id")) == sorted(coco.match_tags("train").values("id"))
    assert sorted(run.view("val").values("id")) == sorted(coco.match_tags("val").values("id"))
    assert [repr(stage) for stage in run.trained_view()._stages] == [repr(stage) for stage in view._stages]
    history = run.history()
    assert history["epoch"] == [1, 2] and 0 < history["time"][0] < history["time"][1]
    # judged on its own training images, on others, by another checkpoint
    options = {"model": str(run.best), "imgsz": 32, "batch": 2, "workers": 0, "device": "cpu"}
    assert "**4 of these 6 samples were trained on** by run `first`" in jobs.run("validate", jobs.view_params(coco, **options))["summary"]
    assert "trained on" not in jobs.run("validate", jobs.view_params(coco.match_tags("val"), **options))["summary"]
    assert run_registry.leak_note(coco, "/elsewhere/best.pt") is None
    fy.predict(coco, str(run.best), conf=0, max_det=3, device="cpu")
    judged = jobs.run("evaluate", jobs.view_params(coco, pred_field="predictions", gt_field="ground_truth", eval_key="eval", iou=0.5))
    assert "**4 of these 6 samples were trained on**" in judged["summary"]


def test_runs_are_stopped_resumed_compared_renamed_and_deleted(coco: Any, tmp_path: Path) -> None:
    steps = iter([False, False, False, True])
    stopped = fy.train(coco, epochs=3, name="first", project=str(tmp_path), should_stop=lambda: next(steps, True), **OPTIONS)
    assert stopped.stopped
    (run,) = fy.runs(coco)
    assert (run.state, run.resumable, run.history()["epoch"]) == ("stopped", True, [1])
    assert run.resume().epochs == 3
    (run,) = fy.runs(coco)  # the same run
    assert (run.state, run.resumable, run.history()["epoch"]) == ("done", False, [1, 2, 3])
    with pytest.raises(UserError, match="run 'first' is done"):
        run.resume()

    fy.train(coco, epochs=1, lr0=0.02, name="second", project=str(tmp_path), **OPTIONS)
    second, first = fy.runs(coco)
    differs = fy.compare_runs(first, second)
    assert differs["settings"] == {"epochs": (3, 1), "lr0": (0.01, 0.02)} and differs["data"] == {}
    assert set(differs["metrics"]) >= {run_registry.KEY}

    with pytest.raises(UserError, match="has a run 'second' already"):
        first.rename("second")
    with pytest.raises(UserError, match="letters, digits and underscores"):
        first.rename("a run!")
    renamed = first.rename("baseline")
    assert [r.name for r in fy.runs(coco)] == ["second", "baseline"] and len(renamed.sample_ids()) == 4 and renamed.best.is_file()
    renamed.delete()
    assert [r.name for r in fy.runs(coco)] == ["second"] and first.best.is_file()  # the files are not asked for
    (second.dir / "args.yaml").rename(second.dir / "elsewhere.yaml")
    with pytest.raises(UserError, match="is not a run folder any more"):
        second.delete(files=True)
    (second.dir / "elsewhere.yaml").rename(second.dir / "args.yaml")
    second.delete(files=True)
    assert fy.runs(coco) == [] and not second.dir.exists() and tmp_path.exists()
    with pytest.raises(UserError, match="has no run 'second'; there are none"):
        run_registry.find(coco, "second")


def test_a_training_that_breaks_says_so(coco: Any, tmp_path: Path) -> None:
    def broken() -> bool:
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        fy.train(coco, epochs=1, name="broken", project=str(tmp_path), should_stop=broken, **OPTIONS)
    (run,) = fy.runs(coco)
    assert run.state == "failed" and run.facts["error"] == "MemoryError: no room"
    run_registry.amend(coco, run.key, state="running", process={**run.facts["process"], "pid": 2**22 + 1})
    assert fy.runs(coco)[0].state == "interrupted"  # nobody with that number lives


def test_a_folder_that_is_used_again_is_another_run(coco: Any, tmp_path: Path) -> None:
    """With exist_ok: of the first one neither samples nor metrics are left."""
    train, val = coco.match_tags("train"), coco.match_tags("val")
    for view, held_out in ((train, val), (val, train)):
        fy.train(view, val=held_out, epochs=1, name="again", project=str(tmp_path), exist_ok=True, **OPTIONS)
    (run,) = fy.runs(coco)
    assert set(run.sample_ids()) == set(val.values("id")) and set(run.sample_ids("val")) == set(train.values("id"))
    run_registry.amend(coco, run.key, state="running", process={"pid": 1, "started": 0, "host": "another machine"})
    (run,) = fy.runs(coco)
    for refused in (lambda: run.rename("other"), run.delete):
        with pytest.raises(UserError, match="'again' is under way"):
            refused()


def test_a_run_is_resumed_once(coco: Any, tmp_path: Path) -> None:
    from fiftyone_yoloseg.bridge import background, run_jobs

    fy.train(coco, epochs=3, name="stopped", project=str(tmp_path), should_stop=lambda: True, **OPTIONS)
    (run,) = fy.runs(coco)
    params = run_jobs.resumed(run)
    job = background.start("train", params, tmp_path / "jobs")
    with pytest.raises(UserError, match="run 'stopped' is being resumed already"):
        run_jobs.resumed(run)
    job.cancel().join(30)


def test_the_process_of_another_machine_is_left_alone(coco: Any, tmp_path: Path) -> None:
    """Its number may be that of a process of ours."""
    import json
    import subprocess
    import sys

    from fiftyone_yoloseg.bridge import background

    folder = tmp_path / "train-20260101-000000"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as innocent:
        spec = {"job": "train", "params": {"dataset": coco.name}}
        (folder / "spec.json").write_text(json.dumps(spec))
        (folder / "worker.json").write_text(json.dumps({"pid": innocent.pid, "started": 9e9, "host": "elsewhere"}))
        job = background.BackgroundJob(folder)
        assert job.status().state == "running"
        job.cancel().join(30)
        assert innocent.poll() is None and job.status().state == "stopping" and not (folder / "error.json").exists()
        assert innocent.stdin is not None
        innocent.stdin.close()
