"""What tests of evaluations share: predictions of every quality, and pycocotools' own evaluation of them."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.types import CropMask, ImageRecord, Instances


def perturbed(record: ImageRecord, nc: int, rng: np.random.Generator) -> Instances:
    """Labels, moved, some of another class, some left out, some twice: predictions of every quality."""
    boxes, scores, classes, found = [], [], [], []
    for label in record.instances:
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            m, reach = label.mask, max(1, label.mask.w // 6)
            x = int(np.clip(m.x + rng.integers(-reach, reach + 1), 0, record.width - m.w))
            y = int(np.clip(m.y + rng.integers(-reach, reach + 1), 0, record.height - m.h))
            found.append(CropMask(x, y, m.w, m.h, m.counts))
            boxes.append(np.clip(np.array(label.box) + rng.normal(0, reach / 2, 4), 0, [record.width, record.height] * 2))
            classes.append(label.cls if rng.random() < 0.9 else int(rng.integers(nc)))
            scores.append(rng.random())
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
    return Instances(record.height, record.width, corners, np.array(scores, np.float32), np.array(classes, np.int64), found)


def coco_eval(pairs: list[tuple[ImageRecord, Instances]], names: dict[int, str], kind: str) -> COCOeval:
    """pycocotools' own evaluation of records, before its averages."""
    labels: list[dict[str, object]] = []
    found: list[dict[str, object]] = []
    images = [{"id": i, "height": record.height, "width": record.width} for i, (record, _) in enumerate(pairs, 1)]

    def add(to: list[dict[str, object]], image: int, cls: int, box: list[float], mask: CropMask, area: float, **more: object) -> None:
        x1, y1, x2, y2 = box
        rle = masks.to_coco_rle(mask, images[image - 1]["height"], images[image - 1]["width"])
        common = {"id": len(to) + 1, "image_id": image, "category_id": cls, "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": rle}
        to.append({**common, "area": area, "iscrowd": 0, **more})

    for i, (record, instances) in enumerate(pairs, 1):
        for label in record.instances:
            area = label.area if label.area is not None else masks.area(label.mask)
            add(labels, i, label.cls, list(label.box), label.mask, area, iscrowd=int(label.crowd))
        for box, score, cls, mask in zip(
            instances.boxes.tolist(), instances.confidences.tolist(), instances.classes.tolist(), instances.masks, strict=True
        ):
            area = masks.area(mask) if kind == "segm" else (box[2] - box[0]) * (box[3] - box[1])
            add(found, i, cls, box, mask, area, score=score)
    both = []
    with contextlib.redirect_stdout(io.StringIO()):
        for annotations in (labels, found):
            coco = COCO()
            coco.dataset = {"images": images, "annotations": annotations, "categories": [{"id": i} for i in names]}
            coco.createIndex()
            both.append(coco)
        evaluation = COCOeval(*both, kind)
        evaluation.evaluate()
    return evaluation
