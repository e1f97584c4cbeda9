"""Evaluation of masks, ours beside FiftyOne's own and pycocotools, on coco_tiny val: python benchmarks/evaluate.py [repeats [predictions an image]].

Predictions are made from the labels: 25 an image (or as many as the second argument says; a network at confidence 0.001 writes about 100), most of them a label of the image moved by up to a sixth of its width, of another class in one
of ten. Crowds are left out: with masks, FiftyOne's own does not know them. Each evaluation runs on a dataset of its own, under a name that is new
there; ours are the best of `repeats`, also where each replaces an earlier evaluation of that name, FiftyOne's own the best of three. The last line is JSON.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")

from common import DATA

from fiftyone_yoloseg.bridge.database import private_database
from fiftyone_yoloseg.data.coco import load_coco
from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.types import CropMask, ImageRecord

THEIRS = 3


def predictions(
    record: ImageRecord, others: list[ImageRecord], nc: int, rng: np.random.Generator, count: int
) -> list[tuple[CropMask, int, float]]:
    """(mask, class, confidence) of `count` objects."""
    own = [i for i in record.instances if not i.crowd]
    found: list[tuple[CropMask, int, float]] = []
    while len(found) < count:
        source = own
        if not own or rng.random() < 0.1:
            source = [i for i in others[rng.integers(len(others))].instances if not i.crowd]
        if not source:
            continue
        label = source[rng.integers(len(source))]
        m = label.mask
        if m.w > record.width or m.h > record.height:
            continue
        reach = max(1, m.w // 6)
        x = int(np.clip(m.x + rng.integers(-reach, reach + 1), 0, record.width - m.w))
        y = int(np.clip(m.y + rng.integers(-reach, reach + 1), 0, record.height - m.h))
        cls = label.cls if rng.random() < 0.9 else int(rng.integers(nc))
        found.append((CropMask(x, y, m.w, m.h, m.counts), cls, float(rng.random())))
    return found


def pycocotools_numbers(
    records: list[ImageRecord], found: list[list[tuple[CropMask, int, float]]], nc: int, kind: str
) -> tuple[list[float], Any]:
    """The twelve numbers, and precision (T, R, K, A, M)."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = [{"id": i, "height": r.height, "width": r.width} for i, r in enumerate(records, 1)]
    sides: list[list[dict[str, Any]]] = [[], []]
    for i, (record, predicted) in enumerate(zip(records, found, strict=True), 1):
        objects = [(o.mask, o.cls, 1.0) for o in record.instances if not o.crowd]
        for side, items in zip(sides, (objects, predicted), strict=True):
            for mask, cls, score in items:
                area = float(mask.w * mask.h) if kind == "bbox" and side is sides[1] else float(masks.area(mask))
                rle = masks.to_coco_rle(mask, record.height, record.width)
                entry = {"id": len(side) + 1, "image_id": i, "category_id": cls, "bbox": [mask.x, mask.y, mask.w, mask.h]}
                side.append({**entry, "segmentation": rle, "area": area, "iscrowd": 0, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        both = []
        for side in sides:
            coco = COCO()
            coco.dataset = {"images": images, "annotations": side, "categories": [{"id": k} for k in range(nc)]}
            coco.createIndex()
            both.append(coco)
        evaluation = COCOeval(*both, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist(), evaluation.eval["precision"]


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


@private_database()
def main(repeats: int, per_image: int) -> None:
    import fiftyone as fo

    import fiftyone_yoloseg as fy
    from fiftyone_yoloseg.bridge.labels import to_detection

    fo.config.show_progress_bars = False
    method = fy.register_evaluation()
    data = load_coco(DATA / "coco_tiny")
    records, rng = list(data.splits["val"]), np.random.default_rng(0)
    found = [predictions(record, records, len(data.names), rng, per_image) for record in records]

    def dataset() -> Any:
        made, samples = fo.Dataset(), []
        for record, predicted in zip(records, found, strict=True):
            size = record.height, record.width
            truth = [to_detection(o.mask, data.names[o.cls], *size) for o in record.instances if not o.crowd]
            guesses = [to_detection(mask, data.names[cls], *size, confidence=score) for mask, cls, score in predicted]
            sample = fo.Sample(filepath=str(record.path), ground_truth=fo.Detections(detections=truth))
            sample["predictions"] = fo.Detections(detections=guesses)
            samples.append(sample)
        made.add_samples(samples)
        return made

    settings = {"gt_field": "ground_truth", "eval_key": "eval", "use_masks": True}
    theirs, other, ours = dataset(), dataset(), dataset()
    gc.collect()
    all_theirs = []
    for _ in range(THEIRS):
        if theirs.has_evaluation("eval"):
            theirs.delete_evaluation("eval")
        all_theirs.append(seconds(lambda: theirs.evaluate_detections("predictions", compute_mAP=True, progress=False, **settings)))
    theirs_s, expected = min(s for s, _ in all_theirs), all_theirs[-1][1]

    def anew() -> Any:
        return fy.evaluate(ours, "predictions")

    runs = []
    for _ in range(repeats):
        if ours.has_evaluation("eval"):
            ours.delete_evaluation("eval")
        runs.append(seconds(anew))
    replacing = [seconds(anew) for _ in range(repeats)]
    ours_s, results = min(s for s, _ in runs), runs[-1][1]
    backend_s, again = seconds(lambda: other.evaluate_detections("predictions", method=method, progress=False, **settings))
    if "--profile" in sys.argv:
        import cProfile
        import pstats

        profile = cProfile.Profile()
        profile.runcall(fy.evaluate, ours, "predictions", eval_key="profiled")
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)

    def verdicts(of: Any) -> tuple[list[Any], list[Any]]:
        paths = [f"{field}.detections.{name}" for field in ("ground_truth", "predictions") for name in ("eval", "eval_iou")]
        values = of.values([*paths, "eval_tp", "eval_fp", "eval_fn"])
        return [v for path in (values[0], values[2]) for sample in path for v in sample], [
            v for path in (values[1], values[3]) for sample in path for v in sample
        ] + [v for counts in values[4:] for v in counts]

    (status, numbers), (their_status, their_numbers) = verdicts(ours), verdicts(theirs)
    assert verdicts(other) == (status, numbers) and again.mAP() == results.mAP()
    differences = [abs((a or 0.0) - (b or 0.0)) for a, b in zip(numbers, their_numbers, strict=True)]
    against: dict[str, float] = {}
    for kind in ("segm", "bbox"):
        official, precision = pycocotools_numbers(records, found, len(data.names), kind)
        mine = [v for key, v in results.coco[kind].items() if key != "classes"]
        per_class = [abs(results.coco[kind]["classes"][name]["AP"] - np.mean(precision[:, :, k, 0, -1]))
                     for k, name in data.names.items() if name in results.coco[kind]["classes"]]  # fmt: skip
        against[kind] = float(max(*np.abs(np.array(mine) - official), *per_class))
    print(json.dumps({
        "images": len(records), "predictions": sum(map(len, found)), "labels": ours.count("ground_truth.detections"),
        "fiftyone_s": round(theirs_s, 2), "all_fiftyone_s": [round(s, 2) for s, _ in all_theirs], "ours_s": round(ours_s, 3), "all_ours_s": [round(s, 3) for s, _ in runs],
        "replacing_s": round(min(s for s, _ in replacing), 3), "ratio_replacing": round(theirs_s / min(s for s, _ in replacing), 1),
        "as_backend_s": round(backend_s, 2), "ratio": round(theirs_s / ours_s, 1), "ratio_as_backend": round(theirs_s / backend_s, 1),
        "verdicts": len(status), "verdicts_that_differ": sum(a != b for a, b in zip(status, their_status, strict=True)),
        "largest_difference_of_iou_or_count": max(differences), "fiftyone_mAP": float(expected.mAP()), "our_mAP": float(results.mAP()),
        "largest_difference_to_pycocotools": against,
    }))  # fmt: skip


if __name__ == "__main__":
    numbers = [int(a) for a in sys.argv[1:] if a.isdigit()]
    main(*numbers[:2], *(3, 25)[len(numbers) :])
