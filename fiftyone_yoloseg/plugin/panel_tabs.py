"""The tabs of the panel: each adds its widgets to a page and their values to `data`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fiftyone.operators import types

from ..bridge import panel_data
from ..bridge.estimates import duration
from ..bridge.panel_data import BOX, ActiveJob, Overview
from ..bridge.run_registry import KEY, Run, compare_runs
from ..engine.error_types import KINDS
from . import figures

Data = dict[str, Any]
Calls = Mapping[str, Callable[..., Any]]
RUN_COLUMNS = {
    "name": "Run",
    "state": "State",
    "epochs": "Epochs",
    "mask": "Mask mAP",
    "box": "Box mAP",
    "images": "Images",
    "model": "From",
    "time": "Started",
}
_SHOWN_LINES = 3
_STAMP = re.compile(r"^\d{4}-\d\d-\d\d (?=\d\d:)|,\d{3}(?= )")
_WRAPPED = {"& pre, & pre *": {"whiteSpace": "pre-wrap !important", "overflowWrap": "anywhere"}}
"""Lines of a log, which FiftyOne lets run out of the panel."""
NARROW = {"grid": {"sx": {"gridTemplateColumns": "minmax(0, 1fr)", **_WRAPPED}}, "item": {"sx": {"minWidth": 0}}}
"""One column that never is wider than the panel, whatever stands in it."""
_SIDE_BY_SIDE = {"grid": {"sx": {"gridAutoFlow": "row", "gridTemplateColumns": "repeat(auto-fit, minmax(min(420px, 100%), 1fr))"}}}
_CARD = {"grid": {"sx": {"gridTemplateColumns": "minmax(0, 1fr)", "p": 1.5, "overflow": "hidden", **_WRAPPED}}}
ROW = {"grid": {"sx": {"display": "flex", "flexWrap": "wrap", "& > *": {"width": "auto !important"}}}}


def empty(page: types.Object, title: str, text: str) -> None:
    page.view("empty", types.Notice(label=title, description=text))


def active_jobs(page: types.Object, data: Data, active: Sequence[ActiveJob], calls: Calls) -> None:
    """What runs now: progress, time left, memory, the end of its log, and how to end it."""
    for i, one in enumerate(active):
        card = page.v_stack(f"job_{i}", gap=1, variant="outline", componentsProps=_CARD)
        title = f"**{one.run.name if one.run else one.kind}**" + (" is stopping ..." if one.status.state == "stopping" else "")
        facts = [one.status.label, *([f"{duration(one.eta)} left"] if one.eta is not None else []), *memory(one.status.memory)]
        card.md(f"{title} - {' - '.join(facts)}", name=f"job_{i}_title")
        card.float(f"progress_{i}", view=types.ProgressView())
        data[f"job_{i}"] = {f"progress_{i}": round(one.status.share, 2)}  # each change of data makes the App load its page again
        row = card.h_stack(f"job_{i}_buttons", gap=1, componentsProps=ROW)
        params = {"job": one.job.name}
        if one.status.state != "stopping":
            if one.kind == "train":
                row.btn(
                    "stop", "Stop and keep the best epoch", icon="stop_circle", variant="contained", on_click=calls["stop"], params=params
                )
            row.btn("cancel", "Cancel", icon="cancel", variant="outlined", on_click=calls["cancel"], params=params)
        lines = [_STAMP.sub("", line) for line in one.job.log_tail(_SHOWN_LINES)]
        if lines:
            card.md("```\n" + "\n".join(line[:160] for line in lines) + "\n```", name=f"job_{i}_log")


def failed_job(page: types.Object, overview: Overview) -> None:
    if overview.failed:
        job, status = overview.failed
        head, *lines = (status.error or "").splitlines()
        page.view("failed", types.AlertView(severity="error", label=f"{job.kind} failed", description=head))
        if lines:
            page.md("```\n" + "\n".join(lines) + "\n```", name="failed_log")


def runs_tab(page: types.Object, data: Data, overview: Overview, selected: Run | None, calls: Calls) -> None:
    failed_job(page, overview)
    if not overview.runs:
        if not overview.active:
            empty(page, "No training yet", "Train on the masks of this dataset: its runs, their curves and checkpoints will be here.")
            page.btn("train", "Train", icon="model_training", variant="contained", on_click=calls["prompt_train"])
        return
    rows = [list(run_row(run).values()) for run in overview.runs]
    chosen = [i for i, run in enumerate(overview.runs) if selected and run.key == selected.key]
    table(page, data, "runs", RUN_COLUMNS, rows, selected=chosen, on_click_row=calls["select"])
    if selected is not None:
        run_details(page, data, selected, calls)


def run_row(run: Run) -> dict[str, str]:
    done, total, history = run.facts.get("epochs_done"), run.facts.get("epochs"), None
    if run.state in ("running", "interrupted"):
        history = run.history()
        done = len(history.get("epoch", []))
    images = run.facts.get("images") or {}
    return {
        "name": run.name,
        "state": run.state,
        "epochs": f"{done if done is not None else '?'} of {total}" if total else "-",
        "mask": score(run.metrics.get(KEY)),
        "box": score(run.metrics.get(BOX)),
        "images": " + ".join(str(n) for n in images.values()),
        "model": str(run.facts.get("model", "-")).rsplit("/", 1)[-1],
        "time": str(run.facts["time"])[:16].replace("T", " "),
    }


def run_details(page: types.Object, data: Data, run: Run, calls: Calls) -> None:
    history = run.history()
    page.md(f"**{run.name}**", name="details_title")
    if run.state == "failed":
        page.view("run_error", types.AlertView(severity="error", label="This training broke", description=run.reason))
    elif run.state == "interrupted":
        page.view("run_error", types.AlertView(severity="warning", label="This training was interrupted", description=run.reason))
    row = page.h_stack("run_buttons", gap=1, componentsProps=ROW)
    params = {"run": run.name}
    for split, what in (("train", "trained"), ("val", "was validated")):
        if (run.facts.get("images") or {}).get(split):
            row.btn(
                f"show_{split}", f"Show what it {what} on", icon="visibility", variant="outlined", on_click=calls["show"],
                params={**params, "split": split},
            )  # fmt: skip
    if run.resumable:
        row.btn("resume", "Resume", icon="play_arrow", variant="contained", on_click=calls["resume"], params=params)
    row.btn("manage", "Rename, delete ...", icon="edit", variant="outlined", on_click=calls["manage"], params=params)
    if not history:
        page.view("no_history", types.Notice(label="No epoch is complete yet", description="The curves begin with the first one."))
    else:
        epochs = int(run.facts["epochs"]) if run.facts.get("epochs") and run.state == "running" else None
        grid = page.h_stack("curves", gap=1, componentsProps=_SIDE_BY_SIDE)
        plot(
            grid,
            data,
            "curves",
            "scores",
            started(run),
            figures.scores(history, run.facts.get("best_epoch"), run.facts.get("calm"), epochs),
        )
        plot(grid, data, "curves", "losses", started(run), figures.losses(history, run.facts.get("calm"), epochs))
    page.md(
        f"Checkpoint `{run.best}`  \nWeights began as: {run.facts.get('origin', run.facts.get('model', 'unknown'))}", name="details_files"
    )


def compare_tab(page: types.Object, data: Data, overview: Overview, state: Mapping[str, Any], calls: Calls) -> None:
    names = [run.name for run in overview.runs]
    if len(names) < 2:
        empty(
            page, "Nothing to compare yet", "Two trainings of this dataset can be compared: what was set differently, and what came of it."
        )
        return
    by_name = {run.name: run for run in overview.runs}
    row = page.h_stack("choice", gap=2, componentsProps=ROW)
    pair = [known(state.get("compare", {}).get(which), names, names[default]) for which, default in (("first", 1), ("second", 0))]
    for which, chosen in zip(("first", "second"), pair, strict=True):
        dropdown(row, which, f"{which.capitalize()} run", {n: n for n in names}, chosen, calls[f"compare_{which}"])
    first, second = by_name[pair[0]], by_name[pair[1]]
    differs = compare_runs(first, second)
    rows = []
    for name in (KEY, "metrics/mAP50(M)", BOX, "metrics/mAP50(B)", "metrics/precision(M)", "metrics/recall(M)"):
        a, b = differs["metrics"].get(name, (None, None))
        change = f"{b - a:+.3f}" if a is not None and b is not None else "-"
        rows.append([name.removeprefix("metrics/"), score(a), score(b), change])
    rows += [[name, short(a), short(b), ""] for name, (a, b) in {**differs["settings"], **differs["data"]}.items()]
    table(page, data, "differences", {"what": "", "first": first.name, "second": second.name, "change": "Change"}, rows)
    same = differs["data"].keys() & {"images", "split", "labels"}
    if same:
        page.view(
            "unlike",
            types.Notice(
                label="Their validation images differ",
                description="Then the difference of their mAP says little: evaluate both on the same samples.",
            ),
        )
    plot(
        page,
        data,
        None,
        "overlay",
        f"{started(first)}_{started(second)}",
        figures.overlay({run.name: run.history() for run in (first, second)}),
    )


def evaluation_tab(page: types.Object, data: Data, dataset: Any, state: Mapping[str, Any], calls: Calls) -> None:
    found = panel_data.evaluations(dataset)
    if not found:
        empty(
            page,
            "No evaluation yet",
            "Compare predictions with ground truth: mAP by size, precision and recall, confusions and every single error.",
        )
        page.btn("evaluate", "Evaluate", icon="rule", variant="contained", on_click=calls["prompt_evaluate"])
        return
    key = known(state.get("evaluation"), list(found), next(iter(found)))
    dropdown(page, "evaluation", "Evaluation", found, key, calls["evaluation"])
    shown = panel_data.evaluation(dataset, key)
    of = f"{key}_{shown['stamp']}"
    mask, box = shown["coco"].get("segm"), shown["coco"].get("bbox")
    numbers = [
        f"**{name} mAP {score(c['AP'])}** (AP50 {score(c['AP50'])}, AP75 {score(c['AP75'])})"
        for name, c in (("Mask", mask), ("Box", box))
        if c
    ]
    page.md(" - ".join([*numbers, f"{shown['facts'].get('images', '?')} images"]), name="numbers")
    row = page.h_stack("look", gap=1, componentsProps=ROW)
    for what, title in (("fp", "Wrong predictions"), ("fn", "Missed objects"), ("tp", "Found objects")):
        row.btn(
            what, title, icon="visibility", variant="outlined", on_click=calls["show_verdict"], params={"evaluation": key, "verdict": what}
        )
    row.btn("types", "Find the kinds of errors", icon="troubleshoot", variant="outlined", on_click=calls["prompt_error_types"],
            params={"gt_field": shown["gt_field"], "pred_field": shown["pred_field"]})  # fmt: skip
    saved = [name for name in dataset.list_saved_views() if name.rpartition(": ")[2] in KINDS]
    if saved:
        views = page.h_stack("kinds", gap=1, componentsProps=ROW)
        for i, name in enumerate(saved[:8]):
            views.btn(f"kind_{i}", name, icon="visibility", variant="outlined", on_click=calls["show_saved"], params={"view": name})
    if shown["coco"]:
        grid = page.h_stack("numbers_plots", gap=1, componentsProps=_SIDE_BY_SIDE)
        plot(grid, data, "numbers_plots", "sizes", of, figures.sizes(shown["coco"]))
        if shown["pr"]:
            plot(grid, data, "numbers_plots", "pr", of, figures.precision_recall(shown["recall"], shown["pr"]))
    traces, layout = figures.confusion(*shown["confusion"])
    layout["height"] = min(800, 160 + 22 * len(shown["confusion"][0]))
    page.md("Click a cell to see its objects.", name="confusion_hint")
    plot(page, data, None, "confusion", of, (traces, layout), on_click=calls["show_confused"])


def export_tab(page: types.Object, data: Data, rows: Sequence[tuple[str | None, Mapping[str, Any]]], calls: Calls) -> None:
    """rows: see `run_registry.exports`."""
    page.btn("export", "Export a model", icon="ios_share", variant="outlined", on_click=calls["prompt_export"])
    if not rows:
        empty(page, "No export yet", "Each export is compared with the torch model on images of this dataset; the verdict stands here.")
        return
    shown = []
    for name, report in rows:
        worst = ", ".join(f"{output} {value:.2g}" for output, value in report["max_abs_error"].items())
        exact = not (report["half"] or report["int8"])
        verdict = "not verified here" if report["verdict"] == "unverified" else "same answers" if exact else "within its limits"
        shown.append([name or "-", report["format"], f"{report['size_bytes'] / 1e6:.1f} MB", verdict, worst or "-", report["path"]])
    columns = {"run": "Run", "format": "Format", "size": "Size", "verdict": "Verdict", "worst": "Largest difference", "path": "File"}
    table(page, data, "exports", columns, shown)


def table(page: types.Object, data: Data, name: str, columns: Mapping[str, str], rows: Sequence[Sequence[str]], **more: Any) -> None:
    """more: events of the table; selected: numbers of the rows that are highlighted."""
    selected, name = more.pop("selected", []), f"{name}_{len(rows)}"  # as with plots: of a longer table rows would stay
    view = types.TableView(size="small", componentsProps={"table": {"sx": {"minWidth": 0, "& .MuiTableCell-root": {"px": 1}}}}, **more)
    for key, label in columns.items():
        view.add_column(key, label=label)
    page.define_property(name, types.Object(), view=view)
    data[name] = {"columns": list(columns), "rows": [list(row) for row in rows], "selectedRows": selected}


def started(run: Run) -> str:
    """Tells a session of a run from all others, also of one that had its name before."""
    return f"{run.key}_{int(float((run.facts.get('process') or {}).get('started', 0)))}"


def plot(page: types.Object, data: Data, place: str | None, name: str, of: str, figure: figures.Figure, **events: Any) -> None:
    """of: what is shown. It is part of the plot's name, because FiftyOne merges the data of one name: a longer curve's end would stay behind a shorter one."""
    (traces, layout), name = figure, f"{name}_{of}"
    page.plot(name, layout=layout, config=figures.CONFIG, **events)
    (data if place is None else data.setdefault(place, {}))[name] = traces


def dropdown(page: types.Object, name: str, label: str, choices: Mapping[str, str], chosen: str, on_change: Callable[..., Any]) -> None:
    view = types.DropdownView()
    for value, text in choices.items():
        view.add_choice(value, label=text)
    page.enum(name, view.values(), label=label, default=chosen, view=view, on_change=on_change)


def known(value: Any, choices: Sequence[str], default: str) -> str:
    return value if value in choices else default


def score(value: float | None) -> str:
    return f"{value:.3f}" if value is not None and math.isfinite(value) and value >= 0 else "-"


def short(value: Any) -> str:
    """A setting in a few words."""
    if isinstance(value, (list, tuple)) and len(value) > 3:
        return f"{len(value)}: {', '.join(map(str, value[:3]))}, ..."
    if isinstance(value, dict):
        return ", ".join(f"{key} {v}" for key, v in value.items())
    return str(value).rsplit("/", 1)[-1]


def memory(used: Mapping[str, int]) -> list[str]:
    return [f"{names} {used[key] / 2**30:.1f} GB" for key, names in (("gpu", "GPU"), ("ram", "RAM")) if key in used]
