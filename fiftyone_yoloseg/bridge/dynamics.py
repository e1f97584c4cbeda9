"""Which training objects a network learnt late, forgot, or never learnt: written to the labels that it was trained on. The record is `engine.dynamics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.dynamics import Dynamics, read_dynamics
from ..errors import DataError
from . import run_registry
from .label_attributes import check_key, clear_attributes, save_views, write_attributes
from .views import check_view, label_path

VERDICTS = ("never learnt", "forgotten", "learnt")
HARDEST = "hardest"
_MORE = ("_iou", "_last_iou", "_forgotten")


@dataclass(slots=True)
class DynamicsReport:
    """counts: labels of each verdict. epochs: those that were observed. views: verdict or "hardest" -> name of the saved view."""

    run: str
    field: str
    epochs: list[int]
    counts: dict[str, int]
    views: dict[str, str]

    def summary(self) -> str:
        found = ", ".join(f"{n} {verdict}" for verdict, n in self.counts.items())
        return f"{self.run}: {sum(self.counts.values())} training objects in {len(self.epochs)} epochs: {found}"


def training_dynamics(view: Any, run: str | Path | None = None, *, key: str = "dynamics", limit: int = 50) -> DynamicsReport:
    """Write to the labels of a training how well the network found them as epochs went by, and save three views.

    view: the dataset that fy.train was given, or a view of it. run: name or folder of a run with the setting `dynamics`; None: the last training of this dataset.
    key: attribute that gets the verdict: "never learnt", "forgotten" (found in one observed epoch and not in the next, at least once) or "learnt"; `<key>_iou` and
    `<key>_last_iou` the mean and the last mask IoU, `<key>_forgotten` how often it was forgotten. What an earlier call wrote under the key is replaced.
    limit: objects in the view "<key>: hardest", those with the lowest mean IoU, hardest first. Wrong labels are among them.
    Raises DataError if the run is not known here or has observed nothing, UserError for a bad key.
    """
    check_view(view)
    facts = _training(view, run)
    field, seen = facts["trained_on_field"], read_dynamics(Path(facts["dir"]))
    path, names = label_path(view, field), [key, *(key + end for end in _MORE)]
    check_key(view, key, [field], VERDICTS, _MORE)
    here = set(view.values("id"))
    rows = [row for row in _rows(seen, key) if row[0] in here]
    if not rows:
        raise DataError(f"run '{facts['about']}': none of its training samples is in this view")
    clear_attributes(view, [path], names)
    write_attributes(view, path, rows)
    counts = Counter(values[key] for _, _, values in rows)
    views = save_views(view, key, dict.fromkeys(VERDICTS[:2], field), key)
    hardest = sorted(rows, key=lambda row: row[2][f"{key}_iou"])[:limit]
    name = f"{key}: {HARDEST}"
    if view._dataset.has_saved_view(name):
        view._dataset.delete_saved_view(name)
    samples = list(dict.fromkeys(sample for sample, _, _ in hardest))
    part = view.select(samples, ordered=True).select_labels(ids=[label for _, label, _ in hardest], fields=field)
    view._dataset.save_view(name, part, description="the lowest mean mask IoU over the epochs first")
    return DynamicsReport(
        facts["about"], field, seen.epochs.tolist(), {verdict: counts[verdict] for verdict in VERDICTS}, {**views, HARDEST: name}
    )


def _training(view: Any, run: str | Path | None) -> Mapping[str, Any]:
    known = run_registry.runs(view)
    for one in known:
        if run is None or run == one.name or Path(run).absolute() == one.dir:
            return one.facts
    names = ", ".join(repr(one.name) for one in known) or "none; train with fy.train(view, ..., dynamics=1)"
    raise DataError(f"run={str(run)!r}: no such training of '{view._dataset.name}' is remembered here: {names}")


def _rows(seen: Dynamics, key: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(sample id, label id, attributes)"""
    mean, forgotten, learnt = seen.iou.astype(np.float64).mean(0), seen.forgotten, seen.learnt
    for n, label in enumerate(seen.label.tolist()):
        verdict = VERDICTS[0] if not learnt[n] else VERDICTS[1] if forgotten[n] else VERDICTS[2]
        attributes = (verdict, float(mean[n]), float(seen.iou[-1, n]), int(forgotten[n]))
        yield str(seen.images[seen.image[n]]), label, dict(zip((key, *(key + end for end in _MORE)), attributes, strict=True))
