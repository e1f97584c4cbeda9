"""report.md and report.html: a conversion for people to read, with pictures of the objects that lost most."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ...data.files import write_text
from ...data.images import read_image
from ...data.yolo_labels import RowStyle
from ...errors import UserError
from ...geometry import masks
from ...geometry.masks import Crop
from ..objects import Reader, file_size
from ..plan import Plan
from ..raw import raw_samples
from .report import ConversionReport, Worst, reasons
from .rows import read_back

_MARGIN, _SIDE = 8, 320
_KEPT, _LOST, _ADDED = (64, 160, 255), (230, 60, 60), (250, 190, 40)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .8rem; border-bottom: 1px solid #ddd; text-align: left }
td.number { text-align: right } figure { display: inline-block; margin: .5rem; vertical-align: top; width: 320px }
figcaption { font-size: 13px; overflow-wrap: anywhere } i { display: inline-block; width: .8em; height: .8em; margin-right: .3em }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } td, th { border-color: #444 } }
"""


def write_pages(plan: Plan, reader: Reader, report: ConversionReport, style: RowStyle, folder: Path) -> None:
    """Write both pages into `folder`."""
    lost = reasons(report.dropped)
    classes = [(name, str(n)) for name, n in report.objects_per_class.items()]
    left_out = [(reason, str(n), sample) for reason, n, sample in lost]
    lines = ["# Conversion to YOLO-seg", "", *(f"- {fact}" for fact in report.facts()), "", "| class | objects |", "|---|---:|"]
    lines += [f"| {name} | {n} |" for name, n in classes]
    if left_out:
        lines += ["", "## Left out", "", "| reason | how often | such as sample |", "|---|---:|---|"]
        lines += [f"| {reason} | {n} | {sample} |" for reason, n, sample in left_out]
    parts = [f"<h1>Conversion to YOLO-seg</h1><ul>{''.join(f'<li>{escape(fact)}</li>' for fact in report.facts())}</ul>"]
    parts += [_table(("class", "objects"), classes)]
    parts += ["<h2>Left out</h2>", _table(("reason", "how often", "such as sample"), left_out)] if left_out else []
    for title, worst, plain in (
        ("Worst objects, read by this package", report.worst, False),
        ("Worst objects, read by tools that fill rows plainly", report.plain_worst, True),
    ):
        if worst:
            lines += ["", f"## {title}", "", "| IoU | sample | label |", "|---:|---|---|"]
            lines += [f"| {iou:.4f} | {sample} | {label} |" for iou, sample, label in worst]
            parts += [f"<h2>{title}</h2>", _legend(), *_figures(plan, reader, worst, style, plain)]
    write_text(folder / "report.md", "\n".join(lines) + "\n")
    head = f'<meta charset="utf-8"><title>Conversion to YOLO-seg</title><style>{_STYLE}</style>'
    write_text(folder / "report.html", f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>\n")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    cells = "".join(f"<th>{h}</th>" for h in head)
    body = "".join(
        "<tr>" + "".join(f'<td class="number">{v}</td>' if v.isdigit() else f"<td>{escape(v)}</td>" for v in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{cells}</tr>{body}</table>"


def _legend() -> str:
    meanings = ((_KEPT, "in the mask and in the file"), (_LOST, "lost"), (_ADDED, "added"))
    return "<p>" + " &nbsp; ".join(f'<i style="background: rgb{colour}"></i>{text}' for colour, text in meanings) + "</p>"


def _figures(plan: Plan, reader: Reader, worst: Worst, style: RowStyle, plain: bool) -> list[str]:
    figures: dict[str, str] = {}
    wanted = {label: iou for iou, _, label in worst}
    for source in plan.sources:
        for sample in raw_samples(source.view.select([sample for _, sample, _ in worst]), plan.label_field):
            size = file_size(sample.path)
            if isinstance(size, UserError):
                continue
            for o in reader.read(replace(sample, labels=[x for x in sample.labels if str(x["_id"]) in wanted]), size)[0]:
                picture = _picture(sample.path, o.crop, read_back(o, size, len(plan.names), style, plain))
                about = f"IoU {wanted[o.id]:.4f}, {escape(plan.names[o.cls])}, {escape(Path(sample.path).name)}"
                caption = f"<figcaption>{about}<br>sample {sample.id}, label {o.id}</figcaption>"
                figures[o.id] = f'<figure><img src="data:image/png;base64,{picture}" width="320">{caption}</figure>'
    return [figures[label] for _, _, label in worst if label in figures]


def _picture(path: str, crop: Crop, back: Crop) -> str:
    """The surroundings of an object, enlarged, with its pixels coloured; PNG as base64."""
    image = read_image(path)
    height, width = image.shape[:2]
    _, x, y = both = masks.union([crop, back])
    box = max(x - _MARGIN, 0), max(y - _MARGIN, 0), min(x + both[0].shape[1] + _MARGIN, width), min(y + both[0].shape[0] + _MARGIN, height)
    view = image[box[1] : box[3], box[0] : box[2]].astype(np.float32)
    wanted, found = (_window(c, box) for c in (crop, back))
    for colour, pixels in ((_KEPT, wanted & found), (_LOST, wanted & ~found), (_ADDED, found & ~wanted)):
        view[pixels] = 0.45 * view[pixels] + 0.55 * np.array(colour, np.float32)
    scale = _SIDE / max(view.shape[:2])
    method = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    shown = cv2.resize(view.astype(np.uint8), None, fx=scale, fy=scale, interpolation=method)
    return base64.b64encode(cv2.imencode(".png", shown[:, :, ::-1])[1].tobytes()).decode()


def _window(crop: Crop, box: tuple[int, int, int, int]) -> npt.NDArray[np.bool_]:
    bits, x, y = crop
    out = np.zeros((box[3] - box[1], box[2] - box[0]), np.bool_)
    out[y - box[1] : y - box[1] + bits.shape[0], x - box[0] : x - box[0] + bits.shape[1]] = bits != 0
    return out
