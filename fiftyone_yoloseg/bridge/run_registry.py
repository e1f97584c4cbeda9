"""The trainings of a dataset: what they were made of, how they stand, and what can be done with them. Each is a custom run of the dataset.

What a run remembers beside what `runs.remember` was always told (JSON-able, in the run's configuration):

    state      "running", "done", "stopped" or "failed" (then error); a run whose process is gone reads as "interrupted"
    process    {"pid", "started", "host"} of who trains; job: its background job, if it has one
    model      what it started from, and origin: what is known of those weights, their licence included
    data       a split: number of images, hash of images and of labels (`engine.state.fingerprint`)
    versions   of this package, FiftyOne, torch and Python; sha256: of best.pt
    calm       {"epoch", "what"}: from which epoch on augmentation is milder; null if it never is

The ids of its samples, by split, are the run's results: FiftyOne keeps them apart, in GridFS, and they are read only when they are asked for.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone.core.odm as foo

from ..config import TrainSettings, parse
from ..engine.runlog import read_results
from ..errors import UserError
from . import runs as memory
from .background import job_called, living

KEY = "metrics/mAP50-95(M)"
_TRAIN = "yoloseg_train_"


@dataclass(frozen=True, slots=True)
class Run:
    """One training. Read it anew (`runs`) to see what has changed. name: as shown; key: of the custom run."""

    dataset: Any
    key: str
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.facts["about"])

    @property
    def dir(self) -> Path:
        return Path(self.facts["dir"])

    @property
    def best(self) -> Path:
        return Path(self.facts["best"])

    @property
    def metrics(self) -> dict[str, float]:
        return dict(self.facts.get("metrics") or {})

    @property
    def settings(self) -> TrainSettings:
        return parse(TrainSettings, dict(self.facts["settings"]))

    @property
    def state(self) -> str:
        """ "running", "done", "stopped", "failed", or "interrupted": it was not finished, and its process is gone."""
        state = str(self.facts.get("state", "done"))
        process = self.facts.get("process")
        if state == "running" and process and process["host"] == socket.gethostname() and living(process) is None:
            return "interrupted"
        return state

    @property
    def reason(self) -> str:
        """Why it broke or was interrupted, for a person to read; empty for all others."""
        if self.state == "interrupted":
            job = job_called(self.dataset, self.facts["job"]) if self.facts.get("job") else None
            return (job and job.status().error) or "its process is gone"
        return str(self.facts.get("error", "")) if self.state == "failed" else ""

    @property
    def resumable(self) -> bool:
        return self.state in ("stopped", "interrupted", "failed") and Path(self.facts["last"]).is_file()

    def history(self) -> dict[str, list[float]]:
        """Columns of results.csv, one value an epoch (NaN where there is none); empty before the first."""
        try:
            found = read_results(self.dir / "results.csv")
        except OSError:
            return {}
        return found if any(found.values()) else {}

    def sample_ids(self, split: str = "train") -> list[str]:
        """Ids of the samples that it trained on, or chose its best epoch by ("val"). Raises UserError if they were not remembered."""
        results = self.dataset.load_run_results(self.key)
        samples = getattr(results, "samples_by_split", None)
        if samples is None:
            raise UserError(f"run '{self.name}' does not know its samples: it is of an earlier version")
        return list(samples.get(split, []))

    def view(self, split: str = "train") -> Any:
        """The samples that it trained on (or of another split), as far as they still exist."""
        return self.dataset.select(self.sample_ids(split))

    def trained_view(self) -> Any:
        """The view that was given to the training, with what it selects today."""
        return self.dataset.load_run_view(self.key)

    def seen_in(self, view: Any) -> int:
        """How many samples of a view it was trained on."""
        return len(set(self.sample_ids()) & set(view.values("id")))

    def rename(self, name: str) -> Run:
        """Give it another name; its files stay where they are. Raises UserError."""
        if self.state == "running":
            raise UserError(f"run '{self.name}' is under way: rename it when it has ended")
        key = _TRAIN + name
        check_run_name(name)
        if self.dataset.has_run(key):
            raise UserError(f"'{self.dataset.name}' has a run '{name}' already: choose another name")
        self.dataset.rename_run(self.key, key)
        amend(self.dataset, key, about=name)
        for facts in memory.recall(self.dataset, "export"):
            if facts.get("training") == self.name:
                amend(self.dataset, memory.key_of("export", facts["about"]), training=name)
        return find(self.dataset, name)

    def delete(self, *, files: bool = False) -> None:
        """Forget it. files: and delete its folder with the checkpoints. Raises UserError while it runs, or if the folder is not that of a run."""
        if self.state == "running":
            raise UserError(f"run '{self.name}' is under way: stop it first")
        if files and self.dir.exists():
            if not (self.dir / "args.yaml").is_file() or not (self.dir / "weights").is_dir():
                raise UserError(f"'{self.dir}' is not a run folder any more (no args.yaml and weights): delete it by hand")
            shutil.rmtree(self.dir)
        self.dataset.delete_run(self.key)

    def resume_options(self) -> dict[str, Any]:
        """Keyword arguments of `train` with which it goes on, on `trained_view`. Raises UserError if it cannot."""
        if not self.resumable:
            raise UserError(
                f"run '{self.name}' is {self.state}" + ("" if self.state in ("done", "running") else ", and its last.pt is gone")
            )
        if "val" in self.facts and self.facts["val"] is None:
            raise UserError(f"run '{self.name}' was validated on a view: call train(..., model=last.pt, resume=True) with that view as val")
        options = {
            "classes": list(self.facts["classes"]),
            "maskless": self.facts.get("maskless", "error"),
            "seed": self.settings.seed,
            "model": self.facts["last"],
            "label_field": self.facts["trained_on_field"],
            "val": self.facts.get("val", "auto"),
            "resume": True,
        }
        return options if self.settings.device is None else {**options, "device": self.settings.device}

    def resume(self, **options: Any) -> Any:
        """Train on from its last complete step, as `train` does; returns its TrainResult. Raises UserError."""
        from .train import train

        return train(self.trained_view(), **{**self.resume_options(), **options})


def runs(dataset: Any) -> list[Run]:
    """The trainings of a dataset (or of a view's dataset), newest first."""
    dataset = dataset._dataset
    query = {"_dataset_id": dataset._doc.id, "key": {"$regex": f"^{_TRAIN}"}}
    found = [doc for doc in foo.get_db_conn().runs.find(query, {"key": 1, "config": 1}) if "dir" in doc["config"]]
    found.sort(key=lambda doc: (str(doc["config"]["time"]), doc["_id"]), reverse=True)
    return [Run(dataset, doc["key"], doc["config"]) for doc in found]


def check_run_name(name: str) -> None:
    """Raises UserError if a run cannot be called so."""
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise UserError(f"name={name!r}: use letters, digits and underscores, and begin with a letter")


def find(dataset: Any, name: str) -> Run:
    """A run by its name. Raises UserError that lists what there is."""
    known = runs(dataset)
    for run in known:
        if run.name == name:
            run.dataset.reload()  # another process may have made it
            return run
    raise UserError(f"'{dataset._dataset.name}' has no run '{name}'; there are {', '.join(r.name for r in known) or 'none'}")


def exports(dataset: Any) -> list[tuple[str | None, dict[str, Any]]]:
    """(name of the training, report) of every export of a model on this dataset, newest first; no name for models of elsewhere."""
    return [(facts.get("training"), facts["report"]) for facts in memory.recall(dataset, "export") if "report" in facts]


def maker(dataset: Any, model: str | Path | None) -> Run | None:
    """The run that made a model file: one of its checkpoints, something in its folder, or one of its exports."""
    if model is None:
        return None
    path = Path(model).expanduser().absolute()
    exported = {name for name, report in exports(dataset) if name and str(path) == report["path"]}
    for run in runs(dataset):
        if path.is_relative_to(run.dir) or run.name in exported:
            return run
    return None


def leak_note(view: Any, model: str | Path | None) -> str | None:
    """What to say if a model is judged on samples that it was trained on."""
    run = maker(view, model)
    if run is None:
        return None
    run.dataset.reload()
    try:
        seen = run.seen_in(view)
    except UserError:  # of a version that did not remember the samples
        return None
    if not seen:
        return None
    return (
        f"**{seen} of these {len(view)} samples were trained on** by run `{run.name}`: these numbers are better than those on new images. "
        f'In the YOLO-seg panel, run `{run.name}`, "Show what it was validated on" shows samples that it did not learn from'
    )


def compare_runs(one: Run, other: Run) -> dict[str, dict[str, tuple[Any, Any]]]:
    """What differs: {"settings": {name: (one's, other's)}, "data": ..., "metrics": all metrics that either has}."""
    a, b = one.settings.model_dump(mode="json"), other.settings.model_dump(mode="json")
    settings = {name: (a[name], b[name]) for name in a if a[name] != b[name] and name not in ("name", "project", "exist_ok")}
    told = {
        "model": "model",
        "labels": "trained_on_field",
        "classes": "classes",
        "images": "images",
        "split": "split",
        "versions": "versions",
    }
    data = {what: pair for what, key in told.items() if (pair := (one.facts.get(key), other.facts.get(key)))[0] != pair[1]}
    names = dict.fromkeys([*one.metrics, *other.metrics])
    return {"settings": settings, "data": data, "metrics": {n: (one.metrics.get(n), other.metrics.get(n)) for n in names}}


def amend(dataset: Any, key: str, **facts: Any) -> None:
    """Change or add facts of a run."""
    dataset.reload()
    config = dataset.get_run_info(key).config
    for name, value in facts.items():
        setattr(config, name, value)
    dataset.update_run_config(key, config)
