"""The IoU of each converted object, stored on its FiftyOne label, and a saved view of those that lost something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fiftyone import ViewField as F

from ..label_attributes import write_attributes
from ..plan import Plan
from ..raw import raw_samples
from ..views import label_path
from .manifest import Manifest
from .rows import SampleResult


def store_scores(plan: Plan, folder: Path, attribute: str, threshold: float) -> str:
    """Set `attribute` on every label that is in the converted folder; returns a line that tells where to look."""
    dataset = plan.sources[0].view._dataset
    write_attributes(dataset, label_path(dataset, plan.label_field), _scores(plan, Manifest.earlier(folder), attribute))
    name = f"{attribute} below {threshold:g}"
    view = dataset.filter_labels(plan.label_field, F(attribute) < threshold)
    dataset.save_view(name, view, overwrite=True)
    return f"'{attribute}' of each label holds its IoU; {len(view)} samples are in the saved view '{name}'"


def _scores(plan: Plan, manifest: Manifest, attribute: str) -> Iterator[tuple[str, str, dict[str, float]]]:
    for source in plan.sources:
        for sample in raw_samples(source.view, plan.label_field, ("_id",)):
            if (entry := manifest.get(sample.id)) is None:
                continue
            result = SampleResult.from_json(entry.result)
            dropped = {label for _, label in result.dropped}
            below = {label: iou for iou, label in result.inexact}
            for label in (str(x["_id"]) for x in sample.labels):
                if label not in dropped:
                    yield sample.id, label, {attribute: below.get(label, 1.0)}
