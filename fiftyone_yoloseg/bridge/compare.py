"""Sets of predictions on the same view: which objects the second finds that the first does not, which it loses, and how sure its mAP is."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from ..engine.average_precision import AREAS
from ..engine.comparison import Difference, bootstrap
from ..errors import DataError
from ..types import ProgressFn
from .label_attributes import check_key, clear_attributes, save_views, write_attributes
from .scoring import Rules, SampleScore, Scored, score_view
from .views import check_view, label_path

VERDICTS = ("fixed", "broken", "right", "wrong")
"""Of an object: only the second finds it, only the first, both, neither."""


SIZES = ("small", "medium", "large")
"""Of objects, as COCO has them: up to 32 x 32 pixels, up to 96 x 96, larger."""
Counts = dict[str, int]
"""Verdict -> number of objects."""


@dataclass(slots=True)
class ComparisonReport:
    """objects: verdict -> number; per_class: class -> the same; per_size: small, medium, large -> the same; per_class_and_size: class -> size -> the
    same. false_positives: of the first and of the second.

    masks, boxes: mAP of both, and the confidence interval of their difference. views: verdict -> name of a saved view. more: where there are more
    than two, each of the others against the first.
    """

    first: str
    second: str
    objects: Counts
    per_class: dict[str, Counts]
    per_size: dict[str, Counts]
    per_class_and_size: dict[str, dict[str, Counts]]
    false_positives: tuple[int, int]
    masks: Difference | None
    boxes: Difference
    views: dict[str, str] = field(default_factory=dict)
    more: list[ComparisonReport] = field(default_factory=list)

    def summary(self) -> str:
        shown = self.masks or self.boxes
        verdict = f"'{self.second if shown.difference > 0 else self.first}' is better" if shown.sure else "the difference may be chance"
        return (
            f"'{self.second}' against '{self.first}': {', '.join(f'{n} {name}' for name, n in self.objects.items())}; "
            f"false positives {self.false_positives[0]} -> {self.false_positives[1]}\n"
            f"{'mask' if self.masks else 'box'} mAP {shown.first:.3f} -> {shown.second:.3f}, {shown.confidence:.0%} interval of the difference "
            f"{shown.low:+.3f} to {shown.high:+.3f}: {verdict}"
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Of a table: class or size, then the number of objects of each verdict; sizes first."""
        parts = [*((f"({size})", counts) for size, counts in self.per_size.items()), *self.per_class.items()]
        return [(name, *(str(counts.get(verdict, 0)) for verdict in VERDICTS)) for name, counts in parts]

    def text(self) -> str:
        """For a terminal."""
        lines = [self.summary(), f"{'':24}" + "".join(f"{verdict:>9}" for verdict in VERDICTS)]
        lines += [f"{name:24}" + "".join(f"{n:>9}" for n in counts) for name, *counts in self.rows()]
        return "\n".join([*lines, *(f"\n{other.text()}" for other in self.more)])

    def markdown(self) -> str:
        """For the App."""
        head, verdict = self.summary().splitlines()
        table = [
            "| class | " + " | ".join(VERDICTS) + " |",
            "|---" * (len(VERDICTS) + 1) + "|",
            *(f"| {' | '.join(row)} |" for row in self.rows()),
        ]
        return "\n\n".join([f"**{head}**", verdict, "\n".join(table), *(other.markdown() for other in self.more)])

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        plain = ("first", "second", "objects", "per_class", "per_size", "per_class_and_size", "false_positives", "views")
        differences = {kind: asdict(d) for kind, d in (("masks", self.masks), ("boxes", self.boxes)) if d}
        return {**{name: getattr(self, name) for name in plain}, **differences, "more": [other.to_dict() for other in self.more]}


