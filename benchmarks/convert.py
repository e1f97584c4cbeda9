"""Conversion of the 160 images of coco_tiny beside FiftyOne's own YOLOv5 exporter with masks, images copied by both. Prints JSON.

uv run python benchmarks/convert.py [runs] [copies]

copies: how many times the images are in the dataset, each time as other files. From 500 samples on our conversion uses all cores.

What is compared: seconds (the best of the runs, which alternate), objects that come back, and the mask IoU of what a reader of the files gets:
ours by our reader and by plain cv2.fillPoly with truncated and with rounded vertices, outline=edge by pycocotools; FiftyOne's by its own importer.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import DATA

from fiftyone_yoloseg.bridge.database import private_database
from fiftyone_yoloseg.geometry import masks

SPLITS = ("train", "val")


def dataset(fo: Any, copies: Path, n: int) -> Any:
    made = fo.Dataset()
    for i, split in itertools.product(range(n), SPLITS):
        made.add_dir(
            dataset_type=fo.types.COCODetectionDataset,
            data_path=str(shutil.copytree(DATA / "coco_tiny" / f"{split}2017", copies / f"{split}-{i}")),
            labels_path=str(DATA / "coco_tiny" / "annotations" / f"instances_{split}2017.json"),
            label_field="ground_truth",
            label_types="segmentations",
            tags=split,
            progress=False,
        )
    return made


def truth(data: Any) -> Iterator[tuple[str, int, int, list[masks.CropMask]]]:
    """(file stem, height, width, masks without crowds) of each image."""
    from fiftyone_yoloseg.bridge.read import view_records

    for record in view_records(data, "ground_truth").records:
        yield record.path.stem, record.height, record.width, [i.mask for i in record.instances if not i.crowd]


def fill(points: np.ndarray, height: int, width: int) -> masks.CropMask:
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [points.astype(np.int32)], 1)
    return masks.from_bitmap(canvas)


def coco_fill(points: np.ndarray, height: int, width: int) -> masks.CropMask:
    from pycocotools import mask as coco_mask

    return masks.from_coco_rle(coco_mask.merge(coco_mask.frPyObjects([points.ravel().tolist()], height, width)))


READERS: dict[str, Callable[[np.ndarray, int, int], masks.CropMask]] = {
    "cv2.fillPoly, truncated": lambda p, h, w: fill(np.trunc(p), h, w),
    "cv2.fillPoly, rounded": lambda p, h, w: fill(np.rint(p), h, w),
    "pycocotools": coco_fill,
}


def read_by_others(folder: Path, data: Any, readers: list[str]) -> dict[str, dict[str, float]]:
    """Row by row: one row is one object, in the order of the labels."""
    found: dict[str, list[float]] = {name: [] for name in readers}
    for stem, height, width, wanted in truth(data):
        rows = next((folder / "labels").rglob(f"{stem}.txt")).read_text().splitlines()
        for row, mask in zip(rows, wanted, strict=True):
            points = np.array(row.split()[1:], float).reshape(-1, 2) * [width, height]
            for name in readers:
                found[name].append(float(masks.iou([READERS[name](points, height, width)], [mask])[0, 0]))
    return {name: {"objects": len(v), "mean IoU": float(np.mean(v)), "min IoU": float(np.min(v))} for name, v in found.items()}


def fiftyone_round_trip(fo: Any, folder: Path, data: Any) -> dict[str, float]:
    """Each object's best IoU with what FiftyOne's importer makes of FiftyOne's files."""
    back = fo.Dataset()
    for split in SPLITS:
        back.add_dir(dataset_dir=str(folder), dataset_type=fo.types.YOLOv5Dataset, split=split, label_type="instances", progress=False)
    from fiftyone_yoloseg.bridge.read import view_records

    field = next(name for name in back.get_field_schema(embedded_doc_type=fo.Detections))
    read = {r.path.stem: [i.mask for i in r.instances] for r in view_records(back, field, maskless="skip").records}
    best = [float(masks.iou([mask], read[stem]).max()) if read.get(stem) else 0.0 for stem, _, _, wanted in truth(data) for mask in wanted]
    return {
        "objects": sum(map(len, read.values())),
        "mean IoU": float(np.mean(best)),
        "share below 0.9": float(np.mean(np.array(best) < 0.9)),
    }


@private_database()
def main(runs: int, copies: int = 1) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        import fiftyone as fo

        from fiftyone_yoloseg.bridge.convert import convert

        fo.config.show_progress_bars = False
        data = dataset(fo, root / "images", copies)
        classes = data.distinct("ground_truth.detections.label")

        def ours(folder: Path) -> Any:
            return convert(data, folder, classes=classes, split="tags", media="copy")

        def theirs(folder: Path) -> None:
            for split in SPLITS:
                data.match_tags(split).export(
                    export_dir=str(folder), dataset_type=fo.types.YOLOv5Dataset, label_field="ground_truth",
                    split=split, classes=classes, use_masks=True, export_media=True,
                )  # fmt: skip

        seconds: dict[str, list[float]] = {"ours": [], "fiftyone": []}
        for i in range(runs):
            for name, work in (("fiftyone", theirs), ("ours", ours)):
                start = time.perf_counter()
                work(root / f"{name}-{i}")  # nothing is removed before the end: ext4 creates files slowly where many were just removed
                seconds[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        report = ours(root / "ours-0")
        again = time.perf_counter() - start
        readers = read_by_others(root / "ours-0", data, ["cv2.fillPoly, truncated", "cv2.fillPoly, rounded"])
        edge = convert(data, root / "edge", classes=classes, split="tags", media="symlink", outline="edge")
        best = {name: min(values) for name, values in seconds.items()}
        print(
            json.dumps(
                {
                    "images": len(data), "objects": report.objects, "rows": report.rows, "crowds left out": len(report.dropped),
                    "seconds": {name: [round(v, 3) for v in values] for name, values in seconds.items()},
                    "times faster than fiftyone": round(best["fiftyone"] / best["ours"], 1),
                    "seconds again, nothing changed": round(again, 3),
                    "ours": {"our reader": {"objects": report.rows, "mean IoU": report.mean_iou, "min IoU": report.min_iou}, **readers},
                    "ours, outline=edge": {
                        "our reader": {"mean IoU": edge.mean_iou, "min IoU": edge.min_iou},
                        **read_by_others(root / "edge", data, ["pycocotools"]),
                    },
                    "fiftyone": fiftyone_round_trip(fo, root / "fiftyone-0", data),
                },
                indent=2,
            )
        )  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:] or ["5"]))
