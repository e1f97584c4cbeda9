"""The proof that an artifact gives the network's answers: both get the same inputs, and their raw outputs are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ..engine.decode import decode
from ..engine.predictor import run, to_input
from ..errors import ExportError
from ..geometry import letterbox
from ..geometry.letterbox import Image
from ..nn.head import MASKS
from ..nn.model import YOLOv8Seg
from ..types import Backend, Instances, ModelInfo, RawOutput

BOX_FACTOR = 100
"""Boxes may differ by so many times the tolerance, in pixels."""
HALF_FACTOR = 20
"""Half precision may differ by so many times more."""
MAX_IMAGES = 20


@dataclass(frozen=True, slots=True)
class Parity:
    """Differences over all inputs compared; see ExportReport. largest: the greatest absolute values of the reference.  found: objects of the artifact."""

    compared_on: str
    max_abs_error: dict[str, float]
    mean_abs_error: dict[str, float]
    largest: dict[str, float]
    predictions: int
    matched: int
    found: int = 0

    def check_objects(self, share: float) -> None:
        """Raise ExportError if too few of the objects are the same ones. For artifacts whose raw outputs may differ, or that return objects."""
        most = max(self.predictions, self.found)
        if self.matched < share * most:
            raise ExportError(
                f"the exported model does not find the same objects as the network on {self.compared_on}: {self.matched} of {self.predictions}, "
                f"and {self.found - self.matched} others (at least {share:.0%} must be the same)"
            )

    def check(self, tolerance: float, half: bool) -> None:
        """Raise ExportError if a difference is above the tolerance.

        Coefficients and prototypes have no fixed range, so above 1 their tolerance is relative to their largest value.
        """
        tolerance *= HALF_FACTOR if half else 1
        limits = {
            "boxes_px": tolerance * BOX_FACTOR,
            "classes": tolerance,
            "coefficients": tolerance * max(1.0, self.largest["coefficients"]),
            "protos": tolerance * max(1.0, self.largest["protos"]),
        }
        wrong = [f"{key} {error:.3g} (limit {limits[key]:.3g})" for key, error in self.max_abs_error.items() if not error <= limits[key]]
        if wrong:
            advice = "Export without half, or accept more with a larger tolerance" if half else "A larger tolerance would accept this"
            raise ExportError(
                f"the exported model does not give the same answers as the network on {self.compared_on}; largest differences: "
                f"{', '.join(wrong)}. {advice}"
            )


def compare(
    net: YOLOv8Seg,
    backend: Backend,
    images: Sequence[Image] | None = None,
    *,
    objects_only: bool = False,
    least_iou: float = 0.99,
    conf: float = 0.25,
    iou: float = 0.7,
    max_det: int = 300,
) -> Parity:
    """Run the network (eval, float32, CPU) and the artifact on images, or on noise of a fixed seed if there are none.

    objects_only: the artifact has NMS inside, so only prototypes and objects can be compared.  least_iou: from which box IoU on two objects of
    a class are the same.  conf, iou, max_det: how outputs become objects.
    """
    inputs, compared_on = sample_inputs(backend.info, images)
    parts: dict[str, list[tuple[float, float, float]]] = {}
    predictions = matched = found = 0
    for batch in inputs:
        with torch.inference_mode():
            reference = cast(RawOutput, net(batch))
        raw = run(backend, batch.to(backend.device))
        raw = RawOutput(raw.pred.cpu().float(), raw.protos.cpu().float())
        if raw.protos.shape != reference.protos.shape or not objects_only and raw.pred.shape != reference.pred.shape:
            shapes = [tuple(t.shape) for t in (*raw, *reference)]
            raise ExportError(f"the exported model's outputs have shapes {shapes[0]}, {shapes[1]}; the network's {shapes[2]}, {shapes[3]}")
        values = _parts(raw, objects_only)
        for key, wanted in _parts(reference, objects_only).items():
            difference = (values[key] - wanted).abs()
            parts.setdefault(key, []).append((float(difference.max()), float(difference.mean()), float(wanted.abs().max())))
        size = (batch.shape[2], batch.shape[3])
        wanted_objects, objects = (
            decode(r, [letterbox.fit(size, size)] * len(batch), conf=conf, iou=iou, max_det=max_det) for r in (reference, raw)
        )
        for ours, theirs in zip(wanted_objects, objects, strict=True):
            predictions += len(ours)
            found += len(theirs)
            matched += _matched(ours, theirs, least_iou)
    return Parity(
        compared_on,
        # not the built-in max, which loses NaN
        {key: float(np.max([p[0] for p in values])) for key, values in parts.items()},
        {key: float(np.mean([p[1] for p in values])) for key, values in parts.items()},
        {key: float(np.max([p[2] for p in values])) for key, values in parts.items()},
        predictions,
        matched,
        found,
    )


def sample_inputs(info: ModelInfo, images: Sequence[Image] | None) -> tuple[list[Tensor], str]:
    """Batches (B, 3, H, W) in [0, 1] to compare on, and what they are. A dynamic artifact also gets another size and batch."""
    height, width = info.imgsz
    generator = torch.Generator().manual_seed(0)
    images = list(images or [])[:MAX_IMAGES]
    if images:
        boxes = [letterbox.fit((image.shape[0], image.shape[1]), info.imgsz) for image in images]
        pixels = np.stack([letterbox.apply(image, box) for image, box in zip(images, boxes, strict=True)])
        tensor = to_input(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.device("cpu"))
        batches = [tensor[i : i + info.batch] for i in range(0, len(tensor), info.batch)]
    else:
        batches = [_noise(generator, info.batch, height, width)]
    if info.dynamic:
        batches.append(_noise(generator, 2, height + info.stride, width + 2 * info.stride))
    return batches, f"{len(images)} image{'s' if len(images) > 1 else ''}" if images else "noise"


def _noise(generator: torch.Generator, batch: int, height: int, width: int) -> Tensor:
    """Steps of 1/255, as in a picture: some runtimes take nothing else."""
    return (torch.rand(batch, 3, height, width, generator=generator) * 255).round() / 255


def _parts(raw: RawOutput, objects_only: bool) -> dict[str, Tensor]:
    if objects_only:
        return {"protos": raw.protos}
    return {
        "boxes_px": raw.pred[:, :4],
        "classes": raw.pred[:, 4:-MASKS],
        "coefficients": raw.pred[:, -MASKS:],
        "protos": raw.protos,
    }


def _matched(ours: Instances, theirs: Instances, least_iou: float) -> int:
    """How many of our objects are among theirs."""
    free = np.ones(len(theirs), dtype=bool)
    for box, cls in zip(ours.boxes, ours.classes, strict=True):
        overlaps = np.where(free & (theirs.classes == cls), _iou(box, theirs.boxes), 0.0)
        if len(overlaps) and overlaps.max() > least_iou:
            free[overlaps.argmax()] = False
    return int((~free).sum())


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(4,), (N, 4) x1 y1 x2 y2 -> (N,)."""
    overlap = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    result: np.ndarray = overlap / np.maximum(areas - overlap, 1e-9)
    return result
