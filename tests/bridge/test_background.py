"""Jobs in processes of their own: results, errors, deaths."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fiftyone")

import fiftyone_yoloseg as fy
from fiftyone_yoloseg.bridge import background, gpu_locks, job_register, jobs
from fiftyone_yoloseg.bridge.worker import write_json
from fiftyone_yoloseg.errors import Stopped, UserError


def finish(steps: Any, limit: float = 120.0) -> tuple[list[background.Step], dict[str, Any]]:
    seen, deadline = [], time.monotonic() + limit
    while time.monotonic() < deadline:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value
    raise AssertionError(f"not finished after {limit} s: {seen[-1:]}")


def test_a_job_runs_detached_and_reports(coco: Any, tmp_path: Path) -> None:
    params = jobs.view_params(coco.limit(3), out_dir=str(tmp_path / "out"), split="random")
    job = background.start("convert", params, tmp_path / "jobs")
    seen, result = finish(background.follow(job))
    assert result["rows"] > 0 and "mask IoU" in result["summary"] and (tmp_path / "out" / "dataset.yaml").is_file()
    assert all(0 <= share <= 1 for share, _ in seen)
    assert background.jobs_of(coco, "convert") == [job] == background.jobs_of(coco) and background.jobs_of(coco, "train") == []
    (record,) = job_register.records(coco)
    assert record["state"] == "completed" and record["result"]["summary"] == result["summary"]
    assert record["owner"]["host"] == socket.gethostname() and record["payload"] == {"folder": str(job.folder)}


def test_the_users_error_arrives_as_it_was_said(coco: Any, tmp_path: Path) -> None:
    job = background.start("train", jobs.view_params(coco, label_field="nope"), tmp_path / "jobs")
    with pytest.raises(UserError, match="has no field 'nope'; fields with masks: 'ground_truth'"):
        finish(background.follow(job))
    with pytest.raises(UserError, match="no job is called 'dance'"):
        jobs.run("dance", {})


def test_a_training_that_is_stopped_in_its_first_epoch_claims_no_best_one(coco: Any, tmp_path: Path) -> None:
    options = {"imgsz": 32, "batch": 2, "epochs": 2, "workers": 0, "device": "cpu", "plots": False, "project": str(tmp_path)}
    summary = jobs.run("train", jobs.view_params(coco, **options), should_stop=lambda: True)["summary"]
    assert "stopped on request" in summary and "No epoch is complete: the checkpoint holds the weights as they are" in summary
    assert "Best epoch" not in summary and "validation images" not in summary


@pytest.mark.slow
def test_a_training_is_stopped_between_steps_and_a_killed_one_is_noticed(coco: Any, tmp_path: Path) -> None:
    options = {"imgsz": 64, "batch": 2, "epochs": 100000, "workers": 0, "device": "cpu", "project": str(tmp_path / "runs")}
    job = background.start("train", jobs.view_params(coco, **options), tmp_path / "jobs")
    steps = background.follow(job)
    while not next(steps)[1].startswith(("epoch 2/", "epoch 3/", "epoch 4/")):
        assert job.status().state == "running"
    steps.close()
    assert job.status().state == "running"  # who only watched may go
    job.stop()
    _, result = finish(background.follow(job))
    assert "stopped on request" in result["summary"] and Path(result["last"]).is_file()

    other = background.start("train", jobs.view_params(coco, **options), tmp_path / "jobs")
    steps = background.follow(other)
    while "epoch" not in next(steps)[1]:
        pass
    pid = int(background._read(other.folder / "worker.json")["pid"])  # type: ignore[index]
    assert os.getsid(pid) == pid  # a session of its own: the end of the App's server does not end it
    assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, os.getpid())  # the App's server comes first
    if (weight := Path(f"/proc/{pid}/autogroup")).exists():
        assert int(weight.read_text().split()[-1]) > 0
    os.kill(pid, signal.SIGKILL)
    assert background.jobs_of(coco, "train")[0] == other
    with pytest.raises(UserError, match=r"(?s)has ended without a result; its log.*its last lines:\n.*epoch"):
        finish(background.follow(other))
    assert background.active_jobs(coco) == {}  # which tells the database too
    assert job_register.records(coco)[0]["state"] == "failed" and "its last lines" in job_register.records(coco)[0]["error"]
    assert fy.runs(coco)[0].state == "interrupted" and "its last lines" in fy.runs(coco)[0].reason


@pytest.mark.slow
def test_a_cancelled_training_ends_within_five_seconds_even_if_it_hangs(coco: Any, tmp_path: Path) -> None:
    options = {"imgsz": 64, "batch": 2, "epochs": 100000, "workers": 0, "device": "cpu", "project": str(tmp_path / "runs")}
    polite, hanging = (background.start("train", jobs.view_params(coco, **options, name=name), tmp_path / "jobs") for name in "ab")
    for job in (polite, hanging):
        while "epoch" not in job.status().label:
            assert job.status().active
            time.sleep(0.1)
    assert set(background.active_jobs(coco)) == {polite, hanging}
    os.kill(int(background._read(hanging.folder / "worker.json")["pid"]), signal.SIGSTOP)  # type: ignore[index]
    for job in (polite, hanging):
        begun = time.monotonic()
        job.cancel()
        while job.status().active:
            assert time.monotonic() - begun < 5
            time.sleep(0.05)
        assert job.status().state == "cancelled"
        assert job._process() is None or job is polite  # the polite one may still be closing its connections
    assert "can be resumed" in (polite.status().error or "") and "its process was ended" in (hanging.status().error or "")
    first, second = sorted(fy.runs(coco), key=lambda run: run.name)
    assert first.state == "stopped" and first.reason == "" and first.resumable
    assert second.state == "interrupted" and "its process was ended" in second.reason
    deadline = time.monotonic() + 5
    while {r["state"] for r in job_register.records(coco)} != {"canceled"} and time.monotonic() < deadline:
        time.sleep(0.2)
    assert {r["state"] for r in job_register.records(coco)} == {"canceled"}


def test_a_request_in_the_database_ends_a_job(coco: Any, tmp_path: Path) -> None:
    """As from another machine, which does not see the job's folder."""
    options = {"imgsz": 32, "batch": 2, "epochs": 100000, "workers": 0, "device": "cpu", "project": str(tmp_path / "runs")}
    job = background.start("train", jobs.view_params(coco, **options), tmp_path / "jobs")
    while "epoch" not in job.status().label:
        assert job.status().active
        time.sleep(0.1)
    job_register.request_end(job.name, coco._doc.id)
    with pytest.raises(UserError, match="cancelled on request"):
        finish(background.follow(job), 5)


