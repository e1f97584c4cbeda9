"""What conversion and training do with a view, decided in one pass over its samples and before any label is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fiftyone as fo
import numpy as np

from ..errors import DataError, SettingsError
from ..types import Names
from .objects import Maskless, RawSample
from .raw import facts_of, raw_samples
from .splits import NO_SPLIT, RULES, SPLITS, Codes, Facts, SplitOptions, assign, check_sizes, field_path, split_name
from .views import check_view, class_list, fields_with_masks, label_path, listing

Remap = Mapping[str, str | None]
"""Label -> class; None leaves its objects out. Labels that are not named keep their own name."""


@dataclass(frozen=True, slots=True)
class Source:
    """A view and the split of each of its samples, in its order."""

    view: Any
    ids: list[str]
    codes: Codes


@dataclass(frozen=True, slots=True)
class Plan:
    """names: the classes. index: label -> class index. counts: samples a split. objects: of each split, labels a class, crowds left out."""

    sources: list[Source]
    label_field: str
    names: Names
    index: dict[str, int]
    how: str
    counts: dict[str, int]
    objects: dict[str, Counter[str]]
    notes: list[str] = field(default_factory=list)

    @property
    def samples(self) -> int:
        return sum(self.counts.values())

    def raw(self) -> Iterator[tuple[str, RawSample]]:
        """(split, sample with its labels as they are in the database), one pass over each view; samples in no split are left out."""
        return ((split, sample) for split, sample in self.everything() if split is not None)

    def everything(self) -> Iterator[tuple[str | None, RawSample]]:
        """As `raw`, and the samples in no split."""
        for source in self.sources:
            by_id: dict[str, int] | None = None
            for i, sample in enumerate(raw_samples(source.view, self.label_field)):
                code = source.codes[i] if i < len(source.ids) and source.ids[i] == sample.id else None
                if code is None:  # the database gave another order, or the dataset has changed since
                    by_id = by_id or dict(zip(source.ids, source.codes.tolist(), strict=True))
                    code = by_id.get(sample.id, NO_SPLIT)
                yield None if code == NO_SPLIT else SPLITS[code], sample


@dataclass(frozen=True, slots=True)
class Splits:
    """The view of each split (train, val and perhaps test), and one line that says how they were chosen."""

    views: Mapping[str, Any]
    how: str


def split_view(view: Any, rule: Any = "auto", *, val_fraction: float = 0.2, seed: int = 0) -> Splits:
    """Split the samples of a view for training; see `SplitOptions`.

    Raises DataError if no sample would train or none validate, SettingsError if the rule makes no sense.
    """
    found, how = _checked_sources(view, SplitOptions(rule, val_fraction=val_fraction, seed=seed))
    views: dict[str, Any] = {}
    for source, _, _ in found:
        for code in sorted(set(source.codes.tolist()) - {NO_SPLIT}):
            chosen = [source.ids[i] for i in np.flatnonzero(source.codes == code)]
            views[SPLITS[code]] = source.view if len(chosen) == len(source.ids) else source.view.select(chosen)
    return Splits({name: views[name] for name in SPLITS if name in views}, how)


def check_split(view: Any, rule: Any) -> None:
    """Raises as `split_view` does, without making the views. Tags are counted by the database: a form asks again and again."""
    if rule != "tags":
        _checked_sources(view, SplitOptions(rule))
        return
    alike = list(view._aggregate(post_pipeline=[{"$group": {"_id": "$tags", "one": {"$first": "$_id"}, "samples": {"$sum": 1}}}]))
    codes, how = assign(Facts(ids=[str(some["one"]) for some in alike], tags=[some["_id"] or () for some in alike]), SplitOptions(rule))
    sizes: Counter[str] = Counter()
    for code, some in zip(codes.tolist(), alike, strict=True):
        if code != NO_SPLIT:
            sizes[SPLITS[code]] += some["samples"]
    check_sizes(sizes, how, ("train", "val"))


def _checked_sources(view: Any, options: SplitOptions) -> tuple[list[tuple[Source, Facts, Bare]], str]:
    found, how = _sources(view, options, None)
    codes = np.concatenate([source.codes for source, _, _ in found])
    check_sizes({name: n for i, name in enumerate(SPLITS) if (n := int((codes == i).sum()))}, how, ("train", "val"))
    return found, how


def make_plan(
    view: Any,
    label_field: str,
    options: SplitOptions,
    *,
    classes: Sequence[str] | None = None,
    remap: Remap | None = None,
    maskless: Maskless = "error",
    needed: Sequence[str] = (),
) -> Plan:
    """Decide splits and classes. needed: splits that must have samples.

    Raises DataError if the view or field cannot be used, a needed split is empty, or labels have no mask (maskless="error");
    SettingsError if the options make no sense.
    """
    check_view(view)
    label_path(view, label_field)
    found, how = _sources(view, options, label_field)
    sizes: Counter[str] = Counter()
    labels, crowds = ({name: Counter[str]() for name in SPLITS} for _ in range(2))
    for source, facts, _ in found:
        for i, (classes_of_sample, code) in enumerate(zip(facts.classes, source.codes.tolist(), strict=True)):
            if code != NO_SPLIT:
                sizes[SPLITS[code]] += 1
                labels[SPLITS[code]].update(classes_of_sample)
                crowds[SPLITS[code]].update(facts.crowds.get(i, ()))
    counts = {name: sizes[name] for name in SPLITS if sizes[name]}
    check_sizes(counts, how, needed)
    names, index, notes = choose_classes(view, label_field, set[str]().union(*labels.values()), classes, remap)
    objects = {split: Counter[str]() for split in counts}
    for split in counts:
        for label, n in labels[split].items():
            if label in index:
                objects[split][names[index[label]]] += n - crowds[split][label]
    if maskless == "error":
        without: Counter[str] = Counter()
        for source, _, bare in found:
            for i, bare_labels in bare.items():
                if source.codes[i] != NO_SPLIT:
                    without[source.ids[i]] += sum(label in index for label in bare_labels)
        refuse_maskless(view, label_field, without)
    return Plan([source for source, _, _ in found], label_field, names, index, how, counts, objects, notes)


Bare = dict[int, list[str]]
"""Position of a sample -> the labels of its objects without a mask."""


def _sources(view: Any, options: SplitOptions, label_field: str | None) -> tuple[list[tuple[Source, Facts, Bare]], str]:
    rule = options.rule
    if isinstance(rule, (Mapping, fo.core.collections.SampleCollection)):
        if options.group_by is not None or options.stratify:
            raise SettingsError("group_by and stratify are for random splits; the split is given by views")
        return _given(view, rule, label_field)
    name = str(rule).removeprefix("field:")
    value = None
    if rule not in RULES and (rule not in SPLITS or view.get_field(name) is not None):
        if view.get_field(name) is None:
            raise SettingsError(f"split={rule!r}: neither {', '.join(map(repr, RULES))}, a split nor a field of '{view._dataset.name}'")
        value = field_path(view, name, "split")
    group = None if options.group_by is None else field_path(view, options.group_by, "group_by")
    facts, bare = facts_of(view, label_field, value, group)
    codes, how = assign(facts, options)
    return [(Source(view, facts.ids, codes), facts, bare)], how


def _given(view: Any, rule: Any, label_field: str | None) -> tuple[list[tuple[Source, Facts, Bare]], str]:
    """Splits that are views: each is read as it is, with its own filters."""
    if isinstance(rule, Mapping):
        views, how = {split_name(name): part for name, part in rule.items()}, "given views"
    else:
        views, how = {"val": rule}, "a view of its own for validation"
    found, seen = [], dict[str, str]()
    for name, part in views.items():
        check_view(part, may_be_empty=True)
        facts, bare = facts_of(part, label_field)
        both = [i for i in facts.ids if seen.setdefault(i, name) != name]
        if both:
            raise DataError(f"the view for {name} shares {len(both)} samples with another split, e.g. {min(both)}")
        found.append((Source(part, facts.ids, np.full(len(facts.ids), SPLITS.index(name), np.int8)), facts, bare))
    if not isinstance(rule, Mapping):
        facts, bare = facts_of(view, label_field)
        codes = np.array([NO_SPLIT if i in seen else 0 for i in facts.ids], np.int8)
        found.insert(0, (Source(view, facts.ids, codes), facts, bare))
    return found, how


def choose_classes(
    view: Any, label_field: str, labels: set[str], classes: Sequence[str] | None, remap: Remap | None
) -> tuple[Names, dict[str, int], list[str]]:
    """Class index -> name, label -> class index, and what the user should know.

    The class list is `classes` if given, else the classes that occur: in the dataset's declared order where it declares all of
    them, else sorted.
    """
    remap = dict(remap or {})
    notes = []
    if unused := sorted(set(remap) - labels):
        notes.append(f"remap: no object is labelled {listing(unused)}; there are {listing(sorted(labels))}")
    target = {label: remap.get(label, label) for label in labels}
    if classes is not None:
        names = list(class_list(classes).values())
    else:
        found = {name for name in target.values() if name is not None}
        declared = [remap.get(c) or c for c in view.classes.get(label_field) or view.default_classes]
        names = list(dict.fromkeys(name for name in (declared if found <= set(declared) else sorted(found)) if name in found))
    if not names:
        raise DataError(f"field '{label_field}' has no labelled object in this view of '{view._dataset.name}'")
    position = {name: i for i, name in enumerate(names)}
    index = {label: position[name] for label, name in target.items() if name is not None and name in position}
    return dict(enumerate(names)), index, notes


def check_masks(view: Any, label_field: str) -> None:
    """Raises DataError if labels of the field have no mask, wherever in the view they are: known without reading any mask."""
    facts, bare = facts_of(view, label_field)
    refuse_maskless(view, label_field, Counter({facts.ids[i]: sum(x is not None for x in labels) for i, labels in bare.items()}))


def refuse_maskless(view: Any, label_field: str, without: Counter[str]) -> None:
    """Raises DataError if there are any. without: sample id -> how many of its labels have no mask."""
    without = +without
    if without:
        usable = [f"'{f.name}'" for f in fields_with_masks(view) if f.name != label_field]
        raise DataError(
            f"field '{label_field}': {without.total()} labels in {len(without)} samples have no mask (samples {listing(list(without))}). "
            "Use maskless='skip' to leave them out or maskless='box' to take their box as mask"
            + (f"; other fields with masks: {', '.join(usable)}" if usable else "")
        )
