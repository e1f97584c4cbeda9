"""The App on a dataset of real images, for the browser test: python serve.py <database folder> <coco_tiny> <port>."""

from __future__ import annotations

import sys
from pathlib import Path

from fiftyone_yoloseg.bridge.database import ensure_database, use_private_database


def main(database: str, data: str, port: str) -> None:
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
    session = fo.launch_app(dataset, remote=True, port=int(port), address="127.0.0.1")
    print("serving", flush=True)
    session.wait(-1)


if __name__ == "__main__":
    main(*sys.argv[1:])
