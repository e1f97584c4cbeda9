"""The export formats by name: what each needs to be installed, and which settings it takes."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from dataclasses import dataclass, field, fields

from ..config import ExportSettings
from ..engine.devices import select_device
from ..errors import MissingDependencyError, SettingsError
from .base import Exporter

_NO_OPSET = "operator sets are a matter of ONNX"
_NO_GRAPH = "there is no ONNX graph to simplify"
_NO_NMS = "only the ONNX graph can have it inside; prediction does it for every other format"


@dataclass(frozen=True, slots=True)
class Takes:
    """Which settings a format takes: True, or why not."""

    half: bool | str = True
    int8: bool | str = True
    dynamic: bool | str = True
    batch: bool | str = True
    nms: bool | str = _NO_NMS
    opset: bool | str = _NO_OPSET
    simplify: bool | str = _NO_GRAPH


@dataclass(frozen=True, slots=True)
class Need:
    """A package: its name in imports, the extra of ours that installs it, and for which setting (None: always)."""

    package: str
    extra: str
    setting: str | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """title: for a person.  place: module of this package.  calibrates: whether int8 needs images; weights alone have their range in themselves.
    gpu: whether what runs its artifacts here can do so on a GPU."""

    title: str
    place: str
    needs: tuple[Need, ...] = ()
    takes: Takes = field(default_factory=Takes)
    calibrates: bool = True
    gpu: bool = False


_TF = (Need("tensorflow", "tf"),)
_LITE = (*_TF, Need("ai_edge_litert", "tf"))
_TF_FLOAT = "TensorFlow computes this graph in full precision; for smaller files use tflite or tfjs"
_TF_INT8 = "8 bit kernels are a matter of TensorFlow Lite; use tflite"
_LITE_SIZE = "its memory is planned for one input size; export one file a size"
FORMATS: dict[str, Format] = {
    "onnx": Format(
        "ONNX",
        "onnx_format",
        (Need("onnxruntime", "onnx"),),
        Takes(nms=True, opset=True, simplify=True),
        gpu=True,
    ),
    "torchscript": Format(
        "TorchScript", "torchscript_format", takes=Takes(int8="torch has no 8 bit TorchScript; use onnx or openvino"), gpu=True
    ),
    "openvino": Format("OpenVINO", "openvino_format", (Need("openvino", "openvino"), Need("nncf", "int8", "int8"))),
    "engine": Format("TensorRT", "engine_format", (Need("onnxruntime", "onnx", "int8"),), gpu=True),
    "coreml": Format(
        "Core ML",
        "coreml_format",
        (Need("coremltools", "coreml"),),
        Takes(
            dynamic="a Core ML model takes pictures of one size, as Vision scales them to",
            batch="a Core ML model takes one picture; Core ML makes batches of them by itself",
        ),
        calibrates=False,
    ),
    "saved_model": Format("TensorFlow SavedModel", "saved_model_format", _TF, Takes(half=_TF_FLOAT, int8=_TF_INT8)),
    "pb": Format("TensorFlow GraphDef", "pb_format", _TF, Takes(half=_TF_FLOAT, int8=_TF_INT8)),
    "tflite": Format("TensorFlow Lite", "tflite_format", _LITE, Takes(dynamic=_LITE_SIZE)),
    "edgetpu": Format(
        "Edge TPU",
        "edgetpu_format",
        _LITE,
        Takes(half="it computes with 8 bit integers", dynamic=_LITE_SIZE, batch="it takes one image at a time"),
    ),
    "tfjs": Format("TensorFlow.js", "tfjs_format", _TF, Takes(int8=_TF_INT8)),
    "paddle": Format(
        "PaddlePaddle",
        "paddle_format",
        (Need("paddle", "paddle"),),
        Takes(
            half="Paddle computes in half precision on a GPU only, and this export is for the CPU; use engine or onnx",
            int8="Paddle's own quantisation is another package, paddleslim; use onnx, openvino or tflite",
        ),
    ),
}


def find_format(name: str) -> Format:
    """Raises SettingsError for an unknown name."""
    if name not in FORMATS:
        near = difflib.get_close_matches(name.lower(), FORMATS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise SettingsError(f"format={name!r} is unknown: {hint}This version exports: {', '.join(FORMATS)}")
    return FORMATS[name]


def find_exporter(name: str) -> Exporter:
    """The exporter of a format. Raises as `find_format`."""
    exporter: Exporter = importlib.import_module(f".{find_format(name).place}", __package__).exporter
    return exporter


def check_takes(name: str, settings: ExportSettings) -> None:
    """Raise SettingsError for a setting that was given and that the format does not take, with the reason."""
    takes = find_format(name).takes
    for setting in (f.name for f in fields(Takes)):
        value, answer = getattr(settings, setting), getattr(takes, setting)
        if answer is not True and value != ExportSettings.model_fields[setting].default:
            raise SettingsError(f"{setting}={value} with format={name}: {answer}; leave {setting} out")


def check_device(name: str, settings: ExportSettings, runs: bool) -> None:
    """Raise SettingsError for a device that could not run the artifact, which is compared there. runs: whether it is run on this machine at all."""
    known = find_format(name)
    named = (settings.device or "cpu").strip("[]() ,")
    on_gpu = named.isdigit() or named.startswith("cuda")
    if on_gpu and not known.gpu:
        fitting = ", ".join(n for n, f in FORMATS.items() if f.gpu)
        raise SettingsError(
            f"device={named} with format={name}: {known.title} models run on the CPU here; leave device out (formats for a GPU: {fitting})"
        )
    if runs or not on_gpu:
        select_device(named)


def check_needs(name: str, settings: ExportSettings) -> None:
    """Raise MissingDependencyError, with what to type, for the first package that is not installed."""
    known = find_format(name)
    for need in known.needs:
        wanted = need.setting is None or getattr(settings, need.setting)
        if wanted and importlib.util.find_spec(need.package) is None:
            what = f"export to {known.title}" + (f" with {need.setting}=true" if need.setting else "")
            raise MissingDependencyError(need.package, what, need.extra)
