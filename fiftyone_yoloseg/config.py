"""Every setting of the product, once: the Python API, the command line, the App's forms and checkpoints all read these models.

A field's description is its documentation. Unknown keys are errors that name the nearest known one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .errors import SettingsError

STRIDE = 32
RUN_NAME = r"^[^/\\]+$"
Unit = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


def _image_size(value: Any) -> Any:
    """One number or (height, width); rounded up to a multiple of the stride, as users of other YOLOs expect."""
    if isinstance(value, str):
        value = [int(v) if v.strip().isdigit() else v for v in value.replace("x", ",").strip("[]() ").split(",")]
    sides = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(sides) == 1:
        sides *= 2
    if len(sides) != 2 or not all(isinstance(s, int) and not isinstance(s, bool) and 32 <= s <= 8192 for s in sides):
        raise ValueError("must be one number or height,width, each from 32 to 8192")
    return tuple(-(-s // STRIDE) * STRIDE for s in sides)


ImageSize = Annotated[tuple[int, int], BeforeValidator(_image_size)]


def _square_size(value: Any) -> Any:
    height, width = _image_size(value)
    if height != width:
        raise ValueError("must be one number: training uses square images")
    return height


SquareSize = Annotated[int, BeforeValidator(_square_size)]


def _integers(value: Any) -> Any:
    """ "0,2" or one number, as typed on the command line."""
    if isinstance(value, str):
        return [v.strip() for v in value.strip("[]() ").split(",") if v.strip()]
    return [value] if isinstance(value, int) else value


Integers = Annotated[tuple[int, ...], BeforeValidator(_integers)]


def _words(value: Any) -> Any:
    """ "tensorboard,mlflow", as typed on the command line."""
    return tuple(v.strip() for v in value.strip("[]() ").split(",") if v.strip()) if isinstance(value, str) else value


LoggerNames = Annotated[tuple[Literal["tensorboard", "mlflow", "wandb"], ...], BeforeValidator(_words)]


def _digits(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


MaskRatio = Annotated[Literal[1, 2, 4], BeforeValidator(_digits)]


class Settings(BaseModel):
    """Base of all settings models: no unknown keys, no changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), validate_default=True)


class DeviceSettings(Settings):
    """Whatever computes."""

    device: str | None = Field(None, description="cpu, cuda, cuda:1 or a GPU number; the first GPU if there is one, else the CPU")

    @model_validator(mode="before")
    @classmethod
    def _device_number(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("device"), int) and not isinstance(data["device"], bool):
            return {**data, "device": str(data["device"])}
        return data


class DecodeSettings(DeviceSettings):
    """How raw outputs become objects."""

    conf: Unit = Field(0.25, description="objects below this confidence are left out")
    iou: Unit = Field(0.7, description="NMS: boxes of one class that overlap more than this are one object")
    max_det: int = Field(300, ge=1, description="at most so many objects an image, the most confident first")
    half: bool = Field(False, description="run the network in half precision (GPU only)")


class PredictSettings(DecodeSettings):
    """Prediction on images, folders, videos or a FiftyOne view."""

    imgsz: ImageSize | None = Field(None, description="input size: one number or height,width; the model's own size if not given")
    batch: int = Field(1, ge=1, description="images per forward pass")
    classes: Integers | None = Field(None, description="keep only these class indices")
    agnostic_nms: bool = Field(False, description="NMS across classes: of two boxes in one place, keep the more confident")
    rect: bool = Field(True, description="pad to the nearest multiple of 32 only; false: pad to the full square")
    vid_stride: int = Field(1, ge=1, description="of a video, use every n-th frame")


class ValSettings(DecodeSettings):
    """Validation to COCO-exact numbers at the images' own resolution."""

    data: Path | None = Field(None, description="dataset.yaml or COCO folder; the one the model was trained on if not given")
    split: Literal["train", "val", "test"] = Field("val", description="which split of the dataset")
    imgsz: ImageSize | None = Field(None, description="input size: one number or height,width; the model's own size if not given")
    batch: int = Field(16, ge=1, description="images per forward pass")
    conf: Unit = Field(0.001, description="objects below this confidence are left out of the precision-recall curve")
    workers: Count | None = Field(None, description="processes that decode images; by the machine if not given")
    plots: bool = Field(False, description="draw curves, confusions and sample pictures into a run folder")
    project: Path = Field(Path("runs/segment"), description="folder that holds the runs")
    name: str = Field("val", pattern=RUN_NAME, description="name of the run folder; a number is added if it exists")
    exist_ok: bool = Field(False, description="write into an existing run folder of that name")


