"""Start jobs in processes of their own and follow them, across operators, App reloads and time limits."""

from __future__ import annotations

import json
import os
import re
import site
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from ..errors import UserError
from . import jobs
from .jobs import Params
from .worker import write_json

Step = tuple[float, str]
POLL = 0.4  # seconds between two looks at a job
_START_LIMIT = 120.0  # seconds in which a worker must have come to life


@dataclass(frozen=True, slots=True)
class Status:
    """Where a job stands. state: "running", "done" (result) or "failed" (error, for a person to read)."""

    state: str
    share: float = 0.0
    label: str = "starting"
    result: dict[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class BackgroundJob:
    """A job and its folder, which holds all that is known of it."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def status(self) -> Status:
        for _ in range(2):  # a job may end between the look at its files and the look at its process
            if (result := _read(self.folder / "result.json")) is not None:
                return Status("done", 1.0, "done", result)
            if (error := _read(self.folder / "error.json")) is not None:
                return Status("failed", 1.0, "failed", error=error["message"])
            if self._alive():
                progress = _read(self.folder / "progress.json") or {}
                return Status("running", progress.get("share", 0.0), progress.get("label", "starting"))
        return Status(
            "failed", 1.0, "failed", error=f"the process of job {self.name} has ended without a result; its log: {self._log_tail()}"
        )

    def stop(self) -> None:
        """Ask the job to stop after its current step."""
        (self.folder / "stop").touch()

    def _alive(self) -> bool:
        worker = _read(self.folder / "worker.json")
        if worker is None:
            spec = self.folder / "spec.json"
            return spec.exists() and time.time() - spec.stat().st_mtime < _START_LIMIT
        try:
            process = psutil.Process(worker["pid"])
            # another process may have got the number since
            return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= worker["started"] + 1
        except psutil.NoSuchProcess:
            return False

    def _log_tail(self) -> str:
        log = self.folder / "log.txt"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        return f"{log}: {lines[-1] if lines else 'empty'}"


def start(job: str, params: Params, jobs_dir: Path) -> BackgroundJob:
    """Start a job in a detached process. Its folder appears under `jobs_dir`. Raises UserError if that cannot be written."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        for n in range(1, 1000):
            folder = jobs_dir / (f"{job}-{stamp}" if n == 1 else f"{job}-{stamp}-{n}")
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                continue
        write_json(folder / "spec.json", {"job": job, "params": params})
    except OSError as error:
        raise UserError(f"the job folder {jobs_dir} cannot be written: {error.strerror}") from None
    # where the repository was only downloaded as a plugin, a new process does not know the package
    package_root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if package_root not in site.getsitepackages():
        environment["PYTHONPATH"] = os.pathsep.join([package_root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "fiftyone_yoloseg.bridge.worker", "--detach", str(folder / "spec.json")]
    subprocess.run(command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=60)
    return BackgroundJob(folder)


def jobs_of(jobs_dir: Path, job: str) -> list[BackgroundJob]:
    """All jobs of one kind, newest first."""
    if not jobs_dir.is_dir():
        return []
    return [
        BackgroundJob(f) for f in sorted(jobs_dir.iterdir(), reverse=True) if re.match(rf"{job}-\d", f.name) and (f / "spec.json").exists()
    ]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return value
    except (OSError, ValueError):
        return None


def follow(job: BackgroundJob) -> Generator[Step, None, dict[str, Any]]:
    """Yield (share, label) while the job runs; returns its result. Raises UserError with the job's message if it failed.

    Closing the generator leaves the job running.
    """
    while (status := job.status()).state == "running":
        yield status.share, status.label
        time.sleep(POLL)
    if status.error is not None:
        raise UserError(status.error)
    assert status.result is not None
    return status.result


def report_start(job: BackgroundJob) -> Generator[Step, None, dict[str, Any]]:
    """In the place of `follow`: only tells that the job runs."""
    yield 0.0, "started"
    return {"summary": f"**{job.name}** runs in a process of its own. Its files: `{job.folder}`", "job": job.name}


def run_in_thread(job: str, params: Params) -> Generator[Step, None, dict[str, Any]]:
    """As `follow`, for a job inside this process. Closing the generator stops the job after its current step."""
    latest: Step = (0.0, "starting")
    stop = threading.Event()

    def progress(share: float, label: str) -> None:
        nonlocal latest
        latest = share, label

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(jobs.run, job, params, progress, stop.is_set)
        try:
            while not wait([future], POLL).done:
                yield latest
        finally:
            stop.set()
        return future.result()
