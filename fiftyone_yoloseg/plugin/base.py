"""What all operators share: a form, a job, its progress in the App, and its result."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.message import GeneratedMessage

from ..bridge import background, defaults, gpu_locks, jobs
from ..bridge.jobs import Params, Result
from ..errors import UserError
from .forms import Form, forget_fields

log = logging.getLogger("fiftyone_yoloseg")
PANEL = "yoloseg_panel"
Steps = Generator[background.Step, None, Result]


class JobOperator(foo.Operator):
    """Subclasses give the attributes below and `fill`."""

    name: str
    job: str
    label: str
    icon: str
    description: str
    risk: types.RiskLevel
    changes_samples = False
    needs_dataset = True
    place: types.Places | None = None
    """Where the App shows a button for it, beside the operator browser."""
    asks = True
    """Whether that button opens the form. Without one no progress is shown either: its dialog would stay open, as there is no output to take its place."""
    own_process = True
    """Whether the App runs the job in a process of its own. A network does not belong into the App's server: processes that load
    data hang when they are forked from its threads, and a GPU's memory would not be given back."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name=self.name,
            label=self.label,
            icon=self.icon,
            description=self.description,
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            risk_level=self.risk,
        )

    def fill(self, ctx: Any, form: Form) -> Params:
        """Add the fields to the form and return the job's parameters; called to show the form and to execute it."""
        raise NotImplementedError

    def steps(self, ctx: Any, params: Params) -> Steps:
        """Run the job for the App, telling its progress."""
        if not self.own_process:
            return background.run_in_thread(self.job, params)
        return background.follow(background.start(self.job, params, self.jobs_dir(ctx.dataset)), watch_limit())

    def after(self, ctx: Any, result: Result) -> Iterator[GeneratedMessage]:
        """What the App does when the job is done."""
        if self.changes_samples:
            forget_fields()
            yield ctx.ops.reload_dataset()

    def jobs_dir(self, dataset: Any) -> Path:
        return defaults.work_dir(dataset) / "jobs"

    def resolve_placement(self, ctx: Any) -> types.Placement | None:
        if self.place is None:
            return None
        button = types.Button(label=self.label, icon=self.icon, prompt=self.asks)
        return types.Placement(self.place, button)

    def inline(self, ctx: Any, params: Params) -> Result:
        """Run the job for a script or a delegated operation."""
        result = jobs.run(self.job, params, lambda share, label: ctx.set_progress(progress=share, label=label))
        if self.changes_samples:
            forget_fields()  # the next operator of a script reads the fields that this one wrote
        return result

    def resolve_input(self, ctx: Any) -> types.Property:
        return types.Property(self._form(ctx)[0].inputs, view=types.View(label=self.label, description=self.description))

    def execute(self, ctx: Any) -> Result | Generator[GeneratedMessage, None, None]:
        if in_app(ctx):
            return self._stream(ctx)
        return self.inline(ctx, self._params(ctx))

    def resolve_output(self, ctx: Any) -> types.Property:
        return self._output(ctx.results or {})

    def _output(self, result: Result) -> types.Property:
        outputs = types.Object()
        if "error" in result:
            outputs.view("failed", types.AlertView(severity="error", label="This did not work", description=result["error"]))
        else:
            outputs.str("summary", view=types.MarkdownView())
        if result.get("unfinished"):
            outputs.btn(
                "open_panel", "Open the YOLO-seg panel", icon="insights", on_click="open_panel", params={"name": PANEL, "isActive": True}
            )
        return types.Property(outputs, view=types.View(label=self.label))

    def _form(self, ctx: Any) -> tuple[Form, Params]:
        form, params = Form(ctx.params), Params()
        if ctx.dataset is None and self.needs_dataset:
            form.refuse("open a dataset first")
            return form, params
        try:
            params = self.fill(ctx, form)
            if self.job in jobs.ON_A_DEVICE:
                params |= turn(form)
            form.finish()
        except UserError as error:
            form.refuse(str(error))
        return form, params

    def _params(self, ctx: Any) -> Params:
        form, params = self._form(ctx)
        if form.problems:
            raise UserError("; ".join(form.problems.values()))
        return params

    def _stream(self, ctx: Any) -> Generator[GeneratedMessage, None, None]:
        result: Result
        try:
            steps = self.steps(ctx, self._params(ctx))
            try:
                while True:
                    share, label = next(steps)
                    if self.asks:
                        yield ctx.ops.set_progress(progress=share, label=label)
            except StopIteration as end:
                result = end.value
            finally:
                steps.close()
            if not result.get("unfinished"):
                yield from self.after(ctx, result)
        except UserError as error:
            result = {"error": str(error)}
        except Exception as error:  # a broken stream would tell the user nothing
            log.exception("operator %s", self.uri)
            result = {"error": f"{type(error).__name__}: {error} (details in the log of the App's server)"}
        yield from self.shown(ctx, result)

    def shown(self, ctx: Any, result: Result) -> Iterator[GeneratedMessage]:
        """The result, in the place of the progress bar, which would otherwise stay in front of the operator's own output."""
        yield ctx.ops.show_output(self._output(result).to_json(), result)


def turn(form: Form) -> Params:
    """The job's parameter "share_gpu"; the form has a field for it while another job holds a GPU, a script can always give it."""
    form.known.add("share_gpu")
    if who := gpu_locks.holder():
        form.flag("share_gpu", "Do not wait for the GPU", f"{who} uses it: this one begins when that has ended")
    return {"share_gpu": True} if form.params.get("share_gpu") else {}


def watch_limit() -> float | None:
    """Seconds that an operator may follow a job: FiftyOne ends immediate operators after its `operator_timeout`. The job stays."""
    limit = fo.config.operator_timeout
    return 0.8 * limit if limit and limit > 0 else None


def in_app(ctx: Any) -> bool:
    """Whether a browser listens to the execution; scripts and delegated operations want a plain result."""
    return "spaces" in ctx.request_params and not ctx.delegated
