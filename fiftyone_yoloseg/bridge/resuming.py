"""Which samples a prediction still has to look at.

The Detections of every predicted sample, also of one in which nothing was found, carry `predicted_by`: "<key>.<run>". The key is made of the checkpoint's hash and of
the settings that decide what is found; the run is one call, and those that go on after it was cut off.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ..config import PredictSettings
from ..errors import SettingsError
from . import runs
from .models import Source

MARK = "predicted_by"
"""Attribute of Detections."""
_DIGITS = 16
_NO_MATTER = {"batch", "device", "vid_stride", "threads", "engine", "ray_workers"}


@dataclass(frozen=True, slots=True)
class Run:
    """mark: what the samples get. samples: (id, file) of those to predict. done: how many others have their predictions already."""

    mark: str
    overwrite: bool
    samples: list[tuple[str, str]]
    done: int


def plan_run(
    view: Any, field: str, source: Source, settings: PredictSettings, scores: Collection[str], *, overwrite: bool, resume: bool | None
) -> Run:
    """resume: see `predict`. Raises SettingsError if it is impossible."""
    if resume and overwrite:
        raise SettingsError("resume=True leaves predictions as they are, overwrite=True replaces them: give one of them")
    if resume and source.sha256 is None:
        raise SettingsError("resume=True: this model has no file, so what it predicted before cannot be told; give its path")
    key = _key(source, settings, scores)
    unfinished = [
        str(facts["mark"])
        for facts in runs.recall(view, "predict")
        if facts["about"] == field and facts.get("complete") is False and facts.get("overwrite") == overwrite
    ]
    same = [mark for mark in unfinished if source.sha256 is not None and mark.startswith(f"{key}.")]
    mark = same[0] if same and resume is not False else f"{key}.{secrets.token_hex(4)}"
    todo, done = [], 0
    for document in view._aggregate(post_pipeline=[{"$project": {"filepath": 1, f"{field}.{MARK}": 1}}]):
        there = (document.get(field) or {}).get(MARK) or ""
        if resume is not False and (there == mark or (resume and there.startswith(f"{key}."))):
            done += 1
        else:
            todo.append((str(document["_id"]), document["filepath"]))
    return Run(mark, overwrite, todo, done)


def _key(source: Source, settings: PredictSettings, scores: Collection[str]) -> str:
    facts = [source.sha256, sorted(scores), settings.model_dump(mode="json", exclude=_NO_MATTER)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:_DIGITS]
