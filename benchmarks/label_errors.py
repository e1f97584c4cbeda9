"""How well `find_label_errors` finds labels that were made wrong on purpose. Prints JSON.

uv run python benchmarks/label_errors.py [seed ...]      default: seeds 1 to 5; thresholds and formulas were settled on seed 0

Every seed corrupts 5 % of the labels in each of six ways, each label in one way at most. precision@k: share of true finds among the k most suspicious of a kind, k
being the number of labels corrupted in that way (fewer where there are not enough neighbours to merge). random: what as many labels (for missing:
predictions of at least 0.05) drawn by chance would reach.

- coco_tiny: 160 images. NO checkpoint saw these images from outside: the predictions are SIMULATED from the clean labels - see `simulate`.
- shapes: 64 validation images; the predictions are those of peer/yolov8n-seg-shapes.pt, trained on the 256 training images only. Nothing is simulated.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from common import DATA, coco_tiny, shapes

from fiftyone_yoloseg.bridge.database import private_database
from fiftyone_yoloseg.engine.label_errors import KINDS, LabelErrors, Suspect
from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.types import CropMask, ImageRecord, InstanceRecord, Instances

SHARE = 0.05
Rng = np.random.Generator


@dataclass
class Corrupted:
    """truth: for each kind, of each corrupted label its image, its ids (source_id), and for a missing one its mask and class."""

    records: list[ImageRecord]
    truth: dict[str, list[tuple[int, set[str], InstanceRecord]]]


def corrupt(records: Sequence[ImageRecord], nc: int, rng: Rng, share: float = SHARE) -> Corrupted:
    lists = [[replace(o, source_id=f"{i}.{j}") for j, o in enumerate(r.instances)] for i, r in enumerate(records)]
    free = [(i, o) for i, objects in enumerate(lists) for o in objects if not o.crowd and o.mask.w]
    count = round(share * len(free))
    truth: dict[str, list[tuple[int, set[str], InstanceRecord]]] = {kind: [] for kind in KINDS}
    used: set[str] = set()
    order = [free[k] for k in rng.permutation(len(free))]
    areas = {str(o.source_id): masks.area(o.mask) for _, o in free}

    def swap(i: int, old: InstanceRecord, new: list[InstanceRecord]) -> None:
        at = lists[i].index(old)
        lists[i][at : at + 1] = new

    for i, o in order:  # neighbours of one class become one label
        if len(truth["merged"]) == count or o.source_id in used:
            continue
        near = [p for p in lists[i] if p.cls == o.cls and p is not o and not p.crowd and p.source_id not in used and neighbours(o, p)]
        if near:
            p = near[int(rng.integers(len(near)))]
            used |= {str(o.source_id), str(p.source_id)}
            both = with_mask(o, join(o.mask, p.mask))
            lists[i].remove(p)
            swap(i, o, [both])
            truth["merged"].append((i, {str(o.source_id)}, both))
    for kind in ("split", "sloppy", "wrong_class", "missing"):
        for i, o in order:
            if len(truth[kind]) == count:
                break
            if o.source_id in used:
                continue
            if kind == "split":
                halves = cut(o, rng) if areas[str(o.source_id)] >= 100 else []
                if len(halves) < 2:
                    continue
                swap(i, o, halves)
                ids = {str(h.source_id) for h in halves}
            elif kind == "sloppy":
                rough = roughen(o, records[i], rng)
                if rough is None:
                    continue
                swap(i, o, [rough])
                ids = {str(o.source_id)}
            elif kind == "wrong_class":
                swap(i, o, [replace(o, cls=int((o.cls + 1 + rng.integers(nc - 1)) % nc))])
                ids = {str(o.source_id)}
            else:
                lists[i].remove(o)
                ids = set()
            used.add(str(o.source_id))
            truth[kind].append((i, ids, o))
    for n in range(count):  # a shape from elsewhere, at a random place of another image
        _, o = free[int(rng.integers(len(free)))]
        i = int(rng.integers(len(records)))
        moved = place(o.mask, records[i], rng)
        if moved is not None:
            stray = replace(with_mask(o, moved), source_id=f"spurious.{n}")
            lists[i].append(stray)
            truth["spurious"].append((i, {str(stray.source_id)}, stray))
    return Corrupted([replace(r, instances=tuple(lists[i])) for i, r in enumerate(records)], truth)


def with_mask(o: InstanceRecord, mask: CropMask) -> InstanceRecord:
    return replace(o, mask=mask, box=mask.box, area=None)


def crop(mask: CropMask) -> masks.Crop:
    return masks.crop_bitmap(mask), mask.x, mask.y


def join(a: CropMask, b: CropMask) -> CropMask:
    return masks.from_bitmap(*masks.union([crop(a), crop(b)]))


def neighbours(a: InstanceRecord, b: InstanceRecord) -> bool:
    """Whether the gap between the boxes is at most a quarter of the smaller one's longer side, and neither has under a fifth of the other's area."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.mask.box, b.mask.box
    gap = max(bx1 - ax2, ax1 - bx2, by1 - ay2, ay1 - by2)
    sizes = sorted((masks.area(a.mask), masks.area(b.mask)))
    return gap <= 0.25 * min(max(a.mask.w, a.mask.h), max(b.mask.w, b.mask.h)) and sizes[0] * 5 >= sizes[1]


