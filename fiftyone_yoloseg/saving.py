"""The files of `yoloseg predict`: pictures with masks drawn, and predictions.json in COCO's results format."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .config import PredictCommand
from .data.files import write_text
from .engine.runlog import new_run_folder
from .results import Results

log = logging.getLogger(__name__)


def write_predictions(results: Iterable[Results], settings: PredictCommand) -> Iterator[Results]:
    """Pass results on, writing each picture as it comes and the json file at the end."""
    folder: Path | None = None
    found: list[dict[str, Any]] = []
    used: set[str] = set()
    for number, result in enumerate(results):
        folder = folder or new_run_folder(settings.project, settings.name, settings.exist_ok)  # not before there is something to write
        stem = Path(result.path.split("?")[0]).stem or str(number)
        if result.frame is not None:
            stem += f"_{result.frame:06}"
        name = stem if stem not in used else f"{stem}_{number}"
        used.add(name)
        result.save(folder / f"{name}.jpg")
        found += [{**entry, "file_name": result.path} for entry in result.to_coco(name)]
        yield result
    if folder is None:
        return
    write_text(folder / "predictions.json", json.dumps(found))
    log.info("%d pictures and predictions.json are in %s", len(used), folder)
