"""What a conversion did: numbers, the worst objects, and pages to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .rows import SampleResult

WORST = 6
Worst = list[tuple[float, str, str]]
"""(IoU, sample id, label id), the lowest first."""


@dataclass(slots=True)
class ConversionReport:
    """What a conversion wrote.

    images, classes: files a split, and the class names in the order of their indices. objects: usable objects of the view; rows: objects
    written (one row each, but for dialect=rows). objects_per_class: of those written. with_holes, with_parts: objects that have a hole, or
    more than one part. boxed: objects whose box stands for a missing mask. dropped: (sample id, reason) of samples and objects that are not
    in the output.
    mean_iou, min_iou: every object read back from its rows by our reader, against its mask (1 if there is none). plain_mean_iou,
    plain_min_iou: the same as tools see it that fill with OpenCV (for outline=edge, as COCO does). worst, plain_worst: the objects that
    did not come back exactly.
    written, unchanged, removed: samples that were converted, taken over from the folder's last conversion, and no longer there.
    notes: what else the user should know.
    """

    out_dir: Path
    dataset_yaml: Path
    images: dict[str, int] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    split: str = ""
    objects: int = 0
    rows: int = 0
    objects_per_class: dict[str, int] = field(default_factory=dict)
    with_holes: int = 0
    with_parts: int = 0
    boxed: int = 0
    dropped: list[tuple[str, str]] = field(default_factory=list)
    mean_iou: float = 1.0
    min_iou: float = 1.0
    worst: Worst = field(default_factory=list)
    plain_mean_iou: float = 1.0
    plain_min_iou: float = 1.0
    plain_worst: Worst = field(default_factory=list)
    written: int = 0
    unchanged: int = 0
    removed: int = 0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out_dir": str(self.out_dir), "dataset_yaml": str(self.dataset_yaml)}

    def add(self, split: str, sample_id: str, result: SampleResult) -> None:
        """Count a sample that is in the folder."""
        self.images[split] = self.images.get(split, 0) + 1
        self.objects += result.objects
        self.rows += len(result.written)
        for index, n in Counter(result.written).items():
            self.objects_per_class[self.classes[index]] += n
        self.with_holes += result.with_holes
        self.with_parts += result.with_parts
        self.boxed += result.boxed
        self.dropped += [(sample_id, reason) for reason, _ in result.dropped]
        if n := len(result.written):
            self.mean_iou += (result.iou - n * self.mean_iou) / self.rows
            self.plain_mean_iou += (result.plain_iou - n * self.plain_mean_iou) / self.rows
        self.worst = _lowest(self.worst, ((iou, sample_id, label) for iou, label in result.inexact))
        self.plain_worst = _lowest(self.plain_worst, ((iou, sample_id, label) for iou, label in result.plain_inexact))
        self.min_iou = self.worst[0][0] if self.worst else 1.0
        self.plain_min_iou = self.plain_worst[0][0] if self.plain_worst else 1.0

    def left_out(self) -> list[str]:
        """What was left out and why, the most frequent first."""
        return [f"{n} x {reason} (such as sample {sample})" for reason, n, sample in reasons(self.dropped)]

    def facts(self) -> list[str]:
        """The report in a few lines of text."""
        images = ", ".join(f"{n} {split}" for split, n in self.images.items())
        lines = [
            f"{self.objects} objects in {images} images ({self.split}) -> {self.rows} objects in label files; "
            f"{self.with_holes} with holes, {self.with_parts} in several parts" + (f", {self.boxed} only a box" if self.boxed else ""),
            f"mask IoU after reading the rows back: mean {self.mean_iou:.4f}, minimum {self.min_iou:.4f}; "
            f"by tools that fill them plainly: mean {self.plain_mean_iou:.4f}, minimum {self.plain_min_iou:.4f}",
        ]
        if self.unchanged or self.removed:
            lines.append(f"{self.written} samples were converted, {self.unchanged} had not changed, {self.removed} are no longer there")
        return lines + self.notes


def reasons(dropped: Iterable[tuple[str, str]]) -> list[tuple[str, int, str]]:
    """(reason, how often, a sample id) of what was left out, the most frequent first. Reasons that name a file count as one."""
    counts: Counter[str] = Counter()
    example: dict[str, str] = {}
    for sample, reason in dropped:
        counts[reason] += 1
        example.setdefault(reason, sample)
    return [(reason, n, example[reason]) for reason, n in counts.most_common()]


def _lowest(kept: Worst, more: Iterable[tuple[float, str, str]]) -> Worst:
    found = list(more)
    return sorted([*kept, *found])[:WORST] if found else kept
