"""Metrics that can be chosen in an evaluation - `evaluate_detections(custom_metrics=[...])`, any method - and that FiftyOne's Model Evaluation
panel then shows beside its own."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators.types import RiskLevel

from ..bridge import result_quality

PLUGIN = "@yoloseg/fiftyone"


class QualityMetric(foo.EvaluationMetric):
    """Subclasses give the attributes below and `compute`. Nothing is written to samples."""

    name: str
    label: str
    description: str
    key: str
    lower_is_better = False

    @property
    def config(self) -> foo.EvaluationMetricConfig:
        config = foo.EvaluationMetricConfig(
            name=self.name,
            label=self.label,
            description=self.description,
            eval_types=["detection"],
            aggregate_key=self.key,
            lower_is_better=self.lower_is_better,
            unlisted=True,  # not to be executed by itself
            risk_level=RiskLevel.LOW,
        )
        config.kwargs["lower_is_better"] = self.lower_is_better  # FiftyOne 1.22 looks for it only here
        return config


class PanopticQuality(QualityMetric):
    name, label, key = "panoptic_quality", "Panoptic quality", "PQ"
    description = "PQ, mean over classes: segmentation quality x recognition quality, at the IoU of the evaluation"

    def compute(self, samples: Any, results: Any) -> float:
        return result_quality.panoptic(results)["mean"][self.key]


class SegmentationQuality(PanopticQuality):
    name, label, key = "segmentation_quality", "Segmentation quality", "SQ"
    description = "SQ, mean over classes: mean IoU of the objects that were found"


class RecognitionQuality(PanopticQuality):
    name, label, key = "recognition_quality", "Recognition quality", "RQ"
    description = "RQ, mean over classes: F1 of finding objects, at the IoU of the evaluation"


class CalibrationError(QualityMetric):
    name, label, key = "calibration_error", "Calibration error", "ECE"
    description = "Expected calibration error: how far confidences are from the share of predictions that is right; bins: 10"
    lower_is_better = True

    def compute(self, samples: Any, results: Any, bins: int = 10) -> float:
        return float(result_quality.calibration(results, bins)["ECE"])


class BestConfidence(QualityMetric):
    name, label, key = "best_confidence", "Best confidence", "best_confidence"
    description = "Confidence from which on F1 is highest, over all classes; class_name: of this class only"

    def compute(self, samples: Any, results: Any, class_name: str | None = None) -> float:
        return result_quality.best_threshold(results, class_name)["confidence"]


class BestF1(BestConfidence):
    name, label, key = "best_f1", "F1 at best confidence", "best_f1"
    description = "Highest F1 of any confidence threshold, over all classes; class_name: of this class only"

    def compute(self, samples: Any, results: Any, class_name: str | None = None) -> float:
        return result_quality.best_threshold(results, class_name)["f1"]


METRICS: tuple[type[QualityMetric], ...] = (
    PanopticQuality, SegmentationQuality, RecognitionQuality, CalibrationError, BestConfidence, BestF1,
)  # fmt: skip
