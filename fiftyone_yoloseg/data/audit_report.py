"""What a check of a dataset says: findings with their cases, the classes, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import RenderableType

Severity = Literal["error", "warning", "info"]
Verdict = Literal["ok", "warnings", "errors"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
_NAMED, _CLASSES = 3, 25  # shown to a person: cases of a finding, classes

KINDS: dict[str, tuple[Severity, str]] = {
    "split": ("error", "tag the samples train and val, name a field that says it, or split at random"),
    "no_objects": ("error", "choose the field or the label files that hold the objects"),
    "missing_images": ("error", "put the files back, or leave these images out"),
    "remote_images": ("error", "download them: training reads files on this machine"),
    "unreadable_images": ("error", "replace the files, or leave these images out"),
    "bad_labels": ("error", "mend or delete them: training leaves them out"),
    "labels_without_mask": ("error", "draw their masks, or choose maskless='skip' (leave out) or 'box' (the box is the mask)"),
    "labels_without_class": ("error", "name their class"),
    "images_across_splits": ("error", "keep each picture in one split: scores on pictures that were trained on mean nothing"),
    "images_in_no_split": ("warning", "tag them, or accept that they neither train nor validate"),
    "cut_off_images": ("warning", "copy the files anew: the missing part is read as grey"),
    "duplicate_images": ("warning", "keep one of each"),
    "odd_image_sizes": ("warning", "look if they belong here; objects in them reach the network much larger or smaller than the others"),
    "empty_masks": ("warning", "draw them anew or delete them: training leaves them out"),
    "duplicate_objects": ("warning", "delete the second of each pair"),
    "collisions_after_remap": ("warning", "delete one of each pair: the remap makes them the same object twice"),
    "tiny_objects": ("warning", "train at a larger imgsz, cut the images into tiles, or do not expect to find these"),
    "huge_objects": ("warning", "look if the background was labelled"),
    "masks_away_from_boxes": ("warning", "look which of the two is right: training goes by the mask"),
    "similar_names": ("warning", "remap them to one name if they are one class"),
    "unknown_in_remap": ("warning", "correct the names in remap"),
    "classes_not_in_train": ("warning", "put some of their images into train, or leave the classes out: they cannot be learned"),
    "classes_not_in_val": ("warning", "put some of their images into val: they cannot be scored"),
    "rare_classes": ("warning", "label more of them, or merge them with remap"),
    "imbalance": ("warning", "label more of the rare classes; mAP gives all classes the same weight"),
    "disk": ("warning", "make room, or convert with media='symlink'"),
    "memory": ("info", "nothing; images beyond the cache are decoded anew each epoch"),
    "merged_classes": ("info", "nothing, if that was meant"),
    "unused_classes": ("info", "nothing; the network gets an output for each that never learns"),
    "empty_images": ("info", "nothing, if there is truly no object on them: they train as background"),
    "crowds": ("info", "nothing; training leaves them out and metrics ignore them, as COCO does"),
    "objects_with_holes": ("info", "nothing; conversion and training keep the holes"),
    "objects_in_parts": ("info", "nothing; conversion and training keep the parts"),
}
"""Kind of finding -> how bad it is, and what to do about it. Findings come in this order within their severity."""


@dataclass(frozen=True, slots=True)
class Case:
    """One place where a finding was seen.

    sample_id: FiftyOne sample id. label: FiftyOne label id, COCO annotation id or file:line. note: what is special about it.
    """

    path: str
    split: str | None = None
    sample_id: str | None = None
    label: str | None = None
    note: str = ""

    def __str__(self) -> str:
        label = "" if self.sample_id else self.label  # FiftyOne's ids say nothing to a person; its saved views show the place
        where = self.path.rsplit("/", 1)[-1] + (f" {label}" if label else "")
        return f"{where} ({self.note})" if self.note else where


@dataclass(frozen=True, slots=True)
class Finding:
    """count: how many objects, images or classes; cases: the first of them, where they have a place."""

    kind: str
    severity: Severity
    message: str
    advice: str
    count: int
    cases: tuple[Case, ...] = ()

    @property
    def title(self) -> str:
        return self.kind.replace("_", " ")


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Objects of a class, and images that show one, by split. Crowds are not counted."""

    name: str
    objects: dict[str, int]
    images: dict[str, int]


