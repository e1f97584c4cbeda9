"""dataset.yaml: where the images of each split are and what the classes are called.

Keys: path (root folder), train, val (or validation), test, names, nc. An entry is a folder (searched with its subfolders), a
.txt list of images, one image, or a list of these. Other keys are ignored; `download` is never run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path, PurePosixPath
from reprlib import Repr
from typing import Any

import yaml

from ..errors import DataError
from ..types import Names
from .files import read_text, write_text
from .images import IMAGE_SUFFIXES, list_images

SPLITS = ("train", "val", "test")
NO_DOWNLOAD = "The yaml has a download entry, which we never run: fetch the images yourself"
_ALIASES = {"validation": "val", "valid": "val"}
_DEPTH = 100
"""Collections in each other. PyYAML takes seconds for thousands, and then Python's stack ends."""
_LONGEST = 200
_repr = Repr()
_repr.maxlevel = 2


def short(value: Any) -> str:
    """What stands in the file, for a message: a few aliases can stand for more text than there is memory."""
    return cut(_repr.repr(value))


def cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


@dataclass(frozen=True, slots=True)
class DatasetYaml:
    """A dataset.yaml with its entries followed. splits: the image paths of each split, sorted within an entry, no path twice."""

    path: Path
    names: Names
    root: Path
    splits: dict[str, list[Path]]
    download: bool = False
    """Whether the file has a download entry. It is never run."""
    lists: tuple[Path, ...] = ()
    """The .txt lists of images that were followed."""
    labels: Mapping[Path, Path] = field(default_factory=dict)
    """Image -> label file, where the yaml lists them (see `write_dataset_yaml`)."""

    def places(self) -> dict[Path, str]:
        """Where each listed image is named: "list:line". The lists are read again, since few ask."""
        found: dict[Path, str] = {}
        for path in self.lists:
            for number, image in _lines(path, self.root):
                found.setdefault(image, f"{path}:{number}")
        return found


def read_dataset_yaml(path: Path | str, splits: Sequence[str] | None = None) -> DatasetYaml:
    """Read a dataset.yaml and list its images. splits: only these, each of which must be there; all that are there if None.

    Images named in a .txt list are not looked for on the disk. Raises DataError for anything that cannot be used.
    """
    path = Path(path)
    data = _load(path)
    names = read_names(data, path)
    given = [*_ALIASES.items(), *zip(SPLITS, SPLITS, strict=True)]
    entries = {split: data[key] for key, split in given if data.get(key) not in (None, "")}
    if not entries:
        raise DataError(f"{path}: has no train, val or test entry: add one, the folder or the list of its images")
    for split in splits or ():
        if split not in entries:
            raise DataError(f"{path}: has no {split!r} entry; it has {', '.join(entries)}")
    root = data.get("path")
    if root is not None and not isinstance(root, str):
        raise DataError(f"{path}: path must be a folder, not {short(root)}")
    root = path.parent / os.path.expanduser(root or "")  # noqa: PTH111 - pathlib raises where there is no such user
    if not _is(Path.is_dir, root):  # a path of the author's machine: the images are often beside the yaml
        root = path.parent
    wanted = [split for split in SPLITS if split in (entries if splits is None else splits)]
    try:
        lists: dict[Path, None] = {}
        found = {split: _images(entries[split], root, path, split, lists) for split in wanted}
    except DataError as error:
        if data.get("download"):
            raise DataError(f"{error}. {NO_DOWNLOAD}") from None
        raise
    labels = _listed_labels(data.get("labels"), {split: entries[split] for split in wanted}, root, path)
    return DatasetYaml(path, names, root, found, bool(data.get("download")), tuple(lists), labels)


