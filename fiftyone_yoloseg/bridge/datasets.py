"""Records -> a FiftyOne dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo

from ..data.synthetic import write_synthetic
from ..errors import DataError
from ..types import SegmentationData
from .database import ensure_database
from .labels import record_to_detections

ORIGIN = "yoloseg_origin"


def check_free(name: str) -> None:
    """Raises DataError if a dataset of that name exists that `create_dataset` did not make."""
    ensure_database()
    if fo.dataset_exists(name) and ORIGIN not in fo.load_dataset(name).info:
        raise DataError(f"a FiftyOne dataset {name!r} exists and is not ours to replace: choose another name")


def create_dataset(data: SegmentationData, name: str, label_field: str = "ground_truth") -> Any:
    """A persistent dataset whose samples carry masks and are tagged with their split. Replaces one that this function made.

    Raises DataError if a dataset of that name exists that came from elsewhere.
    """
    check_free(name)
    if fo.dataset_exists(name):
        fo.delete_dataset(name)
    dataset = fo.Dataset(name, persistent=True)
    dataset.info[ORIGIN] = data.origin
    dataset.default_classes = [data.names[i] for i in sorted(data.names)]
    dataset.save()
    samples = []
    for split, records in data.splits.items():
        for record in records:
            sample = fo.Sample(filepath=str(record.path.absolute()), tags=[split])
            sample[label_field] = record_to_detections(record, data.names)
            sample.metadata = fo.ImageMetadata(width=record.width, height=record.height, num_channels=3)
            samples.append(sample)
    dataset.add_samples(samples, progress=False)
    return dataset


def synthetic_dataset(name: str, *, train: int = 160, val: int = 40, seed: int = 0) -> Any:
    """A small dataset to try things on: images of discs, squares and rings with exact masks in "ground_truth", tagged train and val.

    Persistent; the images are drawn into <FiftyOne's default folder for datasets>/yoloseg/synthetic. Replaces one of that name that we made; raises
    DataError for another's, before anything is drawn.
    """
    check_free(name)
    folder = Path(fo.config.default_dataset_dir) / "yoloseg" / "synthetic" / name  # a name of its own: the zoo's datasets lie beside it
    data = write_synthetic(folder, train=train, val=val, seed=seed)
    return create_dataset(data, name)
