"""The model proposes objects where there are none yet, or where it was not sure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from ...config import PredictSettings, parse
from ...errors import DataError, SettingsError, Stopped
from ...geometry.masks import Crop
from ...types import Instances, ProgressFn
from .. import predict, runs
from ..atomic import Document, change, labels_in
from ..objects import Label, Problem, Size
from ..provenance import MODEL, crop_of, declare, origin_of, overlaps, predicted_labels
from ..resuming import MARK
from ..views import check_view
from .fields import FIELD, SEEN, TRUTH, Fields, fields_of, truth_state

ONLY = ("empty", "uncertain")
SAME = 0.5
"""Mask IoU from which on two objects are taken for one, of whatever class."""
_BATCH = 8


@dataclass(slots=True)
class PrelabelReport:
    """What `prelabel` did. samples: those that were looked at by the model; objects: proposed ones; known: predicted objects that were left out because
    a person has drawn, edited or rejected one there, or the ground truth has one; skipped: ids of samples where a person added ground truth while
    the model was at work; failed: samples that could not be read."""

    field: str
    samples: int = 0
    objects: int = 0
    known: int = 0
    skipped: list[str] = dataclasses.field(default_factory=list)
    failed: list[Problem] = dataclasses.field(default_factory=list)


def prelabel(
    view: Any,
    model: Any,
    field: str = FIELD,
    *,
    gt_field: str = TRUTH,
    only: str | Collection[str] = ONLY,
    uncertain_below: float = 0.5,
    overwrite: bool = False,
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> PrelabelReport:
    """Let the model propose objects in `field`; ground truth is not touched.

    only: which samples. "empty": without ground truth, and not rejected so far. "uncertain": with a pending object of the model below the confidence
    `uncertain_below`. Both by default. Earlier proposals of a model are replaced; objects that a person drew or edited stay, and nothing is
    proposed on top of them, of ground truth (mask IoU of 0.5 or more, any class), or of what was rejected there (same class).
    model, settings: as in `predict`; each object carries its provenance (see `provenance`) and the mask as the model made it.
    overwrite: replace labels in `field` that this tool did not write.
    Raises UserError (bad field, model or setting; no image could be predicted) or Stopped, with earlier batches written.
    """
    check_view(view)
    dataset = view._dataset
    fields = fields_of(dataset, field, gt_field, must_exist=False)
    kinds = (only,) if isinstance(only, str) else tuple(only)
    if not kinds or not set(kinds) <= set(ONLY):
        raise SettingsError(f"only={only!r}: choose from {', '.join(ONLY)}")
    if not 0 <= uncertain_below <= 1:
        raise SettingsError(f"uncertain_below={uncertain_below!r}: a confidence from 0 to 1")
    runs.check_writable(view, field, overwrite)
    wanted = parse(PredictSettings, {"batch": _BATCH, **settings})
    chosen, bare = _chosen(view, fields, kinds, uncertain_below)
    report = PrelabelReport(field)
    predictor, author = predict.start(view, model, field, wanted)
    declare(dataset, fields.rejected, reviewed=True)
    total, done = len(chosen), 0
    for samples, results in predict.stream(
        predictor, predict.in_batches(list(chosen.items()), wanted.batch), lambda samples, results: (samples, results)
    ):
        if should_stop and should_stop():
            raise Stopped(f"stopped after {done} of {total} images; their objects are in '{field}'")
        if progress:
            progress(done / total, f"{done} of {total} images, {report.objects} objects")
        done += len(samples)
        found: dict[str, tuple[list[Label], Size]] = {}
        for (sample_id, file), result in zip(samples, results, strict=True):
            if isinstance(result, Instances):
                labels = predicted_labels(result, predictor.backend.info.names, author, keep_masks=True)
                found[sample_id] = labels, (result.height, result.width)
            else:
                report.failed.append(Problem(sample_id, file, str(result)))
        _write(dataset, fields, found, report, bare, overwrite)
    if total and len(report.failed) == total:
        raise DataError(f"none of {total} images could be predicted, the first: {report.failed[0]}")
    if progress:
        progress(1.0, f"{report.samples} images, {report.objects} objects")
    return report


def _chosen(view: Any, fields: Fields, kinds: Collection[str], below: float) -> tuple[dict[str, str], set[str]]:
    """Id -> file of the samples to prelabel, and which of them have no ground truth. The whole sample counts, also where the view filters labels."""
    samples = dict(zip(*view.values(["id", "filepath"]), strict=True))
    whole = view._dataset.select(list(samples))
    project = {
        "truth": {"$size": {"$ifNull": [f"${fields.truth}.detections", []]}},
        "rejected": {"$size": {"$ifNull": [f"${fields.rejected}.detections", []]}},
        "confidences": f"${fields.pending}.detections.confidence",
    }
    chosen, bare = set[str](), set[str]()
    for document in whole._aggregate(post_pipeline=[{"$project": project}]):
        empty = not document["truth"] and not document["rejected"]
        unsure = any(c is not None and c < below for c in document.get("confidences") or ())
        if ("empty" in kinds and empty) or ("uncertain" in kinds and unsure):
            chosen.add(str(document["_id"]))
            if not document["truth"]:
                bare.add(str(document["_id"]))
    return {sample_id: file for sample_id, file in samples.items() if sample_id in chosen}, bare


def _write(
    dataset: Any, fields: Fields, found: dict[str, tuple[list[Label], Size]], report: PrelabelReport, bare: set[str], overwrite: bool
) -> None:
    """bare: samples that had no ground truth when they were chosen."""
    done: dict[str, tuple[int, int] | None] = {}

    def plan(document: Document) -> dict[str, Document | None]:
        sample_id = str(document["_id"])
        truth = labels_in(document, fields.truth)
        if truth and sample_id in bare:
            done[sample_id] = None
            return {}
        labels, size = found[sample_id]
        there = labels_in(document, fields.pending)
        if {label["_id"] for label in labels} & {label["_id"] for label in there}:
            return {}  # written already; what happened to it since is somebody else's doing
        mine = [] if overwrite else [label for label in there if origin_of(label) != MODEL]
        taken = [crop_of(label, size) for label in [*mine, *truth]]
        refused: dict[Any, list[Crop]] = {}
        for label in labels_in(document, fields.rejected):
            refused.setdefault(label.get("label"), []).append(crop_of(label, size))
        new = [label for label in labels if overlaps(label, [*taken, *refused.get(label["label"], [])], size, SAME) is None]
        done[sample_id] = len(new), len(labels) - len(new)
        # what `predict` wrote there is no longer all there: it must not count as predicted
        marked = {MARK: None} if (document.get(fields.pending) or {}).get(MARK) else {}
        return {fields.pending: {"detections": [*mine, *new], SEEN: truth_state(document, fields.truth), **marked}}

    contested = set(change(dataset, list(found), fields.all, plan))
    for sample_id, counts in done.items():
        if counts is None or sample_id in contested:
            report.skipped.append(sample_id)
        else:
            report.samples += 1
            report.objects += counts[0]
            report.known += counts[1]
