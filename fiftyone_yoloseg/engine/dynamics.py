"""Training dynamics: how well the network finds each training object as epochs go by, kept in `dynamics.npz` of the run folder.

As in Toneva et al., "An Empirical Study of Example Forgetting" (arXiv 1812.05159), with "found at mask IoU 0.5" in the place of "classified rightly".
Images are seen whole, without augmentation, by the averaged network, which is the one that is validated and saved.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..data.files import write_bytes
from ..errors import DataError
from ..types import ImageRecord, Instances, ProgressFn
from .decode import decode
from .matching import overlaps
from .predictor import run, to_input
from .torch_backend import TorchBackend
from .validator import make_loader

if TYPE_CHECKING:
    from .trainer import Trainer

log = logging.getLogger("fiftyone_yoloseg")
FILE = "dynamics.npz"
FOUND, SURE, FAINT = 0.5, 0.25, 0.01
"""Mask IoU from which an object counts as found; confidence of predictions whose masks count, and of those whose probabilities do."""
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Dynamics:
    """Of E observed epochs and N training objects, crowds left out.

    epochs: (E,).  images: (I,) sample id, or path where there is none.  image: (N,) index into images.  index: (N,) place of the object among those of
    its image.  label: (N,) id of the label, or "".  iou: (E, N) highest mask IoU of a prediction of the object's class with a confidence of 0.25 or more, 0 if
    there is none.  confidence: (E, N) highest confidence for its class where the mask IoU is 0.5 or more, 0 below 0.01.
    """

    epochs: npt.NDArray[np.int64]
    images: npt.NDArray[np.str_]
    image: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    label: npt.NDArray[np.str_]
    iou: Floats
    confidence: Floats

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        return self.iou >= FOUND

    @property
    def forgotten(self) -> npt.NDArray[np.int64]:
        """(N,) how often an object was found in one observed epoch and not in the next."""
        return np.asarray((self.found[:-1] & ~self.found[1:]).sum(0), np.int64)

    @property
    def learnt(self) -> npt.NDArray[np.int64]:
        """(N,) the first observed epoch in which an object was found; 0: none."""
        first = self.epochs[self.found.argmax(0)]
        return np.where(self.found.any(0), first, 0)


_NAMES = tuple(field.name for field in fields(Dynamics))


def read_dynamics(folder: Path) -> Dynamics:
    """Raises DataError if the run has no such file, or it is damaged."""
    path = folder / FILE
    try:
        with np.load(path) as content:  # which reads no pickles
            found = Dynamics(*(content[name] for name in _NAMES))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file: train with dynamics=1, or another number of epochs between two observations") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is damaged ({error}): take it away; training then goes on, and begins to observe anew") from None
    shape = len(found.epochs), len(found.image)
    if found.iou.shape != shape or found.confidence.shape != shape or not len(found.epochs):
        raise DataError(f"{path}: is damaged: its tables have {found.iou.shape} and {found.confidence.shape} entries, not {shape}")
    return found


class Observer:
    """Looks at the training objects of a run, and writes down what it sees. Each process of a training has one."""

    def __init__(self, trainer: Trainer, training: Sequence[ImageRecord]) -> None:
        self._trainer, self._records, self._path = trainer, training, trainer.folder / FILE
        objects = [(i, n, label.source_id or "") for i, r in enumerate(training) for n, label in enumerate(r.instances) if not label.crowd]
        self._image, self._index = (np.array([row[k] for row in objects], np.int64) for k in (0, 1))
        self._label = np.array([row[2] for row in objects], str)
        self._images = np.array([r.source_id or str(r.path.absolute()) for r in training], str)
        self._rows: list[tuple[int, Floats, Floats]] = []
        if trainer.first_epoch and trainer.world.main and self._path.exists():
            before = read_dynamics(trainer.folder)
            same = zip((before.images, before.image, before.index, before.label), self._objects, strict=True)
            if all(np.array_equal(old, new) for old, new in same):
                rows = zip(before.epochs.tolist(), before.iou, before.confidence, strict=True)
                self._rows = [row for row in rows if row[0] <= trainer.first_epoch]
            else:
                log.warning("the labels have changed since %s was written: training objects are observed anew", self._path)

    @property
    def _objects(self) -> tuple[npt.NDArray[Any], ...]:
        """What the columns of the tables mean; see `Dynamics`."""
        return self._images, self._image, self._index, self._label

    def observe(self, epoch: int, progress: ProgressFn) -> None:
        """After so many finished epochs. progress may raise Stopped: then nothing is written."""
        t, seen = self._trainer, dict[int, Floats]()
        backend = TorchBackend(t.average.net, t._info(), t.device)
        loader = make_loader(
            t._info(), self._records, t._val_settings(), t.world
        )  # anew, so that its processes do not wait for the next time
        for number, part in enumerate(loader, 1):
            if part.indices:
                raw = run(backend, to_input(part.images, t.device))
                for i, found in zip(part.indices, decode(raw, part.boxes, conf=FAINT, iou=0.7, max_det=300, multi_label=True), strict=True):
                    seen[i] = how_well(self._records[i], found)
            progress(number / len(loader), f"observed {len(seen)} training images")
        whole: dict[int, Floats] = {i: values for part in t.world.gather(seen) for i, values in part.items()}
        if t.world.main:
            values = np.concatenate([whole[i] for i in range(len(self._records))], 1)
            self._rows.append((epoch, values[0], values[1]))
            self._write()

    def _write(self) -> None:
        epochs, iou, confidence = (np.array([row[k] for row in self._rows]) for k in range(3))
        table: dict[str, Any] = dict(zip(_NAMES, (epochs, *self._objects, iou, confidence), strict=True))
        content = io.BytesIO()
        np.savez_compressed(content, **table)
        write_bytes(self._path, content.getvalue())


def how_well(record: ImageRecord, found: Instances) -> Floats:
    """(2, objects that are no crowd): IoU and confidence as in `Dynamics`."""
    classes = np.array([label.cls for label in record.instances], np.int64)
    free = [not label.crowd for label in record.instances]
    kept = np.flatnonzero(np.isin(found.classes, classes))  # the overlaps of all others would be for nothing
    table = overlaps(record, found, kept) * (found.classes[kept, None] == classes)
    confidences = found.confidences[kept, None]
    iou = np.where(confidences >= SURE, table, 0).max(0, initial=0)
    confidence = np.where(table >= FOUND, confidences, 0).max(0, initial=0)
    return np.stack((iou, confidence)).astype(np.float32)[:, free]
