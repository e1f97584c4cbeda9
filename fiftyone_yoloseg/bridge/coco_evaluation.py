"""FiftyOne's evaluation backend "yoloseg-coco": pycocotools' numbers of boxes and masks, crowds included, and FiftyOne's verdict on every object.

The path of this module is stored with every evaluation: it has to stay where it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import eta.core.serial as etas
import fiftyone as fo
import numpy as np
from fiftyone.utils.eval.coco import COCODetectionResults, COCOEvaluation, COCOEvaluationConfig
from fiftyone.utils.eval.detection import DetectionResults

from ..engine.average_precision import LIMITS, RECALLS, THRESHOLDS
from ..engine.metrics import averages
from ..errors import SettingsError
from ..types import ProgressFn
from . import result_quality
from .objects import Maskless
from .scored_objects import IouType
from .scoring import Match, Rules, Scored, score_view
from .views import check_view, label_path
from .write_scores import clear_scores, declare_fields, write_scores

METHOD = "yoloseg-coco"
_TOTALS = {
    "AP": "map", "AP50": "map50", "AP75": "map75", "AP_small": "ap_small", "AP_medium": "ap_medium", "AP_large": "ap_large",
    "AR1": "ar1", "AR10": "ar10", "AR100": "ar100", "AR_small": "ar_small", "AR_medium": "ar_medium", "AR_large": "ar_large",
}  # fmt: skip
_PER_CLASS = {"AP": "maps", "AP50": "maps50", "AP75": "maps75", "AR": "ars"}


_TABLES = ("precision", "recall", "recall_sweep", "thresholds")
_OBJECTS = ("ytrue", "ypred", "confs", "ious", "ytrue_ids", "ypred_ids")


class YolosegCOCOEvaluationConfig(COCOEvaluationConfig):
    """As FiftyOne's COCOEvaluationConfig, with compute_mAP on.

    maskless: labels without a mask, where masks are compared: "box" takes their box as mask, so that no object that somebody saw gets
    lost from the counts; "skip" leaves them out; "error" refuses.  iou_type: "mask", or "boundary" for the smaller one of mask IoU and Boundary
    IoU (Cheng et al. 2021, arXiv 2103.16562), which does not forgive a bad outline on a large object.  iou_threshs: of mAP, rising.
    max_preds: predictions of an image and class that count in mAP. Masks are compared pixel by pixel: `tolerance` is refused, as is what is for
    keypoints.
    """

    def __init__(
        self,
        pred_field: str,
        gt_field: str,
        iou: float | None = 0.5,
        classwise: bool | None = True,
        maskless: Maskless = "box",
        iou_type: IouType = "mask",
        compute_mAP: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(pred_field, gt_field, iou=iou, classwise=classwise, compute_mAP=compute_mAP, **kwargs)
        self.maskless = maskless
        self.iou_type = iou_type
        self.iou_threshs: list[float] | None
        if compute_mAP and np.array_equal(np.round(self.iou_threshs, 9), np.round(THRESHOLDS, 9)):
            self.iou_threshs = list(THRESHOLDS)  # pycocotools' to the last bit
        if maskless not in ("box", "skip", "error"):
            raise SettingsError(f"maskless={maskless!r}: 'box', 'skip' or 'error'")
        if iou_type not in ("mask", "boundary"):
            raise SettingsError(f"iou_type={iou_type!r}: 'mask' or 'boundary'; boxes are compared with use_masks=False")
        if self.tolerance is not None or self.keypoint_sigmas is not None:
            raise SettingsError(f"tolerance and keypoint_sigmas are not for {METHOD}: it compares the exact pixels of masks")
        if iou is None or not 0 < iou <= 1:
            raise SettingsError(f"iou={iou}: give the overlap, above 0 and at most 1, at which a prediction is right")

    @property
    def method(self) -> str:
        return METHOD

    def rules(self) -> Rules:
        thresholds = self.iou_threshs or [0.5]
        return Rules(
            iou=self.iou,
            classwise=bool(self.classwise),
            masks=self.use_masks,
            boxes=self.use_boxes,
            iou_type=self.iou_type,
            maskless=self.maskless,
            iscrowd=self.iscrowd,
            thresholds=tuple(float(t) for t in thresholds),
            limit=self.max_preds or 100,
            averages=self.compute_mAP,
        )


class YolosegCOCOEvaluation(COCOEvaluation):
    """The whole view is compared, and the verdicts are written, when FiftyOne registers its samples; its loop over samples then only collects."""

    def __init__(self, config: YolosegCOCOEvaluationConfig) -> None:
        super().__init__(config)
        self.scored: Scored | None = None
        self._matches: dict[str, list[Match]] = {}

    def score(self, samples: Any, progress: ProgressFn | None = None) -> Scored:
        """Compare; nothing is written. Raises DataError, see `score_view`."""
        check_view(samples)
        self.scored = score_view(samples, self.config.pred_field, self.config.gt_field, self.config.rules(), progress)
        return self.scored

    def register_run(self, samples: Any, key: str | None, overwrite: bool = True, cleanup: bool = True) -> None:
        """As FiftyOne does; but where an evaluation of the same fields is replaced, its values are cleared and its fields stay, as they would be
        declared again at once: changing the schema twice takes a quarter of the time of a small evaluation."""
        if key is not None and overwrite and cleanup and key in self.list_runs(samples):
            self.validate_run(samples, key)
            if self._has_the_fields_of(samples, key):
                clear_scores(samples._dataset, [label_path(samples, name) for name in (self.config.gt_field, self.config.pred_field)], key)
                cleanup = False
        super().register_run(samples, key, overwrite=overwrite, cleanup=cleanup)

    def _has_the_fields_of(self, samples: Any, key: str) -> bool:
        """Whether the run of that name has only such fields as this one has."""
        try:
            return not self.get_run_info(samples, key).config.custom_metrics
        except ValueError:  # of another version, which FiftyOne lets the user replace
            return False

    def register_samples(self, samples: Any, eval_key: str | None, dynamic: bool = True) -> None:
        scored = self.scored or self.score(samples)
        self._matches = {str(sample.id): sample.matches for sample in scored.samples}
        self.gt_field, self.pred_field = self.config.gt_field, self.config.pred_field
        if eval_key is not None:
            declare_fields(samples._dataset, scored.paths if dynamic else (), eval_key)
            write_scores(samples, scored, eval_key)

    def evaluate(self, doc: Any, eval_key: str | None = None) -> list[Match]:
        """FiftyOne's matches of one sample that `register_samples` has seen; [] for one that was left out."""
        return self._matches.get(doc.id, [])

    def generate_results(
        self,
        samples: Any,
        matches: Sequence[Match],
        eval_key: str | None = None,
        classes: Sequence[str] | None = None,
        missing: str | None = None,
        progress: Any = None,
    ) -> DetectionResults:
        config, scored = self.config, self.scored
        if not config.compute_mAP or scored is None:
            return DetectionResults(samples, config, eval_key, matches, classes=classes, missing=missing, backend=self)
        chosen = list(classes) if classes is not None else sorted(scored.names)
        index = {scored.names[name]: i for i, name in enumerate(chosen) if name in scored.names}
        tables = {kind: averager.renumbered(index).compute(len(chosen)) for kind, averager in scored.averagers.items()}
        table = next(iter(tables.values()))  # of masks, where they were compared
        standard = config.iou_threshs == list(THRESHOLDS) and config.max_preds == LIMITS[-1]
        coco: dict[str, Any] = {kind: _numbers(averages(table), chosen) for kind, table in tables.items()} if standard else {}
        return YolosegCOCOResults(
            samples,
            config,
            eval_key,
            matches,
            np.ascontiguousarray(table.precision[..., 0].transpose(0, 2, 1)),
            RECALLS,
            config.iou_threshs,
            chosen,
            recall_sweep=np.ascontiguousarray(table.recall[..., 0, -1]),
            thresholds=np.ascontiguousarray(table.scores[..., 0].transpose(0, 2, 1)),
            missing=missing,
            backend=self,
            coco=coco,
            facts={
                "images": len(scored.samples),
                "crowds": scored.crowds,
                "ignored": scored.ignored,
                "without_mask": scored.bare,
                "left_out": scored.left_out,
                "left_out_count": scored.left_out_count,
            },
        )


