"""Train straight from a FiftyOne view: from exact masks, with no files in between."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..config import MOST_PINNED, TrainSettings, parse
from ..errors import CheckpointError, SettingsError
from ..types import ImageRecord, Names, ProgressFn
from .models import as_checkpoint
from .objects import Maskless
from .prepare import prepare

if TYPE_CHECKING:
    from ..engine.checkpoint import Checkpoint
    from ..engine.events import TrainingListener, TrainResult

log = logging.getLogger("fiftyone_yoloseg")
PIN = "pinned"
"""Tag of samples that are drawn after each epoch."""


def train(
    view: Any,
    model: Any = "yolov8n-seg.yaml",
    label_field: str = "ground_truth",
    *,
    val: Any = "auto",
    classes: Sequence[str] | None = None,
    maskless: Maskless = "error",
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
    listeners: Sequence[TrainingListener] = (),
    notes: list[str] | None = None,
    job: str | None = None,
    **settings: Any,
) -> TrainResult:
    """Train on the labels of a view.

    model: "yolov8n-seg.yaml" (a new network; n, s, m, l, x), a checkpoint to start from, a YOLO or a Checkpoint. Its classes
    may differ from those of the view: what fits is taken over.
    val: how to choose validation samples: "auto", "tags", "random", a share, a field, or a view (see `split_view`);
    False: as "auto", but validate only after the last epoch.
    listeners: told of each epoch, beside the plots and loggers of the settings (see `engine.events`).
    notes: gets what the user should know, one line each: the split, what was left out, a rebuilt head.
    job: name of the background job that this is, for the registry.
    settings: see `TrainSettings`. The run is entered on the dataset when it begins, with its samples, and kept up to date (`fy.runs(dataset)`);
    with resume=True, that of the earlier session is.
    Raises UserError.
    """
    from ..engine import train as engine
    from .run_keeper import RunKeeper

    if isinstance(val, bool):
        settings["val"], val = val, "auto"
    wanted = parse(TrainSettings, settings)
    if wanted.data is not None:
        raise SettingsError(f"data='{wanted.data}': training from a view takes its data from the view; leave data out")
    prepared = prepare(view, label_field, val, classes=classes, seed=wanted.seed, maskless=maskless)
    if "pinned" not in settings and not wanted.resume:
        wanted = wanted.model_copy(update={"pinned": tagged(view, prepared.splits.get("val", ())) or wanted.pinned})
    checkpoint = starting_point(model, prepared.names)
    told = [*prepared.notes, *transfer_notes(checkpoint, prepared.names)]
    for note in told:
        log.info(note)
    if notes is not None:
        notes += told
    facts = {
        "trained_on_field": label_field,
        "classes": list(prepared.names.values()),
        "images": {name: len(records) for name, records in prepared.splits.items()},
        "split": prepared.how,
        "val": val if isinstance(val, (str, float)) else None,
        "maskless": maskless,
        "model": str(checkpoint.path or model),
        "origin": checkpoint.origin,
        "size": checkpoint.net.size,
        "job": job,
    }
    keeper = RunKeeper(view, facts, prepared.splits)
    return engine.train(checkpoint, prepared.data, wanted, progress=progress, should_stop=should_stop, listeners=[keeper, *listeners])


def tagged(view: Any, validation: Sequence[ImageRecord]) -> tuple[str, ...]:
    """Ids of the validation samples with the tag `pinned`, as many as can be drawn."""
    collection = view._dataset._sample_collection
    ids = {str(document["_id"]) for document in collection.find({"tags": PIN}, {"_id": 1})}
    found = [record.source_id for record in validation if record.source_id is not None and record.source_id in ids]
    if len(found) > MOST_PINNED:
        log.info("%d validation samples have the tag '%s': the first %d are drawn", len(found), PIN, MOST_PINNED)
    return tuple(found[:MOST_PINNED])


def starting_point(model: Any, names: Names) -> Checkpoint:
    """The checkpoint to train from; a new network gets the classes of the data. Raises CheckpointError."""
    from ..engine.checkpoint import NEW_MODEL, new_checkpoint

    if isinstance(model, str) and NEW_MODEL.fullmatch(model):
        return new_checkpoint(model, names)
    checkpoint = as_checkpoint(model)
    if checkpoint is None:
        raise CheckpointError(f"model={model!r}: an exported model cannot be trained; give its checkpoint (.pt)")
    return checkpoint


def transfer_notes(checkpoint: Checkpoint, names: Names) -> list[str]:
    if not checkpoint.trained or list(checkpoint.names.values()) == list(names.values()):
        return []
    kept = set(checkpoint.names.values()) & set(names.values())
    return [
        f"the model knows {len(checkpoint.names)} classes, the data has {len(names)}: the head is rebuilt for the data's classes"
        + (f", {len(kept)} known ones keep their weights" if kept else ", all else keeps its weights")
    ]
