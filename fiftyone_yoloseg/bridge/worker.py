"""A job in a process of its own: `python -m fiftyone_yoloseg.bridge.worker <folder>/spec.json`.

Writes into the spec's folder: worker.json (its process), progress.json (replaced at each step), then result.json or error.json.
The job stops when a file named `stop` appears there. Everything printed goes to log.txt.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

_EVERY = 0.25  # seconds between two writes of progress


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--detach"]:
        return _detach(Path(arguments[1]))
    folder = Path(arguments[0]).absolute().parent
    write_json(folder / "worker.json", {"pid": os.getpid(), "started": time.time()})
    try:
        spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        result = _work(folder, spec)
    except BaseException as error:  # noqa: BLE001 - whatever ends this process, the App must hear of it
        from fiftyone_yoloseg.errors import UserError

        traceback.print_exc()
        user = isinstance(error, UserError)
        message = str(error) if user else f"{type(error).__name__}: {error} (see {folder / 'log.txt'})"
        write_json(folder / "error.json", {"message": message, "user_error": user})
        return 1
    write_json(folder / "result.json", result)
    return 0


def _work(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    from fiftyone_yoloseg.bridge import jobs
    from fiftyone_yoloseg.bridge.database import ensure_database, keep_database_alive

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    ensure_database()
    keep_database_alive()
    last = 0.0

    def progress(share: float, label: str) -> None:
        nonlocal last
        if time.monotonic() - last > _EVERY or share >= 1:
            last = time.monotonic()
            write_json(folder / "progress.json", {"share": share, "label": label})

    progress(0.0, "reading the dataset")
    return jobs.run(spec["job"], spec["params"], progress, (folder / "stop").exists)


def _detach(spec: Path) -> int:
    """Start the worker and leave it behind: it must outlive the App's server, which takes its own children with it."""
    with (spec.parent / "log.txt").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "fiftyone_yoloseg.bridge.worker", str(spec)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    return 0


def write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, ensure_ascii=False, default=str), encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
