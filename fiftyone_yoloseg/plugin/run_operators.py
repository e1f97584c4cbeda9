"""Operators on trainings as a whole: what is done with them, and the loop train -> predict -> evaluate -> export."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.types import RiskLevel

from ..bridge import background, defaults, run_jobs, run_registry
from ..bridge.jobs import Params, Result, view_params
from ..bridge.run_registry import Run, check_run_name
from ..bridge.runs import check_writable
from ..bridge.views import check_view
from ..config import TrainSettings
from ..errors import UserError
from .base import PANEL, JobOperator, Steps, in_app, turn, watch_limit
from .forms import Form
from .targets import target

_ACTIONS = {
    "samples": "Show its samples", "compare": "Compare it with another", "rename": "Rename it", "resume": "Resume it", "delete": "Delete it",
}  # fmt: skip


class ManageRuns(JobOperator):
    name = job = "manage_runs"
    label = "YOLO-seg: manage runs"
    icon = "inventory_2"
    description = "Rename, delete, compare or resume the trainings of this dataset, and show the samples that they were trained on"
    risk = RiskLevel.HIGH

    def fill(self, ctx: Any, form: Form) -> Params:
        known = {run.name: run for run in run_registry.runs(ctx.dataset)}
        form.known.update(("run", "action", "name", "other", "files", "sure"))
        if not known:
            form.refuse("this dataset has no training yet")
            return {}
        labels = {name: f"{name} ({run.state}, {str(run.facts['time'])[:16].replace('T', ' ')})" for name, run in known.items()}
        chosen = known.get(form.choice("run", "Run", "", labels, next(iter(known))))
        if chosen is None:
            return {}
        actions = {key: text for key, text in _ACTIONS.items() if self.applies(key, chosen, known)}
        action = form.choice("action", "What", "", actions, next(iter(actions)), radio=True)
        options: dict[str, Any] = {"action": action, "run": chosen.name}
        if action == "rename":
            options["name"] = form.text(
                "name", "New name", "Letters, digits and underscores", chosen.name, lambda n: self.free(n, chosen, known), required=True
            )
        elif action == "compare":
            others = {name: text for name, text in labels.items() if name != chosen.name}
            options["other"] = form.choice("other", "With", "", others, next(iter(others)))
        elif action == "delete":
            self.delete_fields(form, chosen, options)
        return view_params(ctx.dataset, **options)

    def delete_fields(self, form: Form, chosen: Run, options: dict[str, Any]) -> None:
        if chosen.state == "running":
            form.refuse(f"'{chosen.name}' is under way: stop it first", "running")
        options["files"] = form.flag("files", "And its files", f"Checkpoints and plots in {chosen.dir}. This cannot be undone")
        if options["files"] and not form.flag("sure", "Yes, delete these files", "Labels that it predicted stay"):
            form.refuse("confirm that its files shall be deleted", "unsure")

    def applies(self, action: str, run: Run, known: dict[str, Run]) -> bool:
        return {"compare": len(known) > 1, "resume": run.resumable}.get(action, True)

    def free(self, name: str, chosen: Run, known: dict[str, Run]) -> None:
        check_run_name(name)
        if name in known and name != chosen.name:  # its own name stands in the field at first
            raise UserError(f"there is a run '{name}': choose another name")

    def steps(self, ctx: Any, params: Params) -> Steps:
        if params["options"]["action"] != "resume":
            return background.run_in_thread(self.job, params)
        train = self.resumed(ctx, params)
        return background.follow(background.start("train", train, self.jobs_dir(ctx.dataset)), watch_limit())

    def inline(self, ctx: Any, params: Params) -> Result:
        if params["options"]["action"] == "resume":
            from ..bridge import jobs

            return jobs.run("train", self.resumed(ctx, params), lambda share, label: ctx.set_progress(progress=share, label=label))
        return super().inline(ctx, params)

    def resumed(self, ctx: Any, params: Params) -> Params:
        return run_jobs.resumed(run_registry.find(ctx.dataset, params["options"]["run"]))

    def _output(self, result: Result) -> types.Property:
        shown = super()._output(result)
        row = shown.type.h_stack("look", gap=1)
        for split, stages in result.get("views", {}).items() if isinstance(result.get("views"), dict) else ():
            row.btn(split, f"Show the {split} samples", icon="visibility", on_click="set_view", params={"view": stages})
        return shown


class Loop(foo.PipelineOperator):
    """Delegated or in a script, FiftyOne runs its stages one after the other; from the App, all of them run in one process of their own."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="loop",
            label="YOLO-seg: train, predict, evaluate, export",
            icon="all_inclusive",
            description="The whole loop on this dataset: train, predict, evaluate on what the training has not seen, and export",
            dynamic=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            risk_level=RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        return types.Property(self._form(ctx)[0].inputs, view=types.View(label=self.config.label, description=self.config.description))

    def resolve_pipeline(self, ctx: Any) -> types.Pipeline:
        form, params = self._form(ctx)
        if form.problems:
            raise UserError("; ".join(form.problems.values()))
        pipeline, uri = types.Pipeline(), f"{self.plugin_name}/loop_step"
        if in_app(ctx) and not ctx.requesting_delegated_execution:
            pipeline.stage(uri, name="start", params={"step": "start", "loop": params})
        else:
            for step in run_jobs.STEPS:
                pipeline.stage(uri, name=step, params={"step": step, "loop": params})
        return pipeline

    def _form(self, ctx: Any) -> tuple[Form, Params]:
        form, params = Form(ctx.params), Params()
        if ctx.dataset is None:
            form.refuse("open a dataset first")
            return form, params
        try:
            params = {**self.fill(ctx, form), **turn(form)}
            form.finish()
        except UserError as error:
            form.refuse(str(error))
        return form, params

    def fill(self, ctx: Any, form: Form) -> Params:
        view = target(ctx, form)
        check_view(view)
        field, maskless = form.label_field(view)
        model = form.model(ctx.dataset, new=True)
        hidden = ("data", "project", "resume", "exist_ok", "val", "name")
        project = defaults.work_dir(ctx.dataset) / "runs"
        settings = form.settings(TrainSettings, ("epochs", "imgsz", "batch", "device"), hidden, {"imgsz": defaults.suggest_imgsz(view)})
        taken = {run.name for run in run_registry.runs(ctx.dataset)}
        free = next(n for i in range(1, 10_000) if (n := "loop" if i == 1 else f"loop{i}") not in taken and not (project / n).exists())
        name = form.text("name", "Name", "Of the run and its folder", free, check_run_name, required=True)
        predictions = form.text("predictions", "Write predictions to", "A new field, or one with earlier predictions of this tool",
                                defaults.free_field(ctx.dataset), lambda n: check_writable(view, n, False), required=True)  # fmt: skip
        key = form.text("eval_key", "Name of the evaluation", "One of that name is replaced", "eval", check_run_name, required=True)
        format_ = form.choice("format", "Export to", "", {f: f for f in defaults.export_formats()}, "onnx")
        if form.problems:
            return {}
        train = {**settings, "model": model, "maskless": maskless}
        options = run_jobs.loop_options(
            name, str(project), train=train, label_field=field or "", predictions=predictions, eval_key=key, format=format_
        )
        return view_params(view, **options)


class LoopStep(foo.Operator):
    """One stage of `Loop`, or with step="start" all of them in a process of their own, which it does not wait for."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="loop_step",
            label="YOLO-seg: one step of the loop",
            icon="all_inclusive",
            description="A stage of the loop; the operator 'loop' runs them in their order",
            unlisted=True,
            allow_delegated_execution=True,
            risk_level=RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        inputs = types.Object()
        inputs.enum("step", ["start", *run_jobs.STEPS], required=True)
        inputs.obj("loop", required=True)
        return types.Property(inputs)

    def execute(self, ctx: Any) -> Result:
        given = ctx.request_params["params"]  # in a pipeline, ctx.params stays that of the pipeline
        step, params = given["step"], given["loop"]
        if step == "start":
            job = background.start("loop", params, defaults.work_dir(ctx.dataset) / "jobs")
            ctx.ops.notify(f"{job.name} runs in a process of its own", variant="info")
            ctx.ops.open_panel(PANEL)
            return {"job": job.name}
        return run_jobs.loop_step(
            step, params, lambda share, label: ctx.set_progress(progress=share, label=f"{step}: {label}"), lambda: False
        )
