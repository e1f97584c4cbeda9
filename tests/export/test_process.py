"""An export lives in a process of its own: what that process suffers is one clear error here, and nothing of it is left."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from fiftyone_yoloseg.config import ExportSettings, parse
from fiftyone_yoloseg.engine.checkpoint import Checkpoint
from fiftyone_yoloseg.errors import ExportError, MissingDependencyError, SettingsError, Stopped
from fiftyone_yoloseg.export import export
from fiftyone_yoloseg.export.process import run_alone

KEPT: list[Any] = []


def double(tell: Any, number: int) -> dict[str, Any]:
    tell(0.5, "half done")
    logging.getLogger("fiftyone_yoloseg.export").warning("a word")
    print("noise")
    return {"answer": 2 * number, "pid": os.getpid(), "temporary": tempfile.gettempdir()}


def use_a_semaphore(tell: Any) -> None:
    KEPT.append(multiprocessing.RLock())


def refuse(tell: Any) -> None:
    raise SettingsError("imgsz=7: too small")


def miss(tell: Any) -> None:
    raise MissingDependencyError("paddle", "export to PaddlePaddle", "paddle")


def fail(tell: Any) -> None:
    print("loading the toolchain", file=sys.stderr)
    raise ValueError("axis 7 is out of range")


def crash(tell: Any) -> None:
    for i in range(9):
        os.write(2, f"native line {i}\n".encode())
    os.kill(os.getpid(), signal.SIGSEGV)


def be_killed(tell: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(tell: Any) -> None:
    os._exit(3)


def wait_with_child(tell: Any) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    tell(0.1, f"{os.getpid()} {child.pid}")
    time.sleep(600)


def test_the_result_progress_and_log_lines_come_back(tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    told: list[tuple[float, str]] = []
    with caplog.at_level(logging.INFO, "fiftyone_yoloseg"):
        result = run_alone("work", tmp_path, double, 21, progress=lambda share, label: told.append((share, label)))
    assert result["answer"] == 42 and result["pid"] != os.getpid() and result["temporary"] == str(tmp_path)
    assert told == [(0.5, "half done")] and "a word" in caplog.messages and "noise" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("work", "kind", "message"),
    [
        (refuse, SettingsError, r"^imgsz=7: too small$"),
        (miss, MissingDependencyError, r"^export to PaddlePaddle needs the package 'paddle': pip install 'fiftyone-yoloseg\[paddle\]'$"),
        (fail, ExportError, r"^work: failed with ValueError: axis 7 is out of range \(test_process\.py:\d+\); it printed last: loading the toolchain$"),
        (crash, ExportError, r"^work: its process was killed by SIGSEGV; it printed last: .*native line 8$"),
        (be_killed, ExportError, r"^work: its process was killed by SIGKILL \(by hand, or because the memory was used up\); it printed nothing$"),
        (leave, ExportError, r"^work: its process ended with exit code 3; it printed nothing$"),
    ],
)  # fmt: skip
def test_failures_are_one_line(tmp_path: Path, work: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        run_alone("work", tmp_path, work)
    assert "\n" not in str(caught.value) and type(caught.value) is kind


def test_semaphores_of_a_toolchain_are_given_back(tmp_path: Path) -> None:
    """As those of progress bars: Python tells the user of what is left at its end."""
    program = f"from pathlib import Path; import test_process as t; t.run_alone('work', Path({str(tmp_path)!r}), t.use_a_semaphore)"
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))}
    ended = subprocess.run([sys.executable, "-c", program], env=where, capture_output=True, text=True, check=True)
    assert ended.stderr == ""


@pytest.mark.parametrize("how", ["stop", "Ctrl-C"])
def test_ending_it_ends_all_that_it_started(tmp_path: Path, how: str) -> None:
    pids: list[int] = []

    def progress(share: float, label: str) -> None:
        pids.extend(map(int, label.split()))
        if how == "Ctrl-C":
            raise KeyboardInterrupt

    with pytest.raises(Stopped if how == "stop" else KeyboardInterrupt):
        run_alone("work", tmp_path, wait_with_child, progress=progress, should_stop=lambda: how == "stop" and bool(pids))
    assert len(pids) == 2
    _, alive = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], timeout=5)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


def test_an_export_leaves_only_its_artifact_and_report(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    told: list[float] = []
    settings = parse(ExportSettings, {"output": tmp_path, "imgsz": 64, "format": "onnx"})
    report = export(lively_checkpoint, settings, None, lambda share, label: told.append(share))
    assert sorted(p.name for p in tmp_path.iterdir()) == [report.path.name, f"{report.path.name}.report.json"]
    assert report.verified and told[-1] == 1.0 and report.max_abs_error["protos"] < 1e-4


def test_a_stopped_export_leaves_nothing(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="export to ONNX was stopped; nothing was written"):
        export(lively_checkpoint, parse(ExportSettings, {"output": tmp_path, "imgsz": 64}), None, None, lambda: True)
    assert list(tmp_path.iterdir()) == []
