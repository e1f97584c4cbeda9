"""Two sets of predictions on the same view: which objects the second finds that the first does not, which it loses, and how sure its mAP is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ..engine.comparison import Difference, bootstrap
from ..errors import DataError
from ..types import ProgressFn
from .label_attributes import check_key, clear_attributes, save_views, write_attributes
from .scoring import Rules, SampleScore, Scored, score_view
from .views import check_view, label_path

VERDICTS = ("fixed", "broken", "right", "wrong")
"""Of an object: only the second finds it, only the first, both, neither."""


@dataclass(slots=True)
class ComparisonReport:
    """objects: verdict -> number; per_class: class -> the same. false_positives: of the first and of the second.

    masks, boxes: mAP of both, and the confidence interval of their difference. views: verdict -> name of a saved view.
    """

    first: str
    second: str
    objects: dict[str, int]
    per_class: dict[str, dict[str, int]]
    false_positives: tuple[int, int]
    masks: Difference | None
    boxes: Difference
    views: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        shown = self.masks or self.boxes
        verdict = f"'{self.second if shown.difference > 0 else self.first}' is better" if shown.sure else "the difference may be chance"
        return (
            f"'{self.second}' against '{self.first}': {', '.join(f'{n} {name}' for name, n in self.objects.items())}; "
            f"false positives {self.false_positives[0]} -> {self.false_positives[1]}\n"
            f"{'mask' if self.masks else 'box'} mAP {shown.first:.3f} -> {shown.second:.3f}, {shown.confidence:.0%} interval of the difference "
            f"{shown.low:+.3f} to {shown.high:+.3f}: {verdict}"
        )


def compare(
    view: Any,
    first: str,
    second: str,
    gt_field: str = "ground_truth",
    *,
    key: str | None = "compare",
    iou: float = 0.5,
    samples: int = 300,
    seed: int = 0,
    progress: ProgressFn | None = None,
) -> ComparisonReport:
    """Compare two fields of predictions with the same ground truth. An object is found by a prediction of its class with an IoU of `iou` or more.

    key: attribute of the labels that gets fixed, broken, right or wrong, and beginning of the names of the saved views; what an earlier
    comparison wrote under it is replaced. None writes nothing. samples: draws of the paired bootstrap over images.
    Raises DataError where a field cannot be used, UserError for a bad key.
    """
    check_view(view)
    if first == second:
        raise DataError(f"first and second are both '{first}': give two fields of predictions")
    if key is not None:
        check_key(view, key, [gt_field], VERDICTS)
    tell = progress or (lambda share, label: None)
    rules = Rules(iou=iou)
    a = score_view(view, first, gt_field, rules, lambda share, label: tell(0.4 * share, f"{first}: {label}"))
    b = score_view(view, second, gt_field, rules, lambda share, label: tell(0.4 + 0.4 * share, f"{second}: {label}"))
    tell(0.8, "how sure the difference is")
    differences = {kind: bootstrap(a.averagers[kind], b.averagers[kind], samples=samples, seed=seed) for kind in b.averagers}
    verdicts, objects, per_class = [], Counter[str](), dict[str, Counter[str]]()
    for one, other in zip(a.samples, b.samples, strict=True):
        for label_id, name, verdict in _verdicts(one, other):
            verdicts.append((str(one.id), label_id, {key or "": verdict}))
            objects[verdict] += 1
            per_class.setdefault(name, Counter())[verdict] += 1
    wrong = _false_positives(a), _false_positives(b)
    report = ComparisonReport(
        first, second, {v: objects[v] for v in VERDICTS}, {n: dict(c) for n, c in sorted(per_class.items())}, wrong,
        differences.get("segm"), differences["bbox"],
    )  # fmt: skip
    if key is not None:
        path = label_path(view, gt_field)
        clear_attributes(view, [path], [key])
        write_attributes(view, path, verdicts)
        report.views = save_views(view, key, dict.fromkeys(VERDICTS, gt_field), key)
    tell(1.0, report.summary().splitlines()[0])
    return report


def _verdicts(one: SampleScore, other: SampleScore) -> list[tuple[str, str, str]]:
    """(label id, class, verdict) of each object of a sample; crowds are none."""
    names = {gt_id: name for name, _, _, _, gt_id, _ in one.matches if gt_id}
    found = [{position: verdict for position, verdict, _, _ in sample.truth.verdicts} for sample in (one, other)]
    rows = []
    for position, before in found[0].items():
        if before == "ignored":
            continue
        now, label_id = found[1][position], str(one.truth.ids[position])
        kind = VERDICTS[{("fn", "tp"): 0, ("tp", "fn"): 1, ("tp", "tp"): 2, ("fn", "fn"): 3}[before, now]]
        rows.append((label_id, names[label_id] or "", kind))
    return rows


def _false_positives(scored: Scored) -> int:
    return sum(sample.tally()[1] for sample in scored.samples)
