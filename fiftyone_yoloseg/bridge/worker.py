"""A job in a process of its own: `python -m fiftyone_yoloseg.bridge.worker <folder>/spec.json`.

Writes into the spec's folder: worker.json (its process), progress.json (replaced at each step), then result.json or error.json.
The job stops when a file named `stop` or `cancel` appears there; after `cancel` it counts as cancelled, whatever it has done.
Everything printed goes to log.txt. The job's record in the database (`job_register`) is kept up to date meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

STOP, CANCEL = "stop", "cancel"
_EVERY = 0.25  # seconds between two writes of progress
_LOOK = 0.2  # seconds between two looks for files that ask to stop
_NICE = 5  # on Linux a third of what a process gets that works beside it on the same core


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--detach"]:
        return _detach(Path(arguments[1]))
    folder = Path(arguments[0]).absolute().parent
    write_json(folder / "worker.json", {"pid": os.getpid(), "started": time.time(), "host": socket.gethostname()})
    try:
        spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        result = _work(folder, spec)
    except BaseException as error:  # noqa: BLE001 - whatever ends this process, the App must hear of it
        from fiftyone_yoloseg.errors import UserError

        traceback.print_exc()
        user, cancelled = isinstance(error, UserError), (folder / CANCEL).exists()
        message = str(error) if user else f"{type(error).__name__}: {error} (see {folder / 'log.txt'})"
        write_json(folder / "error.json", {"message": message, "user_error": user, "cancelled": cancelled})
        return 1
    write_json(folder / "result.json", result)
    return 0


def _work(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    from fiftyone_yoloseg.bridge import jobs
    from fiftyone_yoloseg.bridge.database import ensure_database, keep_database_alive
    from fiftyone_yoloseg.bridge.job_register import Heartbeat, dataset_id
    from fiftyone_yoloseg.errors import Stopped

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    ensure_database()
    keep_database_alive()
    state: dict[str, Any] = {"share": 0.0, "label": "reading the dataset"}
    last = looked = 0.0
    asked = False

    def progress(share: float, label: str) -> None:
        nonlocal last
        if time.monotonic() - last > _EVERY or share >= 1:
            last = time.monotonic()
            state.update(share=share, label=label, memory=memory_used())
            write_json(folder / "progress.json", state)

    def should_stop() -> bool:
        nonlocal asked, looked
        if not asked and time.monotonic() - looked > _LOOK:
            looked = time.monotonic()
            asked = (folder / STOP).exists() or (folder / CANCEL).exists()
        return asked

    progress(0.0, "reading the dataset")
    heartbeat = Heartbeat(folder.name, dataset_id(spec["params"]), lambda: dict(state), (folder / CANCEL).touch)
    heartbeat.start()
    end, message = "failed", ""
    try:
        result = jobs.run(spec["job"], {**spec["params"], "job": folder.name}, progress, should_stop)
        if (folder / CANCEL).exists():
            raise Stopped(
                "cancelled on request; a training can be resumed from its last complete step" if spec["job"] == "train" else "cancelled"
            )
        end, message = "done", str(result.get("summary", ""))
        return result
    except BaseException as error:
        end, message = "cancelled" if (folder / CANCEL).exists() else "failed", str(error) or type(error).__name__
        raise
    finally:
        heartbeat.finish(end, message)


def memory_used() -> dict[str, int]:
    """Bytes that this process uses: "ram" now, "gpu" at most so far on one GPU, if it uses one."""
    import psutil

    used = {"ram": int(psutil.Process().memory_info().rss)}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        used["gpu"] = max(int(torch.cuda.max_memory_reserved(i)) for i in range(torch.cuda.device_count()))
    return used


def _detach(spec: Path) -> int:
    """Start the worker and leave it behind: it must outlive the App's server, which takes its own children with it.

    The worker gives way to others on the processor: the App comes before a training on the CPU.
    """
    import psutil

    psutil.Process().nice(getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", _NICE))  # Windows has classes; the worker inherits it
    with (spec.parent / "log.txt").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "fiftyone_yoloseg.bridge.worker", str(spec)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    # a Linux that shares out between sessions first (sched_autogroup) weighs this one by a number of its own
    with contextlib.suppress(OSError):
        Path(f"/proc/{worker.pid}/autogroup").write_text(str(_NICE))
    return 0


def write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, ensure_ascii=False, default=str), encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
