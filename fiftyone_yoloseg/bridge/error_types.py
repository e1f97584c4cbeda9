"""What kind of error each prediction of a view is and what it costs, on the labels and as saved views. The kinds are those of `engine.error_types`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..engine.error_types import KINDS, ErrorTypes, Kind
from ..errors import DataError, UserError
from ..types import ImageRecord, ProgressFn
from .label_attributes import check_key, clear_attributes, save_views, write_attributes
from .objects import Problem, RawSample, Reader
from .raw import object_attributes
from .read import as_instances, sized_pairs
from .views import check_view, label_path


@dataclass(slots=True)
class ErrorReport:
    """ap50: mask AP at IoU 0.5, mean over classes. counts, costs: kind -> number of errors, and what ap50 would rise by without them.

    worst: (cost, kind, sample id, label id), the most expensive single errors. left_out: samples and labels that could not be used.
    """

    samples: int
    ap50: float
    counts: dict[Kind, int]
    costs: dict[Kind, float]
    worst: list[tuple[float, Kind, str, str]]
    left_out: list[Problem]
    views: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        rows = sorted(self.counts, key=lambda kind: -self.costs[kind])
        lines = [f"  {kind:<24}{self.counts[kind]:>7}   AP50 {self.costs[kind]:+.3f}" for kind in rows if self.counts[kind]]
        return "\n".join([f"mask AP50 {self.ap50:.3f} on {self.samples} images; errors, and what AP50 would gain without them:", *lines])


def error_types(
    view: Any,
    pred_field: str = "predictions",
    gt_field: str = "ground_truth",
    *,
    key: str | None = "error",
    progress: ProgressFn | None = None,
) -> ErrorReport:
    """Give every wrong prediction and every missed object its kind of error and its cost in AP50.

    key: attribute of the labels that gets the kind, `<key>_cost` the cost, and beginning of the names of the saved views; what an earlier run
    wrote under it is replaced. None writes nothing. Labels without a mask and samples that cannot be read are left out and listed.
    Raises DataError where a field cannot be used or predictions have no confidence, UserError for a bad key.
    """
    check_view(view)
    if key is not None:
        check_key(view, key, (gt_field, pred_field), KINDS, ("_cost",))
    paths = label_path(view, gt_field), label_path(view, pred_field)
    names = sorted({x for path in paths for x in view.distinct(f"{path}.label") if x is not None})
    reader, errors, left_out = Reader({name: i for i, name in enumerate(names)}, "skip"), ErrorTypes(len(names)), list[Problem]()
    ids: list[tuple[str, list[str], list[str]]] = []
    total = len(view) if progress else 0
    for pair, size in sized_pairs(view, *(object_attributes(path) for path in paths)):
        if isinstance(size, UserError):
            left_out.append(Problem(str(pair.id), pair.path, str(size)))
            continue
        sides = [reader.read(RawSample(str(pair.id), pair.path, labels), size) for labels in (pair.truth, pair.found)]
        for _, dropped in sides:
            left_out += dropped
        (truth, _), (found, _) = sides
        if any(o.confidence is None for o in found):
            raise DataError(f"field '{pred_field}': predictions of sample {pair.id} have no confidence, which AP needs")
        record = ImageRecord(Path(pair.path), *size, tuple(o.record() for o in truth))
        errors.add(len(ids), record, as_instances(found, size))
        ids.append((str(pair.id), [o.id for o in truth], [o.id for o in found]))
        if progress:
            progress(0.9 * len(ids) / max(total, 1), f"{len(ids)} of {total} samples, {len(errors.errors)} errors")
    if not ids:
        raise DataError(f"no sample of this view can be read, the first: {left_out[0]}")
    costs, rows = errors.object_costs(), dict[str, list[tuple[str, str, dict[str, Any]]]]()
    worst = []
    for error, cost in zip(errors.errors, costs, strict=True):
        sample_id, label_ids, prediction_ids = ids[error.image]
        missed = error.prediction is None
        label_id = label_ids[error.label or 0] if missed else prediction_ids[error.prediction or 0]
        rows.setdefault(paths[0 if missed else 1], []).append((sample_id, label_id, {f"{key}": error.kind, f"{key}_cost": cost}))
        worst.append((cost, error.kind, sample_id, label_id))
    worst.sort(key=lambda row: -row[0])
    counts: dict[Kind, int] = {kind: sum(e.kind == kind for e in errors.errors) for kind in KINDS}
    report = ErrorReport(len(ids), errors.ap, counts, errors.costs(), worst[:20], left_out)
    if key is not None:
        clear_attributes(view, paths, [key, f"{key}_cost"])
        for path, values in rows.items():
            write_attributes(view, path, values)
        report.views = save_views(view, key, {kind: gt_field if kind == "missed" else pred_field for kind in KINDS}, key)
    if progress:
        progress(1.0, report.summary().splitlines()[0])
    return report
