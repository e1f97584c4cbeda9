"""Conversion of many synthetic samples: memory and rate as they pass. Prints JSON.

uv run python benchmarks/convert_many.py [samples]

Each sample is an image of 96 x 64 pixels with three objects: a ring, an object of two parts, a blob.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from fiftyone_yoloseg.bridge.database import private_database

os.environ.setdefault("FIFTYONE_LOGGING_LEVEL", "ERROR")  # its hints go to stdout, where JSON alone belongs

WIDTH, HEIGHT, BATCH = 96, 64, 2000


def fill(data: Any, fo: Any, folder: Path, samples: int) -> None:
    rng = np.random.default_rng(0)
    for start in range(0, samples, BATCH):
        batch = []
        for i in range(start, min(start + BATCH, samples)):
            path = folder / f"{i // 1000}" / f"{i:06}.jpg"
            path.parent.mkdir(exist_ok=True, parents=True)
            cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), i % 256, np.uint8))
            batch.append(
                fo.Sample(
                    filepath=str(path), tags=["val" if i % 5 == 0 else "train"], ground_truth=fo.Detections(detections=objects(fo, rng))
                )
            )
        data.add_samples(batch, progress=False)


def objects(fo: Any, rng: np.random.Generator) -> list[Any]:
    found = []
    for label in ("ring", "parts", "blob"):
        side = int(rng.integers(12, 40))
        bits = np.zeros((side, side), np.uint8)
        cv2.circle(bits, (side // 2, side // 2), side // 2 - 1, 1, -1)
        if label == "ring":
            cv2.circle(bits, (side // 2, side // 2), side // 4, 0, -1)
        if label == "parts":
            bits[side // 2 - 2 : side // 2 + 2] = 0
        ys, xs = np.nonzero(bits)
        bits = bits[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        h, w = bits.shape
        x, y = int(rng.integers(0, WIDTH - w + 1)), int(rng.integers(0, HEIGHT - h + 1))
        found.append(fo.Detection(label=label, bounding_box=[x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT], mask=bits.astype(bool)))
    return found


@private_database()
def main(samples: int) -> None:
    import fiftyone as fo

    from fiftyone_yoloseg.bridge.convert import convert

    with tempfile.TemporaryDirectory() as folder:
        data = fo.Dataset()
        fill(data, fo, Path(folder) / "images", samples)
        process, marks, start = psutil.Process(), list[dict[str, float]](), time.perf_counter()

        def watch(share: float, label: str) -> None:
            done = round(share / 0.98 * samples)
            if done >= len(marks) * samples // 10:
                marks.append(
                    {"samples": done, "seconds": round(time.perf_counter() - start, 1), "MB": round(process.memory_info().rss / 1e6, 1)}
                )

        report = convert(data, Path(folder) / "out", split="tags", media="symlink", progress=watch)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        convert(data, Path(folder) / "out", split="tags", media="symlink")
        again = time.perf_counter() - start
    print(
        json.dumps(
            {
                "samples": samples, "objects": report.rows, "mean IoU": report.mean_iou, "seconds": round(seconds, 1),
                "samples a second": round(samples / seconds), "seconds again, nothing changed": round(again, 1), "on the way": marks,
            },
            indent=2,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
