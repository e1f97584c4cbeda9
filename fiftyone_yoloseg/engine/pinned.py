"""Pinned pictures: the same few validation images, drawn after each validated epoch. Which they are, and which of their pictures a run keeps."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from ..errors import SettingsError
from ..types import ImageRecord

log = logging.getLogger(__name__)
FOLDER = "pinned"
MOST = 60
"""Pictures that a run keeps."""
LARGEST = 400_000
"""Bytes of a picture, of which a browser loads one after the other as a training goes on."""


def pinned_images(records: Sequence[ImageRecord], pinned: int | Sequence[str], *, strict: bool = True) -> list[int]:
    """Indices of the validation images to draw.

    pinned: how many, at equal distances among those that have objects, or among all if none has; or FiftyOne ids, paths or file names.
    Raises SettingsError for one that is no validation image; not strict: it is left out, and said in the log.
    """
    if isinstance(pinned, int):
        labelled = [i for i, record in enumerate(records) if len(record.instances)] or list(range(len(records)))
        count = min(pinned, len(labelled))
        return [labelled[i * len(labelled) // count] for i in range(count)]
    by_key: dict[str, int] = {}
    for i, record in reversed(list(enumerate(records))):  # of several files of one name, the first
        by_key |= {record.path.name: i, str(record.path): i, str(record.path.absolute()): i}
    by_key |= {str(record.source_id): i for i, record in enumerate(records) if record.source_id}
    missing = [name for name in pinned if name not in by_key]
    if missing and strict:
        raise SettingsError(
            f"pinned: {missing[0]!r} is no validation image ({len(records)} there are): give ids of FiftyOne samples, paths or file names, "
            "or how many images to choose"
        )
    if missing:
        log.warning("pinned: %s is no validation image any more, so it is not drawn", ", ".join(missing))
    return list(dict.fromkeys(by_key[name] for name in pinned if name in by_key))


def picture_path(run: Path, epoch: int) -> Path:
    return run / FOLDER / f"epoch_{epoch:04d}.jpg"


def pictures_of(run: Path) -> dict[int, Path]:
    """The pictures of a run folder, by epoch."""
    found = ((path.stem.removeprefix("epoch_"), path) for path in (run / FOLDER).glob("epoch_*.jpg"))
    return dict(sorted((int(number), path) for number, path in found if number.isdigit()))


def kept(epochs: Collection[int], period: int = 1) -> set[int]:
    """Which of the epochs that have a picture keep it: the first, the last, and between them every n-th validated one, n a power of two, so that
    MOST are enough. It depends on the first and the last epoch only, so a run that was resumed has the pictures of one that was not."""
    first, last = min(epochs), max(epochs)
    step = max(period, 1)
    while (last - first) // step + 2 > MOST:
        step *= 2
    return {epoch for epoch in epochs if (epoch - first) % step == 0 or epoch == last}


def thin(run: Path, period: int) -> None:
    """Delete what `kept` does not keep."""
    found = pictures_of(run)
    for epoch in found.keys() - kept(found, period):
        found[epoch].unlink(missing_ok=True)
