"""Settings of an export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from .settings import DeviceSettings
from .values import ImageSize, Unit, _problem, _words


def _formats(value: Any) -> Any:
    """One name, several with commas, or a list of them -> names with commas."""
    return ",".join(dict.fromkeys(map(str, _words(value)))) if isinstance(value, (str, list, tuple)) else value


FormatName = Literal["onnx", "torchscript", "openvino", "engine", "coreml", "saved_model", "pb", "tflite", "edgetpu", "tfjs", "paddle"]
"""One format. `export.registry` knows what each needs and takes."""
Formats = Annotated[str, BeforeValidator(_formats), Field(min_length=1)]


class ExportSettings(DeviceSettings):
    """Export of a checkpoint, always compared with the torch model afterwards."""

    format: Formats = Field("onnx", description="target format, several (onnx,openvino), or all; see docs/export.md")
    imgsz: ImageSize | None = Field(None, description="input size: one number or height,width; the training size if not given")
    batch: int = Field(1, ge=1, description="batch size of a static artifact")
    dynamic: bool = Field(False, description="accept any batch size and any input size that is a multiple of 32")
    half: bool = Field(False, description="weights and computation in half precision")
    int8: bool = Field(False, description="weights and computation in 8 bit integers, calibrated on images of `data` or the view")
    nms: bool = Field(False, description="non-maximum suppression and masks inside the graph (ONNX): it returns final objects")
    conf: Unit = Field(0.25, description="with nms: objects below this confidence are left out")
    iou: Unit = Field(0.7, description="with nms: boxes of one class that overlap more than this are one object")
    max_det: int = Field(300, ge=1, description="with nms: so many places for objects an image")
    opset: int | None = Field(None, ge=13, le=23, description="ONNX operator set, 13 to 23; 17 if not given")
    simplify: bool = Field(True, description="simplify the graph with onnxslim where it is installed")
    output: Path | None = Field(None, description="where to write the artifact; beside the checkpoint if not given")
    data: Path | None = Field(
        None,
        description="dataset.yaml or COCO folder: the comparison uses its validation images, int8 is calibrated on its training images",
    )
    calibration: int = Field(128, ge=1, description="with int8: calibrate on at most so many images")
    samples: int = Field(100, ge=1, description="compare the mAP of artifact and network on at most so many labelled images")
    tolerance: Annotated[float, Field(gt=0)] = Field(
        1e-3, description="largest accepted difference from torch in probabilities and coefficients; boxes: 100 times this, in pixels"
    )
    max_map_drop: Unit = Field(0.02, description="with half or int8, on labelled images: the box and mask mAP may fall by so much")

    @property
    def formats(self) -> tuple[str, ...]:
        """The names in `format`."""
        return tuple(self.format.split(","))

    @model_validator(mode="after")
    def _together(self) -> ExportSettings:
        """Combinations that no format could have a meaning for."""
        if self.half and self.int8:
            raise _problem("int8", "half=true with int8=true: weights have one precision; leave one of them out")
        if self.dynamic and self.batch != 1:
            raise _problem("batch", f"batch={self.batch}: a dynamic artifact takes any batch size; leave batch out, or dynamic")
        fields = type(self).model_fields
        if not self.nms and (useless := [n for n in ("conf", "iou", "max_det") if getattr(self, n) != fields[n].default]):
            raise _problem(
                useless[0], f"{useless[0]}={getattr(self, useless[0])}: is for nms=true only; without it, prediction asks for it"
            )
        if not self.int8 and self.calibration != fields["calibration"].default:
            raise _problem("calibration", f"calibration={self.calibration}: is for int8=true only; leave it out")
        return self
