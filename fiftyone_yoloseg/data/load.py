"""`data=`: a dataset.yaml or a COCO folder, told apart by what is there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import DataError
from ..types import ProgressFn, SegmentationData
from .coco import load_coco
from .packed import pack
from .scan import scan_dataset

log = logging.getLogger(__name__)


def load_data(path: Path, splits: Sequence[str], progress: ProgressFn | None = None) -> SegmentationData:
    """Records of the splits asked for, each required. What cannot be used is left out and logged. Raises DataError."""
    path = path.expanduser()
    if not path.is_dir():
        data, report = scan_dataset(path, splits=splits, progress=progress)
        log.info("%s: %s", path, report.summary())
        return data
    if (yaml := yaml_in(path)) is not None:
        return load_data(yaml, splits, progress)
    data = load_coco(path, missing="skip")
    absent = [split for split in splits if split not in data.splits]
    if absent:
        raise DataError(f"{path}: no annotations for the split {absent[0]!r}; there are {', '.join(data.splits)}")
    return replace(data, splits={split: data.splits[split] for split in splits})


def yaml_in(folder: Path) -> Path | None:
    """The dataset.yaml or data.yaml of a folder; without one it is a COCO folder."""
    return next((folder / name for name in ("dataset.yaml", "data.yaml") if (folder / name).is_file()), None)


def one_class(data: SegmentationData) -> SegmentationData:
    """The same objects, all of one class: what `single_cls` asks for."""
    merged = {
        split: [replace(image, instances=pack(replace(r, cls=0) for r in image.instances)) for image in images]
        for split, images in data.splits.items()
    }
    return SegmentationData({0: "object"}, merged, data.origin)
