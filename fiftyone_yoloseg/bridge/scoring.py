"""One pass over a view that compares two label fields: COCO's averages, and what became of every object."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Literal

import numpy as np
from bson import ObjectId

from ..data.processes import Workers
from ..engine.average_precision import THRESHOLDS, Averager, Labelled, Predicted
from ..engine.matching import IGNORED, match_overlaps
from ..errors import DataError, UserError
from ..types import ProgressFn
from .objects import Maskless, Problem
from .raw import RawPair
from .read import sized_pairs
from .scored_objects import Floats, IouType, Measured, Measuring, Side, measure_all
from .views import label_path, listing

Kind = Literal["segm", "boundary", "bbox"]
Match = tuple[str | None, str | None, float | None, float | None, str | None, str | None]
"""FiftyOne's: (true class, predicted class, IoU, confidence, id of the label, id of the prediction), None for what there is not."""
_CHUNK = 64
_LISTED = 100
WORTH_PROCESSES = 1000
"""Samples below which an evaluation is done before processes have started and paid for themselves."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How objects are compared. iou: at which a prediction is right.  masks: or boxes.  iou_type: of masks.  maskless: see `Maskless`.

    thresholds: IoUs of mAP, rising.  limit: predictions of an image and class that count in it.  averages: whether mAP is wanted.
    """

    iou: float = 0.5
    classwise: bool = True
    masks: bool = True
    boxes: bool = False
    """Of polylines, compare the boxes."""
    iou_type: IouType = "mask"
    maskless: Maskless = "box"
    iscrowd: str = "iscrowd"
    thresholds: tuple[float, ...] = THRESHOLDS
    limit: int = 100
    averages: bool = True


@dataclass(slots=True)
class Verdicts:
    """Of one label list of one sample. ids: of all labels in it. verdicts: position, tp/fp/fn/ignored, id of the counterpart or "", IoU or None."""

    ids: list[ObjectId]
    verdicts: list[tuple[int, str, str, float | None]] = field(default_factory=list)


@dataclass(slots=True)
class SampleScore:
    """truth, found: see `Verdicts`. matches: those that count. areas: of the labels that were compared, by their positions, in square pixels."""

    id: ObjectId
    truth: Verdicts
    found: Verdicts
    matches: list[Match]
    areas: dict[int, float]

    def tally(self) -> tuple[int, int, int]:
        """True positives, false positives, false negatives, as FiftyOne counts them: two classes that do not agree are one of each."""
        tp = sum(gt == pred for gt, pred, *_ in self.matches)
        return tp, sum(m[1] is not None for m in self.matches) - tp, sum(m[0] is not None for m in self.matches) - tp


@dataclass(slots=True)
class Scored:
    """names: class -> index in the averagers. crowds, ignored: labels that are crowds, predictions on them. bare: labels without a mask, of each field.

    left_out: the first samples and labels that could not be compared; left_out_count: how many there are.
    """

    paths: tuple[str, str]
    names: dict[str, int] = field(default_factory=dict)
    averagers: dict[Kind, Averager] = field(default_factory=dict)
    samples: list[SampleScore] = field(default_factory=list)
    crowds: int = 0
    ignored: int = 0
    bare: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    left_out_count: int = 0


def score_view(view: Any, pred_field: str, gt_field: str, rules: Rules, progress: ProgressFn | None = None) -> Scored:
    """Compare the labels of two fields, sample by sample; nothing is written.

    Raises DataError if a field is missing or of another type, if predictions have no confidence and averages are wanted, or if labels have no
    mask and rules.maskless is "error".
    """
    return _Pass(view, pred_field, gt_field, rules).run(progress)