def compare(
    view: Any,
    first: str,
    second: str,
    *more: str,
    gt_field: str = "ground_truth",
    key: str | None = "compare",
    iou: float = 0.5,
    samples: int = 300,
    seed: int = 0,
    progress: ProgressFn | None = None,
) -> ComparisonReport:
    """Compare fields of predictions with the same ground truth, the second and each of `more` with the first. An object is found by a prediction of
    its class with an IoU of `iou` or more.

    key: attribute of the labels that gets fixed, broken, right or wrong, and beginning of the names of the saved views; what an earlier
    comparison wrote under it is replaced. For those in `more` it is `<key>_<field>`. None writes nothing. samples: draws of the paired bootstrap
    over images. Raises DataError where a field cannot be used, UserError for a bad key.
    """
    check_view(view)
    others = (second, *more)
    if twice := [name for name, n in Counter((first, *others)).items() if n > 1]:
        raise DataError(f"'{twice[0]}' is given twice: give different fields of predictions")
    keys = {other: key if other == second else f"{key}_{other}" for other in others} if key is not None else {}
    for own in keys.values():
        check_key(view, own, [gt_field], VERDICTS)
    tell, share = progress or (lambda share, label: None), 0.9 / (1 + len(others))
    scored: dict[str, Scored] = {}
    for i, name in enumerate((first, *others)):
        scored[name] = score_view(
            view, name, gt_field, Rules(iou=iou), lambda done, label, i=i, name=name: tell(share * (i + done), f"{name}: {label}")
        )
    tell(0.9, "how sure the differences are")
    path, reports = label_path(view, gt_field), []
    for other in others:
        report, verdicts = _compare(first, other, scored[first], scored[other], samples, seed)
        if key is not None:
            clear_attributes(view, [path], [keys[other]])
            write_attributes(view, path, ((sample, label, {keys[other]: verdict}) for sample, label, verdict in verdicts))
            report.views = save_views(view, keys[other], dict.fromkeys(VERDICTS, gt_field), keys[other])
        reports.append(report)
    reports[0].more = reports[1:]
    tell(1.0, reports[0].summary().splitlines()[0])
    return reports[0]


def _compare(first: str, second: str, a: Scored, b: Scored, samples: int, seed: int) -> tuple[ComparisonReport, list[tuple[str, str, str]]]:
    """The report, and (sample id, label id, verdict) of each object."""
    differences = {kind: bootstrap(a.averagers[kind], b.averagers[kind], samples=samples, seed=seed) for kind in b.averagers}
    verdicts, objects = [], Counter[str]()
    per_class, per_size, both = (defaultdict[Any, Counter[str]](Counter) for _ in range(3))
    for one, other in zip(a.samples, b.samples, strict=True):
        for label_id, name, size, verdict in _verdicts(one, other):
            verdicts.append((str(one.id), label_id, verdict))
            for counts in (objects, per_class[name], per_size[size], both[name, size]):
                counts[verdict] += 1
    classes, wrong = sorted(per_class), (_false_positives(a), _false_positives(b))
    by_both = {name: {size: dict(both[name, size]) for size in SIZES if (name, size) in both} for name in classes}
    report = ComparisonReport(
        first, second, {v: objects[v] for v in VERDICTS}, {name: dict(per_class[name]) for name in classes},
        {size: dict(per_size[size]) for size in SIZES}, by_both, wrong, differences.get("segm"), differences["bbox"],
    )  # fmt: skip
    return report, verdicts


def _verdicts(one: SampleScore, other: SampleScore) -> list[tuple[str, str, str, str]]:
    """(label id, class, size, verdict) of each object of a sample; crowds are none."""
    names = {gt_id: name for name, _, _, _, gt_id, _ in one.matches if gt_id}
    found = [{position: verdict for position, verdict, _, _ in sample.truth.verdicts} for sample in (one, other)]
    rows = []
    for position, before in found[0].items():
        if before == "ignored":
            continue
        now, label_id = found[1][position], str(one.truth.ids[position])
        kind = VERDICTS[{("fn", "tp"): 0, ("tp", "fn"): 1, ("tp", "tp"): 2, ("fn", "fn"): 3}[before, now]]
        rows.append((label_id, names[label_id] or "", _size(one.areas[position]), kind))
    return rows


def _size(area: float) -> str:
    """On a limit COCO counts an object on both sides; here it is the smaller one."""
    return next(size for size, (_, high) in zip(SIZES, AREAS[1:], strict=True) if area <= high)


def _false_positives(scored: Scored) -> int:
    return sum(sample.tally()[1] for sample in scored.samples)
