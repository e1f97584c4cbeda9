"""Start jobs in processes of their own and follow them, across operators, App reloads and time limits."""

from __future__ import annotations

import contextlib
import json
import os
import site
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from ..errors import UserError
from . import job_register, jobs
from .jobs import Params
from .worker import CANCEL, STOP, write_json

Step = tuple[float, str]
POLL = 0.4  # seconds between two looks at a job
PATIENCE = 3.0  # seconds that a cancelled job has to end by itself
_START_LIMIT = 120.0  # seconds in which a worker must have come to life
_TAIL = 8192  # bytes at the end of a log that are read for its last lines


@dataclass(frozen=True, slots=True)
class Status:
    """Where a job stands. state: "running", "stopping", "done" (result), "failed" or "cancelled" (error, for a person to read).

    memory: bytes by "ram" and, where a GPU is used, "gpu".
    """

    state: str
    share: float = 0.0
    label: str = "starting"
    result: dict[str, Any] | None = None
    error: str | None = None
    memory: dict[str, int] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        return self.state in ("running", "stopping")


@dataclass(frozen=True, slots=True)
class BackgroundJob:
    """A job and its folder, which holds all that is known of it."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def kind(self) -> str:
        """ "train", "predict", ..."""
        return str((_read(self.folder / "spec.json") or {}).get("job", ""))

    def status(self) -> Status:
        for _ in range(2):  # it may end between the look at its files and the look at its process
            if (result := _read(self.folder / "result.json")) is not None:
                return Status("done", 1.0, "done", result)
            if (error := _read(self.folder / "error.json")) is not None:
                state = "cancelled" if error.get("cancelled") else "failed"
                return Status(state, 1.0, state, error=error["message"])
            if self._elsewhere() or self._alive():
                progress = _read(self.folder / "progress.json") or {}
                asked = (self.folder / STOP).exists() or (self.folder / CANCEL).exists()
                state = "stopping" if asked else "running"
                label = progress.get("label", "starting")
                return Status(state, progress.get("share", 0.0), label, memory=progress.get("memory") or {})
        if (self.folder / CANCEL).exists():
            return Status("cancelled", 1.0, "cancelled", error="cancelled: its process was ended")
        message = f"the process of job {self.name} has ended without a result; its log: {self.folder / 'log.txt'}"
        lines = self.log_tail(8)
        return Status("failed", 1.0, "failed", error="\n".join([message, "its last lines:", *lines] if lines else [message]))

    def stop(self) -> None:
        """Ask the job to stop after its current step, and to keep what it has: a training keeps its best epoch."""
        (self.folder / STOP).touch()

    def cancel(self) -> threading.Thread:
        """End the job: as `stop`, but if it has not ended after PATIENCE seconds its processes are killed. Does not wait.

        Returns the thread that sees to it, for those who do want to wait. Files are written under temporary names: nothing is left half
        written, and a training can be resumed from its last epoch. A job of another machine can only be asked.
        """
        (self.folder / CANCEL).touch()
        job_register.request_end(self.name, job_register.dataset_id(self._params()))
        thread = threading.Thread(target=self._end, name=f"end of {self.name}", daemon=True)
        thread.start()
        return thread

    def log_tail(self, lines: int = 20) -> list[str]:
        """The last lines of what the job has printed."""
        try:
            with (self.folder / "log.txt").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()][-lines:]

    def _end(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.status().active:
            time.sleep(0.1)
        if not self.status().active or self._elsewhere():
            return
        process = self._process()
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()  # so that it starts no others meanwhile
                family = [*process.children(recursive=True), process]
                for member in family:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        member.kill()
                psutil.wait_procs(family, timeout=1)  # they are gone when the job says that they are
        message = f"cancelled: it had not stopped after {PATIENCE:g} seconds, and its process was ended"
        write_json(self.folder / "error.json", {"message": message, "cancelled": True})
        job_register.close_lost(self.name, job_register.dataset_id(self._params()), "cancelled", message)

    def options(self) -> dict[str, Any]:
        """The keyword arguments of its work."""
        options: dict[str, Any] = self._params().get("options", {})
        return options

    def _params(self) -> dict[str, Any]:
        params: dict[str, Any] = (_read(self.folder / "spec.json") or {}).get("params", {})
        return params

    def _process(self) -> psutil.Process | None:
        """The worker, if it lives on this machine."""
        worker = _read(self.folder / "worker.json")
        return None if worker is None else living(worker)

    def _elsewhere(self) -> bool:
        """Whether another machine runs it, whose processes we can neither see nor end: of its state only its files tell."""
        host = (_read(self.folder / "worker.json") or {}).get("host", "")
        return bool(host) and host != socket.gethostname()

    def _alive(self) -> bool:
        if (self.folder / "worker.json").exists():
            return self._process() is not None
        spec = self.folder / "spec.json"
        return spec.exists() and time.time() - spec.stat().st_mtime < _START_LIMIT


def living(identity: dict[str, Any]) -> psutil.Process | None:
    """The process of {"pid": number, "started": when its program began}, if it still runs: another may have got the number since."""
    try:
        process = psutil.Process(identity["pid"])
        same = process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= identity["started"] + 1
        return process if same else None
    except psutil.NoSuchProcess:
        return None


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
    job_register.enter(job, folder, params)
    # where the repository was only downloaded as a plugin, a new process does not know the package
    package_root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if package_root not in site.getsitepackages():
        environment["PYTHONPATH"] = os.pathsep.join([package_root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "fiftyone_yoloseg.bridge.worker", "--detach", str(folder / "spec.json")]
    try:
        subprocess.run(command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=60)
    except subprocess.SubprocessError as error:
        raise UserError(f"the process of job {folder.name} could not be started ({error}); its log: {folder / 'log.txt'}") from None
    return BackgroundJob(folder)


def jobs_of(dataset: Any | None, *kinds: str, limit: int = 20) -> list[BackgroundJob]:
    """The jobs of a dataset that are registered in the database and still have their folder, newest first; None: those that make a dataset."""
    return _with_folders(job_register.records(dataset, kinds), limit)


def job_called(dataset: Any, name: str) -> BackgroundJob | None:
    """The job of a dataset by its name, if it is registered and still has its folder."""
    record = job_register.coordinator(dataset._doc.id).get(name)
    return next(iter(_with_folders([record], 1)), None) if record else None


def active_jobs(dataset: Any | None, *kinds: str) -> dict[BackgroundJob, Status]:
    """The jobs of a dataset that run now. Those whose process has died are closed in the database."""
    return _active(dataset, job_register.records(dataset, kinds))


def active_and_newest(dataset: Any) -> tuple[dict[BackgroundJob, Status], BackgroundJob | None]:
    """`active_jobs`, and the first of `jobs_of`, from one look into the database."""
    records = job_register.records(dataset)
    return _active(dataset, records), next(iter(_with_folders(records, 1)), None)


def _with_folders(records: list[job_register.Record], limit: int) -> list[BackgroundJob]:
    found = (BackgroundJob(Path(record["payload"]["folder"])) for record in records)
    return list(islice((job for job in found if (job.folder / "spec.json").exists()), limit))


def _active(dataset: Any | None, records: list[job_register.Record]) -> dict[BackgroundJob, Status]:
    active = {}
    for record in records:
        if record["state"] not in ("requested", "running"):
            continue
        job = BackgroundJob(Path(record["payload"]["folder"]))
        if (status := job.status()).active:
            active[job] = status
        elif status.state != "done":
            job_register.close_lost(job.name, None if dataset is None else dataset._doc.id, status.state, status.error or "")
    return active


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return value
    except (OSError, ValueError):
        return None


def follow(job: BackgroundJob, limit: float | None = None) -> Generator[Step, None, dict[str, Any]]:
    """Yield (share, label) while the job runs; returns its result. Raises UserError with the job's message if it failed.

    Closing the generator leaves the job running. limit: seconds after which this one goes, and says that the job runs on.
    """
    deadline = None if limit is None else time.monotonic() + limit
    while (status := job.status()).active:
        if deadline is not None and time.monotonic() > deadline:
            return _left(job, "goes on in a process of its own; this window need not wait for it")
        yield status.share, status.label
        time.sleep(POLL)
    if status.error is not None:
        raise UserError(status.error)
    assert status.result is not None
    return status.result


def report_start(job: BackgroundJob) -> Generator[Step, None, dict[str, Any]]:
    """In the place of `follow`: only tells that the job runs."""
    yield 0.0, "started"
    return _left(job, "runs in a process of its own")


def _left(job: BackgroundJob, what: str) -> dict[str, Any]:
    return {
        "summary": f"**{job.name}** {what}. The YOLO-seg panel shows it. Its files: `{job.folder}`",
        "job": job.name,
        "unfinished": True,
    }


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
