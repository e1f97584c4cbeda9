"""Our masks -> FiftyOne labels. A mask goes into a box that is exactly its pixel rectangle, so that FiftyOne's own evaluator gives 1.0 for a
mask against itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fiftyone as fo

from ..geometry import masks
from ..geometry.polygons import mask_outline_parts
from ..types import CropMask, ImageRecord, Instances, Names


def to_detection(mask: CropMask, label: str, height: int, width: int, **attributes: Any) -> fo.Detection:
    """A Detection whose bounding box is exactly the pixel rectangle of `mask`, which must have pixels."""
    return fo.Detection(
        label=label,
        bounding_box=[mask.x / width, mask.y / height, mask.w / width, mask.h / height],
        mask=masks.crop_bitmap(mask).astype(bool),
        **attributes,
    )


def to_polyline(mask: CropMask, label: str, height: int, width: int, **attributes: Any) -> fo.Polyline:
    """A closed, filled Polyline along the pixel edges of `mask`, which must have pixels: one shape for each part and each hole.
    `place_polygon` gives the same pixels back."""
    shapes = [ring for outer, holes in mask_outline_parts(mask) for ring in (outer, *holes)]
    points = [(shape / (width, height)).tolist() for shape in shapes]
    return fo.Polyline(label=label, points=points, closed=True, filled=True, **attributes)


def to_detections(instances: Instances, names: Names) -> fo.Detections:
    """Predictions as FiftyOne labels. An object whose mask has no pixel is left out: it has no shape to show, and mask
    evaluation cannot score it."""
    return fo.Detections(
        detections=[
            to_detection(mask, names[int(c)], instances.height, instances.width, confidence=float(p))
            for mask, c, p in zip(instances.masks, instances.classes, instances.confidences, strict=True)
            if mask.w
        ]
    )


def record_to_detections(record: ImageRecord, names: Names) -> fo.Detections:
    """Labelled objects as FiftyOne labels; crowds carry FiftyOne's `iscrowd` attribute."""
    return fo.Detections(detections=_labels(to_detection, record, names))


def record_to_polylines(record: ImageRecord, names: Names) -> fo.Polylines:
    """As `record_to_detections`, for people who edit outlines."""
    return fo.Polylines(polylines=_labels(to_polyline, record, names))


def _labels(make: Callable[..., Any], record: ImageRecord, names: Names) -> list[Any]:
    return [
        make(
            i.mask,
            names[i.cls],
            record.height,
            record.width,
            **({"iscrowd": True} if i.crowd else {}),
            **({} if i.confidence is None else {"confidence": i.confidence}),
        )
        for i in record.instances
        if i.mask.w
    ]
