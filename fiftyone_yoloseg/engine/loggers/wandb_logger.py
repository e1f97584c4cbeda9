"""Weights & Biases. Nothing leaves this machine unless WANDB_MODE=online says so."""

from __future__ import annotations

import os
from typing import Any

from ..events import EpochInfo, Phase, RunEnd, RunInfo, TrainingListener
from .values import numbers_of, pictures_of, settings_of


class WandbLogger(TrainingListener):
    """A W&B run in <run folder>/wandb, which `wandb sync` sends. A training that goes on is a further one, in the same group."""

    def __init__(self) -> None:
        import wandb

        self._wandb = wandb

    def on_run_start(self, run: RunInfo) -> None:
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = self._wandb.init(
            mode=mode,
            project=run.dir.parent.name,
            name=run.dir.name,
            group=run.dir.name,
            dir=str(run.dir),
            config=settings_of(run),
            reinit="create_new",  # beside a run that the user may have
            settings=self._wandb.Settings(console="off", disable_git=True, save_code=False, silent=True),
        )

    def on_phase(self, phase: Phase) -> None:
        self._run.summary["phase"] = f"from epoch {phase.epoch}: {phase.what}"

    def on_epoch_end(self, epoch: EpochInfo) -> None:
        self._run.log(numbers_of(epoch.row), step=epoch.epoch)

    def on_run_end(self, end: RunEnd) -> None:
        self._run.log({f"plots/{name}": self._wandb.Image(str(path)) for name, path in pictures_of(end.result.dir).items()})
        self._run.summary["best_checkpoint"] = str(end.result.best)
        self._run.finish()

    def on_run_failed(self, error: BaseException) -> None:
        self._run.finish(exit_code=1)
