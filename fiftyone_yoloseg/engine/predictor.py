"""Prediction on arrays: letterbox, network, decoding, with the time that each stage takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from ..config import DecodeSettings, PredictSettings
from ..errors import CheckpointError, SettingsError
from ..geometry import letterbox
from ..geometry.letterbox import Image, Letterbox
from ..types import Backend, Instances, ModelInfo, RawOutput
from .decode import decode
from .torch_backend import TorchBackend


class Stopwatch:
    """Sums the seconds of each stage; waits for the GPU before it reads the clock."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.images = 0
        self.seconds = {"preprocess": 0.0, "inference": 0.0, "postprocess": 0.0}
        self._last = time.perf_counter()

    def start(self) -> None:
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        if self.cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def speed(self) -> dict[str, float]:
        """Milliseconds an image and stage."""
        return {stage: 1e3 * seconds / max(self.images, 1) for stage, seconds in self.seconds.items()}


def input_size(info: ModelInfo, asked: tuple[int, int] | None) -> tuple[int, int]:
    """The input size to use. Raises SettingsError if the artifact has a fixed one and another is asked for."""
    if asked is None or asked == info.imgsz:
        return info.imgsz
    if not info.dynamic:
        raise SettingsError(
            f"imgsz={asked}: this exported model takes only {info.imgsz[0]}x{info.imgsz[1]}; leave imgsz out, or export again with dynamic=true"
        )
    return asked


def to_input(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """(B, 3, H, W) uint8 -> float32 in [0, 1] on the device."""
    return images.to(device, non_blocking=True).float().div_(255)


def run(backend: Backend, images: torch.Tensor) -> RawOutput:
    """Forward pass of a float batch; an artifact of fixed batch size gets it in filled-up pieces."""
    if backend.info.dynamic or len(images) == backend.info.batch:
        return backend(images)
    size = backend.info.batch
    outputs = []
    for piece in images.split(size):
        filled = torch.cat((piece, piece.new_zeros(size - len(piece), *piece.shape[1:]))) if len(piece) < size else piece
        raw = backend(filled)
        outputs.append(RawOutput(raw.pred[: len(piece)], raw.protos[: len(piece)]))
    return RawOutput(torch.cat([o.pred for o in outputs]), torch.cat([o.protos for o in outputs]))


class Predictor:
    """Finds objects in RGB images. `watch.speed()` tells the time of each stage so far."""

    def __init__(self, backend: Backend, settings: DecodeSettings | None = None) -> None:
        settings = settings or PredictSettings()
        self.backend = backend
        self.settings = settings if isinstance(settings, PredictSettings) else PredictSettings(**settings.model_dump())
        self.size = input_size(backend.info, self.settings.imgsz)
        self.stride = backend.info.stride if backend.info.dynamic and self.settings.rect else None
        self.watch = Stopwatch(backend.device)

    def instances(self, images: Sequence[Image]) -> list[Instances]:
        """(H, W, 3) uint8 RGB images of any sizes -> their objects, in the same order."""
        s = self.settings
        result: dict[int, Instances] = {}
        for indices, tensor, boxes in self._batches(images):
            self.watch.lap("preprocess")
            raw = run(self.backend, tensor)
            self.watch.lap("inference")
            found = decode(raw, boxes, conf=s.conf, iou=s.iou, max_det=s.max_det, classes=s.classes, agnostic=s.agnostic_nms)
            result.update(zip(indices, found, strict=True))
            self.watch.lap("postprocess")
            self.watch.images += len(indices)
        return [result[i] for i in range(len(images))]

    def embeddings(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        """(H, W, 3) uint8 RGB images of any sizes -> (N, D), one vector an image, see `TorchBackend.embed`. Raises CheckpointError for an exported model."""
        if not isinstance(self.backend, TorchBackend):
            raise CheckpointError("embeddings need a checkpoint: an exported model gives only its outputs")
        rows: dict[int, npt.NDArray[np.float32]] = {}
        for indices, tensor, _ in self._batches(images):
            rows.update(zip(indices, self.backend.embed(tensor).cpu().numpy(), strict=True))
        return np.stack([rows[i] for i in range(len(images))]) if rows else np.zeros((0, 0), np.float32)

    def _batches(self, images: Sequence[Image]) -> Iterator[tuple[list[int], torch.Tensor, list[Letterbox]]]:
        """Images of one input size together."""
        self.watch.start()
        groups: dict[tuple[int, int], list[tuple[int, Letterbox]]] = {}
        for i, image in enumerate(images):
            box = letterbox.fit((image.shape[0], image.shape[1]), self.size, stride=self.stride)
            groups.setdefault(box.size, []).append((i, box))
        for members in groups.values():
            for start in range(0, len(members), self.settings.batch):
                part = members[start : start + self.settings.batch]
                pixels = np.stack([letterbox.apply(images[i], box) for i, box in part])
                tensor = to_input(torch.from_numpy(pixels).permute(0, 3, 1, 2), self.backend.device)
                yield [i for i, _ in part], tensor, [box for _, box in part]
                self.watch.start()
