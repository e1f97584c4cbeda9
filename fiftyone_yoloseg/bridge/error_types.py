"""What kind of error each prediction of a view is and what it costs, on the labels and as saved views. The kinds are those of `engine.error_types`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.error_types import KINDS, ErrorTypes, Kind, ObjectError
from ..errors import DataError, UserError
from ..types import ImageRecord, ProgressFn
from .error_pages import write_page
from .error_report import KEPT, ErrorCase, ErrorReport
from .label_attributes import check_key, clear_attributes, save_views, write_attributes
from .objects import Problem, RawSample, Reader
from .raw import object_attributes
from .read import as_instances, sized_pairs
from .views import check_view, label_path


def error_types(
    view: Any,
    pred_field: str = "predictions",
    gt_field: str = "ground_truth",
    *,
    key: str | None = "error",
    report: Path | str | None = None,
    progress: ProgressFn | None = None,
) -> ErrorReport:
    """Give every wrong prediction and every missed object its kind of error and its cost in AP50.

    key: attribute of the labels that gets the kind, `<key>_cost` the cost, and beginning of the names of the saved views; what an earlier run
    wrote under it is replaced. None writes nothing. report: an HTML file to write, with tables, and pictures of the most expensive errors.
    Labels without a mask and samples that cannot be read are left out and listed. Raises DataError where a field cannot be used, predictions have
    no confidence or the report cannot be written, UserError for a bad key; then no label is changed.
    """
    check_view(view)
    if key is not None:
        check_key(view, key, (gt_field, pred_field), KINDS, ("_cost",))
    paths = label_path(view, gt_field), label_path(view, pred_field)
    names = sorted({x for path in paths for x in view.distinct(f"{path}.label") if x is not None})
    reader, errors, left_out = Reader({name: i for i, name in enumerate(names)}, "skip"), ErrorTypes(len(names)), list[Problem]()
    seen: list[_Seen] = []
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
        errors.add(len(seen), record, as_instances(found, size))
        seen.append(_Seen(str(pair.id), pair.path, [(o.id, o.cls) for o in truth], [(o.id, o.cls) for o in found]))
        if progress:
            progress(0.9 * len(seen) / max(total, 1), f"{len(seen)} of {total} samples, {len(errors.errors)} errors")
    if not seen:
        raise DataError(f"no sample of this view can be read, the first: {left_out[0]}")
    tell = progress or (lambda share, label: None)
    tell(0.9, f"what {len(errors.errors)} errors cost")
    cases = [seen[error.image].case(error, cost, names) for error, cost in zip(errors.errors, errors.object_costs(), strict=True)]
    result = _report((pred_field, gt_field), len(seen), errors, cases, names, left_out)
    if report is not None:
        tell(0.95, "pictures of the most expensive errors")
        result.page = Path(report).expanduser().absolute()
        write_page(view, result, result.page)
    if key is not None:
        clear_attributes(view, paths, [key, f"{key}_cost"])
        for path, missed in zip(paths, (True, False), strict=True):
            mine = [c for c in cases if (c.prediction_id is None) == missed]
            values = ((c.sample_id, str(c.label_id if missed else c.prediction_id), {key: c.kind, f"{key}_cost": c.cost}) for c in mine)
            write_attributes(view, path, values)
        result.views = save_views(view, key, {kind: gt_field if kind == "missed" else pred_field for kind in KINDS}, key)
    tell(1.0, result.headline())
    return result


@dataclass(slots=True)
class _Seen:
    """A sample that was compared: what the numbers in an `ObjectError` mean."""

    sample_id: str
    path: str
    truth: list[tuple[str, int]]
    found: list[tuple[str, int]]

    def case(self, error: ObjectError, cost: float, names: Sequence[str]) -> ErrorCase:
        label_id, label = (None, None) if error.label is None else self.truth[error.label]
        prediction_id, predicted = (None, None) if error.prediction is None else self.found[error.prediction]
        return ErrorCase(
            error.kind, cost, self.sample_id, self.path, prediction_id, label_id, None if predicted is None else names[predicted],
            None if label is None else names[label], error.iou, None if predicted is None else error.confidence,
        )  # fmt: skip


def _report(
    fields: tuple[str, str], samples: int, errors: ErrorTypes, cases: list[ErrorCase], names: Sequence[str], left_out: list[Problem]
) -> ErrorReport:
    counts: dict[Kind, int] = {kind: sum(e.kind == kind for e in errors.errors) for kind in KINDS}
    found = {names[cls]: (objects, ap) for cls, objects, ap in errors.per_class()}
    by_class: dict[str, Counter[Kind]] = {name: Counter() for name in found}
    for case in cases:
        by_class.setdefault(case.predicted or case.label or "", Counter())[case.kind] += 1
    order = sorted(by_class, key=lambda name: (-by_class[name].total(), name))
    classes = {}
    for name in order:
        objects, ap = found.get(name, (0, None))
        classes[name] = {"objects": objects, "AP50": ap, "errors": dict(by_class[name])}
    costly = sorted(cases, key=lambda case: -case.cost)
    kept = [case for kind in KINDS for case in [c for c in costly if c.kind == kind][:KEPT]]
    objects = sum(n for n, _ in found.values())
    return ErrorReport(*fields, samples, objects, errors.predictions, errors.ap, counts, errors.costs(), classes, kept, left_out)