@dataclass(slots=True)
class CheckReport:
    """images: files that can be used; objects: labels that can be trained on, crowds not counted. splits: images a split,
    "-" for those in none; split: how they were chosen. cache_bytes: the decoded training images at imgsz; image_bytes: all
    files. views: kind of finding -> the saved view that shows its cases.
    """

    images: int
    objects: int
    imgsz: int
    findings: list[Finding] = field(default_factory=list)
    classes: list[ClassCount] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=dict)
    split: str = ""
    cache_bytes: int = 0
    image_bytes: int = 0
    views: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        found = {f.severity for f in self.findings}
        return "errors" if "error" in found else "warnings" if "warning" in found else "ok"

    def __getitem__(self, kind: str) -> Finding:
        """The finding of a kind. Raises KeyError if there is none."""
        for finding in self.findings:
            if finding.kind == kind:
                return finding
        raise KeyError(kind)

    def to_dict(self, cases: int | None = None) -> dict[str, Any]:
        """JSON-able. cases: at most so many of each finding; all that were kept if None."""
        findings = [{**asdict(f), "cases": [asdict(c) for c in f.cases[:cases]]} for f in self.findings]
        facts = {name: getattr(self, name) for name in ("verdict", "images", "objects", "imgsz", "splits", "split")}
        sizes = {"cache_bytes": self.cache_bytes, "image_bytes": self.image_bytes, "views": self.views}
        return {**facts, "findings": findings, "classes": [asdict(c) for c in self.classes], **sizes}

    def summary(self) -> str:
        """One line."""
        counts = [
            f"{n} {severity}" + _s(n, severity) for severity in SEVERITIES if (n := sum(f.severity == severity for f in self.findings))
        ]
        images = ", ".join(f"{n} {name}" for name, n in self.splits.items())
        return f"{self.verdict}: {', '.join(counts) or 'no findings'}; {self.images} images ({images}), {self.objects} objects"

    def markdown(self) -> str:
        """For the App."""
        return f"{self.finding_markdown()}\n\n{self.class_markdown()}"

    def finding_markdown(self) -> str:
        lines = [f"**{_cell(self.summary())}**"]
        if self.findings:
            lines += ["", "| | finding | what to do |", "|---|---|---|"]
            lines += [f"| {f.severity} | {_cell(f.message + _examples(f))} | {_cell(f.advice)} |" for f in self.findings]
        return "\n".join(lines)

    def class_markdown(self) -> str:
        rows = ["| " + " | ".join(_cell(v) for v in row) + " |" for row in self._class_rows(rule=True)]
        return "\n".join([*rows, "", *self._more_classes()]).rstrip()

    def table(self) -> RenderableType:
        """For a terminal; `rich.print` shows it."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        colours = {"error": "red", "warning": "yellow", "info": "dim"}
        findings = Table("", "finding", "what to do", show_lines=True)
        for f in self.findings:
            findings.add_row(f"[{colours[f.severity]}]{f.severity}[/]", escape(f.message + _examples(f)), escape(f.advice))
        head, *rows = self._class_rows()
        classes = Table(*head)
        for row in rows:
            classes.add_row(*(escape(v) for v in row))
        parts: list[RenderableType] = [
            escape(self.summary()),
            *([findings] if self.findings else []),
            classes,
            *map(escape, self._more_classes()),
        ]
        return Group(*parts)

    def _class_rows(self, rule: bool = False) -> list[list[str]]:
        """The heading and one row a class, most objects first. rule: with Markdown's line below the heading."""
        splits = [s for s in self.splits if any(s in c.objects for c in self.classes)] or list(self.splits)
        rows = [["class", *(f"{split} {what}" for split in splits for what in ("objects", "images"))]]
        rows += [["---"] * len(rows[0])] if rule else []
        for c in sorted(self.classes, key=lambda c: -sum(c.objects.values()))[:_CLASSES]:
            rows.append([c.name, *(str(counts.get(split, 0)) for split in splits for counts in (c.objects, c.images))])
        return rows

    def _more_classes(self) -> list[str]:
        more = len(self.classes) - _CLASSES
        return [f"and {more} more " + ("class" if more == 1 else "classes")] if more > 0 else []


def _examples(finding: Finding) -> str:
    if not finding.cases:
        return ""
    shown = "; ".join(str(c) for c in finding.cases[:_NAMED])
    return f": {shown}" + (f" and {finding.count - _NAMED} more" if finding.count > _NAMED else "")


def _cell(text: str) -> str:
    """Text from outside in a cell of a Markdown table."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def _s(n: int, word: str) -> str:
    return "" if n == 1 or word == "info" else "s"


def count(n: int, one: str, many: str | None = None) -> str:
    """ "1 object", "2 objects"."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def listing(names: Sequence[str], limit: int = 10) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
