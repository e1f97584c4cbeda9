"""Evaluation of a large set, by this process alone and with others: python benchmarks/evaluate_many.py [samples [predictions an image]].

The samples are those of benchmarks/evaluate.py (coco_tiny val, crowds left out), each as often as it takes. Both ways are run in turn, twice; the
results and what is stored on every label have to be equal. The last line is JSON.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import resource
import sys
from typing import Any

import numpy as np

os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")

from common import DATA
from evaluate import predictions, seconds

from fiftyone_yoloseg.bridge.database import private_database
from fiftyone_yoloseg.data.coco import load_coco


@private_database()
def main(wanted: int, per_image: int) -> None:
    import fiftyone as fo
    from bson import ObjectId

    import fiftyone_yoloseg as fy
    from fiftyone_yoloseg.bridge import scoring
    from fiftyone_yoloseg.bridge.labels import to_detection

    fo.config.show_progress_bars = False
    data = load_coco(DATA / "coco_tiny")
    records, rng = list(data.splits["val"]), np.random.default_rng(0)
    dataset, samples = fo.Dataset(), []
    for record in records:
        size = record.height, record.width
        sample = fo.Sample(str(record.path), metadata=fo.ImageMetadata(width=record.width, height=record.height))
        truth = [to_detection(o.mask, data.names[o.cls], *size) for o in record.instances if not o.crowd]
        found = [to_detection(mask, data.names[c], *size, confidence=s) for mask, c, s in predictions(record, records, 80, rng, per_image)]
        sample["ground_truth"], sample["predictions"] = fo.Detections(detections=truth), fo.Detections(detections=found)
        samples.append(sample)
    dataset.add_samples(samples)
    stored = list(dataset._sample_collection.find())
    for i in range(1, -(-wanted // len(stored))):
        copies = [{**document, "_id": ObjectId(), "filepath": f"{document['filepath']}#{i}"} for document in stored]
        dataset._sample_collection.insert_many(copies[: wanted - i * len(stored)])
    samples = stored = copies = []
    dataset.reload()

    def run(worth: int) -> tuple[float, Any, str]:
        scoring.WORTH_PROCESSES = worth
        if dataset.has_evaluation("eval"):
            dataset.delete_evaluation("eval")
        gc.collect()
        taken, results = seconds(lambda: fy.evaluate(dataset, "predictions"))
        paths = [f"{field}.detections.eval{name}" for field in ("ground_truth", "predictions") for name in ("", "_id", "_iou")]
        return taken, results, hashlib.sha256(repr(dataset.values(paths)).encode()).hexdigest()

    ways = {"alone": sys.maxsize, "processes": 1}
    runs = [(name, *run(worth)) for _ in range(2) for name, worth in ways.items()]
    _, _, first, label_hash = runs[0]
    for _, _, results, other_hash in runs[1:]:
        assert (results.coco, results.facts, other_hash) == (first.coco, first.facts, label_hash)
        assert all(np.array_equal(getattr(results, name), getattr(first, name)) for name in ("ytrue", "ypred", "precision", "recall_sweep"))
    all_s = {name: [round(s, 2) for n, s, *_ in runs if n == name] for name in ways}
    print(json.dumps({
        "samples": len(dataset), "predictions": dataset.count("predictions.detections"), "labels": dataset.count("ground_truth.detections"),
        "seconds": all_s, "ratio": round(min(all_s["alone"]) / min(all_s["processes"]), 2), "equal": True,
        "cpus": len(os.sched_getaffinity(0)), "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }))  # fmt: skip


if __name__ == "__main__":
    main(*(int(a) for a in [*sys.argv[1:3], *("3200", "25")[len(sys.argv) - 1 :]]))
