"""Choose what a person should label next, and tag it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import fiftyone as fo
import numpy as np
import numpy.typing as npt

from ..engine.selection import Pick, Weights, image_uncertainty, object_uncertainty, select
from ..errors import DataError, SettingsError
from . import runs
from .predict import embed
from .views import check_view, label_path

TAG = "to_label"
Unit = Literal["images", "objects"]
_CERTAINTY = "mask_certainty"


@dataclass(slots=True)
class Selection:
    """samples: ids in the order of choice; labels: ids of the chosen objects (unit="objects"); picks: their scores, in the same order;
    objects: predicted objects in the chosen samples (unit="images") or chosen objects; candidates: how many there were to choose from."""

    tag: str
    unit: Unit
    candidates: int
    samples: list[str] = dataclasses.field(default_factory=list)
    labels: list[str] = dataclasses.field(default_factory=list)
    picks: list[Pick] = dataclasses.field(default_factory=list)
    objects: int = 0


@dataclass(frozen=True, slots=True)
class _Predicted:
    """One sample: ids, classes and uncertainties of its predicted objects."""

    sample_id: str
    ids: list[str]
    classes: list[str]
    confidences: npt.NDArray[np.float64]
    uncertainty: npt.NDArray[np.float64]


def select_to_label(
    view: Any,
    budget: int,
    *,
    unit: Unit = "images",
    label_field: str = "predictions",
    gt_field: str = runs.TRUTH,
    embeddings: str | npt.ArrayLike | None = None,
    model: Any = None,
    weights: Mapping[str, float] | None = None,
    tag: str | None = TAG,
    seed: int = 0,
) -> Selection:
    """Choose the samples, or predicted objects, that a person should label next. See `engine.selection` for how.

    budget: number of images, or with unit="objects" of objects. Samples that have ground truth in `gt_field` are labelled already: they are not
    chosen, and count for diversity and class balance.
    label_field: predictions with a confidence, and a `mask_certainty` in [0, 1] where a model gives one. A sample in which nothing was predicted has
    uncertainty 0 and is chosen for its diversity only.
    embeddings: for diversity, name of a sample field with a vector, or an array (len(view), D) in the view's order. model: or a checkpoint, whose own
    features are then computed on every image of the view. Neither: no diversity.
    weights: of "uncertainty" (1), "diversity" (1) and "balance" (0.5).
    tag: put on the chosen samples, and with unit="objects" also on the objects; taken off the other samples and objects of the view. None: nothing is tagged.
    Raises UserError for a view, field or setting that cannot be used.
    """
    check_view(view)
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise SettingsError(f"budget={budget!r}: a whole number of {unit}, 1 or more")
    if unit not in ("images", "objects"):
        raise SettingsError(f"unit={unit!r}: choose images or objects")
    if tag is not None and (not tag or not tag.strip()):
        raise SettingsError(f"tag={tag!r}: give a name, or None")
    if model is not None and embeddings is not None:
        raise SettingsError("give embeddings or a model to compute them, not both")
    how = _weights(weights or {})
    samples, labelled, counts = _read(view, label_field, gt_field)
    vectors = _vectors(view, embeddings if model is None else embed(view, model))
    open_ = [i for i in range(len(samples)) if not labelled[i]]
    if not open_:
        raise DataError(f"every sample of this view has ground truth in '{gt_field}': there is nothing left to label")
    names = sorted({*counts, *(c for s in samples for c in s.classes)})
    known = np.array([counts.get(name, 0) for name in names], np.float64)
    centres = None if vectors is None else vectors[[i for i in range(len(samples)) if labelled[i]]]
    owners = open_ if unit == "images" else [i for i in open_ for _ in samples[i].ids]
    if not owners:
        raise DataError(f"no sample without ground truth has an object in '{label_field}': predict first, or choose by unit='images'")
    expected = _expected(samples, open_, names, unit)
    picks = select(
        _uncertainties(samples, open_, unit), budget, features=None if vectors is None else vectors[owners], labelled=centres,
        classes=expected, class_counts=known, weights=how, seed=seed,
    )  # fmt: skip
    out = Selection(tag or "", unit, len(owners), picks=picks)
    out.samples = list(dict.fromkeys(samples[owners[p.index]].sample_id for p in picks))
    if unit == "objects":
        ids = [label_id for i in open_ for label_id in samples[i].ids]
        out.labels = [ids[p.index] for p in picks]
    out.objects = len(out.labels) if unit == "objects" else sum(len(samples[owners[p.index]].ids) for p in picks)
    if tag is not None:
        _tag(view, tag, label_field, out)
    return out


def _weights(given: Mapping[str, float]) -> Weights:
    try:
        return Weights(**given)
    except TypeError:
        names = ", ".join(f.name for f in dataclasses.fields(Weights))
        raise SettingsError(f"weights={dict(given)!r}: numbers for {names}") from None
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _read(view: Any, label_field: str, gt_field: str) -> tuple[list[_Predicted], list[bool], dict[str, int]]:
    """Predictions of each sample, whether it is labelled, and how many objects of each class are labelled. Whole samples, in the view's order."""
    dataset = view._dataset
    path = label_path(dataset, label_field)
    truth = label_path(dataset, gt_field) if dataset.get_field(gt_field) is not None else None
    ids = view.values("id")
    whole = dataset.select(ids, ordered=True)
    attributes = ("_id", "label", "confidence", _CERTAINTY)
    project = {f"{path}.{a}": 1 for a in attributes} | ({f"{truth}.label": 1} if truth else {})
    samples, labelled, counts = [], [], dict[str, int]()
    for document in whole._aggregate(post_pipeline=[{"$project": project}]):
        labels = _labels(document, path)
        if any(label.get("confidence") is None for label in labels):
            raise DataError(
                f"field '{label_field}', sample {document['_id']}: a label has no confidence; select from a model's predictions"
            )
        confidences = np.array([label["confidence"] for label in labels], np.float64)
        certainties = np.array([np.nan if label.get(_CERTAINTY) is None else label[_CERTAINTY] for label in labels], np.float64)
        samples.append(
            _Predicted(
                str(document["_id"]), [str(label["_id"]) for label in labels], [str(label.get("label")) for label in labels],
                confidences, object_uncertainty(confidences, certainties),
            )
        )  # fmt: skip
        there = _labels(document, truth) if truth else []
        labelled.append(bool(there))
        for label in there:
            name = str(label.get("label"))
            counts[name] = counts.get(name, 0) + 1
    return samples, labelled, counts


