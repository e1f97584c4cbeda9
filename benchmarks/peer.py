"""The peer as a black box: trained in an environment of its own, its checkpoints scored by our code."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TRAIN = """
import json, sys
from ultralytics import YOLO
job = json.loads(sys.argv[1])
YOLO(job.pop("model")).train(**job)
"""


def python() -> list[str]:
    """The command that starts Python with the peer: $YOLOSEG_PEER_PYTHON, else an environment that uv makes."""
    own = os.environ.get("YOLOSEG_PEER_PYTHON")
    return [own] if own else ["uv", "run", "--isolated", "--no-project", "--with", "ultralytics", "python"]


def train(folder: Path, **job: Any) -> Path:
    """Train the peer with its own settings (`model`, `data`, `epochs`, ...); returns its run folder. Exits with its output if it fails."""
    job = {"device": "cpu", "plots": False, "project": str(folder), "name": "peer", "exist_ok": True, "verbose": False} | job
    done = subprocess.run([*python(), "-c", TRAIN, json.dumps(job)], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the peer failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return folder / "peer"


def columns(results: Path) -> list[dict[str, float]]:
    """The rows of a results.csv, of the peer's or of ours."""
    with results.open() as file:
        return [{key.strip(): float(value) for key, value in row.items() if value.strip()} for row in csv.DictReader(file)]


def seconds_per_epoch(results: Path) -> float:
    """Mean over all epochs but the first, which pays for starting."""
    times = [row["time"] for row in columns(results)]
    return (times[-1] - times[0]) / (len(times) - 1)
