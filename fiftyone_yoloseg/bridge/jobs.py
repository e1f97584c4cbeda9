"""The work behind the App's operators: parameters in, a JSON-able result out, the same inline, delegated or in a process of its own.

params: {"dataset": name, "dataset_id": which one that is, whatever it is called by now, "view": serialized stages or None, "options": keyword arguments
of the bridge function}; an import, which may make its dataset, has options only. "share_gpu" true: not to wait for a GPU that another job uses. "job": the name of the background job.
A result has "summary", Markdown for a person to read, and the numbers behind it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..errors import Stopped, UserError
from ..types import ProgressFn
from .gpu_locks import gpus, held
from .job_register import dataset_name
from .job_text import LISTED, best, count, listing, number, paragraphs, plain, score, scores

Params = dict[str, Any]
Result = dict[str, Any]
Job = Callable[[Params, ProgressFn, Callable[[], bool]], Result]
ON_A_DEVICE = {"train", "validate", "predict", "export", "select_to_label", "review"}
"""Jobs in which a network runs; of a review only where the model proposes."""


def run(name: str, params: Params, progress: ProgressFn | None = None, should_stop: Callable[[], bool] | None = None) -> Result:
    """Do a job. Raises UserError for what the user can mend."""
    if name not in JOBS:
        raise UserError(f"no job is called {name!r}: there are {', '.join(JOBS)}")
    progress, should_stop = progress or (lambda share, label: None), should_stop or (lambda: False)
    runs_a_network = name in ON_A_DEVICE and params["options"].get("action", "prelabel") == "prelabel"
    if not runs_a_network or params.get("share_gpu"):
        return JOBS[name](params, progress, should_stop)
    who = str(params.get("job") or f"a {name} of process {os.getpid()}")
    device = params["options"].get("device") or ("cpu" if name == "export" else None)  # the others take a GPU if there is one
    with held(gpus(device), who, progress, should_stop):
        return JOBS[name](params, progress, should_stop)


def _stoppable(progress: ProgressFn, should_stop: Callable[[], bool], message: str) -> ProgressFn:
    """A progress function that raises Stopped on request - but not once everything is written."""

    def step(share: float, label: str) -> None:
        if share < 1 and should_stop():
            raise Stopped(message)
        progress(share, label)

    return step


def view_params(view: Any, **options: Any) -> Params:
    """The params of a job on a view or dataset."""
    dataset = view._dataset
    return {
        "dataset": dataset.name,
        "dataset_id": str(dataset._doc.id),
        "view": None if view is dataset else view._serialize(),
        "options": options,
    }


def load_view(params: Params) -> Any:
    import fiftyone as fo

    name = dataset_name(params)
    if name is None:
        raise UserError(f"there is no dataset '{params['dataset']}' any more")
    dataset = fo.load_dataset(name)
    dataset.reload()
    return fo.DatasetView._build(dataset, params["view"]) if params.get("view") else dataset


def convert(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from .convert import convert

    report = convert(load_view(params), **params["options"], progress=progress, should_stop=should_stop)
    lines = [
        f"**{count(report.rows, 'object')} in {count(sum(report.images.values()), 'image')}**",
        *report.facts(),
        f"Dataset: `{report.dataset_yaml}`, report with pictures: `{report.out_dir / 'report.html'}`",
    ]
    lost = report.left_out()
    return {
        "summary": paragraphs(lines) + listing(lost, f"reason{'s' * (len(lost) != 1)} to leave something out"),
        **plain(report.to_dict()),
    }


def import_labels(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from .import_labels import import_report

    report = import_report(**params["options"], progress=progress, should_stop=should_stop)
    first, *rest = report.summary().split("; ")
    unmatched = [str(path) for path in report.unmatched]
    lists = listing(report.problems, "left out", report.problem_count) + listing(unmatched, "label files without a sample")
    return plain({"summary": paragraphs([f"**{first}**", *rest]) + lists, **report.to_dict()})


def train(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from .train import train

    notes: list[str] = []
    result = train(load_view(params), **params["options"], progress=progress, should_stop=should_stop, notes=notes, job=params.get("job"))
    metrics = result.metrics.results_dict if result.metrics else {}
    lines = [
        f"**{result.epochs} epochs** at {result.seconds_per_step:.2f} s a step" + (", stopped on request" if result.stopped else ""),
        best(result.best_epoch, metrics, result.stopped),
        f"Checkpoint: `{result.best}`",
        f"Run folder: `{result.dir}`",
        *notes,
    ]
    facts = {"best": str(result.best), "last": str(result.last), "dir": str(result.dir), "epochs": result.epochs, "notes": notes}
    return {"summary": paragraphs(lines), **facts, "seconds_per_step": result.seconds_per_step, "metrics": plain(metrics)}


def validate(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from .run_registry import leak_note
    from .validate import validate_records

    view = load_view(params)
    metrics, read = validate_records(view, **params["options"], progress=progress, should_stop=should_stop)
    classes: list[dict[str, Any]] = [
        {
            "name": name,
            "objects": int(metrics.objects_per_class[i]),
            "box_map": float(metrics.box.maps[i]),
            "mask_map": float(metrics.seg.maps[i]),
        }
        for i, name in metrics.names.items()
        if metrics.objects_per_class[i]
    ]
    table = ["| class | objects | box mAP | mask mAP |", "|---|---|---|---|"]
    table += [f"| {c['name']} | {c['objects']} | {number(c['box_map'])} | {number(c['mask_map'])} |" for c in classes]
    lines = [f"**{count(metrics.images, 'image')}, {count(metrics.objects, 'object')}**", scores(metrics.results_dict)]
    lines += filter(None, [leak_note(view, params["options"]["model"])])
    summary = paragraphs(lines) + "\n\n" + "\n".join(table) + listing([str(p) for p in [*read.skipped, *read.dropped]], "left out")
    return plain(
        {"summary": summary, "images": metrics.images, "metrics": metrics.results_dict, "classes": classes, "speed": metrics.speed}
    )


def predict(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from .predict import predict

    report = predict(load_view(params), **params["options"], progress=progress, should_stop=should_stop)
    lines = [f"**{count(report.objects, 'object')} in {count(report.images, 'image')}**, in the field `{report.field}`"]
    if report.empty:
        lines.append(f"{report.empty} predicted objects had no mask pixel and were left out")
    failed = [{"sample": p.sample_id, "reason": p.reason} for p in report.failed]
    if report.kept:
        lines.append(f"{count(report.kept, 'object')} that a person drew or changed there stay")
    if report.skipped:
        lines.append(f"{count(report.skipped, 'image')} had predictions of the same model and settings already")
    facts = {
        "field": report.field,
        "images": report.images,
        "objects": report.objects,
        "kept": report.kept,
        "skipped": report.skipped,
        "failed": failed,
    }
    return {"summary": paragraphs(lines) + listing([str(p) for p in report.failed], "could not be predicted"), **facts}


def evaluate(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from .evaluate import evaluate, wrong_views
    from .run_registry import leak_note
    from .runs import recall

    view, options = load_view(params), params["options"]
    results = evaluate(view, **options, progress=_stoppable(progress, should_stop, "the evaluation was stopped; nothing was written"))
    facts, box = results.facts, results.coco["bbox"]
    kind, mask = next((name, results.coco[key]) for key, name in (("segm", "mask"), ("boundary", "boundary")) if key in results.coco)
    counts = {name: int(sum(n or 0 for n in view.values(f"{options['eval_key']}_{name}"))) for name in ("tp", "fp", "fn")}
    lines = [
        f"**{count(counts['tp'], 'object')} found, {counts['fn']} missed, {count(counts['fp'], 'wrong prediction')}** at IoU {options['iou']:g}",
        f"{kind} mAP **{score(mask['AP'])}** (AP50 {score(mask['AP50'])}), box mAP **{score(box['AP'])}** (AP50 {score(box['AP50'])})",
    ]
    if facts["crowds"]:
        lines.append(f"{count(facts['crowds'], 'crowd')}, and {count(facts['ignored'], 'prediction')} on them that do not count")
    lines += [f"{n} labels of `{name}` have no mask: their box stood in" for name, n in facts["without_mask"].items() if n]
    written = next((f for f in recall(view, "predict") if f["about"] == options["pred_field"]), {})
    lines += filter(None, [leak_note(view, written.get("model"))])
    table = ["| class | mask AP | AP50 | recall | box AP |", "|---|---|---|---|---|"]
    for name, c in mask["classes"].items():
        table.append(f"| {name} | {score(c['AP'])} | {score(c['AP50'])} | {score(c['AR'])} | {score(box['classes'][name]['AP'])} |")
    left_out = listing(facts["left_out"], "left out", facts["left_out_count"])
    return {
        "summary": paragraphs(lines) + "\n\n" + "\n".join(table) + left_out,
        "eval_key": options["eval_key"],
        **counts,
        "coco": results.coco,
        "facts": facts,
        "views": wrong_views(view, options["pred_field"], options["gt_field"], options["eval_key"]),
    }


def compare(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from .compare import compare

    options = dict(params["options"])
    fields = [options.pop("first"), options.pop("second"), *options.pop("more", ())]
    step = _stoppable(progress, should_stop, "the comparison was stopped; nothing was written")
    report = compare(load_view(params), *fields, **options, progress=step)
    return plain({"summary": report.markdown(), **report.to_dict()})


def error_types(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from .error_types import error_types

    step = _stoppable(progress, should_stop, "the search for kinds of errors was stopped")
    report = error_types(load_view(params), **params["options"], progress=step)
    lines = [report.markdown(), *([f"Report with pictures: `{report.page}`"] if report.page else [])]
    return plain({"summary": paragraphs(lines) + listing([str(p) for p in report.left_out], "left out"), **report.to_dict()})


def export(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from .export import export_table

    view = load_view(params) if params.get("dataset") else None
    table = export_table(**params["options"], view=view, progress=progress, should_stop=should_stop)
    written = [f"`{path}`" for path in table.paths]
    if not written:
        raise UserError("; ".join(table.notes))
    on = next(row.report.compared_on for row in table.rows if row.report)
    lines = [f"**{count(len(written), 'artifact')}**", f"Compared with the torch model on {on or 'nothing'}", *written]
    return plain({"summary": paragraphs(lines) + "\n\n" + table.markdown(), "formats": table.to_json()})


def check(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from .check import check

    report = check(load_view(params), **params["options"], progress=progress, should_stop=should_stop)
    return plain({"summary": report.finding_markdown(), "class_table": report.class_markdown(), **report.to_dict(cases=LISTED)})


def find_label_errors(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from .label_errors import find_label_errors

    report = find_label_errors(load_view(params), **params["options"], progress=progress, should_stop=should_stop)
    return plain({"summary": report.markdown(), **report.to_dict(cases=LISTED)})


def review(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from . import review_jobs

    return plain(review_jobs.run(load_view(params), dict(params["options"]), progress, should_stop))


def select_to_label(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from .select import select_to_label, view_of

    view, options = load_view(params), params["options"]
    chosen = select_to_label(view, **options)
    lines = [
        f"**{count(len(chosen.samples), 'image')}** with {count(chosen.objects, 'object')}, of {count(chosen.candidates, 'candidate')}",
        f"Tagged `{chosen.tag}`" if chosen.tag else "Not tagged",
    ]
    shown = view_of(view._dataset, chosen, options["label_field"])._serialize()
    facts = {"samples": chosen.samples, "labels": chosen.labels, "objects": chosen.objects, "candidates": chosen.candidates}
    return plain({"summary": paragraphs(lines), **facts, "scores": [pick.score for pick in chosen.picks], "view": shown})


def manage_runs(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from .run_jobs import manage

    return plain(manage(load_view(params), **params["options"]))


def loop(params: Params, progress: ProgressFn, should_stop: Callable[[], bool]) -> Result:
    from . import run_jobs

    return run_jobs.loop(params, progress, should_stop)


JOBS: dict[str, Job] = {
    "convert": convert,
    "import_labels": import_labels,
    "check": check,
    "train": train,
    "validate": validate,
    "predict": predict,
    "evaluate": evaluate,
    "compare": compare,
    "error_types": error_types,
    "export": export,
    "find_label_errors": find_label_errors,
    "review": review,
    "select_to_label": select_to_label,
    "manage_runs": manage_runs,
    "loop": loop,
}
