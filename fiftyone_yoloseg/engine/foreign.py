"""Official and Ultralytics-trained YOLOv8-seg checkpoints, read without executing anything of them.

A checkpoint is a zip archive: `data.pkl` describes Python objects, `data/<key>` hold the numbers. The description becomes inert
records (foreign_pickle.py); from these we take the network's tensors, after comparing every layer with our own network of the same
size. Whatever the answers depend on - kinds of layers, shapes, strides, activation, batch norm epsilon - must agree, or the file is
refused with the reason.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from ..nn.blocks import Bottleneck
from ..nn.model import YOLOv8Seg
from ..nn.scales import SCALES
from ..types import Names
from .foreign_archive import archive_of, open_archive, read_description, read_tensor
from .foreign_pickle import MAX_INT, Record, Refused, RefusedGlobal, TensorRef, read_pickle

OUR_FORMAT = "fiftyone-yoloseg"
"""Value of the key "format" in our own checkpoints."""

MAX_MODULES = 5000
MAX_DEPTH = 32
MAX_ENTRIES = 1000
MAX_TENSOR_BYTES = 2 << 30

_LAYERS = (
    "Conv", "Conv", "C2f", "Conv", "C2f", "Conv", "C2f", "Conv", "C2f", "SPPF", "Upsample", "Concat", "C2f", "Upsample", "Concat",
    "C2f", "Conv", "Concat", "C2f", "Conv", "Concat", "C2f", "Segment",
)  # fmt: skip
_TASKS = {
    "Detect": "detection",
    "Pose": "pose",
    "Classify": "classification",
    "OBB": "oriented boxes",
    "WorldDetect": "open-vocabulary detection",
}
_OTHER_ARCHITECTURES = {
    "C3": "YOLOv5",
    "C3k2": "YOLO11 or later",
    "C2PSA": "YOLO11 or later",
    "RepNCSPELAN4": "YOLOv9",
    "ELAN1": "YOLOv9",
    "C2fCIB": "YOLOv10",
}
_CONV_ATTRIBUTES = ("stride", "padding", "dilation", "groups")


@dataclass(frozen=True, slots=True)
class ForeignCheckpoint:
    """What we keep of a foreign checkpoint.

    state: keys of `YOLOv8Seg(nc, size).state_dict()`, float32 or int64, on the CPU.
    imgsz: training image size in pixels, if the file says so.  train_args: its plain values only.
    license, version: what the file says of itself.
    """

    state: dict[str, Tensor]
    names: Names
    nc: int
    size: str
    imgsz: int | None
    train_args: dict[str, Any]
    license: str | None
    version: str | None


def is_foreign(path: Path) -> bool:
    """False only for a file that is one of our own checkpoints (a dict whose "format" is ours); reads no weights."""
    try:
        with archive_of(path) as archive:
            top = read_pickle(read_description(archive)[1])
    except (OSError, EOFError, zipfile.BadZipFile, Refused, CheckpointError):
        return True
    return not (isinstance(top, dict) and top.get("format") == OUR_FORMAT)


def read_foreign(path: Path) -> ForeignCheckpoint:
    """Read a YOLOv8-seg checkpoint of the official format. Raises CheckpointError with the reason if it is anything else."""
    try:
        with open_archive(path) as archive:
            folder, description = read_description(archive)
            return _convert(read_pickle(description), archive, folder)
    except RefusedGlobal as error:
        raise CheckpointError(f"{path}: refused, nothing of it was executed: {error}.{_origin_hint(error.name)}") from None
    except Refused as error:
        raise CheckpointError(f"{path}: refused, nothing of it was executed: {error}") from None
    except CheckpointError as error:
        message = str(error)
        raise CheckpointError(message if message.startswith(str(path)) else f"{path}: {message}") from None
    except (zipfile.BadZipFile, EOFError) as error:
        raise CheckpointError(f"{path}: the file is truncated or damaged ({error}); copy or download it again") from None


def _origin_hint(name: str) -> str:
    if name.startswith("models."):
        return " This looks like a checkpoint of the YOLOv5, YOLOv7 or YOLOv9 repositories; only YOLOv8-seg can be read."
    return " Do not load this file with other tools unless you trust where it comes from."


def _convert(top: Any, archive: zipfile.ZipFile, folder: str) -> ForeignCheckpoint:
    root = _network(top)
    layers = _layers(root)
    modules = dict(_walk(root))
    refs = dict(_tensors(modules))
    size, nc = _size(layers, refs), _class_count(refs)
    with torch.device("meta"):
        expected = YOLOv8Seg(nc, size)
    _compare_entries(refs, {key: tuple(value.shape) for key, value in expected.state_dict().items()}, size, nc)
    _compare_modules(modules, expected)
    state = {key: read_tensor(archive, folder, refs[key]) for key in expected.state_dict()}
    broken = [key for key, value in state.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{len(broken)} of its tensors hold values that are not finite, the first is {broken[0]}: the training diverged"
        )
    train_args = _plain(_attributes(top.get("train_args")) or _attributes(root.state.get("args")))
    return ForeignCheckpoint(
        state=state,
        names=_names(root.state.get("names"), nc),
        nc=nc,
        size=size,
        imgsz=_image_size(train_args.get("imgsz")),
        train_args=train_args,
        license=_text(top.get("license")),
        version=_text(top.get("version")),
    )


def _network(top: Any) -> Record:
    if not isinstance(top, dict):
        raise CheckpointError("not a YOLOv8-seg checkpoint: it holds no dict with a model")
    if top.get("format") == OUR_FORMAT:
        raise CheckpointError("this is one of our own checkpoints, not a foreign one")
    for key in ("ema", "model"):  # during training the averaged weights are the model; after it only `model` is left
        if isinstance(top.get(key), Record):
            network: Record = top[key]
            return network
    if any(isinstance(value, TensorRef) for value in top.values()) or any(isinstance(top.get(k), dict) for k in ("model", "state_dict")):
        raise CheckpointError("it holds bare weights without a model, so class names and task are unknown; use the full checkpoint")
    raise CheckpointError(
        f"not a YOLOv8-seg checkpoint: no model in it (it has {', '.join(str(key)[:40] for key in list(top)[:8]) or 'nothing'})"
    )


def _layers(root: Record) -> list[Record]:
    """The 22 numbered layers and the head, each of the expected kind."""
    sequence = _children(root).get("model")
    if not isinstance(sequence, Record):
        raise CheckpointError(f"not a YOLOv8-seg checkpoint: its model is a {root.kind} without numbered layers")
    children = _children(sequence)
    layers = [child for child in children.values() if isinstance(child, Record)]
    kinds = [layer.short_kind for layer in layers]
    if kinds and kinds[-1] in _TASKS:
        raise CheckpointError(f"this is a {_TASKS[kinds[-1]]} model (its head is {kinds[-1]}); a segmentation model is needed")
    if list(children) != [str(i) for i in range(len(layers))] or len(layers) != len(_LAYERS) or tuple(kinds) != _LAYERS:
        known = next((name for kind, name in _OTHER_ARCHITECTURES.items() if kind in kinds), None)
        different = next((i for i, (kind, wanted) in enumerate(zip(kinds, _LAYERS, strict=False)) if kind != wanted), None)
        what = f"{len(layers)} layers where YOLOv8-seg has {len(_LAYERS)}"
        if different is not None:
            what = f"layer {different} is {kinds[different]} where YOLOv8-seg has {_LAYERS[different]}"
        raise CheckpointError(f"its network is not YOLOv8-seg{f' but {known}' if known else ''}: {what}")
    return layers


def _walk(root: Record) -> Iterator[tuple[str, Record]]:
    """All modules by their dotted names, as torch's named_modules() but with those that occur twice given twice."""
    stack, count = [("", root, 0)], 0
    while stack:
        prefix, module, depth = stack.pop()
        yield prefix, module
        count += 1
        if depth > MAX_DEPTH or count > MAX_MODULES:
            raise CheckpointError(f"its model is nested deeper than {MAX_DEPTH} or has more than {MAX_MODULES} modules")
        for name, child in _children(module).items():
            if isinstance(child, Record):
                stack.append((f"{prefix}.{name}" if prefix else name, child, depth + 1))


