"""Every setting of the product, once: the Python API, the command line, the App's forms and checkpoints all read these models.

A field's description is its documentation. Unknown keys are errors that name the nearest known one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

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
    """ "disc, star", "[disc, star]" or one word, as typed on the command line."""
    if isinstance(value, str):
        return [v.strip() for v in value.strip().removeprefix("[").removesuffix("]").split(",") if v.strip()]
    return value


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


def _renames(value: Any) -> Any:
    """ "car:vehicle, sign:", as typed on the command line."""
    if not isinstance(value, str):
        return value
    pairs = [pair.rpartition(":") for pair in _words(value)]
    if wrong := next((name for old, colon, name in pairs if not colon or not old.strip()), None):
        raise ValueError(f"{wrong!r}: write old:new, or old: to leave it out")
    return {old.strip(): new.strip() or None for old, _, new in pairs}


Renames = Annotated[dict[str, str | None], BeforeValidator(_renames)]


LoggerNames = Annotated[tuple[Literal["tensorboard", "mlflow", "wandb"], ...], BeforeValidator(_words)]


def _digits(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


MaskRatio = Annotated[Literal[1, 2, 4], BeforeValidator(_digits)]


_BOOL = TypeAdapter(bool)


def _switch(value: Any) -> Any:
    """Words for yes and no become bool; everything else stays."""
    try:
        return _BOOL.validate_python(value)
    except ValidationError:
        return value.lower() if isinstance(value, str) else value


def _cache_kind(value: Any) -> Any:
    value = _switch(value)
    return "ram" if value is True else value


def _at_least_one(value: int) -> int:
    if value < 1 and value != AUTO_BATCH:
        raise ValueError("must be at least 1, or -1 to let it be chosen for this machine")
    return value


AUTO_BATCH = -1
Precision = Annotated[Literal[True, False, "fp16", "bf16"], BeforeValidator(_switch)]
CacheKind = Annotated[Literal["ram", "disk", False], BeforeValidator(_cache_kind)]
TrainBatch = Annotated[int, AfterValidator(_at_least_one)]


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
    time: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="hours of training, over all sessions of a run: epochs are fitted to it, so that it ends with the schedule complete",
    )
    batch: TrainBatch = Field(16, description="images per step; -1: chosen for this machine, see docs/training.md")
    workers: Count | None = Field(None, description="processes that load and augment images; by the machine if not given")
    cache: CacheKind = Field("ram", description="keep decoded images: ram, disk (in the user's cache folder) or false")
    cache_gb: Annotated[float, Field(gt=0)] | None = Field(
        None, description="size of that cache in GB; a quarter of the free memory, or a tenth of the free disk, if not given"
    )
    project: Path = Field(Path("runs/segment"), description="folder that holds the runs")
    name: str = Field("train", pattern=RUN_NAME, description="name of the run folder; a number is added if it exists")
    exist_ok: bool = Field(False, description="write into an existing run folder of that name")
    resume: bool = Field(False, description="go on with an interrupted run from its last.pt")
    seed: Count = Field(0, description="seed of weights, order and augmentation")
    deterministic: bool = Field(True, description="use deterministic algorithms where torch has them")
    val: bool = Field(True, description="validate while training; false: only after the last epoch")
    val_period: int = Field(1, ge=1, description="validate after every n-th epoch, and after the last")
    save_period: int = Field(0, ge=-1, description="also keep the checkpoint of every n-th epoch as epoch<n>.pt; 0 or -1: none")
    patience: Count = Field(100, description="stop after so many epochs without a better fitness; 0: never")
    amp: Precision = Field(True, description="mixed precision: true (fp16 on a GPU, none on the CPU), false, fp16 (GPU only) or bf16")
    channels_last: bool = Field(True, description="keep images and weights in the memory order that convolutions like best")
    compile: bool = Field(False, description="compile the network with torch.compile; an error where that is not possible")
    freeze: Count = Field(0, le=22, description="keep the first n layers as they are")
    single_cls: bool = Field(False, description="treat all classes as one")
    plots: bool = Field(True, description="draw pictures into the run folder: batches, labels, curves, confusions, predictions")
    loggers: LoggerNames | None = Field(None, description="also log to these: tensorboard, mlflow, wandb (offline), with commas between")

    optimizer: Literal["auto", "SGD", "Adam", "AdamW", "RMSProp"] = Field(
        "auto", description="auto: AdamW for short runs, SGD for long ones, with matching lr0 and momentum"
    )
    lr0: Annotated[float, Field(gt=0)] = Field(0.01, description="initial learning rate (auto sets its own)")
    lrf: Annotated[float, Field(gt=0, le=1)] = Field(0.01, description="final learning rate as a share of lr0")
    cos_lr: bool = Field(False, description="cosine instead of linear decay")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.937, description="momentum of SGD and RMSProp, beta1 of Adam (auto sets its own)"
    )
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
    instance_masks: Literal["independent", "exclusive"] = Field(
        "independent",
        description="where objects overlap: independent, each keeps its whole mask; or exclusive, the pixel goes to the smaller one (overlap_mask=true elsewhere)",
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
    multi_scale: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="image size of each batch, imgsz +- this share in steps of 32"
    )
    rect: bool = Field(
        False, description="batches of images of similar shape, padded to multiples of 32 instead of to squares; without mosaic"
    )

    @model_validator(mode="before")
    @classmethod
    def _other_words(cls, data: Any) -> Any:
        """The peers' overlap_mask is read as instance_masks, and rect turns the default mosaic off, so that what is in force is on record."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if (overlap := _switch(data.pop("overlap_mask", None))) is not None:
            if not isinstance(overlap, bool):
                raise _problem("overlap_mask", f"overlap_mask={overlap!r}: must be true or false")
            meant = "exclusive" if overlap else "independent"
            if data.setdefault("instance_masks", meant) != meant:
                raise _problem(
                    "instance_masks", f"instance_masks={data['instance_masks']!r} contradicts overlap_mask={overlap}: give one of them"
                )
        if _switch(data.get("rect")) is True:
            data.setdefault("mosaic", 0.0)
        return data

    @field_validator("rect")
    @classmethod
    def _rect_alone(cls, rect: bool, info: ValidationInfo) -> bool:
        for name in ("mosaic", "mixup"):
            if rect and info.data.get(name):
                raise ValueError(f"its batches hold single images of one shape, so {name}={info.data[name]} is impossible: set {name}=0")
        return rect

    @field_validator("cache_gb")
    @classmethod
    def _cache_to_limit(cls, cache_gb: float | None, info: ValidationInfo) -> float | None:
        if cache_gb is not None and info.data.get("cache") is False:
            raise ValueError("there is no cache to limit with cache=false: leave one of them out")
        return cache_gb


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


