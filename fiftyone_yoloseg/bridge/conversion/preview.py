"""What a conversion would write, for a form: images and objects of each class and split."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ...config import ConvertSettings, parse
from ..plan import make_plan
from ..splits import SplitOptions

_LARGEST = 20_000
_SHOWN = 12


def preview(view: Any, **settings: Any) -> str:
    """A Markdown table. Raises UserError as the conversion would."""
    if len(view) > _LARGEST:  # a form must open at once
        return f"{len(view)} samples; no preview for more than {_LARGEST}"
    s = parse(ConvertSettings, settings)
    options = SplitOptions(s.split, s.val_fraction, s.test_fraction, stratify=s.stratify, group_by=s.group_by, seed=s.seed)
    plan = make_plan(view, s.label_field, options, classes=s.classes, remap=s.remap, maskless=s.maskless)
    total = sum(plan.objects.values(), Counter[str]())
    names = [name for name, _ in total.most_common()]
    rows = [["images", *(str(n) for n in plan.counts.values())]]
    rows += [[name, *(str(objects[name]) for objects in plan.objects.values())] for name in names[:_SHOWN]]
    if rest := names[_SHOWN:]:
        rows.append([f"{len(rest)} more classes", *(str(sum(objects[name] for name in rest)) for objects in plan.objects.values())])
    lines = [f"**{total.total()} objects of {len(plan.names)} classes**, split by {plan.how}", ""]
    lines += [f"| | {' | '.join(plan.counts)} |", f"|---|{'---:|' * len(plan.counts)}", *(f"| {' | '.join(row)} |" for row in rows)]
    if missing := [name for name in plan.names.values() if not total[name]]:
        lines += ["", f"No object of {', '.join(missing[:5])}" + (", ..." if len(missing) > 5 else "")]
    return "\n".join([*lines, *(f"\n{note}" for note in plan.notes)])
