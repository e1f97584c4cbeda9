"""Who made an object: a model, a person, or a person who changed what a model made.

Labels are handled here as MongoDB holds them. Attributes of an object that a model made:

    origin        "model"; "edited" once a person has changed it; objects that a person drew have "human" or no origin at all
    checkpoint    the first 12 digits of the SHA-256 of the model's file
    run           the training's name, or the name of the file
    predicted_at  when, UTC
    model_hash    of class, box and mask as the model wrote them: tells whether somebody has changed one of them since
    model_mask    the mask that the model made, as COCO run lengths of the whole image; pre-labels only, for the distance of an edit
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import numpy.typing as npt
from bson import ObjectId

from ..geometry import masks
from ..geometry.masks import Crop
from ..types import Instances, Names
from .models import Source
from .objects import Label, Size
from .pixels import box_crop, decode_mask, encode_mask, mask_crop, read_mask

MODEL, HUMAN, EDITED = "model", "human", "edited"
ORIGINS = (MODEL, HUMAN, EDITED)
PROVENANCE_FIELDS = {
    "origin": fo.StringField,
    "checkpoint": fo.StringField,
    "run": fo.StringField,
    "predicted_at": fo.DateTimeField,
}
REVIEW_FIELDS = {"edit_iou": fo.FloatField, "edit_seconds": fo.FloatField, "reviewed_at": fo.DateTimeField}
_CHECKPOINT_DIGITS = 12
_BOX_DIGITS = 7


@dataclass(frozen=True, slots=True)
class Author:
    """The model that makes predictions, and when."""

    checkpoint: str | None
    run: str | None
    time: datetime

    def attributes(self) -> dict[str, Any]:
        stated = {"checkpoint": self.checkpoint, "run": self.run}
        return {"origin": MODEL, **{k: v for k, v in stated.items() if v is not None}, "predicted_at": self.time}


def author_of(source: Source) -> Author:
    """The run of `<runs>/<name>/weights/best.pt` is <name>, of another file its own name without the ending."""
    path = None if source.path is None else Path(source.path)
    run = None if path is None else path.parent.parent.name if path.parent.name == "weights" else path.stem
    return Author(source.sha256 and source.sha256[:_CHECKPOINT_DIGITS], run or None, now())


def now() -> datetime:
    """UTC, in the whole milliseconds that MongoDB keeps."""
    time = datetime.now(timezone.utc).replace(tzinfo=None)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def predicted_labels(instances: Instances, names: Names, author: Author, *, keep_masks: bool = False) -> list[Label]:
    """Predictions as labels for MongoDB, with their provenance; objects without a pixel are left out. keep_masks: with `model_mask`.

    They are what `labels.to_detections` gives, made without FiftyOne's objects, which take most of the time.
    """
    common, height, width = author.attributes(), instances.height, instances.width
    scores = {name: values.tolist() for name, values in instances.scores.items()}
    labels = []
    for i, (mask, cls, confidence) in enumerate(
        zip(instances.masks, instances.classes.tolist(), instances.confidences.tolist(), strict=True)
    ):
        if not mask.w:
            continue
        name, bits = names[cls], np.ascontiguousarray(masks.crop_bitmap(mask)).view(np.bool_)
        box = [mask.x / width, mask.y / height, mask.w / width, mask.h / height]
        label: Label = {
            **{score: values[i] for score, values in scores.items()},  # first: they never replace what makes a label
            "_id": ObjectId(), "_cls": "Detection", "attributes": {}, "tags": [],
            "label": name, "bounding_box": box, "mask": encode_mask(bits), "confidence": confidence,
            **common, "model_hash": _fingerprint(name, box, bits),
        }  # fmt: skip
        if keep_masks:
            label["model_mask"] = {"size": [height, width], "counts": masks.to_coco_rle(mask, height, width)["counts"].decode()}
        labels.append(label)
    return labels


def declare(dataset: Any, field: str, *, reviewed: bool = False, scores: Collection[str] = ()) -> None:
    """Make a Detections field, if it is not there, whose provenance, and whose `scores` of objects, the App offers as filters."""
    if dataset.get_field(field) is None:
        dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    for name, kind in {**PROVENANCE_FIELDS, **(REVIEW_FIELDS if reviewed else {}), **dict.fromkeys(scores, fo.FloatField)}.items():
        if dataset.get_field(f"{field}.detections.{name}") is None:
            dataset.add_sample_field(f"{field}.detections.{name}", kind)


def fingerprint(label: Label) -> str:
    """16 hexadecimal digits of class, box and mask pixels. Boxes are compared to 1e-7 of the image's side, masks pixel by pixel."""
    return _fingerprint(label.get("label"), label.get("bounding_box"), _pixels(label))


def _fingerprint(name: str | None, box: Sequence[float] | None, mask: npt.NDArray[Any] | None) -> str:
    digest = hashlib.blake2b(str(name).encode(), digest_size=8)
    digest.update(("\0" + " ".join(f"{v + 0.0:.{_BOX_DIGITS}f}" for v in box or ())).encode())
    if mask is not None:
        digest.update(b"\0%d %d " % mask.shape + np.packbits(mask if mask.dtype == np.bool_ else mask != 0).tobytes())
    return digest.hexdigest()


def origin_of(label: Label) -> str:
    """MODEL, HUMAN or EDITED, by what the object is now and not only by what it says.

    Predictions of other tools, which have a confidence but nothing to compare with, count as MODEL.
    """
    if label.get("origin") in (EDITED, HUMAN):
        return str(label["origin"])
    written = label.get("model_hash")
    if written is None:
        return HUMAN if label.get("confidence") is None else MODEL
    return MODEL if written == fingerprint(label) else EDITED


def edit_iou(label: Label) -> float | None:
    """IoU of the mask that the model made and the one there is now, in image pixels; None if the first is not known any more."""
    original = label.get("model_mask")
    if not original:
        return None
    height, width = original["size"]
    try:
        before = masks.from_checked_rle({"size": [height, width], "counts": original["counts"]}, height, width)
    except ValueError:  # somebody has changed it, and run lengths that do not add up would crash pycocotools
        return None
    return masks.crop_iou((masks.crop_bitmap(before), before.x, before.y), crop_of(label, (height, width)))


def crop_of(label: Label, size: Size) -> Crop:
    """The pixels of a label, of its box if it has no mask that can be read."""
    box = label.get("bounding_box")
    if not box or len(box) != 4 or not np.isfinite(box).all():
        return np.zeros((0, 0), np.uint8), 0, 0
    mask = _pixels(label)
    return box_crop(box, *size) if mask is None else mask_crop(mask, box, *size)


def _pixels(label: Label) -> npt.NDArray[Any] | None:
    try:
        if label.get("mask") is not None:
            mask = decode_mask(label["mask"])
        elif label.get("mask_path"):
            mask = read_mask(label["mask_path"])
        else:
            return None
    except ValueError:  # a mask that cannot be read is no mask of the model's
        return None
    return mask if mask.ndim == 2 else mask[:, :, 0]


def overlaps(label: Label, others: Sequence[Crop], size: Size, least: float) -> int | None:
    """Index of the crop that a label overlaps most, if that is a mask IoU of `least` or more."""
    crop = crop_of(label, size)
    found = [masks.crop_iou(crop, other) for other in others]
    best = int(np.argmax(found)) if found else 0
    return best if found and found[best] >= least else None
