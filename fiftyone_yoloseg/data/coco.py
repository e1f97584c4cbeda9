"""COCO instance annotations as records, with the pixels that pycocotools gives them."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from ..errors import DataError
from ..geometry import masks
from ..geometry.rasterize import endless, polygons_to_mask
from ..types import CropMask, ImageRecord, InstanceRecord, Names, SegmentationData
from .files import read_text
from .images import image_size
from .packed import pack

Missing = Literal["error", "skip"]
Refused = Callable[[Path, "dict[str, Any] | None", DataError], None]
"""Told of an image that is left out, or of one annotation of it."""
SHOWN = 5


def load_coco(
    folder: Path | str, *, missing: Missing = "error", on_problem: Callable[[str, Path, Any, DataError], None] | None = None
) -> SegmentationData:
    """All annotations/instances_*.json of a COCO folder; instances_train2017.json is the split "train" of the folder train2017.

    Image folders lie beside `annotations` or in images/. Classes are the categories of all files by rising id, 0..nc-1.
    missing: what to do when images are not on the disk. on_problem: told (split, image, annotation or None, error) of each image and
    annotation that cannot be used, which are then left out. Raises DataError naming the file and the place.
    """
    folder = Path(folder)
    files = sorted((folder / "annotations").glob("instances_*.json")) or sorted(folder.glob("instances_*.json"))
    if not files:
        raise DataError(f"{folder}: there is no annotations/instances_*.json" if folder.is_dir() else f"{folder}: there is no such folder")
    loaded = {path: _load(path) for path in files}
    categories: dict[int, str] = {}
    for path, data in loaded.items():
        for index, name in _categories(data, path).items():
            if categories.setdefault(index, name) != name:
                raise DataError(f"{path}: category {index} is {name!r} here and {categories[index]!r} in another file")
    splits: dict[str, list[ImageRecord]] = {}
    for path, data in loaded.items():
        stem = path.stem.removeprefix("instances_")
        split = re.sub(r"[\d_-]+$", "", stem) or stem
        if split in splits:
            raise DataError(f"{path}: a second file for the split {split!r}")
        refused = partial(on_problem, split) if on_problem else None
        splits[split] = _records(data, path, _image_folder(folder, stem, split, data), categories, missing, refused)
    return SegmentationData(_names(categories), splits, str(folder))


def coco_records(json_path: Path | str, image_folder: Path | str, *, missing: Missing = "error") -> tuple[list[ImageRecord], Names]:
    """The images of one COCO file, in its order, and its class names. Raises DataError naming the file and the place."""
    path = Path(json_path)
    data = _load(path)
    categories = _categories(data, path)
    return _records(data, path, Path(image_folder), categories, missing), _names(categories)


def _names(categories: dict[int, str]) -> Names:
    return {i: categories[index] for i, index in enumerate(sorted(categories))}


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise DataError(f"{path}: is not a COCO file: it must be an object with images, annotations and categories")
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list) or not all(isinstance(item, dict) for item in data[key]):
            raise DataError(f"{path}: is not a COCO instances file: {key!r} is missing or not a list of objects")
    return data


def _categories(data: dict[str, Any], path: Path) -> dict[int, str]:
    try:
        found = {int(c["id"]): str(c["name"]) for c in data["categories"]}
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: each category needs a number as id and a name") from None
    if not found:
        raise DataError(f"{path}: has no categories")
    return found


def _image_folder(folder: Path, stem: str, split: str, data: dict[str, Any]) -> Path:
    """The first usual place that has one of the images."""
    candidates = [folder / name for name in (stem, f"images/{stem}", split, f"images/{split}", "images", "data", ".")]
    candidates = [c for c in candidates if c.is_dir()]
    names = [str(image.get("file_name")) for image in data["images"]]
    for candidate in candidates:
        if any((candidate / name).is_file() for name in names):
            return candidate
    return candidates[0]


def _records(
    data: dict[str, Any], path: Path, folder: Path, categories: dict[int, str], missing: Missing, refused: Refused | None = None
) -> list[ImageRecord]:
    classes = {index: i for i, index in enumerate(sorted(categories))}
    annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in data["annotations"]:
        annotations[_id(annotation, "image_id", path)].append(annotation)
    unknown = set(annotations) - {_id(image, "id", path) for image in data["images"]}
    if unknown:
        raise DataError(f"{path}: annotations of {len(unknown)} images that it does not list, such as image_id {next(iter(unknown))!r}")
    records, absent = [], []
    for image in data["images"]:
        name = image.get("file_name")
        if not isinstance(name, str):
            raise DataError(f"{path}: an image without file_name: {image!r}"[:300])
        if refused is None and not (folder / name).is_file():
            absent.append(name)
            continue
        try:
            height, width = _size(image, folder / name, path)
        except DataError as error:
            if refused is None:
                raise
            refused(folder / name, None, error)
            continue
        objects = []
        for annotation in annotations[image["id"]]:
            try:
                objects.append(_instance(annotation, path, height, width, classes))
            except DataError as error:
                if refused is None:
                    raise
                refused(folder / name, annotation, error)
        records.append(ImageRecord(folder / name, height, width, pack(objects)))
    if absent and (missing == "error" or not records):
        names = ", ".join(absent[:SHOWN]) + (", ..." if len(absent) > SHOWN else "")
        raise DataError(f"{path}: {len(absent)} of {len(data['images'])} images are missing in {folder}: {names}")
    if not data["images"]:
        raise DataError(f"{path}: lists no images")
    return records


def _size(image: dict[str, Any], file: Path, path: Path) -> tuple[int, int]:
    """(height, width) of an image, which must be what its entry says."""
    height, width = image_size(file)
    if (image.get("height") or height, image.get("width") or width) != (height, width):
        declared = f"{image.get('width')} x {image.get('height')}"
        raise DataError(f"{file}: is {width} x {height} pixels but {path.name} says {declared}; was it resized or turned?")
    return height, width


def _id(item: dict[str, Any], key: str, path: Path) -> int | str:
    value = item.get(key)
    if not isinstance(value, (int, str)):
        raise DataError(f"{path}: {key} must be a number: {item!r}"[:300])
    return value


def _instance(annotation: dict[str, Any], path: Path, height: int, width: int, classes: Mapping[Any, int]) -> InstanceRecord:
    where = f"{path}: annotation {annotation.get('id')}"
    category = _id(annotation, "category_id", path)
    if category not in classes:
        raise DataError(f"{where}: category_id {category!r} is not in the categories")
    try:
        mask = annotation_mask(annotation.get("segmentation"), height, width)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{where}: bad segmentation: {error}") from None
    box = mask.box
    if annotation.get("bbox") is not None:
        try:
            x, y, w, h = (float(v) for v in annotation["bbox"])
        except (TypeError, ValueError):
            raise DataError(f"{where}: bbox must be x, y, width, height") from None
        if not np.isfinite([x, y, w, h]).all():
            raise DataError(f"{where}: bbox holds a number that is not finite")
        box = (x, y, x + w, y + h)
    stated = annotation.get("area")
    area = float(stated) if isinstance(stated, (int, float)) and np.isfinite(stated) and stated >= 0 else None
    source = None if annotation.get("id") is None else str(annotation["id"])
    return InstanceRecord(classes[category], mask, box, crowd=bool(annotation.get("iscrowd")), source_id=source, area=area)


def annotation_mask(segmentation: Any, height: int, width: int) -> CropMask:
    """Polygons or RLE of COCO as the pixels of pycocotools. A shape so thin that those are none paints its lines instead.

    Raises ValueError if it is neither or does not fit an image of (height, width) pixels.
    """
    if isinstance(segmentation, dict):
        return masks.from_checked_rle(segmentation, height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("it is neither a list of polygons nor RLE; boxes alone cannot be used here")
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    arrays = [np.asarray(p, np.float64) for p in polygons]
    for array in arrays:
        if array.ndim != 1 or len(array) % 2 or len(array) < 4 or not np.isfinite(array).all():
            raise ValueError("a polygon must be a flat list of x, y pairs, three or more, all finite")
        if endless(array.reshape(-1, 2), height):
            raise ValueError("a polygon crosses itself without end, or reaches far out of the image: draw it anew, or remove it")
    drawn = [array.tolist() for array in arrays if len(array) >= 6]  # pycocotools takes 4 numbers for a box
    if drawn:
        mask = masks.from_coco_rle(coco_mask.merge(coco_mask.frPyObjects(drawn, height, width)))
        if mask.w:
            return mask
    return polygons_to_mask([array.reshape(-1, 2) for array in arrays], height, width)