def cut(o: InstanceRecord, rng: Rng) -> list[InstanceRecord]:
    """Two labels, cut across the longer side somewhere in its middle third."""
    bits = masks.crop_bitmap(o.mask)
    wide = o.mask.w >= o.mask.h
    at = round(float(rng.uniform(0.35, 0.65)) * max(o.mask.w, o.mask.h))
    first, second = (bits[:, :at], bits[:, at:]) if wide else (bits[:at], bits[at:])
    parts = [masks.from_bitmap(first, o.mask.x, o.mask.y),
             masks.from_bitmap(second, o.mask.x + (at if wide else 0), o.mask.y + (0 if wide else at))]  # fmt: skip
    return [replace(with_mask(o, m), source_id=f"{o.source_id}{n}") for n, m in zip("ab", parts, strict=True) if m.w]


def inside(bits: np.ndarray, x: int, y: int, height: int, width: int) -> CropMask:
    """A bitmap at x, y, without what lies outside the image."""
    left, top = max(-x, 0), max(-y, 0)
    return masks.from_bitmap(bits[top : max(height - y, 0), left : max(width - x, 0)], x + left, y + top)


def shifted(mask: CropMask, dx: int, dy: int, height: int, width: int) -> CropMask:
    return inside(masks.crop_bitmap(mask), mask.x + dx, mask.y + dy, height, width)


def grown(mask: CropMask, pixels: int, height: int, width: int) -> CropMask:
    """Dilated (pixels > 0) or eroded by a disc."""
    n = abs(pixels)
    if n == 0:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * n + 1,) * 2)
    bits = np.pad(masks.crop_bitmap(mask), n)
    return inside(cv2.dilate(bits, kernel) if pixels > 0 else cv2.erode(bits, kernel), mask.x - n, mask.y - n, height, width)


