"""`YOLO`: one object for training, validation, prediction and export."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from .config import DecodeSettings, ExportSettings, PredictSettings, TrainSettings, ValSettings, parse
from .console import progress_bar, show_log
from .data.load import load_data, one_class
from .engine.checkpoint import NEW_MODEL, Checkpoint, load_checkpoint, new_checkpoint
from .engine.events import TrainResult
from .engine.metrics import Metrics
from .engine.predictor import Predictor
from .engine.sources import frames, image_files
from .engine.train import train
from .engine.validator import validate
from .errors import CheckpointError, DataError, ExportError, SettingsError
from .nn.model import YOLOv8Seg
from .results import Results
from .types import Backend, Names, ProgressFn

if TYPE_CHECKING:
    from .config.export import FormatName
    from .engine.events import TrainingListener
    from .export import ExportReport, ExportTable, Samples

log = logging.getLogger(__name__)
_ANY = DecodeSettings(conf=1.0)
"""To open a model that nothing is asked of yet."""
_FIFTYONE = frozenset(
    [
        "config",
        "media_type",
        "has_logits",
        "has_embeddings",
        "can_embed_prompts",
        "ragged_batches",
        "transforms",
        "preprocess",
        "has_collate_fn",
        "collate_fn",
        "required_keys",
        "build_get_item",
        "predict_all",
        "embed",
        "embed_all",
        "_using_gpu",
    ]
)
"""What FiftyOne asks a model for."""


class YOLO:
    """A YOLOv8-seg model.

    model: "yolov8n-seg.yaml" (n, s, m, l, x) for a new network; the path of a checkpoint, ours or an official YOLOv8-seg .pt (read
    without executing anything); or of an artifact that `export` wrote, on which predict and val work.
    Raises CheckpointError if it is none of these.

    FiftyOne's functions (`dataset.apply_model(YOLO("best.pt"))`, `compute_embeddings`, Brain) take it for one of their models. They use models as context
    managers; inside, `predict` is FiftyOne's: an RGB image -> Detections.
    """

    def __init__(self, model: str | Path = "yolov8n-seg.yaml") -> None:
        self.path: Path | None = None
        self.checkpoint: Checkpoint | None = None
        self._backends: dict[tuple[Any, ...], Backend] = {}
        self._fiftyone: Any = None
        path = Path(model).expanduser()
        if not path.exists() and NEW_MODEL.fullmatch(str(model)):
            self.checkpoint = new_checkpoint(str(model))
        elif path.suffix == ".pt":
            self.path, self.checkpoint = path, load_checkpoint(path)
        elif path.exists():
            self.path = path
            self._backend(_ANY)
        else:
            raise CheckpointError(f"{model}: no such file; for a new network use yolov8{{n,s,m,l,x}}-seg.yaml")

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """What isinstance sees beside YOLO. FiftyOne asks whether a model is one of its own, and this module must not load FiftyOne."""
        if "fiftyone.core.models" not in sys.modules:
            return type(self)
        from .bridge.fiftyone_model import YOLOSegModel

        return YOLOSegModel

    def __getattr__(self, name: str) -> Any:
        if name not in _FIFTYONE:
            raise AttributeError(f"'YOLO' object has no attribute {name!r}")
        return getattr(self._as_fiftyone(), name)

    def __enter__(self) -> YOLO:
        self.predict = self._as_fiftyone().predict  # type: ignore[method-assign]
        return self

    def __exit__(self, *error: object) -> None:
        del self.predict

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, ({k: v for k, v in self.__dict__.items() if k not in ("_backends", "_fiftyone", "predict", "preprocess")},)

    def _as_fiftyone(self) -> Any:
        if self._fiftyone is None:
            from .bridge.fiftyone_model import YOLOSegModel

            self._fiftyone = YOLOSegModel(self)
        return self._fiftyone

    @property
    def net(self) -> YOLOv8Seg:
        """The torch network, on the CPU in eval mode."""
        return self._need_checkpoint("has no torch network").net

    @property
    def names(self) -> Names:
        """Class index -> name."""
        return self.checkpoint.names if self.checkpoint else self._backend(_ANY).info.names

    def train(
        self, *, should_stop: Callable[[], bool] | None = None, listeners: Sequence[TrainingListener] = (), **settings: Any
    ) -> TrainResult:
        """Train on `data`; see `TrainSettings` for all settings. Afterwards this model is the best checkpoint.

        resume=True, on the last.pt of an interrupted run, goes on with it. listeners are told of each epoch (`engine.events`).
        """
        checkpoint = self._need_checkpoint("cannot be trained")
        wanted = parse(TrainSettings, settings)
        data = wanted.data or (self._remembered_data() if wanted.resume else None)
        if data is None:
            raise SettingsError("data: which dataset? Give data=dataset.yaml, or a COCO folder")
        if wanted.data or not wanted.resume:
            wanted = parse(TrainSettings, {**settings, "data": data.expanduser().absolute()})
        with progress_bar("training") as progress:
            splits = ("train", "val") if wanted.val else ("train",)
            records = load_data(data, splits, progress)
            result = train(checkpoint, records, wanted, progress=progress, should_stop=should_stop, listeners=listeners)
        self.path, self.checkpoint = result.best, load_checkpoint(result.best)
        self._backends.clear()
        self._fiftyone = None
        return result

    def val(self, **settings: Any) -> Metrics:
        """COCO-exact metrics on a split of `data`; see `ValSettings`. Data and size default to those of the training."""
        wanted = parse(ValSettings, settings)
        data = wanted.data or self._remembered_data()
        if data is None:
            raise SettingsError("data: this model remembers no dataset file; give data=dataset.yaml, or a COCO folder")
        self._need_weights()
        with progress_bar("validation") as progress:
            backend = self._backend(wanted)  # first, as it refuses what it cannot do
            records = load_data(data, (wanted.split,), progress)
            if self.checkpoint and self.checkpoint.train_args.get("single_cls"):
                records = one_class(records)
            return validate(backend, records.splits[wanted.split], records.names, wanted, progress=progress)

    @overload
    def predict(self, source: Any, *, stream: Literal[False] = False, **settings: Any) -> list[Results]: ...
    @overload
    def predict(self, source: Any, *, stream: Literal[True], **settings: Any) -> Iterator[Results]: ...
    def predict(self, source: Any, *, stream: bool = False, **settings: Any) -> list[Results] | Iterator[Results]:
        """Find objects; see `PredictSettings`.

        source: path, URL, folder, glob, video, array (BGR, as from OpenCV), PIL image, or a list of these. stream: return an
        iterator that holds one batch in memory. Images of a folder or list that cannot be read are logged and left out.
        With engine="ray" the source are image files, and the machines of a Ray cluster share them (docs/training.md).
        Raises DataError if the source is not there, or none of its images can be read.
        """
        wanted = parse(PredictSettings, settings)
        self._need_weights()
        if wanted.engine == "ray":
            results = self._results_of_cluster(source, wanted)
        else:
            results = self._results(source, Predictor(self._backend(wanted), wanted))
        return results if stream else list(results)

    __call__ = predict

    @overload
    def export(self, format: FormatName = "onnx", **settings: Any) -> Path: ...
    @overload
    def export(self, format: list[str] | tuple[str, ...] | Literal["all"], **settings: Any) -> list[Path]: ...
    @overload
    def export(self, format: str, **settings: Any) -> Path | list[Path]: ...
    def export(self, format: str | list[str] | tuple[str, ...] = "onnx", **settings: Any) -> Path | list[Path]:
        """Write the model in another format and compare it with torch; see `ExportSettings`.

        One name gives the path of the artifact. Several - a list of names, a text with commas ("onnx,openvino"), or "all" - give a list of paths, in that
        order, also where the list has one name. If one of several fails, ExportError tells which, and the others are there; "all" leaves out formats
        that are not installed or that the settings are not for.
        """
        if isinstance(format, str) and format != "all" and "," not in format:
            return self.export_report(format=format, **settings).path
        table = self.export_table(format=format, **settings)
        if wrong := table.failed if format == "all" else [row for row in table.rows if row.report is None]:
            written = ", ".join(map(str, table.paths)) or "none"
            raise ExportError("; ".join(f"{row.format}: {row.error}" for row in wrong) + f". Written: {written}")
        return table.paths

    def export_report(self, **settings: Any) -> ExportReport:
        """As `export` to one format, with the measured differences."""
        from .export import check_one, export

        wanted = parse(ExportSettings, settings)
        check_one(wanted)
        with progress_bar("exporting") as progress:
            return export(*self._export_arguments(wanted, progress), progress)

    def export_table(self, **settings: Any) -> ExportTable:
        """Export to several formats, each whether or not the others work: a row each, with the report or what went wrong."""
        from .export import export_all

        wanted = parse(ExportSettings, settings)
        with progress_bar("exporting") as progress:
            return export_all(*self._export_arguments(wanted, progress), progress)

    def _export_arguments(self, wanted: ExportSettings, progress: ProgressFn) -> tuple[Checkpoint, ExportSettings, Samples | None]:
        from .export import any_works, from_data

        checkpoint = self._need_checkpoint("cannot be exported again")
        data = (wanted.data or self._remembered_data()) if any_works(wanted) else None
        try:
            return checkpoint, wanted, from_data(checkpoint, wanted, data, progress) if data else None
        except DataError as error:
            if wanted.data or wanted.int8:
                raise
            log.warning("compared on noise, because the dataset that the model remembers cannot be used: %s", error)
            return checkpoint, wanted, None

    def _results(self, source: Any, predictor: Predictor) -> Iterator[Results]:
        from itertools import islice

        readable, stream, first = 0, frames(source, predictor.settings.vid_stride), None
        while batch := list(islice(stream, predictor.settings.batch)):
            good = [frame for frame in batch if not isinstance(frame, DataError)]
            for problem in (frame for frame in batch if isinstance(frame, DataError)):
                _left_out(problem)
                first = first or problem
            readable += len(good)
            for frame, found in zip(good, predictor.instances([f.image for f in good]), strict=True):
                yield Results(frame.image, found, self.names, frame.name, frame.frame, predictor.watch.speed())
        if not readable and first is not None:
            raise DataError(f"none of the images can be read; the first: {first}")

    def _results_of_cluster(self, source: Any, wanted: PredictSettings) -> Iterator[Results]:
        from .engine.cluster.predict import predict_on_cluster

        for name in {"runtime", "threads", "providers", "vid_stride"} & wanted.model_fields_set:
            raise SettingsError(f"{name}={getattr(wanted, name)}: is for engine=local; leave it out with engine=ray")
        files, readable, first = image_files(source), 0, None
        for file, (found, speed) in zip(files, predict_on_cluster(files, self._maker(wanted.half), wanted), strict=True):
            if isinstance(found, DataError):
                _left_out(found)
                first = first or found
                continue
            readable += 1
            yield Results(None, found, self.names, file, None, speed)
        if not readable and first is not None:
            raise DataError(f"none of the images can be read; the first: {first}")

    def _maker(self, half: bool) -> Callable[[str], Backend]:
        """Opens this model on another machine."""
        from functools import partial

        from .engine.cluster.predict import Network
        from .runtime import load_backend

        if self.checkpoint is not None:
            return Network(self.checkpoint, half)
        assert self.path is not None
        return partial(load_backend, self.path.absolute())

    def _backend(self, wanted: DecodeSettings) -> Backend:
        from .runtime import open_backend, warn_of_floor

        auto = wanted.runtime == "auto"
        input_ = (getattr(wanted, "imgsz", None), getattr(wanted, "rect", None)) if auto else ()  # it decides what fits
        in_torch = self.checkpoint is not None and not auto
        key = (wanted.device, wanted.half, wanted.runtime, None if in_torch else wanted.threads, wanted.providers, *input_)
        if in_torch and wanted.threads is not None:
            import torch

            torch.set_num_threads(wanted.threads)  # one number for the whole process: also where the network is open already
        if key not in self._backends:
            self._backends[key] = open_backend(self.checkpoint, self.path, wanted)
        warn_of_floor(self._backends[key], wanted)
        return self._backends[key]

    def _need_checkpoint(self, what: str) -> Checkpoint:
        if self.checkpoint is None:
            raise CheckpointError(f"{self.path}: an exported artifact {what}; use the .pt file that it was made from")
        return self.checkpoint

    def _need_weights(self) -> None:
        if self.checkpoint is not None and not self.checkpoint.trained:
            log.warning("this network has random weights: train it, or load a checkpoint")

    def _remembered_data(self) -> Path | None:
        data = self.checkpoint.train_args.get("data") if self.checkpoint else None
        return Path(data) if data and Path(data).exists() else None


def _restored(state: dict[str, Any]) -> YOLO:
    """A pickled or copied YOLO; what can be made again was left out."""
    model = YOLO.__new__(YOLO)
    model.__dict__.update(state, _backends={}, _fiftyone=None)
    return model


def _left_out(problem: DataError) -> None:
    show_log()
    log.warning("left out: %s", problem)
