"""Embeddings of the objects of a view, from the model's own features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import fiftyone as fo
import numpy as np
import numpy.typing as npt

from ..config import PredictSettings, parse
from ..errors import DataError, Stopped, UserError
from ..geometry.masks import Crop
from ..types import ProgressFn
from .label_attributes import OWN
from .objects import Label, Size, bounds, label_crop
from .pixels import box_crop
from .predict import Samples, in_batches, open_predictor, prepared
from .raw import raw_samples
from .views import check_view, label_path

Vectors = npt.NDArray[np.float32]
_PIECE = 256


def compute_object_embeddings(
    view: Any,
    model: Any,
    label_field: str = "ground_truth",
    embeddings_field: str | None = None,
    *,
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> dict[str, Vectors] | None:
    """One vector for each object of a view: the features under its mask, from one pass of the network over each image.

    `dataset.compute_patch_embeddings(model, label_field)` works too; it cuts each object out, scales it to the network's input and runs the network once for each, so that
    size and surroundings are lost and it takes as many passes as there are objects. See `engine.object_embeddings.pool` for the arithmetic.

    model: a checkpoint. label_field: Detections or Polylines, of ground truth or predictions; an object without a mask counts with its box.
    embeddings_field: attribute of the labels to write the vectors to. None: they are returned as sample id -> (objects, D), in the order of the
    labels, without the samples that have none, as FiftyOne's function does; both can be given to `fob.compute_similarity(..., embeddings=...)`.
    An object that has no pixel inside the image, and each object of an image that cannot be read, has no vector; with embeddings_field=None that is an error.
    settings: imgsz, batch, device, half, rect.
    Raises UserError (bad field, no checkpoint, bad setting) or Stopped, with earlier samples written.
    """
    check_view(view)
    path = label_path(view, label_field)
    if embeddings_field is not None:
        _declare(view._dataset, path, embeddings_field)
    wanted = parse(PredictSettings, {"batch": 8, **settings})
    predictor, _ = open_predictor(model, wanted)
    ids, done = view.values("id"), 0
    total = len(ids)
    labels: dict[str, list[Label]] = {}
    result: dict[str, Vectors] = {}

    def batches() -> Iterator[Samples]:
        # piece by piece: MongoDB gives up a cursor of which nothing is read for ten minutes
        for at in range(0, total, _PIECE):
            there = [s for s in raw_samples(view.select(ids[at : at + _PIECE], ordered=True), label_field) if s.labels]
            labels.update({sample.id: sample.labels for sample in there})
            yield from in_batches([(sample.id, sample.path) for sample in there], wanted.batch)

    from ..engine.object_embeddings import pool

    for batch, images in prepared(predictor, batches()):
        if should_stop and should_stop():
            raise Stopped(f"stopped after {done} of {total} images")
        good = [i for i in images if not isinstance(i, UserError)]
        levels, rows = iter(predictor.features(good)), []
        for (sample_id, file), image in zip(batch, images, strict=True):
            found, vectors = labels.pop(sample_id), None
            if isinstance(image, UserError):
                problem = str(image)
            else:
                crops = [_crop(label, image.box.source) for label in found]
                usable = [i for i, crop in enumerate(crops) if crop is not None]
                problem = f"{len(found) - len(usable)} objects have no pixel inside the image"
                vectors = dict(zip(usable, pool(next(levels), [c for c in crops if c is not None], image.box), strict=True))
            if embeddings_field is not None:
                rows += [
                    {"sample_id": sample_id, "label_id": str(found[i]["_id"]), "value": vector} for i, vector in (vectors or {}).items()
                ]
            elif vectors is None or len(vectors) < len(found):
                raise DataError(f"sample {sample_id} ({file}): {problem}; leave it out of the view, or give embeddings_field")
            else:
                result[sample_id] = np.stack(list(vectors.values()))
        if rows:
            view._dataset.set_label_values(f"{path}.{embeddings_field}", rows, progress=False)
        done += len(batch)
        if progress:
            progress(done / total, f"{done} of {total} images")
    return result if embeddings_field is None else None


def _crop(label: Label, size: Size) -> Crop | None:
    """The pixels of a label, or of its box; None where there are none inside the image."""
    box = bounds(label["points"] or []) if "points" in label else label.get("bounding_box")
    if not box or len(box) != 4 or not np.isfinite(box).all():
        return None
    try:
        crop = label_crop(label, box, size)
    except ValueError:  # a damaged mask: its box is still there
        crop = None
    crop = box_crop(box, *size) if crop is None else crop
    return crop if crop[0].any() else None


def _declare(dataset: Any, path: str, name: str) -> None:
    """Make the attribute. Raises UserError if it would replace something else."""
    field = dataset.get_field(f"{path}.{name}")
    other = field is not None and not isinstance(field, fo.VectorField)
    undeclared = (
        field is None and name.isidentifier() and dataset._sample_collection.count_documents({f"{path}.{name}": {"$exists": True}}, limit=1)
    )
    if not name.isidentifier() or name in OWN or other or undeclared:
        raise UserError(
            f"embeddings_field={name!r}: not a name for an attribute of '{path}', or one that holds something else; choose another"
        )
    if field is None:
        dataset.add_sample_field(f"{path}.{name}", fo.VectorField)
