"""The App on a dataset of real images, for the browser tests: python serve.py <database folder> <coco_tiny> <port> [evaluated].

evaluated: with two fields of predictions, made from the labels, and our evaluation of each.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fiftyone_yoloseg.bridge.database import ensure_database, use_private_database


def add_evaluations(dataset: Any) -> None:
    """Two fields of predictions: the labels, of which `good` has lost every seventh and `poor` every second, and of each third most of the mask."""
    import numpy as np

    import fiftyone_yoloseg as fy

    for name, lost in (("good", 7), ("poor", 2)):
        dataset.clone_sample_field("ground_truth", name)
        rng = np.random.default_rng(0)
        labels = [[d for i, d in enumerate(own) if i % lost] for own in dataset.values(f"{name}.detections")]
        for own in labels:
            for i, label in enumerate(own):
                label.confidence = 0.9 if name == "good" else float(rng.uniform(0.2, 1))
                if i % 3 == 0:
                    label.mask[len(label.mask) // 3 :] = False
        dataset.set_values(f"{name}.detections", labels)
        fy.evaluate(dataset, name, eval_key=f"eval_{name}")


def main(database: str, data: str, port: str, evaluated: str = "") -> None:
    use_private_database(database)
    ensure_database()
    import fiftyone as fo

    dataset = fo.Dataset("coco-tiny", persistent=True)
    for split, n in (("train", 8), ("val", 4)):
        dataset.add_dir(
            dataset_type=fo.types.COCODetectionDataset,
            data_path=str(Path(data) / f"{split}2017"),
            labels_path=str(Path(data) / "annotations" / f"instances_{split}2017.json"),
            label_field="ground_truth",
            label_types="segmentations",
            tags=split,
            max_samples=n,
            progress=False,
        )
    boxes = dataset.clone_sample_field("ground_truth", "boxes")  # labels that lost their masks
    del boxes
    dataset.set_values("boxes.detections.mask", [[None] * len(m) for m in dataset.values("boxes.detections.mask")])
    if evaluated:
        add_evaluations(dataset)
    session = fo.launch_app(dataset, remote=True, port=int(port), address="127.0.0.1")
    print("serving", flush=True)
    session.wait(-1)


if __name__ == "__main__":
    main(*sys.argv[1:])