def roughen(o: InstanceRecord, record: ImageRecord, rng: Rng) -> InstanceRecord | None:
    """As hasty people draw: too large, too small, shifted, or with four to six corners; IoU with the good one 0.45 to 0.8."""
    size = (record.height, record.width)
    side = max(masks.area(o.mask) ** 0.5, 2)
    for _ in range(8):
        way = int(rng.integers(4))
        amount = max(1, round(side * float(rng.uniform(0.08, 0.25))))
        if way < 2:
            mask = grown(o.mask, amount if way else -amount, *size)
        elif way == 2:
            angle = float(rng.uniform(0, 2 * np.pi))
            mask = shifted(o.mask, round(amount * np.cos(angle)), round(amount * np.sin(angle)), *size)
        else:
            outline = max(cv2.findContours(masks.full_bitmap(o.mask, *size), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
            corners = np.linspace(0, len(outline), int(rng.integers(4, 7)), endpoint=False).astype(int)
            bits = np.zeros(size, np.uint8)
            cv2.fillPoly(bits, [outline[corners]], 1)
            mask = masks.from_bitmap(bits)
        if mask.w and 0.45 <= masks.iou([mask], [o.mask])[0, 0] <= 0.8:
            return with_mask(o, mask)
    return None


def place(mask: CropMask, record: ImageRecord, rng: Rng) -> CropMask | None:
    """At a random position, wholly inside the image."""
    if mask.w >= record.width or mask.h >= record.height:
        return None
    return replace(mask, x=int(rng.integers(record.width - mask.w)), y=int(rng.integers(record.height - mask.h)))


def simulate(records: Sequence[ImageRecord], nc: int, rng: Rng) -> list[Instances]:
    """What a middling model might say of images that it has not seen; it knows nothing of the corruptions.

    Of the clean labels it misses 25 % under 32^2 pixels, 12 % under 96^2, 5 % of the larger ones. What it finds has the outline shifted and grown or shrunk by
    up to 8 % of its size, at least a pixel, and a confidence from Beta(5, 2). 4 % have a wrong class instead, 6 % a second prediction of a wrong class beside
    the right one, 2 % come out in two halves, 2 % together with a neighbour. False ones: 0.7 an image, confidence from Beta(1.5, 4); and 10 % of the
    objects have a piece of theirs predicted once more, confidence from Beta(1, 5).
    """
    out = []
    for record in records:
        size = record.height, record.width
        predicted: list[tuple[CropMask, int, float]] = []
        objects = [o for o in record.instances if not o.crowd and o.mask.w]
        for o in objects:
            area = masks.area(o.mask)
            if rng.random() < (0.25 if area < 32**2 else 0.12 if area < 96**2 else 0.05):
                continue
            mask, conf, kind = o.mask, float(rng.beta(5, 2)), rng.random()
            others = [p for p in objects if p is not o and p.cls == o.cls and neighbours(o, p)]
            pieces = [mask]
            if kind < 0.02:
                pieces = [h.mask for h in cut(o, rng)]
            elif kind < 0.04 and others:
                pieces = [join(mask, others[0].mask)]
            cls = o.cls
            if rng.random() < 0.04:
                cls, conf = int((cls + 1 + rng.integers(nc - 1)) % nc), float(rng.beta(3, 3))
            elif rng.random() < 0.06:
                predicted.append(
                    (jitter(mask, *size, rng), int((cls + 1 + rng.integers(nc - 1)) % nc), conf * float(rng.uniform(0.2, 0.9)))
                )
            predicted += [(jitter(m, *size, rng), cls, conf) for m in pieces]
            if rng.random() < 0.1:
                predicted += [(jitter(h.mask, *size, rng), o.cls, float(rng.beta(1, 5))) for h in cut(o, rng)[:1]]
        for _ in range(int(rng.poisson(0.7))):
            o = objects[int(rng.integers(len(objects)))] if objects else None
            moved = place(o.mask, record, rng) if o else None
            if moved is not None:
                predicted.append((moved, int(rng.integers(nc)), float(rng.beta(1.5, 4))))
        predicted = sorted((p for p in predicted if p[0].w), key=lambda p: -p[2])
        out.append(instances(record, predicted))
    return out


def instances(record: ImageRecord, predicted: list[tuple[CropMask, int, float]]) -> Instances:
    boxes = np.array([m.box for m, _, _ in predicted], np.float32).reshape(-1, 4)
    return Instances(record.height, record.width, boxes, np.array([c for _, _, c in predicted], np.float32),
                     np.array([k for _, k, _ in predicted], np.int64), [m for m, _, _ in predicted])  # fmt: skip


def jitter(mask: CropMask, height: int, width: int, rng: Rng) -> CropMask:
    scale = max(1.0, 0.08 * masks.area(mask) ** 0.5)
    dx, dy = rng.normal(0, scale / 3, 2)
    moved = shifted(mask, round(dx), round(dy), height, width)
    rough = grown(moved, int(np.clip(round(rng.normal(0, scale / 3)), -scale, scale)), height, width)
    return rough if rough.w else moved


def predict_shapes(records: Sequence[ImageRecord]) -> list[Instances]:
    import torch

    from fiftyone_yoloseg.config import PredictSettings
    from fiftyone_yoloseg.data.images import read_image
    from fiftyone_yoloseg.engine.checkpoint import load_checkpoint
    from fiftyone_yoloseg.engine.predictor import Predictor
    from fiftyone_yoloseg.engine.torch_backend import TorchBackend

    loaded = load_checkpoint(DATA / "peer" / "yolov8n-seg-shapes.pt")
    predictor = Predictor(TorchBackend(loaded.net, loaded.info, torch.device("cpu")), PredictSettings(imgsz=192, conf=0.05))
    return [predictor.instances([read_image(record.path)])[0] for record in records]


def precision_at_k(done: Corrupted, found: Sequence[Instances]) -> dict[str, dict[str, float]]:
    errors = LabelErrors()
    for record, instances_ in zip(done.records, found, strict=True):
        errors.add(record, instances_)
    suspects = errors.suspects()
    out = {}
    for kind, truth in done.truth.items():
        ranked = [s for s in suspects if s.kind == kind][: len(truth)]
        hits = len({k for s in ranked if (k := hit(s, done, found, truth)) is not None})
        chance = errors.predictions if kind == "missing" else errors.labels
        corrupted = len({x for _, ids, _ in truth for x in ids}) if kind != "missing" else explained(done, found, truth)
        out[kind] = {"k": len(truth), "precision@k": hits / len(truth) if truth else float("nan"), "random": corrupted / chance}
        if kind == "missing":
            out[kind]["findable"] = corrupted
    return out


def hit(suspect: Suspect, done: Corrupted, found: Sequence[Instances], truth: list[tuple[int, set[str], InstanceRecord]]) -> int | None:
    """Which corrupted label a suspect names, if any."""
    record = done.records[suspect.image]
    named = {str(record.instances[j].source_id) for j in suspect.labels}
    for k, (image, ids, o) in enumerate(truth):
        if image == suspect.image and (named & ids if ids else lies_on(found[image].masks[suspect.predictions[0]], o.mask)):
            return k
    return None


def lies_on(mask: CropMask, removed: CropMask) -> bool:
    return bool(masks.iou([mask], [removed])[0, 0] >= 0.5)


def explained(done: Corrupted, found: Sequence[Instances], truth: list[tuple[int, set[str], InstanceRecord]]) -> int:
    """How many of the removed labels any prediction shows at all: no method can find the others."""
    return sum(any(lies_on(m, o.mask) for m in found[i].masks) for i, _, o in truth)


@private_database()
def through_fiftyone(done: Corrupted, found: Sequence[Instances], names: dict[int, str], times: tuple[int, ...] = (1, 5)) -> dict[str, Any]:
    """fy.find_label_errors on the samples, once and several times over: seconds, and by how much the process grows."""
    import fiftyone as fo
    import psutil

    from fiftyone_yoloseg.bridge.label_errors import find_label_errors
    from fiftyone_yoloseg.bridge.labels import record_to_detections, to_detections

    fo.config.show_progress_bars = False
    process, out = psutil.Process(), {}
    for n in times:
        dataset = fo.Dataset()
        for _ in range(n):
            samples = [fo.Sample(filepath=str(r.path)) for r in done.records]
            for sample, record, instances_ in zip(samples, done.records, found, strict=True):
                sample["ground_truth"], sample["predictions"] = record_to_detections(record, names), to_detections(instances_, names)
            dataset.add_samples(samples, progress=False)
        del samples
        gc.collect()
        before, peak = process.memory_info().rss, 0

        def watch(share: float, label: str) -> None:
            nonlocal peak
            peak = max(peak, process.memory_info().rss)

        start = time.perf_counter()
        report = find_label_errors(dataset, progress=watch)
        out[f"{len(dataset)} images"] = {
            "seconds": round(time.perf_counter() - start, 2), "grown by MB at most": round((peak - before) / 1e6, 1), "counts": report.counts,
        }  # fmt: skip
        if n == times[0]:
            start = time.perf_counter()
            written = find_label_errors(dataset, write=True, save_views=True).written
            out[f"{len(dataset)} images"]["seconds with attributes and views"] = round(time.perf_counter() - start, 2)
            out[f"{len(dataset)} images"]["labels written"] = written
    return out


def summary(runs: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for kind in KINDS:
        each = [run[kind] for run in runs]
        out[kind] = {
            "k": [e["k"] for e in each],
            "precision@k": round(float(np.mean([e["precision@k"] for e in each])), 3),
            "each seed": [round(e["precision@k"], 3) for e in each],
            "random": round(float(np.mean([e["random"] for e in each])), 3),
        }
        if kind == "missing":
            out[kind]["removed labels that any prediction shows"] = [e["findable"] for e in each]
    return out


def main(seeds: list[int]) -> None:
    coco, plain = coco_tiny(), shapes()
    images = [r for records in coco.splits.values() for r in records]
    runs, seconds = [], 0.0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        done = corrupt(images, len(coco.names), rng)
        found = simulate(images, len(coco.names), rng)
        start = time.perf_counter()
        runs.append(precision_at_k(done, found))
        seconds += time.perf_counter() - start
    with contextlib.redirect_stdout(sys.stderr):  # FiftyOne has things to say
        database = through_fiftyone(done, found, dict(coco.names))
    val = list(plain.splits["val"])
    predicted = predict_shapes(val)
    real = [precision_at_k(corrupt(val, len(plain.names), np.random.default_rng(seed)), predicted) for seed in seeds]
    print(
        json.dumps(
            {
                "seeds": seeds,
                "coco_tiny": {
                    "predictions": "SIMULATED from the clean labels (jittered, missed, confused, false ones); no model was run",
                    "images": len(images), "objects": sum(len(r.instances) for r in images),
                    "images a second": round(len(images) * len(seeds) / seconds),
                    **summary(runs),
                },
                "coco_tiny through FiftyOne": database,
                "shapes": {
                    "predictions": "real: peer/yolov8n-seg-shapes.pt on the validation images, which it was not trained on",
                    "images": len(val), "objects": sum(len(r.instances) for r in val), **summary(real),
                },
            },
            indent=2,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main([int(a) for a in sys.argv[1:]] or [1, 2, 3, 4, 5])