class _Pass:
    def __init__(self, view: Any, pred_field: str, gt_field: str, rules: Rules) -> None:
        self.view, self.rules = view, rules
        self.fields = gt_field, pred_field
        paths = label_path(view, gt_field), label_path(view, pred_field)
        # the geometry of a polyline is its mask
        masks = [(rules.masks or path.endswith(".polylines")) and not rules.boxes for path in paths]
        if masks[0] != masks[1]:
            raise DataError(
                f"'{gt_field}' and '{pred_field}': Polylines are compared with Detections by masks or by boxes; set use_masks or use_boxes"
            )
        lowest = min(rules.iou, *rules.thresholds)
        self.how = Measuring(rules.classwise, masks[0], rules.iou_type, lowest, rules.averages, rules.maskless, rules.iscrowd)
        shape: Kind = "boundary" if rules.iou_type == "boundary" else "segm"
        kinds: list[Kind] = [shape, "bbox"] if masks[0] else ["bbox"]
        averagers = {kind: Averager(rules.thresholds, tuple(sorted({1, 10, rules.limit}))) for kind in kinds} if rules.averages else {}
        self.out = Scored(paths, averagers=averagers, bare=dict.fromkeys(self.fields, 0))
        self.bare_samples: list[str] = []
        self.unsure: list[str] = []

    def run(self, progress: ProgressFn | None) -> Scored:
        total, done = len(self.view), 0
        pairs = sized_pairs(self.view, self._attributes(0), self._attributes(1), empty=False)
        chunks = iter(lambda: list(islice(pairs, _CHUNK)), [])
        inputs = ((chunk, [size if isinstance(size, UserError) else (p.truth, p.found, size) for p, size in chunk]) for chunk in chunks)
        with Workers("compared samples", worth=total >= WORTH_PROCESSES) as workers:
            for chunk, results in workers.each(partial(measure_all, how=self.how), inputs):
                for (pair, _), measured in zip(chunk, results, strict=True):
                    if isinstance(measured, UserError):
                        self._leave_out(Problem(str(pair.id), pair.path, str(measured)))
                    else:
                        self.out.samples.append(self._sample(pair, measured))
                done += len(chunk)
                if progress:
                    progress(min(done / max(total, 1), 1.0), f"comparing: {done} of {total} samples")
        if self.bare_samples and self.rules.maskless == "error":
            counts = " and ".join(f"{n} labels of '{name}'" for name, n in self.out.bare.items() if n)
            raise DataError(
                f"{counts} have no mask (samples {listing(self.bare_samples)}). "
                "Use maskless='box' to take their box as mask or maskless='skip' to leave them out"
            )
        if self.unsure and self.rules.averages:
            raise DataError(
                f"field '{self.fields[1]}': predictions in {len(self.unsure)} samples have no confidence (samples {listing(self.unsure)}), which "
                "mAP needs. Use compute_mAP=False to match them without it"
            )
        return self.out

    def _attributes(self, which: int) -> list[str]:
        path = self.out.paths[which]
        keys = ["points", "filled"] if path.endswith(".polylines") else ["bounding_box"]
        if not path.endswith(".polylines") and (self.how.masks or which == 0):
            keys += ["mask", "mask_path"]
        keys += ["confidence"] if which else [self.rules.iscrowd]
        return [f"{path}.{key}" for key in ("_id", "label", *keys)]

    def _sample(self, pair: RawPair, measured: Measured) -> SampleScore:
        out, truth, found = self.out, measured.truth, measured.found
        for name, side in zip(self.fields, (truth, found), strict=True):
            out.bare[name] += side.bare
            for reason in side.wrong:
                self._leave_out(Problem(str(pair.id), pair.path, f"{name}: {reason}"))
        if truth.bare or found.bare:
            self.bare_samples.append(str(pair.id))
        if None in found.confidences:
            self.unsure.append(str(pair.id))
        classes, predicted = ([out.names.setdefault(n, len(out.names)) for n in side.names] for side in (truth, found))
        labels = Labelled(classes, truth.areas, truth.crowd)
        scores = [c or 0.0 for c in found.confidences]
        for kind, averager in out.averagers.items():
            overlaps = measured.boxes if kind == "bbox" else measured.masks
            assert overlaps is not None
            areas = [w * h for _, _, w, h in found.boxes] if kind == "bbox" else [float(n) for n in found.pixels]
            averager.add(labels, Predicted(predicted, areas, scores), overlaps)
        overlaps = measured.boxes if measured.masks is None else measured.masks
        assert overlaps is not None
        return self._verdicts(pair, truth, found, (classes, predicted), overlaps)

    def _verdicts(self, pair: RawPair, truth: Side, found: Side, classes: tuple[list[int], list[int]], overlaps: Floats) -> SampleScore:
        ids = [[label["_id"] for label in labels] for labels in (pair.truth, pair.found)]
        sample = SampleScore(pair.id, Verdicts(ids[0]), Verdicts(ids[1]), [], dict(zip(truth.positions, truth.areas, strict=True)))
        order = np.array(sorted(range(len(found.names)), key=lambda i: -(found.confidences[i] or -1.0)), np.int64)
        label_classes, crowd = np.array(classes[0], np.int64), np.array(truth.crowd, bool)
        predicted = np.array(classes[1], np.int64)[order]
        rules = self.rules
        matching = match_overlaps(order, overlaps[order], predicted, label_classes, crowd, iou=rules.iou, classwise=rules.classwise)
        gt_ids, pred_ids = ([str(ids[k][p]) for p in side.positions] for k, side in enumerate((truth, found)))
        on_crowds: dict[int, tuple[str, float]] = {}
        for i, j, iou in zip(matching.predictions.tolist(), matching.labels.tolist(), matching.ious.tolist(), strict=True):
            name, confidence, position = found.names[i], found.confidences[i], found.positions[i]
            if j >= 0:
                right = truth.names[j] == name
                sample.found.verdicts.append((position, "tp" if right else "fp", gt_ids[j], iou))
                sample.truth.verdicts.append((truth.positions[j], "tp" if right else "fn", pred_ids[i], iou))
                sample.matches.append((truth.names[j], name, iou, confidence, gt_ids[j], pred_ids[i]))
            elif j == IGNORED:
                j = int(np.where(crowd & (label_classes == classes[1][i]), overlaps[i], -1).argmax())
                sample.found.verdicts.append((position, "ignored", gt_ids[j], float(overlaps[i, j])))
                on_crowds.setdefault(j, (pred_ids[i], float(overlaps[i, j])))
                self.out.ignored += 1
            else:
                sample.found.verdicts.append((position, "fp", "", None))
                sample.matches.append((None, name, None, confidence, None, pred_ids[i]))
        for j in matching.missed.tolist():
            sample.truth.verdicts.append((truth.positions[j], "fn", "", None))
            sample.matches.append((truth.names[j], None, None, None, gt_ids[j], None))
        for j in np.flatnonzero(crowd).tolist():
            sample.truth.verdicts.append((truth.positions[j], "ignored", *on_crowds.get(j, ("", None))))
            self.out.crowds += 1
        return sample

    def _leave_out(self, problem: Problem) -> None:
        self.out.left_out_count += 1
        if len(self.out.left_out) < _LISTED:
            self.out.left_out.append(str(problem))
