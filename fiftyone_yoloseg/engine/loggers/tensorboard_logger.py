"""TensorBoard: event files in the run folder."""

from __future__ import annotations

import json

import numpy as np

from ...data.images import read_image
from ..events import EpochInfo, Phase, RunEnd, RunInfo, TrainingListener
from .values import numbers_of, pictures_of, settings_of


class TensorBoardLogger(TrainingListener):
    """`tensorboard --logdir <project>` shows all runs. A run that goes on writes on into its folder."""

    def __init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._open = SummaryWriter

    def on_run_start(self, run: RunInfo) -> None:
        again = run.first_epoch if run.first_epoch > 1 else None
        self._writer, self._epoch = self._open(str(run.dir), purge_step=again), run.first_epoch - 1
        self._writer.add_text("settings", f"    {json.dumps(settings_of(run), indent=1)}".replace("\n", "\n    "), run.first_epoch)

    def on_phase(self, phase: Phase) -> None:
        self._writer.add_text("phase", phase.what, phase.epoch)

    def on_epoch_end(self, epoch: EpochInfo) -> None:
        self._epoch = epoch.epoch
        for name, value in numbers_of(epoch.row).items():
            self._writer.add_scalar(name, value, epoch.epoch)
        self._writer.flush()

    def on_run_end(self, end: RunEnd) -> None:
        for name, path in pictures_of(end.result.dir).items():
            self._writer.add_image(name, np.asarray(read_image(path)), self._epoch, dataformats="HWC")
        self._writer.add_text("best", f"epoch {end.result.best_epoch}: {end.result.best}", self._epoch)
        self._writer.close()

    def on_run_failed(self, error: BaseException) -> None:
        self._writer.close()
