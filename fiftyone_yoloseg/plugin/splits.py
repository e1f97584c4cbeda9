"""The form fields that choose which samples train and which validate."""

from __future__ import annotations

from typing import Any

from ..bridge import defaults, plan
from ..bridge.splits import SplitOptions
from ..errors import UserError
from .forms import COUNTED, Form

_FIELDS = ("split_field", "val_fraction", "test_fraction", "stratify", "group_by", "seed")


def split_fields(form: Form, view: Any, *, more: bool = False) -> dict[str, Any]:
    """How to choose validation samples, with the dataset's own tags as default. more: offer all that a conversion can do."""
    rule, why = defaults.suggest_split(view)
    choices = {"tags": "By sample tags: train, val, test", "random": "At random", "field": "By a field"}
    if more:
        choices |= {"folders": "By the folders of the images: train, val, test", "train": "All to train", "val": "All to val"}
    about = why if form.get("split", rule) == rule else "What the others train is measured on these"
    chosen = form.choice(
        "split", "Validation samples", about, choices, rule,
        lambda value: check_split(view, value) if value not in ("field", "train", "val", "test") else None,
    )  # fmt: skip
    form.known.update(_FIELDS)
    split: dict[str, Any] = {"split": chosen, "val_fraction": 0.2, "seed": form.get("seed", 0)}
    if chosen == "field":
        name = form.text(
            "split_field",
            "Field",
            "Holds train, val or test for each sample",
            check=lambda name: check_split(view, f"field:{name}"),
            required=True,
        )
        split["split"] = f"field:{name}"
    if chosen == "random":
        split["val_fraction"] = form.number(
            "val_fraction", "Share for validation", "Above 0, below 1", 0.2, check=lambda share: check_options(val_fraction=float(share))
        )
        if more:
            split["test_fraction"] = form.number(
                "test_fraction", "Share for test", "0 or more", 0.0,
                check=lambda share: check_options(val_fraction=float(split["val_fraction"]), test_fraction=float(share)),
            )  # fmt: skip
            split["stratify"] = form.flag("stratify", "Stratify", "Spread each class over the splits, not only the images")
            split["group_by"] = form.text(
                "group_by", "Keep together", "Field, such as a video or a patient, whose equal values stay in one split; may be empty",
                check=lambda name: check_field(view, name),
            )  # fmt: skip
        split["seed"] = int(form.number("seed", "Seed", "The same seed gives the same split", 0, whole=True))
    return split


def check_split(view: Any, rule: Any) -> None:
    """Raises UserError if the rule does not split this view; of a large one, that a random split fits it is taken for granted."""
    if rule != "random" or len(view) <= COUNTED:
        plan.check_split(view, rule)


def check_options(**options: Any) -> None:
    SplitOptions("random", **options)


def check_field(view: Any, name: str) -> None:
    if view.get_field(name) is None:
        raise UserError(f"'{view._dataset.name}' has no field '{name}'")
