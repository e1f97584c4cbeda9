"""A person who has a folder of labelled images and an App without a dataset gets to predictions by clicking, through a training that outlives its operator."""

from __future__ import annotations

from pathlib import Path

import first_steps
import pytest
from app import LIMIT, App, Server, write_shapes

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
TRAIN, VAL = 32, 8
EPOCHS, ENOUGH = 500, 25


def test_from_an_empty_app_to_an_exported_model(app: App, server: Server, tmp_path: Path) -> None:
    folder = write_shapes(tmp_path / first_steps.DATASET, TRAIN, VAL)
    first_steps.find_operators(app, server.empty())
    first_steps.import_folder(app, folder, TRAIN + VAL)
    first_steps.check(app)
    first_steps.begin_training(app, EPOCHS, LIMIT)
    first_steps.watch_training(app, EPOCHS)
    first_steps.stop_training(app, EPOCHS, ENOUGH, 300)
    assert first_steps.predict(app) > 5
    first_steps.evaluate(app, VAL)
    first_steps.export(app)