class ConvertSettings(Settings):
    """Conversion of a FiftyOne dataset or view to a YOLO-seg folder."""

    label_field: str = Field("ground_truth", description="field with Detections (masks) or Polylines")
    split: str = Field(
        "auto",
        description="auto (tags if there are any, else random), tags, folders, random, a field's name, or train, val or test for all samples",
    )
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="share of validation images in a random split")
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="share of test images in a random split")
    stratify: bool = Field(False, description="random split: spread each class over the splits, not only the images")
    group_by: str | None = Field(None, description="field, such as a video or a patient, whose equal values stay in one split")
    seed: Count = Field(0, description="seed of a random split")
    classes: Words | None = Field(None, description="class list and order; the labels that occur if not given")
    remap: Renames | None = Field(
        None, description="rename or merge classes, as car:vehicle,bus:vehicle; a label without a new name (sign:) is left out"
    )
    maskless: Literal["error", "box", "skip"] = Field("error", description="objects without a mask: refuse, use their box, or leave out")
    group_slice: str | None = Field(None, description="which slice of a grouped dataset")
    media: Literal["copy", "symlink", "reference"] = Field(
        "copy", description="copy the images, link to them, or only list where they are (such a folder is read by this package only)"
    )
    dialect: Literal["bridge", "rows", "rle"] = Field(
        "bridge",
        description="one polygon an object with parts and holes joined (every YOLO-seg tool reads it), one a part, or run lengths (read by this package only)",
    )
    outline: Literal["pixel", "edge"] = Field(
        "pixel", description="vertices on border pixels, as YOLO-seg tools fill them, or on pixel edges, as COCO tools do"
    )
    tolerance: NonNegative = Field(0.0, description="how far outlines may stray to save vertices, in pixels; 0 is exact")
    require_iou: Unit | None = Field(
        None, description="fail, and write nothing, if an object comes back from its row with a lower mask IoU"
    )
    iou_attribute: str | None = Field(
        None,
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
        description="store that IoU on each label under this name, with a saved view of those below iou_threshold",
    )
    iou_threshold: Unit = Field(0.99, description="see iou_attribute")


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


