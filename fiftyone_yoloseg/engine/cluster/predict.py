"""Prediction with Ray Data: image paths go out, objects come back in the order of the paths. Each actor holds one network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ...config import PredictSettings
from ...data.images import read_image
from ...errors import DataError, ProcessError, UserError
from ...geometry.letterbox import Image
from ...types import Backend, Instances
from ..checkpoint import Checkpoint
from ..devices import select_device
from ..predictor import Predictor
from ..session import packed_checkpoint, unpacked_checkpoint
from ..torch_backend import TorchBackend
from .connect import await_room, connected, room

log = logging.getLogger(__name__)
MakeBackend = Callable[[str], Backend]
"""Device -> a model there. It travels to the actors, so it is a function of a module, or a class below, with what it needs."""
Found = tuple[Instances | DataError, dict[str, float]]
"""What an image holds, or why it could not be read; milliseconds an image and stage, as its actor has measured so far."""
_READERS = 4
_BLOCKS = 16
"""Pieces of work for each actor: enough that none waits for another at the end."""


class Network:
    """A `MakeBackend` of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, half: bool) -> None:
        self._packed, self._half = packed_checkpoint(checkpoint), half

    def __call__(self, device: str) -> Backend:
        checkpoint = unpacked_checkpoint(*self._packed)
        return TorchBackend(checkpoint.net, checkpoint.info, select_device(device), self._half)


def predict_on_cluster(files: Sequence[str], make: MakeBackend, settings: PredictSettings) -> Iterator[Found]:
    """One answer a file, in their order, as they come in. settings: with engine="ray".

    The files have to be on storage that all machines of the cluster see. Raises MissingDependencyError, SettingsError (see `connected`, `room`),
    ProcessError if an actor fails for another reason than an image.
    """
    with connected() as ray:
        space = room(ray, settings)
        await_room(ray, space, log.warning)
        alone = settings.model_copy(update={"engine": "local", "ray_workers": None})
        blocks = min(-(-len(files) // settings.batch), _BLOCKS * space.workers)
        rows = [{"file": str(Path(file).expanduser().absolute())} for file in files]
        data = ray.data.from_items(rows, override_num_blocks=max(blocks, 1))
        data.context.execution_options.preserve_order = True
        data.context.enable_progress_bars = False
        data = data.map_batches(
            _Finder,
            fn_constructor_args=(ray.put(make), space.device, alone),
            batch_size=settings.batch,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=space.workers),
            num_cpus=space.cpus,
            num_gpus=1 if space.gpu else 0,
        )
        try:
            for row in data.iter_rows():
                yield row["found"], row["speed"]
        except ray.exceptions.RayError as error:
            raise _cause(error) from None


class _Finder:
    """An actor."""

    def __init__(self, make: Any, device: str, settings: PredictSettings) -> None:
        import ray

        self._predictor = Predictor(ray.get(make)(device), settings)
        self._readers = ThreadPoolExecutor(_READERS)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        images = list(self._readers.map(_read, rows["file"].tolist()))
        found = iter(self._predictor.instances([i for i in images if not isinstance(i, DataError)]))
        results, speeds = np.empty(len(images), object), np.empty(len(images), object)
        for i, image in enumerate(images):
            results[i] = image if isinstance(image, DataError) else next(found)
            speeds[i] = self._predictor.watch.speed()
        return {"found": results, "speed": speeds}


def _read(file: str) -> Image | DataError:
    try:
        return read_image(Path(file))
    except DataError as error:
        return error


def _cause(error: BaseException) -> UserError:
    """The first UserError below Ray's own errors, else the last line of what they say."""
    at: Any = error
    while at is not None:
        if isinstance(at, UserError):
            return at
        at = getattr(at, "cause", None) or at.__cause__
    return ProcessError(f"prediction on the Ray cluster failed: {(str(error).strip().splitlines() or [type(error).__name__])[-1][:300]}")
