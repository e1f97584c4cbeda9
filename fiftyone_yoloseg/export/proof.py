"""What an artifact must show before it gets its name: raw outputs, objects, mAP where there are labels, and its speed."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..config import ExportSettings, ValSettings
from ..data.images import read_image
from ..engine.torch_backend import TorchBackend
from ..engine.validator import validate
from ..errors import ExportError, UserError
from ..geometry.letterbox import Image
from ..nn.model import YOLOv8Seg
from ..types import Backend, ProgressFn
from .base import Accuracy
from .parity import MAX_IMAGES, Parity, compare
from .samples import Samples

RUNS, WARM_UP, ENOUGH_SECONDS = 15, 2, 4.0
"""Forward passes that are timed, after so many that are not; a slow model is timed for so long only."""
INT8_MATCH = 0.9, 0.8
"""Without labels: so great a share of the network's objects must be found again in int8, and with such a box IoU."""
NMS_MATCH = 0.99, 0.98
"""With nms=true, whose outputs are objects: box IoU, and share. A confidence at the threshold may fall on its other side."""
Latency = tuple[float, float]
"""Milliseconds of a forward pass: of the artifact, of the network."""


@dataclass(frozen=True, slots=True)
class Proof:
    parity: Parity
    accuracy: Accuracy | None
    latency: Latency
    device: torch.device
    empty: bool = False
    """Whether it was to be judged by objects, and neither network nor artifact found any: nothing is proven."""


def prove(net: YOLOv8Seg, backend: Backend, samples: Samples, settings: ExportSettings, tell: ProgressFn) -> Proof:
    """Compare an artifact with its network. Raises ExportError if it is not good enough by the settings."""
    tell(0.0, "comparing the outputs with the network's")
    least_iou = INT8_MATCH[0] if settings.int8 else NMS_MATCH[0]
    images = readable(samples.images)
    parity = compare(
        net, backend, images, objects_only=settings.nms, least_iou=least_iou, conf=settings.conf, iou=settings.iou, max_det=settings.max_det
    )
    accuracy = None
    if samples.records:
        tell(0.2, f"mAP on {len(samples.records)} labelled images")
        accuracy = measure_accuracy(net, backend, samples, settings, tell)
    empty = _judge(parity, accuracy, settings)
    tell(0.9, "measuring the speed")
    return Proof(parity, accuracy, measure_latency(net, backend), backend.device, empty)


def _judge(parity: Parity, accuracy: Accuracy | None, settings: ExportSettings) -> bool:
    """Raise ExportError if it is not good enough. Returns whether there was nothing to judge by: objects count, and none was found."""
    if accuracy is not None and accuracy.nothing_found:
        accuracy = None  # two times nothing are the same, however wrong the artifact is
    lossy = "half" if settings.half else "int8" if settings.int8 else None
    by_objects = (lossy and accuracy) or settings.int8 or settings.nms  # which would not tell of values that are no numbers
    if by_objects and not all(math.isfinite(error) for error in parity.max_abs_error.values()):
        raise ExportError(f"the exported model gives values that are no numbers on {parity.compared_on}")
    if lossy and accuracy is not None:
        drops = {"box": accuracy.box_drop, "mask": accuracy.mask_drop}
        if wrong := [f"{kind} mAP falls by {drop:.4f}" for kind, drop in drops.items() if not drop <= settings.max_map_drop]:
            raise ExportError(
                f"the exported model is worse than the network on {accuracy.images} labelled images: {', '.join(wrong)} "
                f"(limit {settings.max_map_drop:g}). Export without {lossy}, or accept more with a larger max_map_drop"
            )
    elif settings.int8 or settings.nms:
        parity.check_objects((INT8_MATCH if settings.int8 else NMS_MATCH)[1])
        return not (parity.predictions or parity.found)
    else:
        parity.check(settings.tolerance, settings.half)
    return False


def readable(images: Sequence[Path | Image]) -> list[Image]:
    """The first images that can be read: the comparison needs some, not all."""
    found: list[Image] = []
    for image in images:
        if len(found) == MAX_IMAGES:
            break
        try:
            found.append(read_image(image) if isinstance(image, Path) else image)
        except UserError:
            continue
    return found


def measure_accuracy(net: YOLOv8Seg, backend: Backend, samples: Samples, settings: ExportSettings, tell: ProgressFn) -> Accuracy | None:
    """mAP of both on the same images with the same settings; None if there is no label."""
    info = backend.info
    wanted = ValSettings(imgsz=info.imgsz, batch=1 if info.dynamic else info.batch, workers=0)
    if settings.nms:
        wanted = wanted.model_copy(update={"conf": settings.conf, "iou": settings.iou, "max_det": settings.max_det})
    ours = validate(backend, samples.records, info.names, wanted, progress=lambda s, label: tell(0.2 + 0.3 * s, label))
    if not ours.objects:
        return None
    reference = samples.torch_maps
    if reference is None:
        torch_backend = TorchBackend(net, info, backend.device)  # with its info, so that both get the same inputs
        theirs = validate(
            torch_backend, samples.records, info.names, wanted, progress=lambda s, label: tell(0.5 + 0.4 * s, f"torch {label}")
        )
        reference = float(theirs.box.map), float(theirs.seg.map)
    return Accuracy(ours.images, ours.objects, float(ours.box.map), float(ours.seg.map), *reference)


def measure_latency(net: YOLOv8Seg, backend: Backend) -> Latency:
    """Medians of forward passes of one batch, artifact and network in turn, on the artifact's device."""
    info = backend.info
    x = torch.rand(info.batch, 3, *info.imgsz, generator=torch.Generator().manual_seed(0)).to(backend.device)
    both = (backend, TorchBackend(net, info, backend.device))
    seconds: tuple[list[float], list[float]] = [], []
    for i in range(WARM_UP + RUNS):
        for run, times in zip(both, seconds, strict=True):
            start = time.perf_counter()
            run(x)
            if backend.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        if i > WARM_UP and sum(map(sum, seconds)) > ENOUGH_SECONDS:
            break
    ours, theirs = (1e3 * statistics.median(times[WARM_UP:]) for times in seconds)
    return ours, theirs
