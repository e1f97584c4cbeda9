"""Checkpoints: our own files, and the way in for official ones.

A file of ours is a dict of tensors and JSON-able values, read with `torch.load(weights_only=True)`; docs/checkpoint.md lists its
keys. Official and Ultralytics-trained files are read by `foreign`, which executes nothing.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import __version__
from ..errors import CheckpointError
from ..nn.model import YOLOv8Seg
from ..nn.scales import SCALES
from ..types import ModelInfo, Names
from .foreign import OUR_FORMAT, is_foreign, read_foreign

FORMAT_VERSION = 1
T = TypeVar("T")
NEW_MODEL = re.compile(r"yolov8([nsmlx])-seg(\.yaml)?")


Stamp = tuple[int, int, int]
"""Inode, bytes and nanosecond of the last change: another file under the same name, or another content, has another one."""


def stamp_of(path: Path) -> Stamp | None:
    """None if there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(slots=True)
class Checkpoint:
    """A network and what is known of it.

    net: on the CPU, float32, in eval mode.  imgsz: training size.  origin: where the weights come from, for provenance.
    train: state of an interrupted training (optimizer, counters), if the file holds one.
    """

    net: YOLOv8Seg
    names: Names
    imgsz: int = 640
    train_args: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    origin: str = "random weights"
    metrics: dict[str, float] = field(default_factory=dict)
    train: dict[str, Any] | None = None
    stamp: Stamp | None = None
    """Which file `path` was when the network was read from it."""

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(self.names, (self.imgsz, self.imgsz))

    @property
    def trained(self) -> bool:
        return self.path is not None


def new_checkpoint(name: str = "yolov8n-seg.yaml", names: Names | None = None) -> Checkpoint:
    """An untrained network: yolov8{n,s,m,l,x}-seg.yaml. Without names it has the 80 places of COCO."""
    match = NEW_MODEL.fullmatch(name)
    if not match:
        raise CheckpointError(
            f"{name!r} is no model that we know: use yolov8{{{','.join(SCALES)}}}-seg.yaml for a new one, or a path to a .pt file"
        )
    names = names or {i: f"class{i}" for i in range(80)}
    return Checkpoint(YOLOv8Seg(len(names), match[1]).eval(), dict(names))


def save_checkpoint(
    path: Path,
    net: YOLOv8Seg,
    *,
    names: Names,
    imgsz: int,
    train_args: Mapping[str, Any],
    origin: str,
    metrics: Mapping[str, float] | None = None,
    train: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, complete or not at all. Weights are stored in float32 while training goes on, else in float16."""
    half = train is None
    state = {
        k: v.detach().cpu().half() if half and v.is_floating_point() else v.detach().cpu().clone() for k, v in net.state_dict().items()
    }
    content = {
        "format": OUR_FORMAT,
        "format_version": FORMAT_VERSION,
        "version": __version__,
        "license": "the weights belong to whoever trained them; see origin",
        "origin": origin,
        "task": "segment",
        "size": net.size,
        "names": dict(names),
        "imgsz": imgsz,
        "train_args": dict(train_args),
        "metrics": dict(metrics or {}),
        "model": state,
        "train": dict(train) if train is not None else None,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(content, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a .pt file, ours or an official YOLOv8-seg one. Nothing in it is executed.

    Raises CheckpointError if it is missing, damaged, of another task or architecture, or wants to run code.
    """
    path = Path(path)
    if not path.is_file():
        hint = ""
        if match := NEW_MODEL.match(path.name):
            hint = f". We ship no weights (the official ones are AGPL-3.0): use yolov8{match[1]}-seg.yaml for a new network, or give the path of a file that you have"
        elif path.name == "last.pt" and path.parent.is_dir():
            hint = ": this run ended before its first epoch was complete, so there is nothing to go on from; start it anew"
        raise CheckpointError(f"{path}: no such file{hint}")
    stamp = stamp_of(path)  # before it is read: a file that a training replaces meanwhile is another one
    if is_foreign(path):
        foreign = read_foreign(path)
        net = YOLOv8Seg(foreign.nc, foreign.size)
        _load_state(net, foreign.state, path)
        origin = f"{path.name}, Ultralytics file format {foreign.version or '?'}; licence in the file: {(foreign.license or 'none').strip().splitlines()[0]}"
        return Checkpoint(net.eval(), foreign.names, foreign.imgsz or 640, foreign.train_args, path, origin, stamp=stamp)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for a damaged or hostile file; none of them is a defect of ours
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({reason}). It may be truncated, or hold something other than tensors and plain values, which we refuse to load"
        ) from None
    if not isinstance(content, dict) or content.get("format") != OUR_FORMAT:
        raise CheckpointError(f"{path}: a torch file, but not a YOLOv8-seg checkpoint")
    version = _entry(content, "format_version", int, path)
    if version > FORMAT_VERSION:
        raise CheckpointError(f"{path}: written by a newer fiftyone-yoloseg ({content.get('version')}): pip install -U fiftyone-yoloseg")
    names, size = _entry(content, "names", dict, path), _entry(content, "size", str, path)
    if list(names) != list(range(len(names))) or not names or size not in SCALES:
        raise CheckpointError(f"{path}: damaged checkpoint, size {size!r} with classes {list(names)[:10]}")
    net = YOLOv8Seg(len(names), size)
    _load_state(net, _entry(content, "model", dict, path), path)
    return Checkpoint(
        net.eval(),
        {k: str(v) for k, v in names.items()},
        _entry(content, "imgsz", int, path),
        _entry(content, "train_args", dict, path),
        path,
        _entry(content, "origin", str, path),
        _entry(content, "metrics", dict, path),
        None if content.get("train") is None else _entry(content, "train", dict, path),
        stamp,
    )