class ConvertCommand(ConvertSettings):
    """`yoloseg convert`: FiftyOne dataset -> YOLO-seg folder"""

    dataset: str = Field(description="name of the FiftyOne dataset")
    out: Path = Field(description="folder to write: images, labels and dataset.yaml")
    view: str | None = Field(None, description="name of a saved view; the whole dataset if not given")


def _remap(value: Any) -> Any:
    """ "car:vehicle, bus:vehicle", as typed."""
    if not isinstance(value, str):
        return value
    pairs = [pair.partition(":") for pair in value.split(",") if pair.strip()]
    if any(not old.strip() or not new.strip() for old, _, new in pairs):
        raise ValueError("write old:new pairs with commas between them, as in car:vehicle, bus:vehicle")
    return {old.strip(): new.strip() for old, _, new in pairs}


class CheckSettings(Settings):
    """What a check of a dataset takes for granted of the training."""

    imgsz: SquareSize = Field(640, description="training image size in pixels: decides which objects are too small")
    remap: Annotated[dict[str, str], BeforeValidator(_remap)] = Field(
        {}, description="classes to merge or rename, as in car:vehicle, bus:vehicle; only looked at, nothing is changed"
    )


class CheckCommand(CheckSettings):
    """`yoloseg check`: find what is wrong with a dataset before training; exits with 1 if there are errors"""

    data: Path | None = Field(None, description="dataset.yaml, or a COCO folder with annotations/instances_*.json")
    dataset: str | None = Field(None, description="or the name of a FiftyOne dataset; the settings below are for it")
    view: str | None = Field(None, description="name of a saved view; the whole dataset if not given")
    label_field: str = Field("ground_truth", description="field with Detections (masks) or Polylines")
    split: str = Field("auto", description="auto (tags if there are any, else random), tags, random, or a field's name")
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="share of validation images in a random split")
    seed: Count = Field(0, description="seed of a random split")
    save_views: bool = Field(False, description="save a view of each finding's cases on the dataset")

    @model_validator(mode="after")
    def _one_source(self) -> CheckCommand:
        if (self.data is None) == (self.dataset is None):
            raise ValueError("give one of data=dataset.yaml and dataset=<FiftyOne dataset>")
        return self


class ImportSettings(Settings):
    """Reading YOLO-seg labels into a FiftyOne dataset."""

    label_field: str = Field("ground_truth", description="field to write")
    form: Literal["masks", "polylines"] = Field("masks", description="Detections with masks, or filled Polylines")
    predictions: bool = Field(False, description="rows may end in a confidence; they are not written over ground truth")
    classes: Words | None = Field(
        None, description="names in the order of the class numbers, for a folder of label files without dataset.yaml"
    )
    splits: Words | None = Field(None, description="only these splits of a dataset.yaml; all if not given")
    bad_rows: Literal["skip", "error"] = Field("skip", description="rows and files that cannot be used: leave them out, or import nothing")
    overwrite: bool = Field(False, description="replace the labels that matched samples have in the field")


class ImportCommand(ImportSettings):
    """`yoloseg import`: YOLO-seg folder -> FiftyOne dataset"""

    data: Path = Field(description="dataset.yaml, its folder, or a folder of label files for the images of an existing dataset")
    dataset: str | None = Field(
        None,
        min_length=1,
        description="FiftyOne dataset to import into, made if it does not exist; a new one named as the folder if not given",
    )


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
    batch: TrainBatch = Field(8, description="images per step; -1: chosen for this machine")
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
        return {_key(e): _line(model, e) for e in error.errors()}
    return {}


def _problem(setting: str, message: str) -> PydanticCustomError:
    """What is wrong with settings that are only wrong together."""
    return PydanticCustomError("setting", "{message}", {"setting": setting, "message": message})


def _key(error: Any) -> str:
    return str(error["loc"][0]) if error["loc"] else str(error.get("ctx", {}).get("setting", ""))


def _line(model: type[Settings], error: Any) -> str:
    key = _key(error)
    if error["type"] == "setting":
        return str(error["msg"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, model.model_fields, n=1)
        return f"unknown setting {key!r}" + (f": did you mean {near[0]!r}?" if near else f" (known: {', '.join(model.model_fields)})")
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}={error['input']!r}: {message}" if key else message