def test_a_renamed_dataset_keeps_its_jobs_and_its_old_name_has_none(
    fiftyone_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "PATIENCE", 0.2)
    dataset = fiftyone_db.Dataset("jobs-old")
    params, folder = jobs.view_params(dataset), tmp_path / "train-1"
    folder.mkdir()
    write_json(folder / "spec.json", {"job": "train", "params": params})
    job_register.enter("train", folder, params)
    dataset.name = "jobs-new"
    other = fiftyone_db.Dataset("jobs-old")
    (job,) = background.jobs_of(dataset)
    assert background.jobs_of(other) == [] and set(background.active_jobs(dataset)) == {job} and not background.active_jobs(other)
    assert jobs.load_view(params)._doc.id == dataset._doc.id, "not the one that has its name now"
    job.cancel().join()
    assert job_register.records(dataset)[0]["cancel_requested"]
    assert job_register.records(dataset)[0]["state"] == "canceled" and not background.active_jobs(dataset)
    dataset.delete()
    with pytest.raises(UserError, match="there is no dataset 'jobs-old' any more"):
        jobs.load_view(params)
    assert jobs.load_view({"dataset": "jobs-old"})._doc.id == other._doc.id, "params of a script, by name"
    other.delete()


def test_who_follows_goes_at_the_limit_and_the_job_stays(coco: Any, tmp_path: Path) -> None:
    options = {"imgsz": 32, "batch": 2, "epochs": 100000, "workers": 0, "device": "cpu", "project": str(tmp_path / "runs")}
    job = background.start("train", jobs.view_params(coco, **options), tmp_path / "jobs")
    _, result = finish(background.follow(job, limit=0.5))
    assert result["unfinished"] and "goes on in a process of its own" in result["summary"] and job.status().active
    job.cancel().join()
    assert job.status().state == "cancelled"


