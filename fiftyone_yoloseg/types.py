"""The typed values that cross the borders between layers.

Frames. "Image pixels" are pixels of the image as decoded (EXIF rotation applied), "input pixels" those of the letterboxed
network input. Coordinates are continuous: pixel i covers [i, i + 1), so a mask with columns 3..5 has the box x1=3, x2=6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Names = dict[int, str]
"""Class index -> class name, indices 0..nc-1 without gaps."""


@dataclass(frozen=True, slots=True)
class CropMask:
    """The exact pixels of one object, stored inside their own rectangle. Build and read it with `geometry.masks`.

    x, y: left and top of the rectangle in image pixels.  w, h: its size.
    counts: COCO compressed run lengths of the (h, w) crop, column by column (pycocotools' format).
    """

    x: int
    y: int
    w: int
    h: int
    counts: bytes

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The rectangle as x1, y1, x2, y2 in image pixels."""
        return float(self.x), float(self.y), float(self.x + self.w), float(self.y + self.h)


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """One labelled object of one image. `box` is x1, y1, x2, y2 in image pixels.

    A crowd is a region of many objects: never a training target, ignored by the metrics as COCO does.
    source_id: id of the label it came from (FiftyOne label id, COCO annotation id, or file:line).
    """

    cls: int
    mask: CropMask
    box: tuple[float, float, float, float]
    crowd: bool = False
    source_id: str | None = None
    confidence: float | None = None
    area: float | None = None
    """Area that the annotation file states, in pixels; it decides between COCO's small, medium and large. None: the mask's own."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image and its objects. height, width: size in image pixels. source_id: FiftyOne sample id, if any.

    instances: a tuple, or `data.packed.PackedInstances`, which makes its records anew each time it is read.
    """

    path: Path
    height: int
    width: int
    instances: Sequence[InstanceRecord] = ()
    source_id: str | None = None


@dataclass(frozen=True, slots=True)
class SegmentationData:
    """A dataset ready for training: class names and one list of records a split ("train", "val", "test")."""

    names: Names
    splits: Mapping[str, Sequence[ImageRecord]]
    origin: str = ""
    """Where it came from, for messages and run folders: a yaml path or "FiftyOne dataset 'x'"."""


@dataclass(slots=True)
class Batch:
    """One batch for the network. N objects over all B images.

    images: (B, 3, H, W) uint8 RGB.
    image_index: (N,) int64, which image of the batch each object belongs to.
    classes: (N,) int64.
    boxes: (N, 4) float32, x1 y1 x2 y2 in input pixels.
    masks: (N, H/r, W/r) uint8, the share of each r x r cell that the object covers, 0..255 (r = mask_ratio).
    """

    images: torch.Tensor
    image_index: torch.Tensor
    classes: torch.Tensor
    boxes: torch.Tensor
    masks: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(t.to(device, non_blocking=True) for t in (self.images, self.image_index, self.classes, self.boxes, self.masks)))

    def pin_memory(self) -> Batch:
        return Batch(*(t.pin_memory() for t in (self.images, self.image_index, self.classes, self.boxes, self.masks)))


class RawOutput(NamedTuple):
    """What the network returns in eval mode, and what every exported artifact returns.

    pred: (B, 4 + nc + 32, A) float32: cx, cy, w, h in input pixels, nc class probabilities, 32 mask coefficients.
    protos: (B, 32, H/4, W/4) float32. Mask logits are coefficients x protos; foreground where they are > 0.
    """

    pred: torch.Tensor
    protos: torch.Tensor


@dataclass(frozen=True, slots=True)
class Instances:
    """Predicted objects of one image, in image pixels, by falling confidence.

    boxes: (N, 4) float32 x1 y1 x2 y2.  confidences: (N,) float32.  classes: (N,) int64.  masks: N crops; one without
    any pixel has w = h = 0.  scores: name -> (N,) float32, those of `engine.mask_scores` that were asked for.
    """

    height: int
    width: int
    boxes: npt.NDArray[np.float32]
    confidences: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    masks: list[CropMask] = field(default_factory=list)
    scores: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What any model - torch or exported - says of itself. imgsz: (height, width) it was trained or exported for."""

    names: Names
    imgsz: tuple[int, int]
    stride: int = 32
    dynamic: bool = True
    """Whether inputs of other sizes (multiples of the stride) and other batch sizes are accepted."""
    batch: int = 1
    """The batch size of an artifact that is not dynamic."""
    least_conf: float = 0.0
    """Objects below this confidence are not in its output: an artifact with NMS inside."""


class Backend(Protocol):
    """Anything that turns images into raw outputs: the torch network or an exported artifact in its runtime."""

    info: ModelInfo
    device: torch.device

    def __call__(self, images: torch.Tensor) -> RawOutput:
        """(B, 3, H, W) RGB float32 in [0, 1] on `device` -> raw outputs on `device`."""
        ...


class ProgressFn(Protocol):
    """Told about long work: the share done in [0, 1] and one line for a person to read."""

    def __call__(self, share: float, label: str) -> None: ...
