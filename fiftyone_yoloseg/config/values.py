"""Kinds of values that settings have, and how they are typed on the command line."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticCustomError

STRIDE = 32
RUN_NAME = r"^[^/\\]+$"
Unit = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


def _image_size(value: Any) -> Any:
    """One number or (height, width); rounded up to a multiple of the stride, as users of other YOLOs expect."""
    if isinstance(value, str):
        value = [int(v) if v.strip().isdigit() else v for v in value.replace("x", ",").strip("[]() ").split(",")]
    sides = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(sides) == 1:
        sides *= 2
    if len(sides) != 2 or not all(isinstance(s, int) and not isinstance(s, bool) and 32 <= s <= 8192 for s in sides):
        raise ValueError("must be one number or height,width, each from 32 to 8192")
    return tuple(-(-s // STRIDE) * STRIDE for s in sides)


ImageSize = Annotated[tuple[int, int], BeforeValidator(_image_size)]


def _square_size(value: Any) -> Any:
    height, width = _image_size(value)
    if height != width:
        raise ValueError("must be one number: training uses square images")
    return height


SquareSize = Annotated[int, BeforeValidator(_square_size)]


def _integers(value: Any) -> Any:
    """ "0,2" or one number, as typed on the command line."""
    if isinstance(value, str):
        return [v.strip() for v in value.strip("[]() ").split(",") if v.strip()]
    return [value] if isinstance(value, int) else value


Integers = Annotated[tuple[int, ...], BeforeValidator(_integers)]


def _words(value: Any) -> Any:
    """ "disc, star", "[disc, star]" or one word, as typed on the command line."""
    if isinstance(value, str):
        return [v.strip() for v in value.strip().removeprefix("[").removesuffix("]").split(",") if v.strip()]
    return value


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


def _renames(value: Any) -> Any:
    """ "car:vehicle, sign:", as typed on the command line."""
    if not isinstance(value, str):
        return value
    pairs = [pair.rpartition(":") for pair in _words(value)]
    if wrong := next((name for old, colon, name in pairs if not colon or not old.strip()), None):
        raise ValueError(f"{wrong!r}: write old:new, or old: to leave it out")
    return {old.strip(): new.strip() or None for old, _, new in pairs}


Renames = Annotated[dict[str, str | None], BeforeValidator(_renames)]


LoggerNames = Annotated[tuple[Literal["tensorboard", "mlflow", "wandb"], ...], BeforeValidator(_words)]

LabelErrorKind = Literal["missing", "spurious", "wrong_class", "merged", "split", "sloppy"]
LabelErrorKinds = Annotated[tuple[LabelErrorKind, ...], Field(min_length=1), BeforeValidator(_words)]


def _digits(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


PINNED, MOST_PINNED = 4, 16
"""Pictures if nothing is said, and as many as still fit on a page."""


def _pinned(value: Any) -> Any:
    """A number, or names as typed on the command line; false is 0."""
    if value is False or str(value).lower() == "false":
        value = 0
    value = _words(_digits(value))
    count = len(value) if isinstance(value, (list, tuple)) else value
    if value is True or (isinstance(count, int) and not 0 <= count <= MOST_PINNED):
        raise ValueError(f"must be a number from 0 to {MOST_PINNED}, or as many names")
    return value


Pinned = Annotated[int | tuple[str, ...], BeforeValidator(_pinned)]
MaskRatio = Annotated[Literal[1, 2, 4], BeforeValidator(_digits)]


_BOOL = TypeAdapter(bool)


def _switch(value: Any) -> Any:
    """Words for yes and no become bool; everything else stays."""
    try:
        return _BOOL.validate_python(value)
    except ValidationError:
        return value.lower() if isinstance(value, str) else value


def _cache_kind(value: Any) -> Any:
    value = _switch(value)
    return "ram" if value is True else value


def _at_least_one(value: int) -> int:
    if value < 1 and value != AUTO_BATCH:
        raise ValueError("must be at least 1, or -1 to let it be chosen for this machine")
    return value


AUTO_BATCH = -1
Precision = Annotated[Literal[True, False, "fp16", "bf16"], BeforeValidator(_switch)]
CacheKind = Annotated[Literal["ram", "disk", False], BeforeValidator(_cache_kind)]
TrainBatch = Annotated[int, AfterValidator(_at_least_one)]


def _problem(setting: str, message: str) -> PydanticCustomError:
    """What is wrong with settings that are only wrong together."""
    return PydanticCustomError("setting", "{message}", {"setting": setting, "message": message})