def test_one_gpu_is_given_to_one_job(tmp_path: Path) -> None:
    """Another process holds it, waits are told and can be ended, and a death frees it."""
    name = f"test-{os.getpid()}"
    code = (
        "import sys, time; from fiftyone_yoloseg.bridge.gpu_locks import held\n"
        "with held([sys.argv[1]], 'train-1', print, bool):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    told: list[str] = []
    with (
        pytest.raises(Stopped, match="waited for the GPU"),
        gpu_locks.held([name], "train-2", lambda _, text: told.append(text), lambda: bool(told)),
    ):
        pass
    assert told == ["waiting for the GPU, which train-1 uses"]
    holder.kill()
    holder.wait()
    with gpu_locks.held([name, "other"], "train-2", lambda *_: None, lambda: True):
        assert (gpu_locks._folder() / f"{name}.lock").read_text() == "train-2"
    assert gpu_locks.gpus("cpu") == []


def test_jobs_take_turns_unless_they_are_told_not_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the GPU that their device means; jobs without a network take none."""
    begun, asked = list[str](), list[str | None]()

    def gpus(device: str | None) -> list[str]:
        asked.append(device)
        return ["gpu"]

    monkeypatch.setattr(jobs, "gpus", gpus)
    monkeypatch.setattr(gpu_locks, "_folder", lambda: tmp_path)
    for name in ("train", "export", "review", "evaluate"):
        monkeypatch.setitem(jobs.JOBS, name, lambda params, progress, should_stop, n=name: begun.append(n) or {})
    told: list[str] = []

    def run(name: str, share: bool = False, **options: Any) -> None:
        told.clear()
        params = {"options": options, "job": f"{name}-2", **({"share_gpu": True} if share else {})}
        jobs.run(name, params, lambda _, text: told.append(text), lambda: bool(told))

    assert gpu_locks.holder() is None
    with gpu_locks.held(["gpu"], "train-1", lambda *_: None, bool):
        assert gpu_locks.holder() == "train-1"
        for name, options in (("train", {"device": "1"}), ("export", {}), ("review", {"action": "prelabel"}), ("review", {})):
            with pytest.raises(Stopped, match="waited for the GPU"):
                run(name, **options)
            assert told == ["waiting for the GPU, which train-1 uses"]
        assert asked == ["1", "cpu", None, None] and begun == []
        run("train", share=True)
        run("evaluate")
        run("review", action="accept")
        assert begun == ["train", "evaluate", "review"] and len(asked) == 4 and told == []
    run("train")
    assert begun[-1] == "train" and gpu_locks.holder() is None


def test_each_step_of_a_loop_takes_its_turn_as_the_loop_was_told(fiftyone_db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, seen = fiftyone_db.Dataset(), list[tuple[Any, ...]]()
    monkeypatch.setattr(
        jobs, "run", lambda step, params, *_: seen.append((step, params.get("share_gpu"), params.get("job"))) or {"summary": step}
    )
    options = {step: {"model": "nowhere.pt"} for step in ("train", "predict", "evaluate", "export")}
    for share in ({}, {"share_gpu": True}):
        jobs.JOBS["loop"]({**jobs.view_params(dataset), "options": options, "job": "loop-1", **share}, lambda *_: None, bool)
    assert seen == [(step, share, "loop-1") for share in (None, True) for step in options]
    dataset.delete()


def test_a_job_in_a_thread(coco: Any, tmp_path: Path) -> None:
    params = jobs.view_params(coco, out_dir=str(tmp_path / "out"))
    _, result = finish(background.run_in_thread("convert", params))
    assert result["images"] == {"train": 4, "val": 2}
    with pytest.raises(UserError, match="media='move'"):
        finish(background.run_in_thread("convert", jobs.view_params(coco, out_dir=str(tmp_path / "b"), media="move")))


def test_two_private_databases_beside_each_other(fiftyone_db: Any, tmp_path: Path) -> None:
    """FIFTYONE_DATABASE_DIR alone would join this process's database."""
    code = (
        "import sys; from fiftyone_yoloseg.bridge.database import *; use_private_database(sys.argv[1]); ensure_database(); "
        "import fiftyone as fo; print(fo.list_datasets()); fo.Dataset('only-there')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "FIFTYONE_PRIVATE_DATABASE_PORT"}
    here = fiftyone_db.Dataset("only-here")
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path / "db")], env=environment, capture_output=True, text=True, timeout=120)
    assert out.stdout.strip().splitlines()[-1] == "[]", out.stderr
    assert not fiftyone_db.dataset_exists("only-there")
    here.delete()


