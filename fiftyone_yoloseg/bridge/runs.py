"""What we did to a dataset, remembered on the dataset itself as FiftyOne custom runs: trainings and written predictions."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any, Literal

from ..errors import UserError

Kind = Literal["train", "predict", "export"]
TRUTH = "ground_truth"
_PREFIX = "yoloseg"


def remember(view: Any, kind: Kind, about: str, **facts: Any) -> str:
    """Record JSON-able facts about a training, a prediction field or an export; returns the run key.

    about: the prediction field or the artifact (its earlier record is replaced) or, for trainings, the name of the run (made unique).
    """
    dataset = view._dataset
    dataset.reload()  # another process may have added runs
    key = key_of(kind, about)
    if kind == "train":
        base, n = key, 2
        while dataset.has_run(key):
            key, n = f"{base}_{n}", n + 1
    config = dataset.init_run(tool=_PREFIX, kind=kind, about=about, time=_now(), **facts)
    view.register_run(key, config, overwrite=True)
    return key


def key_of(kind: Kind, about: str) -> str:
    """Under which facts are remembered; trainings of one name get numbers behind it."""
    return f"{_PREFIX}_{kind}_" + re.sub(r"\W", "_", about)


def recall(view: Any, kind: Kind) -> list[dict[str, Any]]:
    """The remembered facts of one kind, newest first; each has at least `about` and `time`."""
    dataset = view._dataset
    found = []
    for key in dataset.list_runs():
        if key.startswith(f"{_PREFIX}_{kind}_"):
            facts = dataset.get_run_info(key).config.serialize()
            if facts.get("tool") == _PREFIX:
                found.append(facts)
    return sorted(found, key=lambda f: str(f["time"]), reverse=True)


def truth_fields(view: Any) -> set[Any]:
    """Fields that hold ground truth: the one that is called so, and those that models were trained on."""
    return {f.get("trained_on_field") for f in recall(view, "train")} | {TRUTH}


def check_name(field: str) -> None:
    """Raises UserError if a label field cannot be called so."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", field):
        raise UserError(f"label_field={field!r}: use letters, digits and underscores, and begin with a letter")


def check_writable(view: Any, field: str, overwrite: bool) -> None:
    """Raises UserError if predictions must not be written to `field`: it holds the user's own labels."""
    dataset = view._dataset
    check_name(field)
    existing = dataset.get_field(field)
    if existing is None:
        return
    if field in truth_fields(view):
        raise UserError(f"field '{field}' holds ground truth of '{dataset.name}': give another label_field for the predictions")
    document = getattr(existing, "document_type", None)
    if document is None or document.__name__ != "Detections":
        raise UserError(f"field '{field}' of '{dataset.name}' exists and does not hold Detections: give another label_field")
    # imported predictions are the work of another tool, and only the user knows whether their files still exist
    ours = any(facts["about"] == field and "imported" not in facts for facts in recall(view, "predict"))
    if not ours and not overwrite and len(dataset.match({f"{field}.detections.0": {"$exists": True}}).limit(1)):
        raise UserError(
            f"field '{field}' of '{dataset.name}' has labels that this tool did not write: give another label_field, or overwrite=True"
        )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
