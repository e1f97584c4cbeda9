"""`yoloseg demo`: the whole loop on a small dataset, every step the one that users call."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..api import YOLO
from ..config import DemoSettings, TrainSettings
from ..console import console, progress_bar, show_log
from ..data.coco import load_coco
from ..data.files import write_text
from ..data.synthetic import write_synthetic
from ..engine.metrics import Metrics
from ..errors import DataError
from ..types import SegmentationData
from .convert import convert
from .database import ensure_database
from .datasets import create_dataset
from .evaluate import evaluate
from .export import export
from .predict import predict
from .validate import validate

log = logging.getLogger(__name__)
SYNTHETIC_TRAIN, SYNTHETIC_VAL = 160, 40


@dataclass(slots=True)
class DemoSummary:
    """What the demo did; written to `<out>/summary.json`.

    images, objects: a split, crowds included.  conversion_*: IoU of each mask with what its row rasterises to.  *_map: COCO metrics of the best
    checkpoint on the validation samples.  fiftyone_map: of the predictions written back (confidence above `conf`), by FiftyOne's own evaluation.
    predictions: objects written.  export_errors: largest difference from torch of each output, boxes in input pixels; export_max_abs_error: the
    largest of them.  seconds: of the whole demo.
    """

    dataset: str
    images: dict[str, int]
    objects: dict[str, int]
    conversion_mean_iou: float
    conversion_min_iou: float
    epochs: int
    best_epoch: int
    seconds_per_step: float
    box_map: float
    box_map50: float
    mask_map: float
    mask_map50: float
    predictions: int
    fiftyone_map: float
    export_path: str
    export_max_abs_error: float
    export_errors: dict[str, float]
    checkpoint: str
    seconds: float


def demo(settings: DemoSettings) -> DemoSummary:
    """Run the loop and write everything under `settings.out`. Raises UserError at the first step that cannot be done."""
    start = time.monotonic()
    show_log()
    out = settings.out.expanduser().absolute()
    data = _load(settings, out)
    ensure_database()
    _say(f"1/7 FiftyOne dataset '{settings.dataset}'")
    dataset = create_dataset(data, settings.dataset)
    validation = dataset.match_tags("val")

    _say("2/7 convert to YOLO-seg")
    with progress_bar("converting") as progress:
        report = convert(dataset, out / "yolo", classes=list(data.names.values()), split="tags", progress=progress)
    log.info("%d objects -> %d rows, mask IoU mean %.4f, minimum %.4f", report.objects, report.rows, report.mean_iou, report.min_iou)

    _say(f"3/7 train {settings.epochs} epochs")
    training = settings.model_dump(include=TrainSettings.model_fields.keys() - {"data", "project", "name", "exist_ok"})
    model = YOLO(settings.model)
    trained = model.train(**training, data=report.dataset_yaml, project=out / "runs", name="train")

    _say("4/7 validate the best checkpoint at original resolution")
    metrics = validate(validation, model, device=settings.device)
    _say(f"      box mAP {metrics.box.map:.3f}, mask mAP {metrics.seg.map:.3f}, mask mAP50 {metrics.seg.map50:.3f}")

    _say("5/7 write predictions back as masks, and evaluate them in FiftyOne")
    with progress_bar("predicting") as progress:
        written = predict(validation, model, "predictions", conf=settings.conf, device=settings.device, progress=progress)
    results = evaluate(validation, "predictions", eval_key="eval")

    _say("6/7 export to ONNX and compare with ONNX Runtime")
    exported = export(model, validation, format="onnx", device="cpu")
    _say("7/7 " + exported.summary())

    summary = DemoSummary(
        dataset=settings.dataset,
        images={split: len(records) for split, records in data.splits.items()},
        objects={split: sum(len(r.instances) for r in records) for split, records in data.splits.items()},
        conversion_mean_iou=report.mean_iou,
        conversion_min_iou=report.min_iou,
        epochs=trained.epochs,
        best_epoch=trained.best_epoch,
        seconds_per_step=round(trained.seconds_per_step, 4),
        **_maps(metrics),
        predictions=written.objects,
        fiftyone_map=float(results.mAP()),
        export_path=str(exported.path),
        export_max_abs_error=max(exported.max_abs_error.values()),
        export_errors=exported.max_abs_error,
        checkpoint=str(trained.best),
        seconds=round(time.monotonic() - start, 1),
    )
    write_text(out / "summary.json", json.dumps(asdict(summary), indent=2) + "\n")
    _farewell(summary, out)
    return summary


def _load(settings: DemoSettings, out: Path) -> SegmentationData:
    if settings.data is None:
        log.info("drawing %d synthetic images", SYNTHETIC_TRAIN + SYNTHETIC_VAL)
        return write_synthetic(out / "images", train=SYNTHETIC_TRAIN, val=SYNTHETIC_VAL, seed=settings.seed)
    data = load_coco(settings.data.expanduser(), missing="skip")
    missing = [split for split in ("train", "val") if split not in data.splits]
    if missing:
        raise DataError(f"{settings.data}: no annotations/instances_{missing[0]}*.json; the demo needs train and val")
    return data


def _maps(metrics: Metrics) -> dict[str, Any]:
    return {"box_map": metrics.box.map, "box_map50": metrics.box.map50, "mask_map": metrics.seg.map, "mask_map50": metrics.seg.map50}


def _say(line: str) -> None:
    console.print(line, highlight=False)


def _farewell(summary: DemoSummary, out: Path) -> None:
    print(
        f"""
Done in {summary.seconds:.0f} s. Everything is in {out}
  YOLO-seg dataset   {out / "yolo" / "dataset.yaml"}
  best checkpoint    {summary.checkpoint}
  ONNX               {summary.export_path}
  summary            {out / "summary.json"}
Ground truth and {summary.predictions} predicted masks are in the FiftyOne dataset '{summary.dataset}'. Look at them:
  uv run fiftyone app launch {summary.dataset}"""
    )
