"""Jobs in processes of their own: results, errors, deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fiftyone")

from fiftyone_yoloseg.bridge import background, jobs
from fiftyone_yoloseg.errors import UserError


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
    assert background.jobs_of(tmp_path / "jobs", "convert") == [job] and background.jobs_of(tmp_path / "jobs", "train") == []


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
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(UserError, match="has ended without a result; its log"):
        finish(background.follow(other))


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
