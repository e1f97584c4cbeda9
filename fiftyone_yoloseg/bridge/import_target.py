"""Where an import writes to: an existing dataset whose labels are safe, or a new one that appears whole or not at all."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
from fiftyone.core.utils import to_slug

from ..config import ImportSettings
from ..errors import DataError
from ..types import Names
from . import runs
from .import_source import Plan
from .views import check_view

LABEL_TYPES = {"masks": (fo.Detections, "detections"), "polylines": (fo.Polylines, "polylines")}
"""Of each `ImportSettings.form`: FiftyOne's type, and the attribute that holds its list."""


def open_target(dataset: Any) -> Any | None:
    """The dataset to import into; None for one that has to be made. Raises DataError for one that cannot be used."""
    if isinstance(dataset, str):
        if not fo.dataset_exists(dataset):
            check_new_name(dataset)
            return None
        dataset = fo.load_dataset(dataset)
    if dataset is None:
        return None
    if not isinstance(dataset, fo.Dataset):
        raise DataError(f"dataset: expected a FiftyOne dataset or its name, not {type(dataset).__name__}")
    dataset.reload()
    if len(dataset):
        check_view(dataset)
    return dataset


def check_new_name(name: str) -> None:
    """Raises DataError if no dataset can be made that is called so."""
    try:
        slug = to_slug(name)
    except ValueError as error:
        raise DataError(f"dataset={name!r}: cannot be the name of a dataset: {error}") from None
    for other in fo.list_datasets():
        if to_slug(other) == slug:
            raise DataError(f"dataset={name!r}: there is a dataset '{other}', and FiftyOne would not tell them apart: give another name")


def free_name(folder: Path) -> str:
    """A name for a new dataset: that of the folder, with a number where it is taken."""
    taken = {to_slug(name) for name in fo.list_datasets()}
    base = folder.name if any(c.isascii() and c.isalnum() for c in folder.name) else "yoloseg"
    name, n = base, 2
    while to_slug(name) in taken:
        name, n = f"{base}-{n}", n + 1
    return name


def check_field(dataset: Any | None, settings: ImportSettings, plan: Plan) -> None:
    """Raises UserError if labels must not be written to this field of the dataset (None: one that has to be made)."""
    name = settings.label_field
    runs.check_name(name)
    if name in fo.core.sample.get_default_sample_fields():
        raise DataError(f"label_field={name!r}: is one of FiftyOne's own fields: give another name")
    truth = {runs.TRUTH} if dataset is None else runs.truth_fields(dataset)
    if settings.predictions and name in truth:
        raise DataError(f"label_field={name!r}: is for ground truth: give another label_field for the predictions")
    existing = None if dataset is None else dataset.get_field(name)
    if dataset is None or existing is None:
        return
    wanted, items = LABEL_TYPES[settings.form]
    kind = getattr(existing, "document_type", None)
    if kind is not wanted:
        holds = kind.__name__ if kind else type(existing).__name__
        raise DataError(
            f"field '{name}' of '{dataset.name}' holds {holds}; {settings.form} are {wanted.__name__}: give another label_field or form"
        )
    if not settings.predictions and any(facts["about"] == name for facts in runs.recall(dataset, "predict")):
        raise DataError(f"field '{name}' of '{dataset.name}' is for predictions: give another label_field for the ground truth")
    if settings.overwrite:
        return
    matched = {item.sample for item in plan.items if item.sample is not None}
    labelled = sorted(matched.intersection(dataset.match(fo.ViewField(f"{name}.{items}").length() > 0).values("id")))
    if labelled:
        raise DataError(
            f"field '{name}' of '{dataset.name}' has labels on {len(labelled)} of {len(matched)} matched samples, e.g. {labelled[0]}: "
            "give another label_field, or overwrite=True to replace them"
        )


@contextlib.contextmanager
def new_dataset(name: str, names: Names) -> Iterator[Any]:
    """A dataset that gets its name and is kept when all is done; if that fails, or the process is killed, it does not stay."""
    dataset = fo.Dataset(f"yoloseg-import-{uuid.uuid4().hex}")
    try:
        dataset.default_classes = list(names.values())
        yield dataset
        try:
            dataset.name = name
        except ValueError as error:  # somebody else took it meanwhile
            raise DataError(f"dataset={name!r}: {error}") from None
        dataset.persistent = True
    except BaseException:
        dataset.delete()
        raise
