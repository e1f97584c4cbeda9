"""What every export format has in common: the job, the interface of an exporter, and the report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ..config import ExportSettings
from ..nn.model import YOLOv8Seg
from ..types import Backend, ModelInfo

Verdict = Literal["verified", "unverified"]


@dataclass(frozen=True, slots=True)
class ExportJob:
    """What to export.

    net: fused, float32, on the CPU.  info: what the artifact will be.  metadata: to store in it.  settings: `format` is one name.
    calibration: for int8, else empty: inputs, each (1, 3, H, W) float32 RGB in [0, 1], letterboxed to info.imgsz; read when asked for, so
    that memory does not grow with their number.
    """

    net: YOLOv8Seg
    info: ModelInfo
    settings: ExportSettings
    metadata: dict[str, str]
    calibration: Sequence[Tensor] = ()

    def with_settings(self, **changes: Any) -> ExportJob:
        return replace(self, settings=self.settings.model_copy(update=changes))


@dataclass(frozen=True, slots=True)
class Unverified:
    """Why an artifact cannot be run here, and how to verify it where it can. One sentence each, without a full stop."""

    why: str
    how: str


NO_OBJECTS = "the network finds no object there, so none could be compared"
NOTHING = Unverified(
    "neither the network nor the exported model finds an object in what they were compared on, so there was nothing to compare",
    "Export again with images in which the network finds objects: data=dataset.yaml, or a view in FiftyOne",
)
"""For an artifact that is judged by its objects."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """What can be compared with the network where the artifact itself cannot be run.

    backend: gives the artifact's answers by other means.  proves: what a comparison with it proves, e.g. "the saved program, interpreted".
    """

    backend: Backend
    proves: str


class Exporter(ABC):
    """One format. What it takes and needs is in `registry.FORMATS`, and refused there before any of these methods is called."""

    suffix: str
    """End of the artifact's name, e.g. ".onnx"."""

    def check(self, settings: ExportSettings) -> None:
        """Raise SettingsError or MissingDependencyError for what only this format can know, before anything is done."""
        return

    def ending(self, settings: ExportSettings) -> str:
        """End of the name of what is written: `suffix`, or that of the last portable stage where a tool for the rest is missing."""
        return self.suffix

    def opset(self, settings: ExportSettings) -> int | None:
        """The ONNX operator set that will be used, None for formats that have none."""
        return None

    @abstractmethod
    def write(self, job: ExportJob, path: Path) -> None:
        """Write the artifact to `path`, which does not exist yet. Raises ExportError."""

    def unverified(self, settings: ExportSettings) -> Unverified | None:
        """None where the artifact runs on this machine: then `runtime.load_backend` must load it, and it is compared in full."""
        return None

    def stand_in(self, job: ExportJob, path: Path) -> StandIn | None:
        """Asked for where `unverified` says that the artifact does not run: what can be compared in its place, if anything.

        It is held to the same tolerances, so raise ExportError for what is wrong with the artifact.
        """
        return None


@dataclass(frozen=True, slots=True)
class Accuracy:
    """COCO mAP of the artifact and of the network on the same labelled images, with the same settings."""

    images: int
    objects: int
    box_map: float
    mask_map: float
    torch_box_map: float
    torch_mask_map: float

    @property
    def box_drop(self) -> float:
        """By how much the artifact is worse; below zero: better."""
        return self.torch_box_map - self.box_map

    @property
    def nothing_found(self) -> bool:
        """By neither of them."""
        return not any(value > 0 for value in (self.box_map, self.mask_map, self.torch_box_map, self.torch_mask_map))

    @property
    def mask_drop(self) -> float:
        return self.torch_mask_map - self.mask_map


@dataclass(frozen=True, slots=True)
class ExportReport:
    """An artifact, and the proof that it gives the network's answers.

    verdict: "verified", or "unverified" with the reason in `why`, what to do in `how`, and what was compared in its place in `proves`.
    max_abs_error, mean_abs_error: against the torch network in float32; "boxes_px" in input pixels, "classes" (probabilities),
    "coefficients", "protos"; with nms=true, whose other outputs are objects, "protos" alone; empty if nothing could be compared.  predictions: objects that the torch
    network found in the images compared, predictions_matched: those that the artifact found too (same class, box IoU > 0.99).
    compared_on: what the comparison ran on.  accuracy: None without labelled images.  latency_ms, torch_latency_ms: median of a forward pass
    of one batch on the same device.  seconds: of the whole export.
    """

    path: Path
    format: str
    imgsz: tuple[int, int]
    batch: int
    opset: int | None
    dynamic: bool
    half: bool
    int8: bool
    nms: bool
    verdict: Verdict
    compared_on: str
    max_abs_error: dict[str, float]
    mean_abs_error: dict[str, float]
    predictions: int
    predictions_matched: int
    seconds: float
    size_bytes: int
    accuracy: Accuracy | None = None
    latency_ms: float | None = None
    torch_latency_ms: float | None = None
    why: str = ""
    how: str = ""
    proves: str = ""
    sha256: str | None = None
    """Of exactly the artifact that was compared, see `runtime.reports.file_sha256`."""
    checkpoint: dict[str, str | None] = field(default_factory=dict)
    """path and sha256 of the file that the network came from, as far as known: no sha256 if another file has its name since."""
    machine: str = ""
    """Name and processor of the machine that the latencies are of."""
    device: str = ""
    """What the artifact ran on for them, e.g. "cpu"."""

    @property
    def verified(self) -> bool:
        return self.verdict == "verified"

    def summary(self) -> str:
        """Lines for a person: what was written, and how it compares with the network."""
        lines = [f"{self.format} {self.path} ({self.size_bytes / 1e6:.1f} MB)"]
        if not self.verified:
            lines.append(f"not verified: {self.why}. {self.how}")
        if self.compared_on:
            same = "compared with the network" if self.half or self.int8 else "same answers as the network"
            proof = f"compared in its place: {self.proves}" if self.proves else same if self.verified else "compared with the network"
            errors = ", ".join(f"{name} {value:.2g}" for name, value in self.max_abs_error.items())
            found = f"{self.predictions_matched} of {self.predictions} predictions matched" if self.predictions else NO_OBJECTS
            lines.append(f"{proof} on {self.compared_on}: {f'max abs error {errors}; ' if errors else ''}{found}")
        if (a := self.accuracy) is not None:
            maps = f"mask mAP {a.mask_map:.3f} (torch {a.torch_mask_map:.3f}), box mAP {a.box_map:.3f} (torch {a.torch_box_map:.3f})"
            lines.append(f"{maps} on {a.images} labelled images")
        if self.latency_ms is not None and self.torch_latency_ms is not None:
            lines.append(f"{self.latency_ms:.1f} ms a batch of {self.batch}, torch {self.torch_latency_ms:.1f} ms")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for json.dump."""
        accuracy = self.accuracy and {**asdict(self.accuracy), "box_drop": self.accuracy.box_drop, "mask_drop": self.accuracy.mask_drop}
        return {**asdict(self), "path": str(self.path), "imgsz": list(self.imgsz), "verified": self.verified, "accuracy": accuracy}
