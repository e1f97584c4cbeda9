"""What `model(source)` returns: objects of one image, with the names that users of other YOLOs know."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from .data.images import read_image
from .geometry import masks as mask_ops
from .geometry.polygons import mask_outline_parts
from .types import CropMask, Instances, Names

if TYPE_CHECKING:
    import fiftyone as fo

PALETTE = ((66, 135, 245), (245, 130, 48), (60, 180, 75), (230, 25, 75), (145, 30, 180), (70, 200, 220), (240, 50, 230), (170, 160, 20))


class Boxes:
    """N boxes. xyxy, xywh: (N, 4) float32 in image pixels (xywh: centre and size); xyxyn: shares of the image; conf: (N,); cls: (N,) int64."""

    def __init__(self, instances: Instances) -> None:
        self.xyxy = torch.from_numpy(instances.boxes.reshape(-1, 4))
        self.conf = torch.from_numpy(instances.confidences)
        self.cls = torch.from_numpy(instances.classes)
        self._size = torch.tensor([instances.width, instances.height] * 2)

    @property
    def xywh(self) -> torch.Tensor:
        return torch.cat(((self.xyxy[:, :2] + self.xyxy[:, 2:]) / 2, self.xyxy[:, 2:] - self.xyxy[:, :2]), 1)

    @property
    def xyxyn(self) -> torch.Tensor:
        return self.xyxy / self._size

    def __len__(self) -> int:
        return len(self.xyxy)


class Masks:
    """N masks at the image's own size."""

    def __init__(self, crops: Sequence[CropMask], height: int, width: int) -> None:
        self.crops, self.orig_shape = list(crops), (height, width)

    @cached_property
    def data(self) -> torch.Tensor:
        """(N, H, W) bool."""
        full = [mask_ops.full_bitmap(m, *self.orig_shape) for m in self.crops]
        return torch.from_numpy(np.stack(full).astype(bool) if full else np.zeros((0, *self.orig_shape), bool))

    @property
    def rle(self) -> list[dict[str, Any]]:
        """COCO compressed run lengths."""
        return [mask_ops.to_coco_rle(m, *self.orig_shape) for m in self.crops]

    @property
    def polygons(self) -> list[list[tuple[npt.NDArray[np.float64], list[npt.NDArray[np.float64]]]]]:
        """For each mask its parts, each an outline and the outlines of its holes, (n, 2) x, y in image pixels."""
        return [mask_outline_parts(m) for m in self.crops]

    def __len__(self) -> int:
        return len(self.crops)


class Results:
    """Objects found in one image, by falling confidence.

    orig_img: (H, W, 3) uint8 BGR, read from `path` at its first use where another machine has predicted.  orig_shape: (H, W).  path: file, URL or number of the image; frame: of a video.
    speed: milliseconds of preprocess, inference and postprocess, mean over the images so far.
    """

    def __init__(
        self,
        image: npt.NDArray[np.uint8] | None,
        instances: Instances,
        names: Names,
        path: str,
        frame: int | None = None,
        speed: dict[str, float] | None = None,
    ) -> None:
        self._image, self.instances, self.names, self.path, self.frame = image, instances, names, path, frame
        self.orig_shape = (instances.height, instances.width)
        self.boxes = Boxes(instances)
        self.masks = Masks(instances.masks, *self.orig_shape)
        self.speed = speed or {}

    @property
    def orig_img(self) -> npt.NDArray[np.uint8]:
        if self._image is None:
            self._image = read_image(Path(self.path))
        return np.ascontiguousarray(self._image[..., ::-1])

    def __len__(self) -> int:
        return len(self.instances)

    def __repr__(self) -> str:
        return f"Results({self.path!r}, {self.orig_shape[0]}x{self.orig_shape[1]}, {self.summary()})"

    def summary(self) -> str:
        """One line: how many objects of which class."""
        counts = np.bincount(self.instances.classes, minlength=len(self.names))
        return ", ".join(f"{n} {self.names[i]}" for i, n in enumerate(counts.tolist()) if n) or "no objects"

    def plot(self, labels: bool = True, alpha: float = 0.45) -> npt.NDArray[np.uint8]:
        """The image with masks, boxes and names drawn, (H, W, 3) uint8 BGR, ready for cv2.imwrite."""
        out = self.orig_img.copy()
        line = max(round(sum(self.orig_shape) / 2 * 0.003), 1)
        for mask, cls in zip(self.instances.masks, self.instances.classes.tolist(), strict=True):
            if mask.w:
                part = out[mask.y : mask.y + mask.h, mask.x : mask.x + mask.w]
                inside = mask_ops.crop_bitmap(mask) > 0
                tint = np.array(PALETTE[cls % len(PALETTE)]) * alpha
                part[inside] = (part[inside] * (1 - alpha) + tint).astype(np.uint8)
        for box, score, cls in zip(self.instances.boxes, self.instances.confidences.tolist(), self.instances.classes.tolist(), strict=True):
            colour = PALETTE[cls % len(PALETTE)]
            x1, y1, x2, y2 = (int(v) for v in np.round(box))
            cv2.rectangle(out, (x1, y1), (x2, y2), colour, line)
            if labels:
                self._label(out, f"{self.names[cls]} {score:.2f}", x1, y1, colour, line)
        return out

    @staticmethod
    def _label(out: npt.NDArray[np.uint8], text: str, x: int, y: int, colour: tuple[int, int, int], line: int) -> None:
        size = 0.25 + 0.15 * line
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        y = max(y, height + below)
        cv2.rectangle(out, (x, y - height - below), (x + width, y), colour, -1)
        cv2.putText(out, text, (x, y - below // 2 - 1), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)

    def save(self, path: str | Path) -> Path:
        """Write `plot()` as an image file."""
        path = Path(path)
        ok, data = cv2.imencode(path.suffix or ".jpg", self.plot())
        if not ok:
            raise ValueError(f"{path}: cannot encode as {path.suffix}")
        path.write_bytes(data.tobytes())
        return path

    def to_coco(self, image_id: int | str = 0) -> list[dict[str, Any]]:
        """COCO results: category_id is the class index, bbox x, y, w, h, segmentation RLE with counts as text."""
        found = []
        for box, score, cls, rle in zip(
            self.instances.boxes.tolist(), self.instances.confidences.tolist(), self.instances.classes.tolist(), self.masks.rle, strict=True
        ):
            x1, y1, x2, y2 = box
            segmentation = {"size": list(self.orig_shape), "counts": rle["counts"].decode("ascii")}
            found.append(
                {"image_id": image_id, "category_id": cls, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score, "segmentation": segmentation}
            )
        return found

    def to_fiftyone(self) -> fo.Detections:
        """FiftyOne Detections whose boxes are the exact pixel rectangles of their masks."""
        from .bridge.labels import to_detections

        return to_detections(self.instances, self.names)