class TrainSettings(DeviceSettings):
    """Training. The defaults are the YOLOv8-seg recipe."""

    data: Path | None = Field(
        None, description="dataset.yaml with path, train, val and names; or a COCO folder with annotations/instances_*.json"
    )
    epochs: int = Field(100, ge=1, description="passes over the training images")
    imgsz: SquareSize = Field(640, description="training image size in pixels, a multiple of 32")
    batch: int = Field(16, ge=1, description="images per step")
    workers: Count | None = Field(None, description="processes that load and augment images; by the machine if not given")
    cache: bool = Field(True, description="keep decoded images in memory, up to a quarter of what is free")
    project: Path = Field(Path("runs/segment"), description="folder that holds the runs")
    name: str = Field("train", pattern=RUN_NAME, description="name of the run folder; a number is added if it exists")
    exist_ok: bool = Field(False, description="write into an existing run folder of that name")
    resume: bool = Field(False, description="go on with an interrupted run from its last.pt")
    seed: Count = Field(0, description="seed of weights, order and augmentation")
    deterministic: bool = Field(True, description="use deterministic algorithms where torch has them")
    val: bool = Field(True, description="validate after every epoch; false: only after the last")
    patience: Count = Field(100, description="stop after so many epochs without a better fitness; 0: never")
    amp: bool = Field(True, description="mixed precision on GPUs that have it")
    freeze: Count = Field(0, le=22, description="keep the first n layers as they are")
    single_cls: bool = Field(False, description="treat all classes as one")
    plots: bool = Field(True, description="draw pictures into the run folder: batches, labels, curves, confusions, predictions")
    loggers: LoggerNames | None = Field(None, description="also log to these: tensorboard, mlflow, wandb (offline), with commas between")

    optimizer: Literal["auto", "SGD", "Adam", "AdamW"] = Field(
        "auto", description="auto: AdamW for short runs, SGD for long ones, with matching lr0 and momentum"
    )
    lr0: Annotated[float, Field(gt=0)] = Field(0.01, description="initial learning rate (auto sets its own)")
    lrf: Annotated[float, Field(gt=0, le=1)] = Field(0.01, description="final learning rate as a share of lr0")
    cos_lr: bool = Field(False, description="cosine instead of linear decay")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.937, description="SGD momentum, Adam beta1 (auto sets its own)")
    weight_decay: NonNegative = Field(0.0005, description="decay of convolution weights, for nbs images a step")
    warmup_epochs: NonNegative = Field(3.0, description="epochs of linear warm-up, at least 100 steps")
    warmup_momentum: Unit = Field(0.8, description="momentum at the start of the warm-up")
    warmup_bias_lr: NonNegative = Field(0.1, description="learning rate of biases at the start of the warm-up (auto: 0)")
    nbs: int | None = Field(
        None,
        ge=1,
        description="nominal batch size: gradients of smaller batches are accumulated up to it; 64, or with optimizer=auto in a short run the batch itself",
    )

    box: NonNegative = Field(7.5, description="gain of the box and mask losses")
    cls: NonNegative = Field(0.5, description="gain of the class loss")
    dfl: NonNegative = Field(1.5, description="gain of the distribution focal loss")
    overlap_mask: bool = Field(
        False, description="where objects overlap, give the pixel to the smaller one only; false: every object keeps its whole mask"
    )
    mask_ratio: MaskRatio = Field(4, description="mask targets are this much smaller than the image")

    hsv_h: Unit = Field(0.015, description="hue jitter")
    hsv_s: Unit = Field(0.7, description="saturation jitter")
    hsv_v: Unit = Field(0.4, description="brightness jitter")
    degrees: Annotated[float, Field(ge=0, le=180)] = Field(0.0, description="rotation, +- degrees")
    translate: Unit = Field(0.1, description="shift, +- share of the image size")
    scale: Annotated[float, Field(ge=0, lt=1)] = Field(0.5, description="zoom, 1 +- this")
    shear: Annotated[float, Field(ge=0, le=89)] = Field(0.0, description="shear, +- degrees")
    perspective: Annotated[float, Field(ge=0, le=0.001)] = Field(0.0, description="perspective, +- this")
    flipud: Unit = Field(0.0, description="probability of an upside-down flip")
    fliplr: Unit = Field(0.5, description="probability of a left-right flip")
    mosaic: Unit = Field(1.0, description="probability of putting four images together")
    mixup: Unit = Field(0.0, description="probability of blending two images")
    copy_paste: Unit = Field(0.0, description="share of objects that are flipped and pasted into free places")
    close_mosaic: Count = Field(10, description="no mosaic, mixup and copy-paste in the last n epochs")


