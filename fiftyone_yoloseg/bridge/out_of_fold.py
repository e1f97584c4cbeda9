"""Predictions for every sample of a view by a model that was trained without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import DataError, SettingsError, Stopped
from ..types import ProgressFn
from . import runs
from .objects import Maskless
from .plan import make_plan
from .predict import PredictReport, predict
from .splits import SplitOptions, field_path
from .train import train
from .views import check_view


def predict_out_of_fold(
    view: Any,
    model: Any = "yolov8n-seg.yaml",
    label_field: str = "predictions",
    gt_field: str = "ground_truth",
    *,
    folds: int = 5,
    group_by: str | None = None,
    seed: int = 0,
    val: float = 0.1,
    conf: float = 0.05,
    maskless: Maskless = "error",
    overwrite: bool = False,
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> PredictReport:
    """Train `folds` times, each time on all samples but one fold, and predict that fold; every prediction is by a model that has not seen its sample.

    model: what each training starts from: a new network, or a checkpoint that was not trained on this view. group_by: field, such as a video or a patient,
    whose equal values stay in one fold. val: share of the training samples that choose the best epoch. conf: lowest confidence that is written.
    settings: of the trainings, see `TrainSettings`; run folders are named `<name>-fold1` and so on. Takes `folds` times as long as a training.
    Raises UserError as `train` and `predict` do, DataError if there are fewer samples (or groups) than folds; Stopped if stopped.
    """
    check_view(view)
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise SettingsError(f"folds={folds!r}: give a whole number of at least 2")
    runs.check_writable(view, label_field, overwrite)
    classes = list(make_plan(view, gt_field, SplitOptions({"train": view}), maskless=maskless).names.values())
    parts = fold_ids(view, folds, group_by, seed)
    name, total = settings.pop("name", "train"), PredictReport(label_field)
    models = []
    for k, ids in enumerate(parts):

        def step(share: float, label: str, k: int = k) -> None:
            if progress:
                progress((k + share) / folds, f"fold {k + 1} of {folds}: {label}")

        result = train(
            view.exclude(ids), model, gt_field, val=val, classes=classes, maskless=maskless, seed=seed, name=f"{name}-fold{k + 1}",
            progress=lambda share, label, step=step: step(0.9 * share, label), should_stop=should_stop, **settings,
        )  # fmt: skip
        if result.stopped:
            raise Stopped(f"stopped in fold {k + 1} of {folds}; '{label_field}' has the predictions of the folds before")
        report = predict(
            view.select(ids), result.best, label_field, overwrite=overwrite, conf=conf, device=settings.get("device"),
            progress=lambda share, label, step=step: step(0.9 + 0.1 * share, label), should_stop=should_stop,
        )  # fmt: skip
        models.append(str(result.best))
        total.images += report.images
        total.objects += report.objects
        total.empty += report.empty
        total.kept += report.kept
        total.failed += report.failed
    # in place of what the last fold remembered: no single model wrote the field
    runs.remember(view, "predict", label_field, model=None, sha256=None, folds=models, classes=classes, settings={"conf": conf})
    return total


def fold_ids(view: Any, folds: int, group_by: str | None = None, seed: int = 0) -> list[list[str]]:
    """The sample ids of each fold, drawn at random; with `group_by` whole groups are drawn, the folds get as many groups each."""
    ids: Sequence[str] = view.values("id")
    groups = ids if group_by is None else [str(v) for v in view.values(field_path(view, group_by, "group_by"))]
    distinct = sorted(set(groups))
    if len(distinct) < folds:
        what = "samples" if group_by is None else f"values of '{group_by}'"
        raise DataError(f"folds={folds}: the view has only {len(distinct)} {what}; give fewer folds")
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold_of = {distinct[int(i)]: position % folds for position, i in enumerate(order)}
    parts: list[list[str]] = [[] for _ in range(folds)]
    for sample, group in zip(ids, groups, strict=True):
        parts[fold_of[group]].append(sample)
    return parts
