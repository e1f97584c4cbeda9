"""Prediction on arrays: letterbox, network, decoding, with the time that each stage takes."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..config import DecodeSettings, PredictSettings
from ..errors import CheckpointError, SettingsError
from ..geometry import letterbox
from ..geometry.letterbox import Image, Letterbox
from ..types import Backend, Instances, ModelInfo, RawOutput
from .decode import decode
from .mask_scores import FLIP_CONFIDENCE, Score, mirrored, with_scores
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image in the network's input: (H, W, 3) uint8 RGB."""

    pixels: Image
    box: Letterbox


@dataclass(frozen=True, slots=True)
class Output:
    """What the network says of images of one input size. indices: their places among all. mirrored: the same images flipped left to right."""

    indices: list[int]
    boxes: list[Letterbox]
    raw: RawOutput
    mirrored: RawOutput | None


class Predictor:
    """Finds objects in RGB images. `watch.speed()` tells the time of each stage so far.

    scores: further scores of each object, see `mask_scores`; flip_agreement runs the network twice.
    `prepare`, `infer` and `objects` are the stages of `instances` for callers that overlap them; each may run in a thread of its own.
    """

    def __init__(self, backend: Backend, settings: DecodeSettings | None = None, scores: Collection[Score] = ()) -> None:
        settings = settings or PredictSettings()
        self.backend = backend
        if isinstance(settings, PredictSettings) and settings.engine != "local":
            raise SettingsError(
                f"engine={settings.engine}: only YOLO.train, fy.train and YOLO.predict can use a cluster; leave it out here"
            )
        self.settings = settings if isinstance(settings, PredictSettings) else PredictSettings(**settings.model_dump())
        self.scores = tuple(scores)
        self.size = input_size(backend.info, self.settings.imgsz)
        self.stride = backend.info.stride if backend.info.dynamic and self.settings.rect else None
        self.watch = Stopwatch(backend.device)

    def instances(self, images: Sequence[Image]) -> list[Instances]:
        """(H, W, 3) uint8 RGB images of any sizes -> their objects, in the same order."""
        self.watch.start()
        prepared = [self.prepare(image) for image in images]
        result: dict[int, Instances] = {}
        for indices, tensor in self._batches(prepared):
            self.watch.lap("preprocess")
            output = self._run(prepared, indices, tensor)
            self.watch.lap("inference")
            result.update(zip(indices, self._decode(output), strict=True))
            self.watch.lap("postprocess")
            self.watch.images += len(indices)
        return [result[i] for i in range(len(images))]

    def prepare(self, image: Image) -> Prepared:
        """An image of any size -> the network's input."""
        box = letterbox.fit((image.shape[0], image.shape[1]), self.size, stride=self.stride)
        return Prepared(letterbox.apply(image, box), box)

    def infer(self, prepared: Sequence[Prepared]) -> list[Output]:
        """Run the network, on images of one input size together."""
        return [self._run(prepared, indices, tensor) for indices, tensor in self._batches(prepared)]

    def objects(self, outputs: Sequence[Output]) -> list[Instances]:
        """What `infer` gave -> the objects of each image, in the order of the images."""
        result = {i: found for output in outputs for i, found in zip(output.indices, self._decode(output), strict=True)}
        return [result[i] for i in range(len(result))]

    def _run(self, prepared: Sequence[Prepared], indices: list[int], images: torch.Tensor) -> Output:
        flipped = run(self.backend, images.flip(3)) if "flip_agreement" in self.scores else None
        return Output(indices, [prepared[i].box for i in indices], run(self.backend, images), flipped)

    def _decode(self, output: Output) -> list[Instances]:
        s = self.settings
        common: dict[str, Any] = {"iou": s.iou, "max_det": s.max_det, "classes": s.classes, "agnostic": s.agnostic_nms}
        found = decode(output.raw, output.boxes, conf=s.conf, certainty="mask_certainty" in self.scores, **common)
        if not self.scores:
            return found
        flipped: Sequence[Instances | None] = [None] * len(found)
        if output.mirrored is not None:
            flipped = decode(output.mirrored, [mirrored(box) for box in output.boxes], conf=s.conf * FLIP_CONFIDENCE, **common)
        return [with_scores(one, self.scores, other) for one, other in zip(found, flipped, strict=True)]

    def embeddings(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        """(H, W, 3) uint8 RGB images of any sizes -> (N, D), one vector an image, see `TorchBackend.embed`. Raises CheckpointError for an exported model."""
        return self.embed([self.prepare(image) for image in images])

    def embed(self, prepared: Sequence[Prepared]) -> npt.NDArray[np.float32]:
        """As `embeddings`, of prepared images."""
        backend, rows = self._torch(), dict[int, npt.NDArray[np.float32]]()
        for indices, tensor in self._batches(prepared):
            rows.update(zip(indices, backend.embed(tensor).cpu().numpy(), strict=True))
        return np.stack([rows[i] for i in range(len(prepared))]) if rows else np.zeros((0, 0), np.float32)

    def features(self, prepared: Sequence[Prepared]) -> list[list[torch.Tensor]]:
        """For each image what goes into the head: (C, h, w) float32, one a stride. Raises CheckpointError for an exported model."""
        backend, rows = self._torch(), dict[int, list[torch.Tensor]]()
        for indices, tensor in self._batches(prepared):
            levels = backend.features(tensor)
            rows.update({i: [level[k] for level in levels] for k, i in enumerate(indices)})
        return [rows[i] for i in range(len(prepared))]

    def _torch(self) -> TorchBackend:
        if not isinstance(self.backend, TorchBackend):
            raise CheckpointError("embeddings need a checkpoint: an exported model gives only its outputs")
        return self.backend

    def _batches(self, prepared: Sequence[Prepared]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Images of one input size together."""
        groups: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(prepared):
            groups.setdefault(image.box.size, []).append(i)
        for members in groups.values():
            for start in range(0, len(members), self.settings.batch):
                part = members[start : start + self.settings.batch]
                pixels = torch.from_numpy(np.stack([prepared[i].pixels for i in part])).permute(0, 3, 1, 2)
                yield part, to_input(pixels, self.backend.device)
