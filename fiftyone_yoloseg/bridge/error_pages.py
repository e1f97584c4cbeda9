"""Kinds of errors as a page to read, with pictures of the most expensive errors: what is labelled beside what was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..data.files import write_text
from ..data.images import read_image
from ..engine.error_types import Kind
from ..errors import UserError
from ..geometry.masks import Crop
from .error_report import MEANING, ErrorCase, ErrorReport
from .html_report import Colour, bullets, encoded, enlarged, figure, folded, framed, legend, outlined, page, surroundings, table, window
from .objects import label_crop
from .raw import object_attributes
from .read import sized_pairs
from .views import label_path

_PICTURES, _SIDE, _LEAST, _CLASSES, _LEFT_OUT = 4, 230, 72, 15, 10
_TRUTH, _FOUND = (60, 220, 90), (255, 100, 60)
_Crops = dict[str, Crop]


def write_page(view: Any, report: ErrorReport, path: Path) -> None:
    """Write the report as one HTML file. Errors whose image or masks cannot be read any more have no picture. Raises DataError."""
    kinds = report.kinds()
    head = ("class", "objects", "AP50", "errors", *kinds)
    classes = [_class_row(name, row, kinds) for name, row in report.classes.items()]
    shown = {kind: report.of(kind)[:_PICTURES] for kind in kinds}
    crops = _crops(view, report, [case for cases in shown.values() for case in cases])
    parts = [
        bullets([report.headline(), f"predictions in '{report.pred_field}', judged by '{report.gt_field}'"]),
        table(
            ("kind", "", "errors", "share", "AP50 would gain"),
            [(k, MEANING[k], str(report.counts[k]), f"{report.share(k):.1%}", f"{report.costs[k]:+.3f}") for k in kinds],
        ),
        "<h2>Classes</h2>",
        table(head, classes[:_CLASSES]),
        folded(f"{len(classes) - _CLASSES} more classes", table(head, classes[_CLASSES:])) if len(classes) > _CLASSES else "",
        "<h2>The most expensive errors</h2>",
        legend(((_TRUTH, "labelled"), (_FOUND, "predicted"))),
    ]
    for kind, cases in shown.items():
        parts += [f"<h3>{escape(kind)}</h3>", f'<p class="about">{escape(MEANING[kind])}; {report.counts[kind]} in all</p>']
        parts += [drawn for case in cases if (drawn := _figure(case, crops))]
    if report.left_out:
        more = len(report.left_out) - _LEFT_OUT
        listed = [*map(str, report.left_out[:_LEFT_OUT]), *([f"and {more} more"] if more > 0 else [])]
        parts += ["<h2>Left out</h2>", bullets(listed)]
    write_text(path, page("Kinds of errors", parts))


def _class_row(name: str, row: dict[str, Any], kinds: Sequence[Kind]) -> list[str]:
    counts = [row["errors"].get(kind, 0) for kind in kinds]
    return [
        name,
        str(row["objects"]),
        "" if row["AP50"] is None else f"{row['AP50']:.3f}",
        str(sum(counts)),
        *(str(n or "") for n in counts),
    ]


def _crops(view: Any, report: ErrorReport, cases: Sequence[ErrorCase]) -> _Crops:
    """The pixels of the labels and predictions of some cases, by their ids."""
    wanted = {i for case in cases for i in (case.label_id, case.prediction_id) if i}
    part = view._dataset.select([case.sample_id for case in cases]) if cases else view.limit(0)
    crops: _Crops = {}
    paths = [object_attributes(label_path(view, name)) for name in (report.gt_field, report.pred_field)]
    for pair, size in sized_pairs(part, *paths):
        if isinstance(size, UserError):
            continue
        for label in (*pair.truth, *pair.found):
            if str(label["_id"]) in wanted and (crop := label_crop(label, label.get("bounding_box"), size)) is not None:
                crops[str(label["_id"])] = crop
    return crops


def _figure(case: ErrorCase, crops: _Crops) -> str | None:
    """The surroundings twice: with the outline of the label, and with that of the prediction."""
    sides: list[tuple[Crop | None, Colour]] = [(crops.get(case.label_id or ""), _TRUTH), (crops.get(case.prediction_id or ""), _FOUND)]
    there = [crop for crop, _ in sides if crop is not None]
    if not there:
        return None
    try:
        image = read_image(case.path)
    except UserError:
        return None
    margin = max(max(bits.shape) for bits, _, _ in there) // 4
    box = framed(surroundings(image, there, margin), image, _LEAST)
    plain = enlarged(np.ascontiguousarray(image[box[1] : box[3], box[0] : box[2]]), _SIDE, smooth=True)
    pictures = []
    for crop, colour in sides:
        drawn = plain if crop is None else outlined(plain, enlarged(window(crop, box).astype(np.uint8), _SIDE), colour)
        pictures.append(encoded(drawn, ".jpg"))
    return figure(pictures, [_caption(case), Path(case.path).name], _SIDE)


def _caption(case: ErrorCase) -> str:
    predicted = f"predicted {case.predicted} {case.confidence:.2f}" if case.predicted else "not found"
    parts = [case.label or "nothing there", predicted, *([f"IoU {case.iou:.2f}"] if case.label and case.predicted else [])]
    return ", ".join([*parts, f"AP50 {case.cost:+.4f}"])
