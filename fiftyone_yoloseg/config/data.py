"""Settings of what is done with data: conversion, check, import."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
)

from .settings import Settings
from .values import (
    Count,
    LabelErrorKinds,
    NonNegative,
    Renames,
    SquareSize,
    Unit,
    Words,
)


class ConvertSettings(Settings):
    """Conversion of a FiftyOne dataset or view to a YOLO-seg folder."""

    label_field: str = Field("ground_truth", description="field with Detections (masks) or Polylines")
    split: str = Field(
        "auto",
        description="auto (tags if there are any, else random), tags, folders, random, a field's name, or train, val or test for all samples",
    )
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="share of validation images in a random split")
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="share of test images in a random split")
    stratify: bool = Field(False, description="random split: spread each class over the splits, not only the images")
    group_by: str | None = Field(None, description="field, such as a video or a patient, whose equal values stay in one split")
    seed: Count = Field(0, description="seed of a random split")
    classes: Words | None = Field(None, description="class list and order; the labels that occur if not given")
    remap: Renames | None = Field(
        None, description="rename or merge classes, as car:vehicle,bus:vehicle; a label without a new name (sign:) is left out"
    )
    maskless: Literal["error", "box", "skip"] = Field("error", description="objects without a mask: refuse, use their box, or leave out")
    group_slice: str | None = Field(None, description="which slice of a grouped dataset")
    media: Literal["copy", "symlink", "reference"] = Field(
        "copy", description="copy the images, link to them, or only list where they are (such a folder is read by this package only)"
    )
    dialect: Literal["bridge", "rows", "rle"] = Field(
        "bridge",
        description="one polygon an object with parts and holes joined (every YOLO-seg tool reads it), one a part, or run lengths (read by this package only)",
    )
    outline: Literal["pixel", "edge"] = Field(
        "pixel", description="vertices on border pixels, as YOLO-seg tools fill them, or on pixel edges, as COCO tools do"
    )
    tolerance: NonNegative = Field(0.0, description="how far outlines may stray to save vertices, in pixels; 0 is exact")
    require_iou: Unit | None = Field(
        None, description="fail, and write nothing, if an object comes back from its row with a lower mask IoU"
    )
    iou_attribute: str | None = Field(
        None,
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
        description="store that IoU on each label under this name, with a saved view of those below iou_threshold",
    )
    iou_threshold: Unit = Field(0.99, description="see iou_attribute")


def _remap(value: Any) -> Any:
    """ "car:vehicle, bus:vehicle", as typed."""
    if not isinstance(value, str):
        return value
    pairs = [pair.partition(":") for pair in value.split(",") if pair.strip()]
    if any(not old.strip() or not new.strip() for old, _, new in pairs):
        raise ValueError("write old:new pairs with commas between them, as in car:vehicle, bus:vehicle")
    return {old.strip(): new.strip() for old, _, new in pairs}


class CheckSettings(Settings):
    """What a check of a dataset takes for granted of the training."""

    imgsz: SquareSize = Field(640, description="training image size in pixels: decides which objects are too small")
    remap: Annotated[dict[str, str], BeforeValidator(_remap)] = Field(
        {}, description="classes to merge or rename, as in car:vehicle, bus:vehicle; only looked at, nothing is changed"
    )


class ImportSettings(Settings):
    """Reading YOLO-seg labels into a FiftyOne dataset."""

    label_field: str = Field("ground_truth", description="field to write")
    form: Literal["masks", "polylines"] = Field("masks", description="Detections with masks, or filled Polylines")
    predictions: bool = Field(False, description="rows may end in a confidence; they are not written over ground truth")
    classes: Words | None = Field(
        None, description="names in the order of the class numbers, for a folder of label files without dataset.yaml"
    )
    splits: Words | None = Field(None, description="only these splits of a dataset.yaml; all if not given")
    bad_rows: Literal["skip", "error"] = Field("skip", description="rows and files that cannot be used: leave them out, or import nothing")
    overwrite: bool = Field(False, description="replace the labels that matched samples have in the field")


class LabelErrorSettings(Settings):
    """The search for wrong labels by the predictions of a model that has not seen them."""

    kinds: LabelErrorKinds | None = Field(
        None, description="what to look for, of missing, spurious, wrong_class, merged, split and sloppy; all if not given"
    )
    min_score: Unit = Field(0.25, description="leave out what is less suspicious than this, from 0 to 1")
    limit: int = Field(1000, ge=1, description="at most so many cases of each kind, the most suspicious first")
    conf: Unit = Field(0.05, description="predictions below this confidence do not count, not even as support of a label")
    maskless: Literal["error", "box", "skip"] = Field("error", description="labels without a mask: refuse, use their box, or leave out")
    save_views: bool = Field(False, description="save a view of each kind's cases on the dataset, in place of those of an earlier search")
    write: bool = Field(
        False, description="write label_error and label_error_score to the labels in doubt, and to the predictions that no label explains"
    )