def _listed_labels(raw: Any, entries: Mapping[str, Any], root: Path, yaml_path: Path) -> dict[Path, Path]:
    """`labels: {split: list file}`: line by line the label files of the split's own list of images. Anything else is somebody else's key."""
    found: dict[Path, Path] = {}
    if not isinstance(raw, dict):
        return found
    for split, entry in entries.items():
        images, labels = entry, raw.get(split)
        if not (isinstance(images, str) and isinstance(labels, str) and images.endswith(".txt") and labels.endswith(".txt")):
            continue
        files = [[file for _, file in _lines(_locate(name, root, yaml_path, split), root)] for name in (images, labels)]
        if len(files[0]) != len(files[1]):
            raise DataError(f"{yaml_path}: {split}: {images} lists {len(files[0])} images but {labels} {len(files[1])} label files")
        found.update(zip(*files, strict=True))
    return found


def _load(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the dataset.yaml in it")
    text = read_text(path)
    try:
        _check_events(path, text)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise DataError(f"{path}{where}: is not plain YAML: {cut(str(getattr(error, 'problem', None) or error))}") from None
    if not isinstance(data, dict):
        raise DataError(f"{path}: is not a dataset.yaml: it must have the keys train, val and names")
    return data


def _check_events(path: Path, text: str) -> None:
    """Refuse, before anything is built of it, what would take too long, and what PyYAML would drop without a word."""
    inside: list[tuple[dict[str, int] | None, int]] = []  # the lines of a mapping's keys, None for a list; nodes so far
    for event in yaml.parse(text):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.NodeEvent) and inside:
            keys, nodes = inside[-1]
            inside[-1] = keys, nodes + 1
            if isinstance(event, yaml.ScalarEvent) and keys is not None and nodes % 2 == 0:
                if event.value in keys:
                    first = keys[event.value]
                    raise DataError(f"{path}:{line}: the key {short(event.value)} is on line {first} too: remove one of them")
                keys[event.value] = line
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.style is None:
            # merges copy, and copies of copies fill the memory; aliases do not
            raise DataError(f"{path}:{line}: merge keys (<<) are not read; write the keys out")
        if isinstance(event, yaml.CollectionStartEvent):
            inside.append(({} if isinstance(event, yaml.MappingStartEvent) else None, 0))
            if len(inside) > _DEPTH:
                raise DataError(f"{path}:{line}: more than {_DEPTH} lists or mappings in each other: is this a dataset.yaml?")
        elif isinstance(event, yaml.CollectionEndEvent):
            inside.pop()


def read_names(data: Mapping[str, Any], path: Path) -> Names:
    """`names` as class index -> name, 0..n-1; checked against `nc` if given. Raises DataError."""
    raw = data.get("names")
    if isinstance(raw, list):
        raw = dict(enumerate(raw))
    if not isinstance(raw, dict) or not raw:
        raise DataError(f"{path}: has no names; write them as a list or as index: name")
    names = {_index(index, path): _name(index, name, path) for index, name in raw.items()}
    if len(names) != len(raw):
        raise DataError(f"{path}: names must have one name an index, got {short(raw)}")
    if sorted(names) != list(range(len(raw))):
        raise DataError(f"{path}: class indices in names must be 0..{len(raw) - 1} without gaps, got {cut(str(sorted(names)))}")
    nc = data.get("nc", len(names))
    if nc != len(names):
        raise DataError(f"{path}: nc is {short(nc)} but names has {len(names)} classes: correct one of them, or leave nc out")
    first: dict[str, int] = {}
    for index, name in sorted(names.items()):
        if first.setdefault(name, index) != index:
            raise DataError(
                f"{path}: classes {first[name]} and {index} are both called {short(name)}: nothing could tell their objects apart;"
                " give each a name of its own"
            )
    return dict(sorted(names.items()))


def _index(index: Any, path: Path) -> int:
    if isinstance(index, int) and not isinstance(index, bool):
        return index
    if isinstance(index, str) and index.isascii() and index.isdigit() and len(index) < 10:
        return int(index)
    raise DataError(f"{path}: names must be a list or index: name, and {short(index)} is not the index of a class")