class ExportSettings(DeviceSettings):
    """Export of a checkpoint, always compared with the torch model afterwards."""

    format: str = Field("onnx", description="target format")
    imgsz: ImageSize | None = Field(None, description="input size: one number or height,width; the training size if not given")
    batch: int = Field(1, ge=1, description="batch size of a static artifact")
    dynamic: bool = Field(False, description="accept any batch size and any input size that is a multiple of 32")
    opset: int | None = Field(None, ge=13, le=23, description="ONNX operator set, 13 to 23; 17 if not given")
    simplify: bool = Field(True, description="simplify the graph with onnxslim where it is installed")
    half: bool = Field(False, description="weights and computation in half precision")
    output: Path | None = Field(None, description="where to write the artifact; beside the checkpoint if not given")
    tolerance: Annotated[float, Field(gt=0)] = Field(
        1e-3, description="largest accepted difference from torch in probabilities and coefficients; boxes: 100 times this, in pixels"
    )


class TrainCommand(TrainSettings):
    """`yoloseg train`: train a network"""

    model: str = Field("yolov8n-seg.yaml", description="yolov8{n,s,m,l,x}-seg.yaml for a new network, or a checkpoint to start from")


class ValCommand(ValSettings):
    """`yoloseg val`: COCO-exact metrics of a model"""

    model: str = Field(description="checkpoint or exported artifact")


class PredictCommand(PredictSettings):
    """`yoloseg predict`: find objects in images, folders, videos"""

    model: str = Field(description="checkpoint or exported artifact")
    source: str = Field(description="image, folder, glob, video or URL")
    project: Path = Field(Path("runs/segment"), description="folder that holds the runs")
    name: str = Field("predict", pattern=RUN_NAME, description="name of the run folder; a number is added if it exists")
    exist_ok: bool = Field(False, description="write into an existing run folder of that name")
    save: bool = Field(True, description="write the pictures with masks drawn, and predictions.json (COCO results)")


class ExportCommand(ExportSettings):
    """`yoloseg export`: write a checkpoint in another format"""

    model: str = Field(description="checkpoint to export")


class ConvertCommand(Settings):
    """`yoloseg convert`: FiftyOne dataset -> YOLO-seg folder"""

    dataset: str = Field(description="name of the FiftyOne dataset")
    out: Path = Field(description="folder to write: images, labels and dataset.yaml")
    view: str | None = Field(None, description="name of a saved view; the whole dataset if not given")
    label_field: str = Field("ground_truth", description="field with Detections (masks) or Polylines")
    split: str = Field("auto", description="auto (tags if there are any, else random), tags, random, or a field's name")
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="share of validation images in a random split")
    seed: Count = Field(0, description="seed of a random split")
    media: Literal["copy", "symlink"] = Field("copy", description="copy the images, or link to them")
    maskless: Literal["error", "box", "skip"] = Field("error", description="objects without a mask: refuse, use their box, or leave out")


class DoctorCommand(Settings):
    """`yoloseg doctor`: report on this environment, for bug reports"""


class DemoSettings(TrainSettings):
    """`yoloseg demo`: the whole loop on a small dataset, every training setting can be given"""

    out: Path = Field(Path("yoloseg-demo"), description="folder for everything that the demo writes")
    data: Path | None = Field(
        None, description="a COCO folder: annotations/instances_*.json beside the image folders; synthetic shapes if not given"
    )
    model: str = Field("yolov8n-seg.yaml", description="network or checkpoint to start from")
    dataset: str = Field("yoloseg-demo", min_length=1, description="name of the FiftyOne dataset")
    epochs: int = Field(30, ge=1, description="passes over the training images")
    imgsz: SquareSize = Field(160, description="training image size in pixels, a multiple of 32")
    batch: int = Field(8, ge=1, description="images per step")
    conf: Unit = Field(0.25, description="confidence of the predictions that are written back")


S = TypeVar("S", bound=Settings)


def parse(model: type[S], values: Mapping[str, Any]) -> S:
    """Validate settings. Raises SettingsError with one readable line per wrong key."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise SettingsError("\n".join(_line(model, e) for e in error.errors())) from None


def problems(model: type[Settings], values: Mapping[str, Any]) -> dict[str, str]:
    """Key -> what is wrong with it; empty if the settings are valid."""
    try:
        model.model_validate(dict(values))
    except ValidationError as error:
        return {str(e["loc"][0]) if e["loc"] else "": _line(model, e) for e in error.errors()}
    return {}


def _line(model: type[Settings], error: Any) -> str:
    key = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, model.model_fields, n=1)
        return f"unknown setting {key!r}" + (f": did you mean {near[0]!r}?" if near else f" (known: {', '.join(model.model_fields)})")
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}={error['input']!r}: {message}"
