"""Settings of training, validation, prediction and export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .values import (
    PINNED,
    RUN_NAME,
    CacheKind,
    Count,
    ImageSize,
    Integers,
    LoggerNames,
    MaskRatio,
    NonNegative,
    Pinned,
    Precision,
    SquareSize,
    TrainBatch,
    Unit,
    Words,
    _problem,
    _switch,
)


class Settings(BaseModel):
    """Base of all settings models: no unknown keys, no changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), validate_default=True)


class DeviceSettings(Settings):
    """Whatever computes."""

    device: str | None = Field(
        None,
        description="cpu, cuda, cuda:1 or a GPU number; the first GPU if there is one, else the CPU. Training takes several: 0,1,2,3, or cpu,cpu for two processes",
    )

    @model_validator(mode="before")
    @classmethod
    def _device_number(cls, data: Any) -> Any:
        """GPU numbers, one or a list of them, become text."""
        device = data.get("device") if isinstance(data, dict) else None
        if isinstance(device, int) and not isinstance(device, bool):
            return {**data, "device": str(device)}
        if isinstance(device, (list, tuple)):
            return {**data, "device": ",".join(map(str, device))}
        return data


class ClusterSettings(DeviceSettings):
    """What a cluster can compute as well."""

    engine: Literal["local", "ray"] = Field(
        "local", description="where to compute: local, or ray, on the cluster that RAY_ADDRESS names (see docs/training.md)"
    )
    ray_workers: int | None = Field(
        None, ge=1, description="processes on that cluster; one a GPU if not given, without GPUs one a machine (engine=ray only)"
    )

    @field_validator("ray_workers")
    @classmethod
    def _workers_of_ray(cls, workers: int | None, info: ValidationInfo) -> int | None:
        if workers is not None and info.data.get("engine") == "local":
            raise ValueError("it counts the processes of engine=ray: give that too, or leave this out")
        return workers


class DecodeSettings(DeviceSettings):
    """How raw outputs become objects."""

    conf: Unit = Field(0.25, description="objects below this confidence are left out")
    iou: Unit = Field(0.7, description="NMS: boxes of one class that overlap more than this are one object")
    max_det: int = Field(300, ge=1, description="at most so many objects an image, the most confident first")
    half: bool = Field(False, description="run the network in half precision (GPU only)")
    runtime: Literal["torch", "auto"] = Field(
        "torch",
        description="auto: on a CPU, the fastest verified export of this checkpoint that lies beside it, by the times that its report has of this machine",
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of a forward pass; as many as torch has if not given")
    providers: Words | None = Field(
        None,
        description="of an exported model: ONNX Runtime's providers or OpenVINO's devices, in order of preference; by `device` if not given",
    )


class PredictSettings(DecodeSettings, ClusterSettings):
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


class TrainSettings(ClusterSettings):
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
    batch: TrainBatch = Field(16, description="images per step, of all devices together; -1: chosen for this machine, see docs/training.md")
    workers: Count | None = Field(
        None, description="processes that load and augment images, for all devices of a machine together; by the machine if not given"
    )
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
    sync_bn: bool = Field(
        False,
        description="several devices: normalise with the statistics of the whole batch, as one device would, instead of each with its own share",
    )
    freeze: Count = Field(0, le=22, description="keep the first n layers as they are")
    single_cls: bool = Field(False, description="treat all classes as one")
    dynamics: Count = Field(
        0, description="every n epochs, record how well each training object is found, for fy.training_dynamics; 0: never"
    )
    plots: bool = Field(True, description="draw pictures into the run folder: batches, labels, curves, confusions, predictions")
    pinned: Pinned = Field(
        PINNED,
        description="validation images drawn beside their labels after each validated epoch, into pinned/ of the run folder (with plots): how many, evenly chosen among those with objects, 16 at most, 0 for none; or their file names, paths or FiftyOne ids, with commas between. From FiftyOne, validation samples with the tag `pinned` are taken where nothing is given",
    )
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

    @field_validator("sync_bn")
    @classmethod
    def _norms_uncompiled(cls, sync_bn: bool, info: ValidationInfo) -> bool:
        if sync_bn and info.data.get("compile"):
            raise ValueError("processes cannot talk inside of a compiled network: leave out sync_bn or compile")
        return sync_bn

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
