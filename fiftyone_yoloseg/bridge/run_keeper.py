"""The listener that enters a training in the registry of its dataset."""

from __future__ import annotations

import logging
import math
import os
import platform
import socket
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import fiftyone as fo
import torch
from pymongo.errors import PyMongoError

from .. import __version__
from ..engine.events import EpochInfo, RunEnd, RunInfo, TrainingListener, calm_phase
from ..engine.state import fingerprint
from ..runtime.reports import file_sha256
from . import paces
from . import runs as memory
from .run_registry import amend, runs
from .worker import memory_used

log = logging.getLogger(__name__)


class RunKeeper(TrainingListener):
    """Enters a training in the registry when it begins, and what became of it when it ends."""

    looks_at_predictions = False

    def __init__(self, view: Any, facts: Mapping[str, Any], splits: Mapping[str, Any]) -> None:
        self.view, self.facts, self.splits, self.key = view, dict(facts), splits, ""
        self.ends: list[float] = []  # of epochs, and when this session began; seconds

    def on_run_start(self, run: RunInfo) -> None:
        self.settings, self.ends = run.settings, [time.monotonic()]
        calm = calm_phase(run.settings)
        facts = {
            **self.facts,
            "dir": str(run.dir.absolute()),
            "best": str((run.dir / "weights" / "best.pt").absolute()),
            "last": str((run.dir / "weights" / "last.pt").absolute()),
            "settings": run.settings.model_dump(mode="json", exclude_unset=True, exclude={"resume"}),
            "epochs": run.settings.epochs,
            "state": "running",
            "process": {"pid": os.getpid(), "started": time.time(), "host": socket.gethostname()},
            "data": {"train": fingerprint(run.training), "val": fingerprint(run.validation)},
            "versions": {
                "fiftyone_yoloseg": __version__,
                "fiftyone": fo.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "calm": calm and {"epoch": calm.epoch, "what": calm.what},
        }
        known = runs(self.view)
        earlier = next((r for r in known if r.dir == run.dir.absolute()), None)
        if earlier and run.settings.resume:
            self.key = earlier.key
            for own in ("settings", "model", "origin"):  # it goes on with its own
                del facts[own]
            amend(self.view._dataset, self.key, **facts)
            return
        if earlier:  # its folder is used again: what is remembered is of files that are gone, and of other samples
            self.view._dataset.delete_run(earlier.key)
        taken = {r.name for r in known if r is not earlier}  # runs of several projects may have folders of one name
        name = next(n for i in range(1, len(taken) + 2) if (n := run.dir.name if i == 1 else f"{run.dir.name}_{i}") not in taken)
        self.key = memory.remember(self.view, "train", name, **facts, metrics={})
        dataset = self.view._dataset
        ids = {split: [r.source_id for r in records] for split, records in self.splits.items()}
        dataset.save_run_results(self.key, dataset.init_run_results(self.key, samples_by_split=ids))

    def on_epoch_end(self, epoch: EpochInfo) -> None:
        self.ends.append(time.monotonic())
        if epoch.best and epoch.metrics and self.key:
            try:
                amend(self.view._dataset, self.key, metrics=_finite(epoch.metrics.results_dict), best_epoch=epoch.epoch)
            except PyMongoError:  # the end is still to be entered
                log.exception("the registry of runs could not be told of epoch %d", epoch.epoch)

    def on_run_end(self, end: RunEnd) -> None:
        result = end.result
        facts: dict[str, Any] = {
            "state": "stopped" if result.stopped else "done",
            "best_epoch": result.best_epoch,
            "epochs_done": result.epochs,
        }
        if result.metrics:
            facts["metrics"] = _finite(result.metrics.results_dict)
        amend(self.view._dataset, self.key, **facts, seconds_per_step=result.seconds_per_step, sha256=file_sha256(Path(result.best)))
        self._note_pace()

    def _note_pace(self) -> None:
        """For the estimates of forms: the median of what epochs took, the first only if there is no other."""
        took = [later - earlier for earlier, later in pairwise(self.ends)]
        if not took or self.settings.engine == "ray":
            return
        seconds, images = median(took[1:] or took), sum(map(len, self.splits.values()))
        device, memory = paces.device_kind(self.settings.device), memory_used()
        paces.note("train", images, seconds, model=self.facts.get("size", ""), imgsz=self.settings.imgsz, device=device, memory=memory)

    def on_run_failed(self, error: BaseException) -> None:
        amend(self.view._dataset, self.key, state="failed", error=f"{type(error).__name__}: {error}"[:2000])


def _finite(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: float(v) if math.isfinite(v) else None for name, v in values.items()}
