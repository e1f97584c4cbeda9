"""What the panel shows, read from the database and run folders without loading a dataset's samples or a result's blobs more than once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from . import background
from .background import BackgroundJob, Status
from .run_registry import Run, runs

BOX = "metrics/mAP50-95(B)"
_RECENT = 24 * 3600  # seconds in which a failed job is still shown
_cached: dict[tuple[str, str, str], dict[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A job that runs. run: the training that it does, once that has begun. eta: seconds to its end, None where that cannot be told yet."""

    job: BackgroundJob
    kind: str
    status: Status
    run: Run | None
    eta: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """active: jobs that run. failed: the newest job, if it failed. runs: all trainings, newest first."""

    active: list[ActiveJob]
    failed: tuple[BackgroundJob, Status] | None
    runs: list[Run]


def overview(dataset: Any) -> Overview:
    known = runs(dataset)
    by_job = {run.facts.get("job"): run for run in known}
    active, (running, newest) = list[ActiveJob](), background.active_and_newest(dataset)
    for job, status in running.items():
        run = by_job.get(job.name)
        active.append(ActiveJob(job, job.kind, status, run, _eta(run, status)))
    failed = None
    if newest and not active and time.time() - newest.folder.stat().st_mtime < _RECENT and (status := newest.status()).state == "failed":
        failed = newest, status
    return Overview(active, failed, known)


def _eta(run: Run | None, status: Status) -> float | None:
    """By the share that the session has done since it began."""
    if run is None or not run.facts.get("process") or status.share < 0.005:
        return None
    spent = time.time() - float(run.facts["process"]["started"])
    return spent * (1 - status.share) / status.share


def evaluations(dataset: Any) -> dict[str, str]:
    """Our evaluations of a dataset, newest first: key -> what was compared. Their results are not read."""
    from .coco_evaluation import METHOD  # what it needs of FiftyOne is not loaded when the App starts

    found = []
    for key, doc in dataset._doc.evaluations.items():
        config = doc.config or {}
        if config.get("method") == METHOD:
            found.append((doc.timestamp, key, f"{key}: {config.get('pred_field')} against {config.get('gt_field')}"))
    return {key: text for _, key, text in sorted(found, reverse=True)}


def evaluation(dataset: Any, key: str) -> dict[str, Any]:
    """The numbers of an evaluation: {"coco", "facts": as its results have them, "confusion": (classes, rows by truth, columns as predicted), "recall",
    "pr": {class: precision at each recall}, "pred_field", "gt_field", "stamp": tells it from an earlier one of the same name}."""
    when = dataset._doc.evaluations[key].timestamp
    known = str(dataset._doc.id), key, str(when)
    found = _cached.get(known)
    if found is None:
        found = {**_read_evaluation(dataset, key), "stamp": f"{when:%Y%m%d%H%M%S%f}"}
        _cached.clear()
        _cached[known] = found
    return found


def _read_evaluation(dataset: Any, key: str) -> dict[str, Any]:
    results = dataset.load_evaluation_results(key)
    matrix, labels, _ = results._confusion_matrix(include_other=False, include_missing=True)
    curves = {}
    precision = getattr(results, "precision", None)
    if precision is not None and len(results.thresholds if results.thresholds is not None else ()):
        for i, name in enumerate(results.classes):
            curves[name] = [float(p) for p in precision[0][i]]
    info = dataset.get_evaluation_info(key).config
    return {
        "coco": getattr(results, "coco", {}) or {},
        "facts": getattr(results, "facts", {}) or {},
        "confusion": ([str(n) for n in labels], [[int(v) for v in row] for row in matrix]),
        "recall": [float(r) for r in getattr(results, "recall", [])] if curves else [],
        "pr": curves,
        "pred_field": info.pred_field,
        "gt_field": info.gt_field,
    }
