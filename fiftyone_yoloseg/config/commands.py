"""What the commands of `yoloseg` ask for beside their settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import (
    Field,
    model_validator,
)

from .data import CheckSettings, ConvertSettings, ImportSettings, LabelErrorSettings
from .export import ExportSettings, Formats
from .settings import PredictSettings, Settings, TrainSettings, ValSettings
from .values import (
    RUN_NAME,
    Count,
    SquareSize,
    TrainBatch,
    Unit,
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


class BenchmarkCommand(ExportSettings):
    """`yoloseg benchmark`: export to every format that is installed here, and compare size, answers and speed"""

    model: str = Field(description="checkpoint to export")
    format: Formats = Field("all", description="formats to compare: all, or names such as onnx,openvino")
    output: Path | None = Field(None, description="folder that keeps the artifacts; none is kept if not given")


class ConvertCommand(ConvertSettings):
    """`yoloseg convert`: FiftyOne dataset -> YOLO-seg folder"""

    dataset: str = Field(description="name of the FiftyOne dataset")
    out: Path = Field(description="folder to write: images, labels and dataset.yaml")
    view: str | None = Field(None, description="name of a saved view; the whole dataset if not given")


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


class FindLabelErrorsCommand(LabelErrorSettings):
    """`yoloseg find_label_errors`: labels that are likely wrong, by the predictions of a model that has not seen them"""

    dataset: str = Field(description="name of the FiftyOne dataset")
    view: str | None = Field(None, description="name of a saved view; the whole dataset if not given")
    pred_field: str = Field("predictions", description="field with predictions of a model that was not trained on these samples")
    gt_field: str = Field("ground_truth", description="field with the labels to judge")


class ImportCommand(ImportSettings):
    """`yoloseg import`: YOLO-seg folder -> FiftyOne dataset"""

    data: Path = Field(description="dataset.yaml, its folder, or a folder of label files for the images of an existing dataset")
    dataset: str | None = Field(
        None,
        min_length=1,
        description="FiftyOne dataset to import into, made if it does not exist; a new one named as the folder if not given",
    )


class LoopCommand(TrainSettings):
    """`yoloseg loop`: train on a FiftyOne dataset, predict, evaluate on what the training has not seen, export"""

    dataset: str = Field(description="name of the FiftyOne dataset")
    view: str | None = Field(None, description="name of a saved view; the whole dataset if not given")
    model: str = Field("yolov8n-seg.yaml", description="yolov8{n,s,m,l,x}-seg.yaml for a new network, or a checkpoint to start from")
    name: str = Field("loop", pattern=r"^[A-Za-z][A-Za-z0-9_]*$", description="name of the run and its folder, which must not exist")
    label_field: str = Field("ground_truth", description="field with Detections (masks) or Polylines to train on")
    predictions: str = Field("predictions", description="field to write predictions to")
    eval_key: str = Field("eval", description="name of the evaluation; one of that name is replaced")
    format: str = Field("onnx", description="format to export to")


class RunsCommand(Settings):
    """`yoloseg runs`: the trainings of a FiftyOne dataset, newest first"""

    dataset: str = Field(description="name of the FiftyOne dataset")


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
