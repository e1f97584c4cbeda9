"""Which samples of a view train, which validate. The same samples, rule and seed always give the same split."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import fiftyone as fo
import numpy as np
import numpy.typing as npt

from ..errors import DataError, SettingsError

SPLITS = ("train", "val", "test")
NO_SPLIT = -1
_ALIASES = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val", "test": "test", "testing": "test"}
RULES = ("auto", "tags", "folders", "random")
Codes = npt.NDArray[np.int8]
"""Of each sample the index of its split in SPLITS, or NO_SPLIT."""


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How to split.

    rule: "auto" (sample tags where both train and val occur, else random), "tags", "folders" (the nearest folder above the image
    that is called train, val or test), "random", "train", "val" or "test" (all samples there), "field:<name>" or the bare name of
    a field that holds train/val/test, a number (random, this share for validation), a view (its samples validate, all others
    train), or a mapping of split names to views. "validation" is read as "val".
    val_fraction, test_fraction: shares of a random split. stratify: spread each class by these shares, not only the images.
    group_by: field whose equal values (a video, a patient) must not be on two sides. seed: of a random split.
    """

    rule: Any = "auto"
    val_fraction: float = 0.2
    test_fraction: float = 0.0
    stratify: bool = False
    group_by: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        rule = self.rule
        if isinstance(rule, bool) or rule is None:
            raise SettingsError(f"split={rule!r}: use {', '.join(map(repr, RULES))}, 'field:<name>', a share for validation, or a view")
        if isinstance(rule, (int, float)):
            object.__setattr__(self, "rule", "random")
            object.__setattr__(self, "val_fraction", float(rule))
        if not 0 < self.val_fraction < 1:
            raise SettingsError(f"val_fraction={self.val_fraction}: must be above 0 and below 1")
        if not 0 <= self.test_fraction < 1 - self.val_fraction:
            raise SettingsError(f"test_fraction={self.test_fraction}: must be 0 or more, and with val_fraction={self.val_fraction} below 1")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a split rule may look at, all in view order: of each sample its id, file, tags, value of a field and of the group field, and the
    class of each object. crowds: position of a sample -> the classes of those of its objects that are crowd regions."""

    ids: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    tags: list[Sequence[str]] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    groups: list[Any] = field(default_factory=list)
    classes: list[Sequence[str]] = field(default_factory=list)
    crowds: dict[int, Sequence[str]] = field(default_factory=dict)


def check_sizes(sizes: Mapping[str, int], how: str, needed: Sequence[str]) -> None:
    """Raises DataError if a needed split, or every split, has no sample."""
    for name in needed or (() if any(sizes.values()) else ("any split",)):
        if not sizes.get(name):
            counts = ", ".join(f"{n} {split}" for split, n in sizes.items() if n) or "none in any split"
            raise DataError(f"split by {how}: no sample for {name} ({counts})")


def split_name(name: str) -> str:
    """ "validation" -> "val". Raises SettingsError for what is no split."""
    if name not in _ALIASES:
        raise SettingsError(f"split {name!r}: must be train, val or test")
    return _ALIASES[name]


def field_path(view: Any, name: str, setting: str) -> str:
    """Where the value of a field is: the name itself, or the label of a Classification. Raises SettingsError if there is no such field."""
    found = view.get_field(name)
    if found is None:
        raise SettingsError(f"{setting}={name!r}: '{view._dataset.name}' has no such field")
    return f"{name}.label" if isinstance(found, fo.EmbeddedDocumentField) else name


def assign(facts: Facts, options: SplitOptions) -> tuple[Codes, str]:
    """The split of each sample by a rule that is a name, and one line that says how it was chosen. Raises DataError."""
    rule = options.rule
    if rule in ("auto", "tags"):
        tagged = tag_counts(Counter(tag for tags in facts.tags for tag in tags))
        rule = "tags" if rule == "tags" or {"train", "val"} <= set(tagged) else "random"
    if rule == "random":
        return _random(facts, options)
    if rule in SPLITS:
        return np.full(len(facts.ids), SPLITS.index(rule), np.int8), f"request: all to {rule}"
    if rule == "tags":
        chosen, how = [_by_tags(i, tags) for i, tags in zip(facts.ids, facts.tags, strict=True)], "sample tags"
    elif rule == "folders":
        chosen, how = [_by_folder(file) for file in facts.files], "folders"
    else:
        chosen, how = [_ALIASES.get(str(v).lower()) for v in facts.values], f"field '{rule.removeprefix('field:')}'"
    codes = np.array([NO_SPLIT if name is None else SPLITS.index(name) for name in chosen], np.int8)
    if options.group_by is not None:
        _check_groups(facts, codes, options.group_by, how)
    return codes, how


def tag_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """How many samples carry a tag of each split, for forms: {"train": 80, "val": 20}."""
    found = dict.fromkeys(SPLITS, 0)
    for tag, n in counts.items():
        if tag in _ALIASES:
            found[_ALIASES[tag]] += n
    return {name: n for name, n in found.items() if n}


def _by_tags(sample_id: str, tags: Iterable[str]) -> str | None:
    found = {_ALIASES[t] for t in tags if t in _ALIASES}
    if len(found) > 1:
        raise DataError(f"sample {sample_id} is tagged {' and '.join(sorted(found))}: leave one of the tags, or split at random")
    return found.pop() if found else None


def _by_folder(file: str) -> str | None:
    """.../train2017/a.jpg, .../images/val/b.jpg"""
    names = (re.sub(r"[\d_-]+$", "", part.lower()) for part in reversed(PurePath(file).parts[:-1]))
    return next((_ALIASES[name] for name in names if name in _ALIASES), None)


def _check_groups(facts: Facts, codes: Codes, name: str, how: str) -> None:
    seen: dict[Any, int] = {}
    for group, code in zip(facts.groups, codes.tolist(), strict=True):
        if group is not None and code != NO_SPLIT and seen.setdefault(group, code) != code:
            sides = f"{SPLITS[seen[group]]} and {SPLITS[code]}"
            raise DataError(f"split by {how}: {name}={group!r} is in {sides}; split at random to keep groups together, or drop group_by")


def _random(facts: Facts, options: SplitOptions) -> tuple[Codes, str]:
    """By a hash of file path and seed, so that the split survives re-ordering, and growing data moves few samples."""
    shares = {"val": options.val_fraction, "test": options.test_fraction}
    units = _units(facts, options.seed)
    choose = _stratified if options.stratify else _in_order
    chosen = choose(units, facts, {name: share for name, share in shares.items() if share})
    codes = np.zeros(len(facts.ids), np.int8)
    for unit, name in zip(units, chosen, strict=True):
        codes[unit] = SPLITS.index(name)
    how = f"random {options.val_fraction:g} for validation" + (f", {options.test_fraction:g} for test" if options.test_fraction else "")
    how += ", stratified by class" if options.stratify else ""
    how += f", whole groups of '{options.group_by}'" if options.group_by else ""
    return codes, f"{how}, seed {options.seed}"


def _units(facts: Facts, seed: int) -> list[list[int]]:
    """What must stay together, as indices of samples, in an order that depends on the files and the seed only."""
    groups: dict[Any, list[int]] = {}
    for i, group in enumerate(facts.groups or [None] * len(facts.ids)):
        groups.setdefault(("single", i) if group is None else ("group", group), []).append(i)

    def rank(unit: list[int]) -> bytes:
        return min(hashlib.sha256(f"{seed}\0{facts.files[i]}".encode()).digest() for i in unit)

    return sorted(groups.values(), key=rank)


def _in_order(units: list[list[int]], facts: Facts, shares: Mapping[str, float]) -> list[str]:
    """The first units to validation, the next to test, the rest to training; each gets a sample as long as there are enough."""
    chosen = ["train"] * len(units)
    at, left = 0, len(units)
    for i, (name, share) in enumerate(shares.items()):
        wanted, got = max(round(len(facts.ids) * share), 1), 0
        others = len(shares) - i  # splits that still need a unit
        while at < len(units) and left > others and (got == 0 or abs(got + len(units[at]) - wanted) <= abs(got - wanted)) and got < wanted:
            chosen[at] = name
            got += len(units[at])
            at, left = at + 1, left - 1
    return chosen


def _stratified(units: list[list[int]], facts: Facts, shares: Mapping[str, float]) -> list[str]:
    """Iterative stratification (Sechidis et al. 2011): the rarest class first, each unit to the split that lacks it most."""
    shares = {"train": 1 - sum(shares.values()), **shares}
    content = [Counter(name for i in unit for name in set(facts.classes[i])) for unit in units]
    totals: Counter[str] = sum(content, Counter())
    lack = {split: {name: n * share for name, n in totals.items()} for split, share in shares.items()}
    room = {split: len(facts.ids) * share for split, share in shares.items()}
    chosen: list[str | None] = [None] * len(units)

    def place(u: int, split: str) -> None:
        chosen[u] = split
        room[split] -= len(units[u])
        for name, n in content[u].items():
            lack[split][name] -= n

    with_class: dict[str, list[int]] = {}
    for u, names in enumerate(content):
        for name in names:
            with_class.setdefault(name, []).append(u)
    for name, _ in sorted(totals.items(), key=lambda item: (item[1], item[0])):
        for u in with_class[name]:
            if chosen[u] is None:
                place(u, max(shares, key=lambda split: (lack[split][name], room[split])))
    for u in range(len(units)):
        if chosen[u] is None:
            place(u, max(shares, key=lambda split: room[split]))
    return [split or "train" for split in chosen]
