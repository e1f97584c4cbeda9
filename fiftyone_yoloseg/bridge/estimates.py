"""What a form says before work begins: how long it may take, and how much memory and disk. What was never measured is said to be unknown.

Nothing here reads more than a few samples, or loads torch.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import psutil

from ..config import AUTO_BATCH, ConvertSettings, PredictSettings, TrainSettings
from .paces import Pace, device_kind, nearest
from .run_registry import maker

WEIGHTS = {"n": 13.6, "s": 47.2, "m": 109.0, "l": 184.0, "x": 287.3}
"""MB of float32 weights; a test compares them with the networks."""
ACTIVATIONS = {"n": 241, "s": 444, "m": 771, "l": 1169, "x": 1458}
"""MB that a training keeps of an image of 640 x 640 px in float32 (`engine.memory.estimate`)."""
_STATES = 5  # copies of the weights in memory, as in engine.memory
_SAVED = 8.5  # copies of the weights on disk while a training replaces its last.pt
_SAMPLED, _LOOKED = 20, 200  # samples whose files or labels are measured, of so many that are looked at
_MB, _GB = 1e6, 1e9
Line = str


def training(view: Any, model: str | None, settings: TrainSettings, folder: Path) -> list[Line]:
    """folder: where the run goes."""
    size, images = model_key(view, model), len(view)
    pace = None if size is None or settings.engine == "ray" else nearest("train", size, device_kind(settings.device), settings.imgsz)
    if pace is None:
        time = unknown("training", size, "the cluster" if settings.engine == "ray" else device_kind(settings.device))
    else:
        epoch = images * pace.at(settings.imgsz)
        time = f"about {duration(settings.epochs * epoch)} for {settings.epochs} epochs of {duration(epoch)} {source(pace, settings.imgsz)}"
    if settings.time:
        time += f"; at most {settings.time:g} h, as was set"
    lines = [f"Time: {time}"]
    if size in WEIGHTS:
        lines += [f"Memory: {_training_memory(size, images, settings)}", f"Disk: {_training_disk(size, images, settings, folder)}"]
    else:
        lines.append("Memory and disk: not known for this model file")
    return lines


def prediction(view: Any, model: str | None, settings: PredictSettings, fields: list[str]) -> list[Line]:
    """fields: those with masks; predictions will take about as much room as theirs."""
    size, images, run = model_key(view, model), len(view), maker(view, model)
    imgsz = max(settings.imgsz) if settings.imgsz else run.settings.imgsz if run else None
    pace = nearest("predict", size, device_kind(settings.device), imgsz) if size and imgsz else None
    if pace is None:
        lines = [f"Time and memory: {unknown('prediction', size, device_kind(settings.device))}"]
    else:
        speed = pace.at(imgsz or 0)
        lines = [f"Time: about {duration(images * speed)} at {1 / speed:.3g} images/s {source(pace, imgsz or 0)}"]
        used = [f"{room(pace.memory[key])} of {name}" for key, name in (("ram", "RAM"), ("gpu", "GPU memory")) if key in pace.memory]
        lines.append(f"Memory: {' and '.join(used)} that time" if used else "Memory: not known yet")
    taken = label_bytes(view, fields)
    disk = (
        "not known: no field has masks to go by"
        if taken is None
        else f"about {room(images * taken)} in the database, if it finds as much as `{fields[0]}` holds"
    )
    return [*lines, f"Disk: {disk}"]


def conversion(view: Any, settings: ConvertSettings, folder: Path) -> list[Line]:
    images = len(view)
    pace = nearest("convert", settings.media, "", 0)
    time = (
        unknown("conversion", None, f"media={settings.media}")
        if pace is None
        else f"about {duration(images * pace.seconds)} {source(pace, 0)}"
    )
    lines = [f"Time: {time}", "Memory: below 1 GB whatever the number of samples, they pass through one by one"]
    labels = label_bytes(view, [settings.label_field])
    files = image_bytes(view) if settings.media == "copy" else 0.0
    if labels is None or files is None:
        return [*lines, "Disk: not known: the first samples have no image or no label to go by"]
    what = "images and labels" if settings.media == "copy" else "labels only"
    return [*lines, f"Disk: about {room(images * (labels + files))} ({what}); {_free(folder)}"]


def model_key(view: Any, model: str | None) -> str | None:
    """The size of a network, as far as it can be told without opening its file; of an exported model its path."""
    if model is None:
        return None
    if named := re.search(r"yolov8([nsmlx])-seg", Path(model).name):
        return named[1]
    if Path(model).suffix != ".pt":
        return str(model)
    run = maker(view, model)
    return run.facts.get("size") if run else None


def unknown(what: str, size: str | None, where: str) -> str:
    return f"not known yet: no {what}{f' of a model of size {size}' if size in WEIGHTS else ''} with {where} was recorded on this machine"


def source(pace: Pace, imgsz: int) -> str:
    """Where an estimate comes from."""
    scaled = f", scaled from {pace.imgsz} px" if imgsz and pace.imgsz != imgsz else ""
    return f"(as on {pace.when}{f', {pace.device}' if pace.device else ''}{scaled})"


def label_bytes(view: Any, fields: list[str]) -> float | None:
    """Bytes that the labels of a sample take in the database: the mean of a few of the first samples that have some."""
    if not fields:
        return None
    stages = [
        {"$limit": _LOOKED}, {"$match": {fields[0]: {"$ne": None}}}, {"$limit": _SAMPLED}, {"$project": {"size": {"$bsonSize": f"${fields[0]}"}}},
    ]  # fmt: skip
    sizes = [document["size"] for document in view._aggregate(post_pipeline=stages)]
    return sum(sizes) / len(sizes) if sizes else None


def image_bytes(view: Any) -> float | None:
    """Bytes of an image file: the mean of a few."""
    files = [Path(file) for file in view.limit(_SAMPLED).values("filepath")]
    sizes = [file.stat().st_size for file in files if file.is_file()]
    return sum(sizes) / len(sizes) if sizes else None


def _training_memory(size: str, images: int, settings: TrainSettings) -> str:
    gpu = device_kind(settings.device).startswith("gpu")
    free = f"{room(psutil.virtual_memory().available)} of RAM free now"
    if settings.batch == AUTO_BATCH:
        need = "batch=-1 is chosen so that it fits"
    else:
        image = ACTIVATIONS[size] * (settings.imgsz / 640) ** 2 / (2 if gpu and settings.amp else 1)
        need = f"about {room((_STATES * WEIGHTS[size] + settings.batch * image) * _MB)} of {'GPU memory' if gpu else 'RAM'} to train"
    kept = f", and up to {room(_decoded(images, settings))} of RAM for decoded images" if settings.cache == "ram" else ""
    return f"{need}{kept}; {free}"


def _training_disk(size: str, images: int, settings: TrainSettings, folder: Path) -> str:
    saved = settings.epochs // settings.save_period if settings.save_period > 0 else 0
    files = (_SAVED + saved / 2) * WEIGHTS[size] * _MB  # epoch<n>.pt are in float16
    kept = f", and up to {room(_decoded(images, settings))} of decoded images in the cache folder" if settings.cache == "disk" else ""
    return f"up to {room(files)} of checkpoints while it runs{kept}; {_free(folder)}"


def _decoded(images: int, settings: TrainSettings) -> float:
    """Bytes of all images at training size, or of what the cache may take (`engine.prepare.image_cache`)."""
    whole = float(images * 3 * settings.imgsz**2)
    if settings.cache_gb:
        return min(whole, settings.cache_gb * _GB)
    return min(whole, psutil.virtual_memory().available / 4) if settings.cache == "ram" else whole


def _free(folder: Path) -> str:
    """Of the disk that a folder is or will be on."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))
    return f"{room(shutil.disk_usage(there).free)} free now"


def duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{hours} h"


def room(size: float) -> str:
    """Bytes as people say them."""
    return f"{size / _GB:.1f} GB" if size >= 0.95 * _GB else f"{max(size / _MB, 0.1):.{0 if size >= 10 * _MB else 1}f} MB"