def _entry(content: Mapping[str, Any], key: str, kind: type[T], path: Path) -> T:
    """An entry of one of our files. Raises CheckpointError if it is missing or of another kind."""
    value = content.get(key)
    if not isinstance(value, kind):
        raise CheckpointError(
            f"{path}: damaged checkpoint, {key!r} is " + ("missing" if key not in content else f"a {type(value).__name__}")
        )
    return value


def _load_state(net: YOLOv8Seg, state: Mapping[str, Tensor], path: Path) -> None:
    own = net.state_dict()
    wrong = [k for k in own if not isinstance(state.get(k), Tensor) or state[k].shape != own[k].shape] + [k for k in state if k not in own]
    if wrong:
        raise CheckpointError(
            f"{path}: weights do not fit a YOLOv8{net.size}-seg network: {len(wrong)} tensors differ, the first is {wrong[0]!r}"
        )
    net.load_state_dict({k: v.to(own[k].dtype) for k, v in state.items()})


def fit_to_classes(checkpoint: Checkpoint, names: Names) -> tuple[YOLOv8Seg, list[str]]:
    """A new network for other classes, with every weight that fits, and the keys of those that did not.

    Random weights are drawn anew, so that they depend on the seed of the training. Rows of the class scores are kept by class
    name, so that a class that both know is not forgotten.
    """
    if checkpoint.trained and list(names.values()) == list(checkpoint.names.values()):
        return copy.deepcopy(checkpoint.net), []
    net = YOLOv8Seg(len(names), checkpoint.net.size)
    if not checkpoint.trained:
        return net.eval(), []
    old, new = checkpoint.net.state_dict(), net.state_dict()
    rows_of_classes = re.compile(r"cv3\.\d\.2\.")
    fitting = {k: v for k, v in old.items() if v.shape == new[k].shape and not rows_of_classes.search(k)}
    known = {name: i for i, name in checkpoint.names.items()}
    rows = [(i, known[name]) for i, name in names.items() if name in known]
    for key in new.keys() - fitting.keys():
        if rows_of_classes.search(key) and new[key].shape[1:] == old[key].shape[1:]:
            for target, source in rows:
                new[key][target] = old[key][source]
    net.load_state_dict({**new, **fitting})
    return net.eval(), sorted(new.keys() - fitting.keys())