@pytest.mark.parametrize("name", ["private", "default"])
def test_the_port_of_the_database_is_not_that_of_its_service(name: str, tmp_path: Path) -> None:
    """Until a child of FiftyOne's service has become MongoDB it listens where its parent does."""
    code = """if True:
        import sys, time, fiftyone as fo
        from fiftyone.core.service import DatabaseService as kind
        from fiftyone.service.util import get_listening_tcp_ports
        from fiftyone_yoloseg.bridge.database import ensure_database, use_private_database

        def port(self, asked=[], wait=kind.port.fget):
            asked.append(self)
            mongod = wait(self)
            return next(get_listening_tcp_ports(self.child)) if len(asked) < 3 else mongod

        kind.port = property(port)
        if sys.argv[1] == "private":
            use_private_database(sys.argv[2])
        else:
            kind.service_name = sys.argv[2]  # not that of this machine's user
        ensure_database()
        print(fo.list_datasets(), fo.config.database_dir)
    """
    folder = str(tmp_path / "db")
    unset = ("FIFTYONE_PRIVATE_DATABASE_PORT", "FIFTYONE_DATABASE_URI")
    environment = {**{k: v for k, v in os.environ.items() if k not in unset}, "FIFTYONE_DATABASE_DIR": folder}
    out = subprocess.run([sys.executable, "-c", code, name, folder], env=environment, capture_output=True, text=True, timeout=120)
    assert out.stdout.endswith(f"[] {folder}\n"), out.stderr


def test_a_private_database_ends_with_its_block(tmp_path: Path) -> None:
    """MongoDB has ended when its folder is removed, and the process ends as if there had been none."""
    code = """if True:
        import time, psutil, fiftyone as fo
        from fiftyone_yoloseg.bridge.database import private_database

        def mongods():
            return [p for p in psutil.process_iter(["cmdline"]) if str(folder) in (p.info["cmdline"] or ())]

        with private_database() as folder:
            fo.Dataset()
            print(len(mongods()))
        print(len(mongods()), folder.exists(), flush=True)
    """
    environment = {k: v for k, v in os.environ.items() if k != "FIFTYONE_PRIVATE_DATABASE_PORT"}
    out = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert out.stdout.splitlines()[-2:] == ["2", "0 False"] and out.returncode == 0, out.stdout + out.stderr
    assert "Error" not in out.stderr and "error" not in out.stderr, out.stderr


def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    code = """if True:
        from fiftyone_yoloseg.bridge.database import ensure_database
        from fiftyone_yoloseg.errors import UserError
        try:
            ensure_database()
        except UserError as error:
            print(error)
    """
    address = "mongodb://me:secret@127.0.0.1:1/?serverSelectionTimeoutMS=300"
    unset = ("FIFTYONE_PRIVATE_DATABASE_PORT", "FIFTYONE_DATABASE_DIR")
    environment = {**{k: v for k, v in os.environ.items() if k not in unset}, "FIFTYONE_DATABASE_URI": address}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert "database mongodb://...@127.0.0.1:1/" in out.stdout and "secret" not in out.stdout, out.stdout + out.stderr
    assert "correct FIFTYONE_DATABASE_URI" in out.stdout