def _labels(document: Mapping[str, Any], path: str) -> list[dict[str, Any]]:
    field, kind = path.rsplit(".", 1)
    return (document.get(field) or {}).get(kind) or []


def _vectors(view: Any, embeddings: Any) -> npt.NDArray[np.float64] | None:
    """(samples, D) in the view's order."""
    if embeddings is None:
        return None
    name = embeddings if isinstance(embeddings, str) else "embeddings"
    if isinstance(embeddings, str):
        if view._dataset.get_field(name) is None:
            raise DataError(f"'{view._dataset.name}' has no field '{name}' with embeddings")
        rows: Sequence[Any] = view.values(name)
        bare = [i for i, row in zip(view.values("id"), rows, strict=True) if row is None]
        if bare:
            raise DataError(f"field '{name}': {len(bare)} samples have no embedding, the first: {bare[0]}")
        embeddings = rows
    try:
        array = np.asarray(embeddings, np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name}: vectors of one length are needed") from None
    if array.ndim != 2 or len(array) != len(view) or not np.isfinite(array).all():
        raise DataError(f"{name}: expected {len(view)} rows of finite numbers, one a sample; the shape is {array.shape}")
    return array


def _uncertainties(samples: Sequence[_Predicted], open_: Sequence[int], unit: Unit) -> npt.NDArray[np.float64]:
    if unit == "images":
        return np.array([image_uncertainty(samples[i].uncertainty) for i in open_])
    return np.concatenate([samples[i].uncertainty for i in open_])


def _expected(samples: Sequence[_Predicted], open_: Sequence[int], names: Sequence[str], unit: Unit) -> npt.NDArray[np.float64]:
    """(items, classes) objects to expect: each predicted one counts by its confidence, in images; in full, where it is the item itself."""
    column = {name: i for i, name in enumerate(names)}
    rows = []
    for i in open_:
        sample = samples[i]
        one = np.zeros((len(sample.ids), len(names)))
        one[np.arange(len(sample.ids)), [column[c] for c in sample.classes]] = 1.0 if unit == "objects" else sample.confidences
        rows.append(one if unit == "objects" else one.sum(0, keepdims=True))
    return np.concatenate(rows)


def _tag(view: Any, tag: str, label_field: str, chosen: Selection) -> None:
    """Tags of an earlier choice would mix with this one's."""
    dataset = view._dataset
    whole = dataset.select(view.values("id"))
    whole.match_tags(tag).untag_samples(tag)
    dataset.select(chosen.samples).tag_samples(tag)
    if chosen.unit == "objects":
        whole.select_labels(tags=tag, fields=label_field).untag_labels(tag, label_fields=label_field)
        dataset.select_labels(ids=chosen.labels, fields=label_field).tag_labels(tag, label_fields=label_field)


def view_of(dataset: Any, chosen: Selection, label_field: str) -> fo.DatasetView:
    """The chosen samples in the order of choice, with unit="objects" only the chosen objects."""
    view = dataset.select(chosen.samples, ordered=True)
    return view.select_labels(ids=chosen.labels, fields=label_field) if chosen.unit == "objects" else view
