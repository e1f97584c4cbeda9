"""The panel: trainings of the dataset as they run, their curves, comparisons, evaluations and exports.

FiftyOne calls one method for each event and then `render`, which reads everything anew: what is shown is what there is, whoever changed it, and
a page that is loaded again finds the jobs that run. No event waits for a job.
"""

from __future__ import annotations

import logging
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.categories import Categories

from ..bridge import background, defaults, panel_data, run_registry
from ..bridge.run_jobs import resumed
from ..bridge.run_registry import Run
from ..errors import UserError
from . import panel_tabs
from .base import PANEL
from .panel_pinned import EPOCH, NEWEST, pinned_pictures

log = logging.getLogger("fiftyone_yoloseg")
_URI = "@yoloseg/fiftyone/"
_BUSY, _IDLE = 2000, 6000  # milliseconds between two looks, while a job runs and while none does
_TABS = {"runs": "Runs", "compare": "Compare", "evaluation": "Evaluation", "export": "Export"}
_HELP = "Trainings of this dataset as they run, and what came of them. Jobs go on when this page is closed."


class YolosegPanel(foo.Panel):
    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name=PANEL, label="YOLO-seg", icon="model_training", category=Categories.ANALYZE, help_markdown=_HELP, surfaces="grid"
        )

    def render(self, ctx: Any) -> types.Property:
        page, data = types.Object(), dict[str, Any]()
        try:
            self._page(ctx, page, data)
        except Exception as error:  # the page of one dataset must not end in a traceback; shown, logged, and tried again at the next look
            log.exception("the panel cannot show everything")
            page.view(
                "broken", types.AlertView(severity="error", label="This cannot be shown", description=f"{type(error).__name__}: {error}")
            )
        ctx.panel.set_data(data)
        page_view = types.GridView(
            orientation="vertical", componentsProps={"grid": {"sx": {"gridTemplateColumns": "minmax(0, 1fr)", "p": 2}}}
        )
        return types.Property(page, view=page_view)

    def _page(self, ctx: Any, page: types.Object, data: dict[str, Any]) -> None:
        if ctx.dataset is None:
            panel_tabs.empty(page, "No dataset is open", "Open a dataset to see its trainings.")
            return
        overview = panel_data.overview(ctx.dataset)
        timer = types.TimerView(interval=_BUSY if overview.active else _IDLE, on_interval=self.tick)
        page.view("timer", timer)
        panel_tabs.active_jobs(page, data, overview.active, self._calls)
        tabs = types.TabsView()
        for value, label in _TABS.items():
            tabs.add_choice(value, label=label)
        page.enum("tab", tabs.values(), default="runs", view=tabs, on_change=self.change_tab)
        tab = panel_tabs.known(ctx.panel.state.tab, list(_TABS), "runs")
        state = ctx.panel_state or {}
        body = page.v_stack(f"{tab}_tab", gap=1, componentsProps=panel_tabs.NARROW)
        inner = data.setdefault(f"{tab}_tab", {})
        if tab == "runs":
            keys = [run.key for run in overview.runs]
            if ctx.panel.state.keys != keys:
                ctx.panel.set_state("keys", keys)  # rows are clicked by their number
            selected = self._selected(ctx, overview)
            panel_tabs.runs_tab(body, inner, overview, selected, self._calls)
            if selected is not None:
                pinned_pictures(body, inner, selected, ctx.panel.state.pinned or NEWEST, self._calls)
        elif tab == "compare":
            panel_tabs.compare_tab(body, inner, overview, state, self._calls)
        elif tab == "evaluation":
            panel_tabs.evaluation_tab(body, inner, ctx.dataset, state, self._calls)
        else:
            panel_tabs.export_tab(body, inner, run_registry.exports(ctx.dataset), self._calls)

    @property
    def _calls(self) -> dict[str, Any]:
        return {
            "stop": self.stop, "cancel": self.cancel, "select": self.select, "show": self.show, "resume": self.resume, "manage": self.manage,
            "compare_first": self.compare_first, "compare_second": self.compare_second, "evaluation": self.choose_evaluation,
            "show_verdict": self.show_verdict, "show_confused": self.show_confused, "show_saved": self.show_saved,
            "prompt_train": self.prompt_train, "prompt_evaluate": self.prompt_evaluate, "prompt_export": self.prompt_export,
            "prompt_error_types": self.prompt_error_types, "pinned_epoch": self.pinned_epoch,
        }  # fmt: skip

    def _selected(self, ctx: Any, overview: panel_data.Overview) -> Run | None:
        """The run that was clicked, else the one that is trained now, else the newest."""
        by_key = {run.key: run for run in overview.runs}
        if ctx.panel.state.selected in by_key:
            return by_key[ctx.panel.state.selected]
        running = [one.run for one in overview.active if one.run]
        return next(iter([*running, *overview.runs]), None)

    # events; whatever they need comes from the dataset and ctx.params

    def on_load(self, ctx: Any) -> None:
        """`render` does everything."""

    def on_change_dataset(self, ctx: Any) -> None:
        ctx.panel.set_state("selected", None)
        self._pin(ctx, NEWEST)

    def tick(self, ctx: Any) -> None:
        """Time has passed."""

    def change_tab(self, ctx: Any) -> None:
        if ctx.params["value"] != ctx.panel.state.tab:  # the browser calls also where tabs appear
            ctx.panel.set_state("tab", ctx.params["value"])

    def select(self, ctx: Any) -> None:
        keys, row = ctx.panel.state.keys or [], ctx.params["row"]
        if 0 <= row < len(keys):
            ctx.panel.set_state("selected", keys[row])
            self._pin(ctx, NEWEST)

    def pinned_epoch(self, ctx: Any) -> None:
        self._pin(ctx, ctx.params["value"])

    def _pin(self, ctx: Any, epoch: str) -> None:
        """Nothing is set anew: the browser calls also where a dropdown appears, and each change of a panel's state makes it load its page again."""
        if epoch != (ctx.panel.state.pinned or NEWEST):
            ctx.panel.set_state("pinned", epoch)
            ctx.panel.set_state(EPOCH, epoch)  # a button has chosen: the dropdown shows it

    def compare_first(self, ctx: Any) -> None:
        ctx.panel.set_state("compare.first", ctx.params["value"])

    def compare_second(self, ctx: Any) -> None:
        ctx.panel.set_state("compare.second", ctx.params["value"])

    def choose_evaluation(self, ctx: Any) -> None:
        ctx.panel.set_state("evaluation", ctx.params["value"])

    def stop(self, ctx: Any) -> None:
        job = self._job(ctx)
        if job:
            job.stop()
            ctx.ops.notify("It stops after its current step and keeps its best epoch", variant="info")

    def cancel(self, ctx: Any) -> None:
        job = self._job(ctx)
        if job:
            job.cancel()
            ctx.ops.notify(f"It has {background.PATIENCE:g} seconds to end by itself", variant="info")

    def show(self, ctx: Any) -> None:
        def act() -> None:
            run = run_registry.find(ctx.dataset, ctx.params["run"])
            ctx.ops.set_view(view=run.view(ctx.params["split"]))

        self._try(ctx, act)

    def resume(self, ctx: Any) -> None:
        def act() -> None:
            run = run_registry.find(ctx.dataset, ctx.params["run"])
            background.start("train", resumed(run), defaults.work_dir(ctx.dataset) / "jobs")
            ctx.panel.set_state("selected", run.key)

        self._try(ctx, act)

    def manage(self, ctx: Any) -> None:
        ctx.prompt(_URI + "manage_runs", params={"run": ctx.params["run"], "action": "rename"})

    def show_verdict(self, ctx: Any) -> None:
        def act() -> None:
            key, verdict = ctx.params["evaluation"], ctx.params["verdict"]
            if key not in panel_data.evaluations(ctx.dataset):
                raise UserError(f"there is no evaluation '{key}' any more")
            config = ctx.dataset.get_evaluation_info(key).config
            field = config.gt_field if verdict == "fn" else config.pred_field
            ctx.ops.set_view(view=ctx.dataset.filter_labels(field, fo.ViewField(key) == verdict))

        self._try(ctx, act)

    def show_confused(self, ctx: Any) -> None:
        """The objects of a cell of the confusion matrix: y is the truth, x what was predicted."""

        def act() -> None:
            found = panel_data.evaluations(ctx.dataset)
            if not found:
                raise UserError("there is no evaluation any more")
            key = panel_tabs.known(ctx.panel.state.evaluation, list(found), next(iter(found)))
            results = ctx.dataset.load_evaluation_results(key)
            pairs = zip(results.ytrue, results.ypred, results.ytrue_ids, results.ypred_ids, strict=True)
            ids = [i for t, p, a, b in pairs if (t, p) == (ctx.params["y"], ctx.params["x"]) for i in (a, b) if i is not None]
            if not ids:
                raise UserError(f"no object of {ctx.params['y']} was predicted as {ctx.params['x']}")
            ctx.ops.set_view(view=ctx.dataset.select_labels(ids=ids, fields=[results.config.gt_field, results.config.pred_field]))

        self._try(ctx, act)

    def show_saved(self, ctx: Any) -> None:
        def act() -> None:
            if not ctx.dataset.has_saved_view(ctx.params["view"]):
                raise UserError(f"there is no saved view '{ctx.params['view']}' any more")
            ctx.ops.set_view(name=ctx.params["view"])

        self._try(ctx, act)

    def prompt_train(self, ctx: Any) -> None:
        ctx.prompt(_URI + "train")

    def prompt_evaluate(self, ctx: Any) -> None:
        ctx.prompt(_URI + "evaluate")

    def prompt_export(self, ctx: Any) -> None:
        ctx.prompt(_URI + "export")

    def prompt_error_types(self, ctx: Any) -> None:
        ctx.prompt(_URI + "error_types", params={k: ctx.params[k] for k in ("gt_field", "pred_field")})

    def _job(self, ctx: Any) -> background.BackgroundJob | None:
        """The job that a button means, if it still runs: names come from the browser, folders from the database."""
        return next((job for job in background.active_jobs(ctx.dataset) if job.name == ctx.params["job"]), None)

    def _try(self, ctx: Any, act: Any) -> None:
        try:
            act()
        except UserError as error:
            ctx.ops.notify(str(error), variant="error")
