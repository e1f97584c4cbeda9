"""Our models as FiftyOne's own functions take them: `apply_model`, `compute_embeddings`, `compute_patch_embeddings`, Brain, and the zoo."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.models as fom
import fiftyone.utils.torch as fout
import numpy as np
import numpy.typing as npt
import torch

from ..config import PredictSettings, parse
from ..data.images import read_image
from ..engine.predictor import Predictor, Prepared
from ..engine.torch_backend import TorchBackend
from ..geometry import letterbox
from .labels import to_detections
from .models import open_backend

_ALL = 1 << 16  # FiftyOne makes the batches


@dataclass
class YOLOSegModelConfig:
    """What `apply_model` sets while it runs. confidence_thresh: instead of the model's `conf`. filter_classes: names; None for all."""

    confidence_thresh: float | None = None
    filter_classes: Collection[str] | None = None


class ImageInput(fout.GetItem):
    """Reads an image and makes the network's input of it, in FiftyOne's worker processes. Raises DataError for a file that is no image."""

    def __init__(self, size: tuple[int, int], stride: int | None, field_mapping: dict[str, str] | None = None) -> None:
        self.size, self.stride = size, stride
        super().__init__(field_mapping=field_mapping)

    @property
    def required_keys(self) -> list[str]:
        return ["filepath"]

    def __call__(self, d: dict[str, Any]) -> Prepared:
        return _prepare(read_image(Path(d["filepath"])), self.size, self.stride)


class PatchInput:
    """A patch as a PIL image -> (3, H, W) uint8, of one size for all, as FiftyOne stacks them."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, patch: Any) -> torch.Tensor:
        return torch.from_numpy(_prepare(np.asarray(patch.convert("RGB")), self.size, None).pixels).permute(2, 0, 1)


class YOLOSegModel(fom.Model, fom.EmbeddingsMixin, fom.TorchModelMixin, fom.SupportsGetItem):
    """A checkpoint or an exported artifact as a FiftyOne model.

    model: path, YOLO or Checkpoint. settings: see `PredictSettings`; the batch size is FiftyOne's. Objects come as Detections whose boxes are the exact pixel rectangles of
    their masks. Embeddings are the features that go into the head, averaged over the input, for checkpoints only.
    Raises CheckpointError or SettingsError.
    """

    def __init__(self, model: Any, **settings: Any) -> None:
        wanted = parse(PredictSettings, settings).model_copy(update={"batch": _ALL})
        self._wanted = wanted
        self._predictor = Predictor(open_backend(model, wanted)[0], wanted)
        self.config = YOLOSegModelConfig()
        self._preprocess = True

    @property
    def names(self) -> dict[int, str]:
        return self._predictor.backend.info.names

    media_type = "image"
    ragged_batches = False
    has_collate_fn = True

    @property
    def has_embeddings(self) -> bool:
        return isinstance(self._predictor.backend, TorchBackend)

    @property
    def _using_gpu(self) -> bool:
        """FiftyOne pins memory where this is so."""
        return self._predictor.backend.device.type == "cuda"

    @property
    def transforms(self) -> PatchInput:
        return PatchInput(self._predictor.size)

    @property
    def preprocess(self) -> bool:
        """Kept for FiftyOne; what comes in shows by its type whether it was prepared."""
        return self._preprocess

    @preprocess.setter
    def preprocess(self, value: bool) -> None:
        self._preprocess = value

    def build_get_item(self, field_mapping: dict[str, str] | None = None) -> ImageInput:
        return ImageInput(self._predictor.size, self._predictor.stride, field_mapping)

    def predict(self, arg: Any) -> fo.Detections:
        """An image (H, W, 3) uint8 RGB, as FiftyOne's readers give it -> its objects."""
        return self.predict_all([arg])[0]

    def predict_all(self, args: Sequence[Any]) -> list[fo.Detections]:
        """Images, or what `build_get_item` made of them -> the objects of each."""
        update: dict[str, Any] = {}
        if self.config.confidence_thresh is not None:
            update["conf"] = self.config.confidence_thresh
        if self.config.filter_classes is not None:
            update["classes"] = [i for i, name in self.names.items() if name in self.config.filter_classes]
        self._predictor.settings = self._wanted.model_copy(update=update)
        outputs = self._predictor.infer([self._prepared(arg) for arg in args])
        return [to_detections(found, self.names) for found in self._predictor.objects(outputs)]

    def embed(self, arg: Any) -> npt.NDArray[np.float32]:
        """(D,)"""
        return self.embed_all([arg])[0]

    def embed_all(self, args: Sequence[Any]) -> npt.NDArray[np.float32]:
        """(N, D)"""
        return self._predictor.embed([self._prepared(arg) for arg in args])

    def _prepared(self, arg: Any) -> Prepared:
        if isinstance(arg, Prepared):
            return arg
        if isinstance(arg, torch.Tensor):  # a patch
            pixels = np.ascontiguousarray(arg.permute(1, 2, 0).numpy())
            return Prepared(pixels, letterbox.fit((pixels.shape[0], pixels.shape[1]), (pixels.shape[0], pixels.shape[1])))
        image = np.asarray(arg)
        return self._predictor.prepare(image[..., :3] if image.ndim == 3 else np.repeat(image[..., None], 3, 2))


def as_fiftyone(model: Any, **settings: Any) -> YOLOSegModel:
    """A model for FiftyOne's functions with settings of its own: `dataset.apply_model(fy.as_fiftyone("best.pt", imgsz=960))`.

    A `YOLO` can be given to them as it is.
    """
    return YOLOSegModel(model, **settings)


def _prepare(image: npt.NDArray[np.uint8], size: tuple[int, int], stride: int | None) -> Prepared:
    box = letterbox.fit((image.shape[0], image.shape[1]), size, stride=stride)
    return Prepared(letterbox.apply(image, box), box)
