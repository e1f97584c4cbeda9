"""What every export format has in common: the job, the interface of an exporter, and the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..config import ExportSettings
from ..errors import SettingsError
from ..nn.model import YOLOv8Seg
from ..types import ModelInfo


@dataclass(frozen=True, slots=True)
class ExportJob:
    """What to export. net: fused, float32, on the CPU.  info: what the artifact will be.  metadata: to store in it."""

    net: YOLOv8Seg
    info: ModelInfo
    settings: ExportSettings
    metadata: dict[str, str]

    def with_settings(self, **changes: Any) -> ExportJob:
        return replace(self, settings=self.settings.model_copy(update=changes))


def only_for_onnx(settings: ExportSettings) -> None:
    """Raises SettingsError for settings that have no meaning in other formats."""
    if settings.opset is not None:
        raise SettingsError(f"opset={settings.opset}: is for format=onnx only; leave it out with format={settings.format}")


class Exporter(Protocol):
    """One format. Its module has an instance named `exporter`."""

    suffix: str
    """End of the artifact's name, e.g. ".onnx"."""

    def check(self, settings: ExportSettings) -> None:
        """Raise SettingsError or MissingDependencyError for what cannot work, before anything is done."""
        ...

    def opset(self, settings: ExportSettings) -> int | None:
        """The ONNX operator set that will be used, None for formats that have none."""
        ...

    def write(self, job: ExportJob, path: Path) -> None:
        """Write the artifact to `path`, which does not exist yet. Raises ExportError."""
        ...


@dataclass(frozen=True, slots=True)
class ExportReport:
    """An artifact that was proven to give the network's answers.

    max_abs_error, mean_abs_error: against the torch network in float32; "boxes_px" in input pixels, "classes" (probabilities),
    "coefficients", "protos".  predictions: objects that the torch network found in the images compared, predictions_matched: those
    that the artifact found too (same class, box IoU > 0.99).  compared_on: what the comparison ran on.  seconds: of the whole export.
    """

    path: Path
    format: str
    imgsz: tuple[int, int]
    batch: int
    opset: int | None
    dynamic: bool
    half: bool
    verified: bool
    compared_on: str
    max_abs_error: dict[str, float]
    mean_abs_error: dict[str, float]
    predictions: int
    predictions_matched: int
    seconds: float
    size_bytes: int

    def summary(self) -> str:
        """Two lines for a person: what was written, and how it compares with the network."""
        errors = ", ".join(f"{name} {value:.2g}" for name, value in self.max_abs_error.items())
        proof = "same answers as the network" if self.verified else "not verified"
        return (
            f"{self.format} {self.path} ({self.size_bytes / 1e6:.1f} MB)\n"
            f"{proof} on {self.compared_on}: max abs error {errors}; {self.predictions_matched} of {self.predictions} predictions matched"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, for json.dump."""
        return {**asdict(self), "path": str(self.path), "imgsz": list(self.imgsz)}
