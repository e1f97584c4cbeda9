"""What forms suggest: read from the dataset, so that most users only press Execute."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import fiftyone as fo

from ..config.export import FormatName
from ..errors import UserError
from . import runs
from .read import read_sizes
from .splits import tag_counts
from .views import LabelField

_SAMPLE = 16


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A checkpoint that was trained on this dataset and still exists."""

    path: str
    label: str
    score: float = -1.0
    """Mask mAP of its training; -1 if that has none."""


def work_dir(dataset: Any | None) -> Path:
    """Where runs, jobs and exports of a dataset go when the user does not say. Absolute: the App's server runs elsewhere.

    None: where jobs go that make a dataset.
    """
    name = "" if dataset is None else re.sub(r"[^\w.-]+", "_", dataset.name)
    return Path(fo.config.default_dataset_dir).expanduser().absolute() / "yoloseg" / name


def truth_first(view: Any, fields: list[LabelField]) -> list[LabelField]:
    """The fields with masks, ground truth before what models wrote."""
    predicted = {facts["about"] for facts in runs.recall(view, "predict")}
    return sorted((f for f in fields if f.masks), key=lambda f: (f.name in predicted, f.name != "ground_truth", -f.masks))


def predictions_first(view: Any, fields: list[LabelField], gt_field: str | None) -> list[LabelField]:
    """The fields that predictions may be in: those that models wrote, then those whose name says so, the ground truth last."""
    predicted = {facts["about"] for facts in runs.recall(view, "predict")}
    return sorted(fields, key=lambda f: (f.name == gt_field, f.name not in predicted, "pred" not in f.name, f.name))


def suggest_imgsz(view: Any) -> int:
    """A training size for these images: their long side, but 640 at most, as a multiple of 32."""
    files = view.limit(_SAMPLE).values("filepath")
    sides = sorted(max(size) for size in read_sizes(files) if not isinstance(size, UserError))
    if not sides:
        return 640
    return min(max(-(-sides[len(sides) // 2] // 32) * 32, 64), 640)


def suggest_split(view: Any) -> tuple[str, str]:
    """The split rule, and why: ("tags", "80 train, 20 val by their tags")."""
    counts = tag_counts(view.count_sample_tags())
    if {"train", "val"} <= set(counts):
        return "tags", ", ".join(f"{n} {name}" for name, n in counts.items()) + " by their tags"
    return "random", "no train and val tags"


def known_models(dataset: Any) -> list[KnownModel]:
    """Checkpoints of earlier trainings on this dataset, newest first."""
    found = []
    for facts in runs.recall(dataset, "train"):
        if Path(facts["best"]).is_file():
            score = (facts.get("metrics") or {}).get("metrics/mAP50-95(M)")
            rated = score if isinstance(score, float) and score == score else None
            rating = "" if rated is None else f", mask mAP {rated:.3f}"
            label = f"{facts['about']} ({facts['time'][:16].replace('T', ' ')}, {len(facts['classes'])} classes{rating})"
            found.append(KnownModel(facts["best"], label, -1.0 if rated is None else rated))
    return found


def free_field(dataset: Any, wanted: str = "predictions") -> str:
    """A field name to write predictions to: `wanted`, or numbered where that holds somebody else's labels."""
    name, n = wanted, 2
    while True:
        try:
            runs.check_writable(dataset, name, overwrite=False)
            return name
        except UserError:
            name, n = f"{wanted}_{n}", n + 1


def export_formats() -> list[str]:
    """What this version exports to. The registry, which needs torch, would take a form seconds."""
    return list(get_args(FormatName))
