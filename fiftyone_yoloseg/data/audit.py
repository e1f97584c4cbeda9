"""The pre-flight check of a dataset: a stream of images in, a report out. It knows neither files of labels nor FiftyOne.

Of each image only a hash, sizes and counts are kept, so that memory does not grow with the masks.
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import Stopped
from ..geometry.letterbox import fit
from ..types import ImageRecord, InstanceRecord, Names, ProgressFn
from .audit_files import FileFacts
from .audit_objects import HUGE, SAME, TINY, look_at_objects
from .audit_report import KINDS, SEVERITIES, Case, CheckReport, ClassCount, Finding, count, listing

CASES = 1000
"""Cases that are kept of each finding."""
RARE = 10
"""Training objects below which a class can hardly be learned: less than a handful after any split, and each seen in few places."""
IMBALANCE = 100
"""Training objects of the most frequent class for each one of the rarest."""
ODD_SIZE = 4
"""An image whose long side is so many times the usual one, or its part."""
ODD_SHAPE = 4
"""An image so many times longer than wide: three quarters of a square network input would be padding."""
CACHE_SHARE = 4
"""Training keeps decoded images in a quarter of the free memory."""
_TELL = 20


@dataclass(frozen=True, slots=True)
class LabelProblem:
    """A label that is left out. kind: the kind of finding; label: its id or file:line; count: labels, where they have no id each."""

    kind: str
    label: str | None
    reason: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of the stream. split: None if it is in none; record: None if the file cannot be used; problems: labels that are not in it."""

    path: str
    file: FileFacts
    record: ImageRecord | None
    split: str | None = None
    sample_id: str | None = None
    problems: Sequence[LabelProblem] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of a dataset beside its images.

    split: how the splits were chosen; split_problem: why they could not be. free_memory, free_disk: bytes, None to leave that out.
    """

    split: str = ""
    split_problem: str = ""
    free_memory: int | None = None
    free_disk: int | None = None


def audit(
    entries: Iterable[Entry],
    names: Names,
    total: int,
    *,
    imgsz: int = 640,
    remap: Mapping[str, str] | None = None,
    around: Surroundings | None = None,
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> CheckReport:
    """Check the images of a dataset one by one. total: how many there are; remap: old class name -> new one. Raises Stopped."""
    books = _Books(names, imgsz, remap or {}, around or Surroundings())
    for done, entry in enumerate(entries):
        if should_stop and should_stop():
            raise Stopped(f"the check was stopped after {done} of {total} images")
        if progress and done % _TELL == 0:
            progress(done / max(total, 1), f"checked {done} of {total} images")
        books.add(entry)
    report = books.close()
    if progress:
        progress(1.0, report.summary())
    return report


@dataclass(slots=True)
class _Books:
    """What is remembered of the images seen so far."""

    names: Names
    imgsz: int
    remap: Mapping[str, str]
    around: Surroundings
    target: dict[int, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    cases: dict[str, list[Case]] = field(default_factory=lambda: defaultdict(list))
    splits: Counter[str] = field(default_factory=Counter)
    objects: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    images: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    seen: dict[bytes, list[Case]] = field(default_factory=lambda: defaultdict(list))
    sizes: list[tuple[int, int]] = field(default_factory=list)
    places: list[Case] = field(default_factory=list)
    cache_bytes: int = 0
    image_bytes: int = 0

    def __post_init__(self) -> None:
        self.target = {i: self.remap.get(name, name) for i, name in self.names.items()}

    def add(self, entry: Entry) -> None:
        place = Case(entry.path, entry.split, entry.sample_id)
        if entry.file.kind:
            self.note(entry.file.kind, place, note=entry.file.problem)
        for problem in entry.problems:
            self.note(problem.kind, place, problem.label, problem.reason, problem.count)
        if entry.record is None:
            return
        split = entry.split or "-"
        self.splits[split] += 1
        if entry.split is None and not self.around.split_problem:
            self.note("images_in_no_split", place)
        self.image_bytes += entry.file.length
        self.seen[entry.file.digest].append(place)
        self.sizes.append((entry.record.height, entry.record.width))
        self.places.append(place)
        if split == "train" or self.around.split_problem:
            height, width = fit((entry.record.height, entry.record.width), (self.imgsz, self.imgsz)).resized
            self.cache_bytes += 3 * height * width
        self.look(entry.record, split, place)

    def look(self, record: ImageRecord, split: str, place: Case) -> None:
        for kind, instance, note in look_at_objects(record, self.imgsz, self.target):
            self.note(kind, place, instance.source_id, note)
        for instance in record.instances:
            if not self.target[instance.cls].strip():
                self.note("labels_without_class", place, instance.source_id)
        present = Counter(self.target[i.cls] for i in record.instances if _trains(i))
        self.objects[split].update(present)
        self.images[split].update(present.keys())
        if not present:
            self.note("empty_images", place)

    def note(self, kind: str, place: Case, label: str | None = None, note: str = "", n: int = 1) -> None:
        self.counts[kind] += n
        if len(self.cases[kind]) < CASES:
            self.cases[kind].append(Case(place.path, place.split, place.sample_id, label, note))

    def close(self) -> CheckReport:
        self.same_files()
        self.odd_sizes()
        report = CheckReport(len(self.places), sum(c.total() for c in self.objects.values()), self.imgsz, split=self.around.split)
        report.splits = {s: self.splits[s] for s in sorted(self.splits, key=lambda s: (_ORDER.get(s, 3), s))}
        report.cache_bytes, report.image_bytes = self.cache_bytes, self.image_bytes
        names = list(dict.fromkeys(self.target[i] for i in sorted(self.target)))
        for name in names:
            objects, images = ({s: c[name] for s, c in found.items() if c[name]} for found in (self.objects, self.images))
            report.classes.append(ClassCount(name, objects, images))
        found = {f.kind: f for f in [*self.counted(report), *self.about_classes(report.classes), *self.about_machine(report)]}
        order = list(KINDS)
        report.findings = sorted(found.values(), key=lambda f: (SEVERITIES.index(f.severity), order.index(f.kind)))
        return report

    def same_files(self) -> None:
        for places in self.seen.values():
            if len(places) < 2:
                continue
            splits = {p.split for p in places}
            kind = "images_across_splits" if len(splits - {None}) > 1 else "duplicate_images"
            for i, place in enumerate(places):
                self.note(kind, place, note=f"{place.split or 'no split'}, same file as {places[0 if i else 1].path}")

    def odd_sizes(self) -> None:
        if not self.sizes:
            return
        usual = float(np.median([max(size) for size in self.sizes]))
        for place, (height, width) in zip(self.places, self.sizes, strict=True):
            long, short = max(height, width), min(height, width)
            if long > ODD_SIZE * usual or long * ODD_SIZE < usual or long > ODD_SHAPE * short:
                self.note("odd_image_sizes", place, note=f"{width} x {height}, usual long side {usual:.0f}")

    def counted(self, report: CheckReport) -> Iterator[Finding]:
        """Findings that are a number of images or objects."""
        images, objects = report.images, report.objects
        messages: dict[str, tuple[str, str, str]] = {
            "missing_images": ("image is", "images are", "not on the disk"),
            "remote_images": ("image is", "images are", "not on this machine"),
            "unreadable_images": ("image", "images", "cannot be read"),
            "cut_off_images": (
                "image file",
                "image files",
                "without its end" if self.counts["cut_off_images"] == 1 else "without their end",
            ),
            "bad_labels": ("label", "labels", "cannot be read"),
            "labels_without_mask": ("label has", "labels have", "no mask"),
            "labels_without_class": ("label has", "labels have", "no class name"),
            "images_across_splits": ("image has", "images have", "the bytes of one in another split"),
            "images_in_no_split": ("image is", "images are", "in no split"),
            "duplicate_images": ("image has", "images have", "the bytes of another, not of another split"),
            "odd_image_sizes": ("image is", "images are", f"{ODD_SIZE} times larger, smaller or longer than usual"),
            "empty_masks": ("object has", "objects have", "no pixel inside the image"),
            "duplicate_objects": ("object repeats", "objects repeat", f"another of the class, mask IoU {SAME:g} or more"),
            "collisions_after_remap": ("object becomes", "objects become", f"the same as another, mask IoU {SAME:g} or more"),
            "tiny_objects": ("object is", "objects are", f"smaller than {TINY:g} square px at imgsz {self.imgsz}"),
            "huge_objects": ("object covers", "objects cover", f"more than {HUGE:.0%} of the image"),
            "masks_away_from_boxes": ("mask does", "masks do", "not fit the stated box"),
            "empty_images": ("image has", "images have", f"no object ({self.counts['empty_images'] / max(images, 1):.1%})"),
            "crowds": ("crowd region", "crowd regions", ""),
            "objects_with_holes": ("object has", "objects have", "holes"),
            "objects_in_parts": ("object has", "objects have", "several parts"),
        }
        out_of = dict.fromkeys(("tiny_objects", "objects_with_holes", "objects_in_parts"), objects)
        out_of |= dict.fromkeys(("images_in_no_split", "empty_images"), images)
        for kind, n in self.counts.items():
            one, many, rest = messages[kind]
            total = f" of {out_of[kind]}" if kind in out_of else ""
            yield finding(kind, f"{n}{total} {one if n == 1 else many} {rest}".strip(), n, self.cases[kind])
        if self.around.split_problem:
            yield finding("split", self.around.split_problem, 1)
        if not any(self.objects[split] for split in ("train", "-")):
            yield finding("no_objects", f"no object to train on in {report.images} images", 1)

    def about_classes(self, classes: list[ClassCount]) -> Iterator[Finding]:
        used = [c for c in classes if c.objects]
        if unused := [c.name for c in classes if not c.objects]:
            yield finding("unused_classes", f"{_classes(unused)} without any object", len(unused))
        yield from self.about_names()
        if self.around.split_problem:  # nothing can be said of train and val
            training = {c.name: sum(c.objects.values()) for c in used}
        else:
            training = {c.name: c.objects["train"] for c in used if c.objects.get("train")}
            if absent := [c.name for c in used if not c.objects.get("train")]:
                yield finding("classes_not_in_train", f"{_classes(absent)} in other splits only", len(absent))
            if absent := [c.name for c in used if c.objects.get("train") and not c.objects.get("val")]:
                yield finding("classes_not_in_val", f"{_classes(absent)} without an object in val", len(absent))
        if rare := [f"{name!r} ({n})" for name, n in sorted(training.items(), key=lambda item: item[1]) if n < RARE]:
            few = f"{count(len(rare), 'class', 'classes')} with fewer than {RARE} training objects"
            yield finding("rare_classes", f"{few}: {listing(rare)}", len(rare))
        if training and max(training.values()) >= IMBALANCE * min(training.values()):
            most, least = max(training, key=lambda n: training[n]), min(training, key=lambda n: training[n])
            yield finding("imbalance", f"{training[most]} training objects of {most!r} but {training[least]} of {least!r}", 1)

    def about_names(self) -> Iterator[Finding]:
        targets = set(self.target.values())
        alike: dict[str, list[str]] = defaultdict(list)
        for name in sorted(targets):
            alike[" ".join(name.casefold().split())].append(name)
        if same := [" / ".join(map(repr, names)) for names in alike.values() if len(names) > 1]:
            yield finding("similar_names", f"names that differ only by case or spaces: {'; '.join(same)}", len(same))
        if unknown := [name for name in self.remap if name not in self.names.values()]:
            near = difflib.get_close_matches(unknown[0], self.names.values(), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield finding("unknown_in_remap", f"remap names {_classes(unknown)}, which this data does not have{hint}", len(unknown))
        merged = {name: [self.names[i] for i in self.names if self.target[i] == name] for name in sorted(targets)}
        if became := [f"{', '.join(map(repr, old))} -> {name!r}" for name, old in merged.items() if len(old) > 1]:
            yield finding("merged_classes", f"classes that become one: {'; '.join(became)}", len(became))

    def about_machine(self, report: CheckReport) -> Iterator[Finding]:
        memory, disk = self.around.free_memory, self.around.free_disk
        if memory is not None and self.cache_bytes > memory // CACHE_SHARE:
            sizes = f"{_gb(self.cache_bytes)} at imgsz {self.imgsz}; their cache takes up to {_gb(memory // CACHE_SHARE)}, a quarter of what is free"
            yield finding("memory", f"decoded training images need {sizes}", 1)
        if disk is not None and self.image_bytes > disk:
            yield finding("disk", f"a copy of the {report.images} images needs {_gb(self.image_bytes)}; {_gb(disk)} are free", 1)


_ORDER = {"train": 0, "val": 1, "test": 2, "-": 4}


def finding(kind: str, message: str, n: int, cases: Sequence[Case] = ()) -> Finding:
    severity, advice = KINDS[kind]
    return Finding(kind, severity, message, advice, n, tuple(cases))


def _trains(instance: InstanceRecord) -> bool:
    return instance.mask.w > 0 and not instance.crowd


def _classes(names: Sequence[str]) -> str:
    return f"{count(len(names), 'class', 'classes')} ({listing([repr(n) for n in names])})"


def _gb(n: int) -> str:
    return f"{n / 1e9:.2f} GB" if n >= 1e7 else f"{n / 1e6:.2f} MB"
