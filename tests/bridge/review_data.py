"""Small datasets for a review: images of 40 x 60 pixels, rectangles that a model or a person drew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fiftyone_yoloseg.bridge.atomic import change, labels_in
from fiftyone_yoloseg.bridge.labels import to_detection
from fiftyone_yoloseg.bridge.provenance import Author, declare, now, predicted_labels
from fiftyone_yoloseg.bridge.review.fields import SEEN, truth_state
from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.types import Instances

H, W = 40, 60
NAMES = {0: "cat", 1: "dog"}
Rectangle = tuple[int, int, int, int]
AUTHOR = Author("0123456789ab", "run7", now())


def make_dataset(fo: Any, folder: Path, n: int = 3) -> Any:
    dataset = fo.Dataset()
    rng = np.random.default_rng(0)
    for i in range(n):
        path = folder / f"{i}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (H, W, 3), dtype=np.uint8))
        dataset.add_sample(fo.Sample(filepath=str(path)))
    return dataset


def rectangle(x: int, y: int, w: int, h: int) -> masks.CropMask:
    return masks.from_bitmap(np.ones((h, w), np.uint8), x, y)


def drawn(box: Rectangle, label: str = "cat") -> Any:
    """A Detection that a person drew."""
    return to_detection(rectangle(*box), label, H, W)


def drawn_raw(box: Rectangle, label: str = "cat") -> dict[str, Any]:
    """`drawn` as MongoDB holds it."""
    found = drawn(box, label).to_dict()
    return {**found, "mask": bytes(found["mask"])}


def propose(dataset: Any, sample_id: str, objects: dict[Rectangle, float], cls: int = 0, field: str = "review") -> list[str]:
    """Pending objects with these confidences, as `prelabel` writes them. Returns their ids."""
    crops = [rectangle(*box) for box in objects]
    boxes = np.array([crop.box for crop in crops], np.float32).reshape(-1, 4)
    confidences = np.array(list(objects.values()), np.float32)
    found = Instances(H, W, boxes, confidences, np.full(len(crops), cls), crops)
    labels = predicted_labels(found, NAMES, AUTHOR, keep_masks=True)
    declare(dataset, field)

    def plan(document: dict[str, Any]) -> dict[str, Any]:
        if not labels or labels[0]["_id"] in [label["_id"] for label in labels_in(document, field)]:
            return {}
        return {field: {"detections": [*labels_in(document, field), *labels], SEEN: truth_state(document, "ground_truth")}}

    assert change(dataset, [sample_id], (field, "ground_truth"), plan) == []
    return [str(label["_id"]) for label in labels]


def raw(dataset: Any, sample_id: str, field: str) -> list[dict[str, Any]]:
    """The labels as MongoDB holds them."""
    from bson import ObjectId

    return labels_in(dataset._sample_collection.find_one({"_id": ObjectId(sample_id)}), field)