def _children(module: Record) -> dict[str, Any]:
    return _entries(module, "_modules")


def _entries(module: Record, group: str) -> dict[str, Any]:
    """_modules, _parameters or _buffers. Bounded, because one dict may occur in many modules."""
    entries = module.state.get(group)
    if not isinstance(entries, dict):
        return {}
    if len(entries) > MAX_ENTRIES or not all(isinstance(name, str) and len(name) < 100 for name in entries):
        raise CheckpointError(f"a {module.short_kind[:50]} of its model has more than {MAX_ENTRIES} {group[1:]}, or odd names for them")
    return entries


def _tensors(modules: dict[str, Record]) -> Iterator[tuple[str, TensorRef]]:
    for prefix, module in modules.items():
        skipped = module.state.get("_non_persistent_buffers_set")
        skipped = skipped.args[0] if isinstance(skipped, Record) and skipped.args else skipped
        skipped = skipped if isinstance(skipped, list) and len(skipped) <= MAX_ENTRIES else []
        for group in ("_parameters", "_buffers"):
            for name, value in _entries(module, group).items():
                if isinstance(value, TensorRef) and not (group == "_buffers" and name in skipped):
                    yield f"{prefix}.{name}" if prefix else name, value


def _size(layers: list[Record], refs: dict[str, TensorRef]) -> str:
    """The size whose width fits the first convolution and whose depth fits the C2f blocks."""
    shape = _shape(refs, "model.0.conv.weight", 4)
    repeats = [len(_children(m)) if isinstance(m := _children(layers[i]).get("m"), Record) else 0 for i in (2, 4)]
    for size, scale in SCALES.items():
        if shape[0] == scale.channels(64) and repeats == [scale.repeats(3), scale.repeats(6)]:
            return size
    raise CheckpointError(
        f"its network has {shape[0]} channels in layer 0 and {repeats[0]} and {repeats[1]} repeats in layers 2 and 4: "
        f"none of the YOLOv8-seg sizes {', '.join(SCALES)}"
    )