def _name(index: Any, name: Any, path: Path) -> str:
    """Numbers and dates are names too; what YAML makes of yes, no and null is not what was written."""
    if isinstance(name, bool) or not isinstance(name, (str, int, float, date)):
        raise DataError(f"{path}: class {short(index)} is called {short(name)}, which is not text: put its name in quotes")
    text = str(name)
    if not text.strip():
        raise DataError(f"{path}: class {short(index)} has an empty name: give it one")
    if any(c < " " or "\x7f" <= c < "\xa0" for c in text):
        raise DataError(f"{path}: class {short(index)} is called {short(text)}: names are one line without control characters")
    return text


def _images(entry: Any, root: Path, yaml_path: Path, split: str, lists: dict[Path, None]) -> list[Path]:
    """The images of one entry; the lists that it names are added to `lists`."""
    entries = entry if isinstance(entry, list) else [entry]
    found: dict[Path, None] = {}
    for item in entries:
        if not isinstance(item, str) or not item:
            raise DataError(f"{yaml_path}: {split}: {short(item)} is not a path: give a folder, a .txt list or an image")
        found.update(dict.fromkeys(_one_entry(_locate(item, root, yaml_path, split), root, lists)))
    if not found:
        places = cut(", ".join(str(_locate(e, root, yaml_path, split)) for e in entries[:10]))
        raise DataError(f"{yaml_path}: {split}: no images in {places or 'an empty list'}: correct the entry, or put images there")
    return list(found)


def _locate(item: str, root: Path, yaml_path: Path, split: str) -> Path:
    item = os.path.expanduser(item)  # noqa: PTH111
    candidates = [root / item, yaml_path.parent / item]
    if item.startswith("../"):  # a widespread exporter writes ../train/images for a folder beside the yaml
        candidates.append(root / item[3:])
    for candidate in candidates:
        if _is(Path.exists, candidate):
            return candidate
    dead = ", a link that leads nowhere" if _is(Path.is_symlink, candidates[0]) else ""
    raise DataError(f"{yaml_path}: {split}: there is no {cut(str(candidates[0]))}{dead}: correct the entry or `path`")


def _is(question: Callable[[Path], bool], path: Path) -> bool:
    """pathlib raises for names that are too long, and for zero bytes in some versions of Python."""
    try:
        return question(path)
    except (OSError, ValueError):
        return False


def _one_entry(path: Path, root: Path, lists: dict[Path, None]) -> list[Path]:
    if path.is_dir():
        return list_images(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return [path]
    if path.suffix.lower() != ".txt":
        raise DataError(f"{path}: is neither a folder nor a .txt list of images")
    lists[path] = None
    return [image for _, image in _lines(path, root)]


def _lines(path: Path, root: Path) -> Iterator[tuple[int, Path]]:
    """Line numbers and images of a list. "./" means beside the list; other relative paths start at the root."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        name = line.strip()
        if name and not name.startswith("#"):
            yield number, path.parent / name[2:] if name.startswith("./") else root / name


def write_dataset_yaml(
    path: Path | str,
    names: Names,
    splits: Mapping[str, str | Path | Sequence[str | Path]],
    *,
    root: Path | str | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Write a dataset.yaml, whole or not at all. splits: split -> folder, list file or several, relative to root.

    root: None leaves `path` out, so that the dataset is where its yaml is and can be moved. labels: split -> list of label files, one for
    each image of the split's list, where label files are not found by the names of the images. Only this package reads it.
    """
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise DataError(f"{path}: unknown split {unknown[0]!r}; splits are {', '.join(SPLITS)}")
    data: dict[str, Any] = {} if root is None else {"path": _posix(root)}
    for split in (s for s in SPLITS if s in splits):
        entry = splits[split]
        data[split] = _posix(entry) if isinstance(entry, (str, Path)) else [_posix(e) for e in entry]
    if labels:
        data["labels"] = dict(labels)
    data["nc"] = len(names)
    data["names"] = dict(sorted(names.items()))
    write_text(Path(path), yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def _posix(path: str | Path) -> str:
    return str(PurePosixPath(path)) if isinstance(path, str) else path.as_posix()
