"""Images for the proof and for calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import ExportSettings
from ..data.images import read_image
from ..data.load import load_data, one_class
from ..engine.checkpoint import Checkpoint
from ..engine.predictor import to_input
from ..errors import DataError, SettingsError
from ..geometry import letterbox
from ..geometry.letterbox import Image
from ..types import ImageRecord, ProgressFn


@dataclass(frozen=True, slots=True)
class Samples:
    """images: to compare raw outputs on, paths or (H, W, 3) uint8 RGB.  records: labelled, for the mAP.  calibration: for int8.

    torch_maps: box and mask mAP of the network on the records with the same settings, where another export has measured them.
    """

    images: Sequence[Path | Image] = ()
    records: Sequence[ImageRecord] = ()
    calibration: Sequence[Path | Image] = ()
    torch_maps: tuple[float, float] | None = None


class Inputs(Sequence[Tensor]):
    """Images as network inputs, (1, 3, H, W) float32 in [0, 1], each read when it is asked for."""

    def __init__(self, images: Sequence[Path | Image], imgsz: tuple[int, int]) -> None:
        self.images, self.imgsz = images, imgsz

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        image = self.images[index]
        pixels = read_image(image) if isinstance(image, Path) else image
        box = letterbox.fit((pixels.shape[0], pixels.shape[1]), self.imgsz)
        return to_input(torch.from_numpy(letterbox.apply(pixels, box)[None].copy()).permute(0, 3, 1, 2), torch.device("cpu")).contiguous()


def from_data(checkpoint: Checkpoint, settings: ExportSettings, data: Path, progress: ProgressFn | None = None) -> Samples:
    """Validation images of a dataset, and with int8 images of its training split, both spread evenly over it.

    Raises DataError if it cannot be read or has other classes than the network.
    """
    splits = ("train", "val") if settings.int8 else ("val",)
    loaded = load_data(data, splits, progress)
    if checkpoint.train_args.get("single_cls"):
        loaded = one_class(loaded)
    if list(loaded.names.values()) != list(checkpoint.names.values()):
        raise DataError(
            f"data={data}: its classes ({_shown(list(loaded.names.values()))}) are not those of the network "
            f"({_shown(list(checkpoint.names.values()))}): give the dataset that it was trained on, or leave data out"
        )
    records = spread(loaded.splits["val"], settings.samples)
    calibration = [r.path for r in spread(loaded.splits.get("train", ()), settings.calibration)]
    return Samples([r.path for r in records], records, calibration)


def spread(items: Sequence[ImageRecord], most: int) -> list[ImageRecord]:
    """At most so many, at even distances: datasets are often sorted."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int).tolist()]


def check_calibration(samples: Samples) -> None:
    """Raise SettingsError if there is nothing to calibrate int8 on."""
    if not samples.calibration:
        raise SettingsError(
            "int8=true: there is no image to calibrate on; give data=dataset.yaml with training images, or from FiftyOne a view with images"
        )


def _shown(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
