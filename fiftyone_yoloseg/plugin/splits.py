"""The form fields that choose which samples train and which validate."""

from __future__ import annotations

from typing import Any

from ..bridge import defaults
from ..bridge.plan import split_view
from .forms import Form


def split_fields(form: Form, view: Any) -> dict[str, Any]:
    """How to choose validation samples, with the dataset's own tags as default."""
    rule, why = defaults.suggest_split(view)
    choices = {"tags": "By sample tags: train, val, test", "random": "At random", "field": "By a field"}
    chosen = form.choice(
        "split", "Validation samples", why, choices, rule, lambda value: check_split(view, value) if value != "field" else None
    )
    form.known.update(("split_field", "val_fraction", "seed"))
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
            "val_fraction", "Share for validation", "Above 0, below 1", 0.2, check=lambda share: check_split(view, float(share))
        )
        split["seed"] = int(form.number("seed", "Seed", "The same seed gives the same split", 0, whole=True))
    return split


def check_split(view: Any, rule: Any) -> None:
    split_view(view, rule)
