"""report.md and report.html: a conversion for people to read, with pictures of the objects that lost most."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...data.files import write_text
from ...data.images import read_image
from ...data.label_rows import RowStyle
from ...errors import UserError
from ...geometry.masks import Crop
from ..html_report import bullets, encoded, enlarged, figure, legend, page, surroundings, table, window
from ..objects import RawSample, Reader, ReadObject, Size, file_size
from ..plan import Plan
from ..raw import raw_samples
from .report import ConversionReport, Worst, reasons
from .rows import read_back

_MARGIN = 8
_KEPT, _LOST, _ADDED = (64, 160, 255), (230, 60, 60), (250, 190, 40)
_LEGEND = ((_KEPT, "in the mask and in the file"), (_LOST, "lost"), (_ADDED, "added"))


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
    parts = [bullets(report.facts()), table(("class", "objects"), classes)]
    parts += ["<h2>Left out</h2>", table(("reason", "how often", "such as sample"), left_out)] if left_out else []
    for title, worst, plain in (
        ("Worst objects, read by this package", report.worst, False),
        ("Worst objects, read by tools that fill rows plainly", report.plain_worst, True),
    ):
        if worst:
            lines += ["", f"## {title}", "", "| IoU | sample | label |", "|---:|---|---|"]
            lines += [f"| {iou:.4f} | {sample} | {label} |" for iou, sample, label in worst]
            parts += [f"<h2>{title}</h2>", legend(_LEGEND), *_figures(plan, reader, worst, style, plain)]
    write_text(folder / "report.md", "\n".join(lines) + "\n")
    write_text(folder / "report.html", page("Conversion to YOLO-seg", parts))


def _figures(plan: Plan, reader: Reader, worst: Worst, style: RowStyle, plain: bool) -> list[str]:
    wanted = {label: iou for iou, _, label in worst}

    def drawn(sample: RawSample, size: Size, o: ReadObject) -> tuple[str, str]:
        picture = _picture(sample.path, o.crop, read_back(o, size, len(plan.names), style, plain))
        about = f"IoU {wanted[o.id]:.4f}, {plan.names[o.cls]}, {Path(sample.path).name}"
        return o.id, figure([picture], [about, f"sample {sample.id}, label {o.id}"])

    shown = []
    for source in plan.sources:
        for sample in raw_samples(source.view.select([sample for _, sample, _ in worst]), plan.label_field):
            size = file_size(sample.path)
            if not isinstance(size, UserError):
                labels = [label for label in sample.labels if str(label["_id"]) in wanted]
                shown += [(sample, size, o) for o in reader.read(replace(sample, labels=labels), size)[0]]
    with ThreadPoolExecutor(2) as pool:  # images are read and written outside of Python's lock; no more of them at once, they may be large
        figures = dict(pool.map(lambda one: drawn(*one), shown))
    return [figures[label] for _, _, label in worst if label in figures]


def _picture(path: str, crop: Crop, back: Crop) -> str:
    """The surroundings of an object, enlarged, with its pixels coloured."""
    image = read_image(path)
    box = surroundings(image, [crop, back], _MARGIN)
    view = image[box[1] : box[3], box[0] : box[2]].astype(np.float32)
    wanted, found = (window(c, box) for c in (crop, back))
    for colour, pixels in ((_KEPT, wanted & found), (_LOST, wanted & ~found), (_ADDED, found & ~wanted)):
        view[pixels] = 0.45 * view[pixels] + 0.55 * np.array(colour, np.float32)
    return encoded(enlarged(view.astype(np.uint8)))
