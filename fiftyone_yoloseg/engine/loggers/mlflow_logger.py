"""MLflow, at the tracking URI that the user has set, or else in a database beside the runs."""

from __future__ import annotations

import logging
import re
import time

from ..events import EpochInfo, Phase, RunEnd, RunInfo, TrainingListener
from .values import numbers_of, pictures_of, settings_of

log = logging.getLogger(__name__)
_FOLDER = "run folder"


def metric_name(name: str) -> str:
    """MLflow allows no brackets: metrics/mAP50(B) becomes metrics/mAP50_B."""
    return re.sub(r"\((\w+)\)", r"_\1", name)


class MlflowLogger(TrainingListener):
    """One MLflow run a run folder, in the experiment named like the project; a run that goes on is found again."""

    def __init__(self) -> None:
        import mlflow

        self._mlflow = mlflow

    def on_run_start(self, run: RunInfo) -> None:
        project, theirs = run.dir.parent, self._mlflow.tracking.is_tracking_uri_set()
        uri = self._mlflow.get_tracking_uri() if theirs else f"sqlite:///{project / 'mlflow.db'}"
        self._client = self._mlflow.MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(project.name)
        local = None if theirs else (project / "mlartifacts").as_uri()
        experiment = found.experiment_id if found else self._client.create_experiment(project.name, artifact_location=local)
        self._id = self._earlier(experiment, run) or self._new(experiment, run)
        log.info("logging to MLflow, run %s; to look at it: mlflow ui --backend-store-uri %s", self._id, uri)

    def _earlier(self, experiment: str, run: RunInfo) -> str | None:
        if run.first_epoch == 1:
            return None
        runs = self._client.search_runs([experiment])
        return next((r.info.run_id for r in runs if r.data.tags.get(_FOLDER) == str(run.dir)), None)

    def _new(self, experiment: str, run: RunInfo) -> str:
        made: str = self._client.create_run(experiment, run_name=run.dir.name, tags={_FOLDER: str(run.dir)}).info.run_id
        self._client.log_batch(made, params=[self._mlflow.entities.Param(name, str(value)) for name, value in settings_of(run).items()])
        return made

    def on_phase(self, phase: Phase) -> None:
        self._client.set_tag(self._id, "phase", f"from epoch {phase.epoch}: {phase.what}")

    def on_epoch_end(self, epoch: EpochInfo) -> None:
        now = round(time.time() * 1000)
        values = [self._mlflow.entities.Metric(metric_name(name), value, now, epoch.epoch) for name, value in numbers_of(epoch.row).items()]
        self._client.log_batch(self._id, metrics=values)

    def on_run_end(self, end: RunEnd) -> None:
        for path in pictures_of(end.result.dir).values():
            self._client.log_artifact(self._id, str(path), "plots")
        self._client.set_tag(self._id, "best checkpoint", str(end.result.best))
        self._client.set_terminated(self._id, "KILLED" if end.result.stopped else "FINISHED")

    def on_run_failed(self, error: BaseException) -> None:
        self._client.set_terminated(self._id, "FAILED")
