"""Which samples of a view train, which validate. The same view, rule and seed always give the same split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo

from ..errors import DataError, SettingsError

SPLITS = ("train", "val", "test")
_ALIASES = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val", "test": "test", "testing": "test"}


@dataclass(frozen=True, slots=True)
class Splits:
    """The view of each split (train, val and perhaps test), and one line that says how they were chosen."""

    views: Mapping[str, Any]
    how: str


def split_view(view: Any, rule: Any = "auto", *, val_fraction: float = 0.2, seed: int = 0) -> Splits:
    """Split the samples of a view.

    rule: "auto" (sample tags where both train and val occur, else random), "tags", "random", "field:<name>" or the bare
    name of a field that holds train/val/test, a number (random, this share for validation), a view (its samples
    validate, all others train), or a mapping of split names to views. "validation" is read as "val".
    Raises DataError if no sample would train or none validate, SettingsError if the rule makes no sense.
    """
    if isinstance(rule, bool) or rule is None:
        raise SettingsError(f"split={rule!r}: use 'auto', 'tags', 'random', 'field:<name>', a share for validation, or a view")
    if isinstance(rule, (int, float)):
        rule, val_fraction = "random", float(rule)
    if isinstance(rule, fo.core.collections.SampleCollection):
        chosen = set(rule.values("id"))
        rest = [i for i in view.values("id") if i not in chosen]
        splits = _checked({"train": view.select(rest), "val": rule}, "a view of its own for validation")
    elif isinstance(rule, Mapping):
        splits = _from_views(rule)
    elif rule == "random":
        splits = _random(view, val_fraction, seed)
    elif rule in ("auto", "tags"):
        tagged = tag_counts(view)
        by_tags = rule == "tags" or {"train", "val"} <= set(tagged)
        splits = _by_tags(view) if by_tags else _random(view, val_fraction, seed)
    else:
        splits = _by_field(view, str(rule).removeprefix("field:"))
    return splits


def tag_counts(view: Any) -> dict[str, int]:
    """How many samples carry a tag of each split, for forms: {"train": 80, "val": 20}."""
    counts = dict.fromkeys(SPLITS, 0)
    for tag, n in view.count_sample_tags().items():
        if tag in _ALIASES:
            counts[_ALIASES[tag]] += n
    return {name: n for name, n in counts.items() if n}


def _by_tags(view: Any) -> Splits:
    chosen: list[str | None] = []
    for sample_id, tags in zip(*view.values(["id", "tags"]), strict=True):
        found = {_ALIASES[t] for t in tags if t in _ALIASES}
        if len(found) > 1:
            raise DataError(f"sample {sample_id} is tagged {' and '.join(sorted(found))}: leave one of the tags, or split at random")
        chosen.append(found.pop() if found else None)
    return _group(view, chosen, "sample tags")


def _by_field(view: Any, name: str) -> Splits:
    field = view.get_field(name)
    if field is None:
        raise SettingsError(f"split={name!r}: neither 'auto', 'tags', 'random' nor a field of '{view._dataset.name}'")
    path = f"{name}.label" if isinstance(field, fo.EmbeddedDocumentField) else name
    return _group(view, [_ALIASES.get(str(v).lower()) for v in view.values(path)], f"field '{name}'")


def _random(view: Any, fraction: float, seed: int) -> Splits:
    """By a hash of file path and seed, so that the split survives re-ordering, and growing data moves few samples."""
    if not 0 < fraction < 1:
        raise SettingsError(f"val_fraction={fraction}: must be above 0 and below 1")
    ids, files = view.values(["id", "filepath"])
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(f"{seed}\0{files[i]}".encode()).digest())
    n_val = min(max(round(len(ids) * fraction), 1), len(ids) - 1)
    chosen = set(order[:n_val])
    return _group(view, ["val" if i in chosen else "train" for i in range(len(ids))], f"random {fraction:g} for validation, seed {seed}")


def _from_views(views: Mapping[str, Any]) -> Splits:
    unknown = [name for name in views if name not in _ALIASES]
    if unknown:
        raise SettingsError(f"split {unknown[0]!r}: must be train, val or test")
    seen: set[str] = set()
    for name, view in views.items():
        ids = set(view.values("id"))
        if seen & ids:
            raise DataError(f"the view for {name} shares {len(seen & ids)} samples with another split, e.g. {min(seen & ids)}")
        seen |= ids
    return _checked({_ALIASES[name]: view for name, view in views.items()}, "given views")


def _group(view: Any, chosen: Sequence[str | None], how: str) -> Splits:
    ids: dict[str, list[str]] = {name: [] for name in SPLITS}
    for sample_id, split in zip(view.values("id"), chosen, strict=True):
        if split is not None:
            ids[split].append(sample_id)
    return _checked({name: view.select(i) for name, i in ids.items() if i}, how)


def _checked(views: Mapping[str, Any], how: str) -> Splits:
    sizes = {name: len(view) for name, view in views.items()}
    for needed in ("train", "val"):
        if not sizes.get(needed):
            counts = ", ".join(f"{n} {name}" for name, n in sizes.items()) or "none in any split"
            raise DataError(f"split by {how}: no sample for {needed} ({counts})")
    return Splits({name: views[name] for name in SPLITS if sizes.get(name)}, how)
