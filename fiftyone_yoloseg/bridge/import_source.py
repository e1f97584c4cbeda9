"""What an import reads: a dataset.yaml with its splits, or a bare folder of label files; and which samples that belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fiftyone.core.storage import normalize_path

from ..data.dataset_yaml import read_dataset_yaml
from ..data.images import list_files
from ..data.scan import find_label
from ..errors import DataError
from ..types import Names
from .views import class_list

_YAML = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Source:
    """path: the yaml or the folder. names: what the class numbers mean. images: those of each split, absolute; {} for a bare
    folder, whose label files are in `labels`."""

    path: Path
    names: Names
    images: dict[str, list[Path]] = field(default_factory=dict)
    labels: list[Path] = field(default_factory=list)
    label_of: Mapping[Path, Path] = field(default_factory=dict)
    """Image -> label file, where the yaml lists them."""

    @property
    def folder(self) -> Path:
        return self.path.parent if self.images else self.path


class Item(NamedTuple):
    """One image to import. label: its label file, to be looked for where images keep theirs if None. splits: the splits that
    list it. sample: id of the sample that it is, None for a new one."""

    image: Path
    label: Path | None
    splits: tuple[str, ...]
    sample: str | None


@dataclass(slots=True)
class Plan:
    """items: what will be read. unmatched: label files that belong to no sample. problems: those that cannot be told apart."""

    items: list[Item]
    unmatched: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _absolute(path: str | Path) -> Path:
    """As FiftyOne writes the paths of samples: links are kept."""
    return Path(normalize_path(str(path)))


def find_yaml(source: str | Path) -> Path | None:
    """The dataset.yaml that `source` is or holds, or None for a folder without one. Raises DataError if there is no such path."""
    path = _absolute(source)
    if path.is_dir():
        try:
            found = [p for p in sorted(path.iterdir()) if p.suffix.lower() in _YAML and p.is_file()]
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        usual = [p for p in found if p.stem in ("dataset", "data")]
        found = usual or found
        if len(found) > 1:
            raise DataError(f"{path}: holds {len(found)} yaml files ({', '.join(p.name for p in found[:5])}): give one of them")
        return found[0] if found else None
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if path.suffix.lower() not in _YAML:
        raise DataError(f"{path}: give a dataset.yaml, its folder, or a folder of label files (.txt)")
    return path


def open_source(source: str | Path, classes: Sequence[str] | None = None, splits: Sequence[str] | None = None) -> Source:
    """Find out what there is to import; label files are not read yet.

    classes: names of the class numbers, for a bare folder only. splits: only these of a yaml, each of which must be there.
    Raises DataError for anything that cannot be used.
    """
    yaml = find_yaml(source)
    if yaml is None:
        return _bare_folder(_absolute(source), classes, splits)
    if classes is not None:
        raise DataError(f"classes=: {yaml} has the class names; give classes for a bare folder of label files only")
    read = read_dataset_yaml(yaml, splits)
    images = {split: [_absolute(p) for p in found] for split, found in read.splits.items()}
    return Source(yaml, read.names, images, label_of={_absolute(image): label for image, label in read.labels.items()})


def _bare_folder(folder: Path, classes: Sequence[str] | None, splits: Sequence[str] | None) -> Source:
    labels = list_files(folder, {".txt"})
    if not labels:
        raise DataError(f"{folder}: holds neither a dataset.yaml nor label files (.txt)")
    if splits is not None:
        raise DataError(f"splits=: {folder} has no dataset.yaml, so that there are no splits to choose from")
    if classes is None:
        raise DataError(f"{folder}: has no dataset.yaml to name its classes: give classes=, the class names in the order of their numbers")
    return Source(folder, class_list(classes), labels=labels)


def make_plan(source: Source, dataset: Any | None) -> Plan:
    """Which image is which sample of `dataset` (None: a new one). Images of a yaml are matched by file path and may be new;
    label files of a bare folder are matched by the image's stem. Raises DataError if nothing would be imported."""
    files: list[str] = []
    ids: list[str] = []
    if dataset is not None:
        files, ids = dataset.values(["filepath", "id"])
    if not source.images:
        return _match_stems(source, files, ids)
    known: dict[str, str] = dict(zip(files, ids, strict=True))
    listed: dict[Path, tuple[str, ...]] = {}
    for split, images in source.images.items():
        for image in images:
            if split not in listed.get(image, ()):
                listed[image] = (*listed.get(image, ()), split)
    for file in (file for file, n in Counter(files).items() if n > 1 and Path(file) in listed):
        raise DataError(f"{file}: two samples have this image, and it cannot be told which one is meant: delete one of them")
    if not any((source.label_of.get(image) or find_label(image)).exists() for image in listed):
        first = next(iter(listed))
        raise DataError(f"{source.path}: none of {len(listed)} images has a label file; expected files such as {find_label(first)}")
    return Plan([Item(image, source.label_of.get(image), splits, known.get(str(image))) for image, splits in listed.items()])


def _match_stems(source: Source, files: Sequence[str], ids: Sequence[str]) -> Plan:
    by_stem: dict[str, list[Item]] = {}
    for file, sample in zip(files, ids, strict=True):
        by_stem.setdefault(Path(file).stem, []).append(Item(Path(file), None, (), sample))
    plan = Plan([])
    used: dict[str | None, Path] = {}
    for label in source.labels:
        candidates = by_stem.get(label.stem, [])
        item = _nearest(label, candidates)
        if not candidates:
            plan.unmatched.append(label)
        elif item is None:
            plan.problems.append(
                f"{label}: {len(candidates)} samples have an image of this name, and its folder does not tell which one it is"
            )
        elif item.sample in used:
            plan.problems.append(f"{label}: sample {item.sample} ({item.image.name}) already has the label file {used[item.sample]}")
        else:
            used[item.sample] = label
            plan.items.append(item._replace(label=label))
    if not plan.items:
        first = [*plan.problems, *plan.unmatched][0]
        raise DataError(
            f"{source.path}: none of {len(source.labels)} label files can be matched to a sample by its name; the first: {first}"
        )
    return plan


def _nearest(label: Path, candidates: Sequence[Item]) -> Item | None:
    """Of images of one name, the one that shares most of its last folders with the label file, as images/val and labels/val do."""
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    ranked = sorted(((_shared_folders(label, item.image), i) for i, item in enumerate(candidates)), reverse=True)
    return candidates[ranked[0][1]] if ranked[0][0] > ranked[1][0] else None


def _shared_folders(a: Path, b: Path) -> int:
    """How many of the last folders are the same."""
    pairs = zip(reversed(a.parent.parts), reversed(b.parent.parts), strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a.parent.parts), len(b.parent.parts)))