def _class_count(refs: dict[str, TensorRef]) -> int:
    nc = _shape(refs, "model.22.cv3.0.2.weight", 4)[0]
    if not 1 <= nc <= 100_000:
        raise CheckpointError(f"its head has {nc} classes")
    return nc


def _shape(refs: dict[str, TensorRef], key: str, dims: int) -> tuple[int, ...]:
    if key not in refs or len(refs[key].shape) != dims:
        raise CheckpointError(f"its network has no usable {key}")
    return refs[key].shape


def _compare_entries(refs: dict[str, TensorRef], expected: dict[str, tuple[int, ...]], size: str, nc: int) -> None:
    what = f"its weights are not those of a YOLOv8{size}-seg with {nc} classes"
    missing, extra = [key for key in expected if key not in refs], [key for key in refs if key not in expected]
    if missing or extra:
        if missing and all(".bn." in key for key in missing):
            raise CheckpointError(f"{what}: its batch norms were folded into the convolutions; use the checkpoint from before that")
        raise CheckpointError(
            "; ".join([what, *(f"{len(k)} {word} ({_some(k)})" for k, word in ((missing, "missing"), (extra, "not known")) if k)])
        )
    wrong = [f"{key} has shape {refs[key].shape} where {shape} is needed" for key, shape in expected.items() if refs[key].shape != shape]
    if wrong:
        raise CheckpointError(f"{what}: {_some(wrong)}")
    if sum(refs[key].storage.numel * refs[key].storage.dtype.itemsize for key in expected) > MAX_TENSOR_BYTES:
        raise CheckpointError(f"its weights are views of more than {MAX_TENSOR_BYTES:,} bytes of data")


def _compare_modules(modules: dict[str, Record], expected: YOLOv8Seg) -> None:
    """Everything besides the weights that changes the answers."""
    for name, module in expected.named_modules():
        record = modules.get(name)
        if record is None:
            continue
        state = record.state
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            for attribute in _CONV_ATTRIBUTES:
                ours, theirs = getattr(module, attribute), state.get(attribute)
                if theirs is not None and theirs != ours:
                    raise CheckpointError(f"its layer {name} has {attribute} {_show(theirs)} where YOLOv8-seg has {ours}")
        elif isinstance(module, nn.BatchNorm2d) and state.get("eps", module.eps) != module.eps:
            raise CheckpointError(f"its layer {name} has batch norm epsilon {_show(state['eps'])} where YOLOv8-seg has {module.eps}")
        elif isinstance(module, nn.SiLU) and record.short_kind != "SiLU":
            raise CheckpointError(f"its layer {name} is the activation {record.short_kind} where YOLOv8-seg has SiLU")
        elif isinstance(module, Bottleneck) and state.get("add", module.residual) != module.residual:
            raise CheckpointError(f"its layer {name} has {'a' if state['add'] else 'no'} residual connection, unlike YOLOv8-seg")


def _show(value: Any) -> str:
    """Only what is surely short: printing nested tuples of a hostile file can take forever."""
    items = value if isinstance(value, tuple) and len(value) < 8 else (value,)
    return str(value) if all(isinstance(item, float) or _is_plain_int(item) for item in items) else f"a {type(value).__name__}"


def _some(items: list[str]) -> str:
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")


# What the file says of itself ----------------------------------------------------------------------------------------


def _names(value: Any, nc: int) -> Names:
    """A list, or a dict from index to name."""
    names = dict(enumerate(value)) if isinstance(value, list | tuple) else value
    if (
        not isinstance(names, dict)
        or set(names) != set(range(nc))
        or not all(isinstance(n, str) or _is_plain_int(n) for n in names.values())
    ):
        raise CheckpointError(f"its class names do not fit its {nc} classes")
    return {i: str(names[i]) for i in range(nc)}


def _attributes(value: Any) -> dict[Any, Any]:
    """A settings dict, or the attributes of a settings object."""
    value = value.state if isinstance(value, Record) else value
    return value if isinstance(value, dict) else {}


def _plain(settings: dict[Any, Any]) -> dict[str, Any]:
    """Those values that JSON knows, and lists of them."""
    return {key: value for key, value in settings.items() if isinstance(key, str) and (_is_plain(value) or _is_plain_list(value))}


def _is_plain(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str) or _is_plain_int(value)


def _is_plain_int(value: Any) -> bool:
    return isinstance(value, int) and -MAX_INT < value < MAX_INT


def _is_plain_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 1000 and all(map(_is_plain, value))


def _image_size(value: Any) -> int | None:
    sides = value if isinstance(value, list) else [value]
    sides = [side for side in sides if isinstance(side, int) and not isinstance(side, bool) and 32 <= side <= 8192]
    return -(-max(sides) // 32) * 32 if sides else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and len(value) < 10_000 else None
