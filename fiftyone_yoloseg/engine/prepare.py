"""Before the first step: which images, which folder, which cache."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..config import TrainSettings
from ..data.disk_cache import cache_folder, make_room
from ..data.load import one_class
from ..data.loaders import sizes_of
from ..data.store import Budget
from ..errors import DataError
from ..nn.model import YOLOv8Seg
from ..types import ImageRecord, Names, SegmentationData
from .checkpoint import Checkpoint, fit_to_classes
from .devices import free_memory
from .distributed import World
from .pinned import FOLDER
from .runlog import new_run_folder

GB = 1e9


def choose_splits(data: SegmentationData, settings: TrainSettings) -> tuple[Names, list[ImageRecord], list[ImageRecord]]:
    """Training and validation records with the classes that the settings ask for."""
    training, validation = list(data.splits.get("train", ())), list(data.splits.get("val", ()))
    if not training:
        raise DataError(f"{data.origin}: the training split has no images")
    if not any(not r.crowd for image in training for r in image.instances):
        raise DataError(f"{data.origin}: no training image has an object; is the label field or the label folder the right one?")
    if not validation and settings.val:
        raise DataError(f"{data.origin}: the validation split has no images; name one, or train with val=false")
    if settings.single_cls:
        data = one_class(data)
        return dict(data.names), list(data.splits["train"]), list(data.splits.get("val", ()))
    return data.names, training, validation


@contextmanager
def run_folder(settings: TrainSettings, last: Path | None, world: World | None = None) -> Iterator[Path]:
    """The folder of a run: that of `last`, its last.pt, when it is resumed, else a new one. A run that came to nothing leaves nothing behind.

    Of several processes, the first makes it.
    """
    known = last is not None or (settings.exist_ok and (settings.project / settings.name).exists())

    def make() -> Path:
        return last.absolute().parent.parent if last else new_run_folder(settings.project, settings.name, settings.exist_ok)

    folder = world.from_main(make) if world else make()
    if world and not world.main:
        yield folder
        return
    weights = folder / "weights"
    weights.mkdir(exist_ok=True)
    for half_written in [path for place in (folder, weights, folder / FOLDER) for path in place.glob(".*.tmp")]:
        half_written.unlink(missing_ok=True)  # by a session that was killed
    try:
        yield folder
    except BaseException:
        if not known and not any(weights.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def starting_network(checkpoint: Checkpoint, names: Names, freeze: int) -> tuple[YOLOv8Seg, list[str]]:
    """The network to train, and what its user should know: which layers start anew because the checkpoint is for other classes."""
    net, left_out = fit_to_classes(checkpoint, names)
    net.requires_grad_(True)
    net.head.dfl.requires_grad_(False)
    for layer in net.model[:freeze]:
        layer.requires_grad_(False)
    if not left_out:
        return net, []
    total = len(net.state_dict())
    kept = f"{checkpoint.path} was trained for other classes: {total - len(left_out)} of {total} tensors are kept"
    return net, [f"{kept}; these layers start anew: {', '.join(layers_of(left_out))}"]


def layers_of(keys: Sequence[str]) -> list[str]:
    """State-dict keys -> the convolution units that they belong to, in order, each once."""
    units = (key.rpartition(".")[0].removesuffix(".conv").removesuffix(".bn") for key in keys)
    return list(dict.fromkeys(units))


def image_cache(settings: TrainSettings, records: Sequence[ImageRecord], processes: int = 1) -> Budget:
    """How many bytes of decoded images to keep, and where. processes: of the training on this machine, which share them."""
    if settings.cache == "disk":
        folder = cache_folder()
        total = settings.cache_gb * GB if settings.cache_gb else shutil.disk_usage(folder).free / 10
        room = make_room(folder, records, sizes_of(settings.imgsz, settings.multi_scale)[-1], int(total))
        return Budget(room // processes, folder)
    if settings.cache == "ram":
        return Budget((int(settings.cache_gb * GB) if settings.cache_gb else free_memory() // 4) // processes)
    return Budget()