class YolosegCOCOResults(COCODetectionResults):
    """FiftyOne's COCO results, and COCO's other numbers.

    coco: of "segm" (where masks were compared; "boundary" with that iou_type) and "bbox", COCO's twelve numbers - AP, AP50, AP75, AP_small,
    ..., AR1, AR10, AR100, AR_small, ... - and "classes": AP, AP50, AP75, AR of each; -1 where there is no such object, as pycocotools has it.
    Empty with other iou_threshs or max_preds than COCO's.
    facts: images compared, crowds, predictions ignored on crowds, labels without_mask of each field, and what was left_out (the first 100).
    """

    def __init__(self, *args: Any, coco: dict[str, Any] | None = None, facts: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.coco = coco or {}
        self.facts = facts or {}

    def metrics(self, classes: Any = None, average: str = "micro", beta: float = 1.0) -> dict[str, Any]:
        """FiftyOne's, and COCO's numbers as `mask_AP50`, `boundary_AP`, `box_AR100` and so on, if they are asked for all classes and samples."""
        metrics: dict[str, Any] = super().metrics(classes=classes, average=average, beta=beta)
        if classes is None and not self.has_subset:
            for kind, name in (("segm", "mask"), ("boundary", "boundary"), ("bbox", "box")):
                metrics |= {f"{name}_{key}": value for key, value in self.coco.get(kind, {}).items() if key in _TOTALS}
        return metrics

    def panoptic(self) -> dict[str, dict[str, float]]:
        """PQ, SQ and RQ of each class and their "mean", at the IoU of this evaluation; see `engine.quality`."""
        return result_quality.panoptic(self)

    def best_thresholds(self) -> dict[str, dict[str, float]]:
        """Of each class the confidence with the highest F1, and precision and recall there."""
        return result_quality.best_thresholds(self)

    def calibration(self, bins: int = 10) -> dict[str, Any]:
        """The expected calibration error, "ECE", and the "bins" behind it."""
        return result_quality.calibration(self, bins)

    def serialize(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The tables and what is known of every object, packed: MongoDB's JSON looks at each number, which would take most of the time of a small
        evaluation."""
        d: dict[str, Any] = super().serialize(*args, **kwargs)
        d["objects"] = json.dumps({name: d.pop(name) for name in _OBJECTS})
        for name in _TABLES:
            d[name] = etas.serialize_numpy_array(np.asarray(getattr(self, name)))
        return d

    def attributes(self) -> list[str]:
        return [name for name in super().attributes() if name not in _TABLES]

    @classmethod
    def _from_dict(cls, d: dict[str, Any], samples: Any, config: Any, eval_key: str, **kwargs: Any) -> YolosegCOCOResults:
        d = {**d, **json.loads(d.get("objects", "{}")), **{name: etas.deserialize_numpy_array(d[name]) for name in _TABLES}}
        results: YolosegCOCOResults = super()._from_dict(d, samples, config, eval_key, coco=d.get("coco"), facts=d.get("facts"), **kwargs)
        return results


def register_evaluation() -> str:
    """Make `dataset.evaluate_detections(..., method="yoloseg-coco")` work in this process; returns the name. Importing this module does it."""
    fo.evaluation_config.detection_backends.setdefault(METHOD, {})["config_cls"] = f"{__name__}.{YolosegCOCOEvaluationConfig.__name__}"
    return METHOD


def _numbers(scores: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """JSON-able."""
    totals = {key: _plain(scores[name]) for key, name in _TOTALS.items()}
    per_class = {name: {key: _plain(scores[field][i]) for key, field in _PER_CLASS.items()} for i, name in enumerate(classes)}
    return {**totals, "classes": per_class}


def _plain(value: float) -> float:
    return -1.0 if math.isnan(value) else float(value)


register_evaluation()
