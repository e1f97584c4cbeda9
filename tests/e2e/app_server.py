"""The App for the browser tests and for the pictures of the docs: python app_server.py <database folder> <port>.

It begins without a dataset. Each line on its standard input (maker, name and folder, with tabs between) makes one, unless it is there, opens it, and is answered
`made NAME (number of the line)`. It ends with its input.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "plugin"))  # for made_runs
from fiftyone_yoloseg.bridge.database import ensure_database, use_private_database


def coco_tiny(name: str, data: str) -> Any:
    """12 of the images of coco_tiny, tagged with their split; `boxes` holds labels that lost their masks."""
    import fiftyone as fo

    dataset = fo.Dataset(name, persistent=True)
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
    dataset.clone_sample_field("ground_truth", "boxes")
    dataset.set_values("boxes.detections.mask", [[None] * len(m) for m in dataset.values("boxes.detections.mask")])
    return dataset


def evaluated(name: str, data: str) -> None:
    """Two fields of predictions: the labels, of which `good` has lost every seventh and `poor` every second, and of each third most of the mask.

    With our evaluation of each, and two trainings that look as if they had happened.
    """
    import numpy as np
    from made_runs import add_run

    import fiftyone_yoloseg as fy
    from fiftyone_yoloseg.bridge import runs

    dataset = coco_tiny(name, data)
    for field, lost in (("good", 7), ("poor", 2)):
        dataset.clone_sample_field("ground_truth", field)
        rng = np.random.default_rng(0)
        labels = [[d for i, d in enumerate(own) if i % lost] for own in dataset.values(f"{field}.detections")]
        for own in labels:
            for i, label in enumerate(own):
                label.confidence = 0.9 if field == "good" else float(rng.uniform(0.2, 1))
                if i % 3 == 0:
                    label.mask[len(label.mask) // 3 :] = False
        dataset.set_values(f"{field}.detections", labels)
        runs.remember(dataset, "predict", field)
        fy.evaluate(dataset, field, eval_key=f"eval_{field}")
    for run, epochs in (("short", 40), ("longer", 80)):
        add_run(dataset, Path.cwd() / "made_runs" / name, run, epochs)


def pending(name: str, data: str) -> None:
    """All labels wait for a review, as if a model had proposed them; there is no ground truth yet."""
    dataset = coco_tiny(name, data)
    dataset.clone_sample_field("ground_truth", "review")
    dataset.clear_sample_field("ground_truth")
    dataset.set_values("review.detections.confidence", [[0.9] * len(own) for own in dataset.values("review.detections")])


def demonstrated(name: str, folder: str) -> None:
    """What `yoloseg demo` makes, in minutes, in the folder; its view "validation" is of the images that were predicted."""
    import fiftyone as fo

    from fiftyone_yoloseg.bridge.demo import demo
    from fiftyone_yoloseg.config import DemoSettings, parse

    demo(parse(DemoSettings, {"out": folder, "dataset": name}))
    dataset = fo.load_dataset(name)
    dataset.save_view("validation", dataset.exists("predictions").exclude_fields("ground_truth"))
    dataset.app_config.color_scheme = fo.ColorScheme(color_by="value")
    dataset.save()


def nothing(name: str, data: str) -> None:
    """Delete all datasets."""
    import fiftyone as fo

    for dataset in fo.list_datasets():
        fo.delete_dataset(dataset)


MAKERS = {"nothing": nothing, "coco_tiny": coco_tiny, "evaluated": evaluated, "pending": pending, "demonstrated": demonstrated}


def show(session: Any, dataset: Any) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            session.dataset = dataset
            return
        except RuntimeError:  # it is not connected to its server yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def main(database: str, port: str) -> None:
    use_private_database(database)
    ensure_database()
    import fiftyone as fo

    session = fo.launch_app(remote=True, port=int(port), address="127.0.0.1")
    print("serving", flush=True)
    for answer, line in enumerate(sys.stdin, 1):
        maker, name, folder = line.rstrip("\n").split("\t")
        if maker == "nothing":
            show(session, None)  # the App leaves the one that it shows
        if not fo.dataset_exists(name):
            MAKERS[maker](name, folder)
        if maker != "nothing":
            show(session, fo.load_dataset(name))  # else the session would send a new page away from it
        print(f"made {name} ({answer})", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
