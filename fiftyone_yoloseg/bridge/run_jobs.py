"""The jobs `manage_runs` and `loop`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import Stopped, UserError
from ..types import ProgressFn
from . import run_registry

STEPS = {"train": 0.8, "predict": 0.08, "evaluate": 0.05, "export": 0.07}
"""The steps of a loop, in their order, and the share of its time that each is taken to need."""


def manage(view: Any, *, action: str, run: str, name: str | None = None, other: str | None = None, files: bool = False) -> dict[str, Any]:
    """Rename, delete, compare or show runs of a dataset; returns what to tell. Raises UserError."""
    found = run_registry.find(view, run)
    if action == "rename":
        if not name:
            raise UserError("action='rename': give the new name (name=...)")
        renamed = found.rename(name)
        return {"summary": f"**{run}** is now **{renamed.name}**. Its files stay in `{renamed.dir}`", "run": renamed.name}
    if action == "delete":
        found.delete(files=files)
        return {
            "summary": f"**{run}** is forgotten, " + (f"and `{found.dir}` deleted" if files else f"its files stay in `{found.dir}`"),
            "run": run,
        }
    if action == "compare":
        if not other:
            raise UserError("action='compare': name the run to compare with (other=...)")
        differs = run_registry.compare_runs(found, run_registry.find(view, other))
        lines = [f"| | {run} | {other} |", "|---|---|---|"]
        lines += [
            f"| {key.removeprefix('metrics/')} | {_text(a)} | {_text(b)} |" for part in differs.values() for key, (a, b) in part.items()
        ]
        return {"summary": "\n".join(lines), "run": run, **differs}
    if action == "samples":
        shown = {split: found.view(split)._serialize() for split in ("train", "val") if found.sample_ids(split)}
        counts = ", ".join(f"{len(found.sample_ids(split))} {split}" for split in shown)
        return {"summary": f"**{run}**: {counts} samples", "run": run, "views": shown}
    raise UserError(f"action={action!r}: rename, delete, compare or samples")


def resumed(run: run_registry.Run) -> dict[str, Any]:
    """The params of the job that goes on with a run. Raises UserError if it cannot, or if a job does already: two would write into one folder."""
    from .background import active_jobs
    from .jobs import view_params

    options = run.resume_options()
    if any(job.options().get("model") == options["model"] for job in active_jobs(run.dataset, "train")):
        raise UserError(f"run '{run.name}' is being resumed already")
    return view_params(run.trained_view(), **options)


def loop_options(
    run: str, project: str, *, train: dict[str, Any], label_field: str, predictions: str, eval_key: str, format: str
) -> dict[str, Any]:
    """The options of each step, all known before the first begins: the run's folder is its name. Raises UserError if it exists."""
    folder = Path(project) / run
    if folder.exists():
        raise UserError(f"name={run!r}: there is a run in {folder}; give another name")
    best, device = str(folder / "weights" / "best.pt"), dict[str, str]()
    if train.get("device") is not None:
        device = {"device": str(train["device"]).strip("[]() ").split(",")[0]}  # several are for the training alone
    return {
        "train": {**train, "name": run, "project": project, "label_field": label_field},
        "predict": {"model": best, "label_field": predictions, **device},
        "evaluate": {"pred_field": predictions, "gt_field": label_field, "eval_key": eval_key, "iou": 0.5},
        "export": {"model": best, "format": format, **device},
    }


def loop_step(step: str, params: dict[str, Any], progress: ProgressFn, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """One step of a loop on a view. It evaluates on the samples that the training has not seen. params: as of the job `loop`."""
    from .jobs import load_view, run, view_params

    options, view = params["options"][step], load_view(params)
    if step == "evaluate":
        trained = run_registry.maker(view, params["options"]["predict"]["model"])
        if trained and (unseen := trained.sample_ids("val")):
            view = view.select(unseen)
    own: dict[str, Any] = {key: params[key] for key in ("job", "share_gpu") if key in params}
    return run(step, {**view_params(view, **options), **own}, progress, should_stop)


def loop(params: dict[str, Any], progress: ProgressFn, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Train, predict, evaluate, export. Returns the summaries, and each step's result under its name. Raises Stopped between two steps."""
    done, results = 0.0, {}
    for step, share in STEPS.items():
        results[step] = loop_step(step, params, lambda s, label, d=done, w=share, n=step: progress(d + w * s, f"{n}: {label}"), should_stop)
        done += share
        if should_stop() and step != "export":
            raise Stopped(f"the loop was stopped after '{step}', whose result is kept")
    summary = "\n\n".join(f"### {step.capitalize()}\n\n{result['summary']}" for step, result in results.items())
    return {"summary": summary, **results}


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
