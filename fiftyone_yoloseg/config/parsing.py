"""Validation with one readable line for each wrong key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import (
    ValidationError,
)

from ..errors import SettingsError
from .settings import Settings

S = TypeVar("S", bound=Settings)


def parse(model: type[S], values: Mapping[str, Any]) -> S:
    """Validate settings. Raises SettingsError with one readable line per wrong key."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise SettingsError("\n".join(_line(model, e) for e in error.errors())) from None


def problems(model: type[Settings], values: Mapping[str, Any]) -> dict[str, str]:
    """Key -> what is wrong with it; empty if the settings are valid."""
    try:
        model.model_validate(dict(values))
    except ValidationError as error:
        return {_key(e): _line(model, e) for e in error.errors()}
    return {}


def _key(error: Any) -> str:
    return str(error["loc"][0]) if error["loc"] else str(error.get("ctx", {}).get("setting", ""))


def _line(model: type[Settings], error: Any) -> str:
    key = _key(error)
    if error["type"] == "setting":
        return str(error["msg"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, model.model_fields, n=1)
        return f"unknown setting {key!r}" + (f": did you mean {near[0]!r}?" if near else f" (known: {', '.join(model.model_fields)})")
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}={error['input']!r}: {message}" if key else message
