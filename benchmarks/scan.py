"""Scanning a YOLO-seg folder: the first time, again, after one label in a hundred was edited. Prints JSON. Files are in the page cache.

python benchmarks/scan.py [images, default 100000] [objects an image, default 5] [vertices an object, default 30]
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from fiftyone_yoloseg.data.scan import scan_dataset

SIZE = (480, 640)


def make(root: Path, images: int, objects: int, vertices: int) -> None:
    """Grey images of 480 x 640 in one train and one val folder, each with round outlines of six decimals; 1000 different label files."""
    rng = np.random.default_rng(0)
    picture = cv2.imencode(".jpg", np.full((*SIZE, 3), 127, np.uint8))[1].tobytes()
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
    texts = ["".join(row(rng, circle) for _ in range(objects)) for _ in range(1000)]
    for i in range(images):
        split = "val" if i % 10 == 0 else "train"
        (root / "images" / split / f"{i:07}.jpg").write_bytes(picture)
        (root / "labels" / split / f"{i:07}.txt").write_text(texts[i % len(texts)])
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [a, b, c]\n")


def row(rng: np.random.Generator, circle: np.ndarray) -> str:
    radius = rng.uniform(0.02, 0.2)
    points = circle * radius * rng.uniform(0.8, 1, (len(circle), 1)) + rng.uniform(radius, 1 - radius, 2)
    return f"{rng.integers(3)} " + " ".join(f"{v:.6f}" for v in points.ravel().tolist()) + "\n"


def scan(root: Path) -> dict[str, object]:
    """One scan in this process."""
    before, start = rss(), time.perf_counter()
    data, report = scan_dataset(root / "data.yaml")  # held, to be measured
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 2),
        "images": sum(map(len, data.splits.values())),
        "objects": report.objects,
        "from_cache": getattr(report, "cached", 0),
        "rss_mb_of_the_records": round(rss() - before, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def rss() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def scan_elsewhere(root: Path, cache: Path) -> dict[str, object]:
    """One scan in a process of its own, so that its memory is its own."""
    done = subprocess.run(
        [sys.executable, __file__, str(root)],
        env={**os.environ, "YOLOSEG_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, object] = json.loads(done.stdout)
    return result


def main() -> None:
    if len(sys.argv) == 2 and not sys.argv[1].isdigit():
        print(json.dumps(scan(Path(sys.argv[1]))))
        return
    images, objects, vertices = [*map(int, sys.argv[1:]), *(100_000, 5, 30)[len(sys.argv) - 1 :]]
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder, "data"), Path(folder, "cache")
        make(root, images, objects, vertices)
        result: dict[str, object] = {"images": images, "objects": objects, "vertices": vertices, "cpus": os.cpu_count()}
        result["first"] = scan_elsewhere(root, cache)
        result["second"] = scan_elsewhere(root, cache)
        for path in sorted((root / "labels").rglob("*.txt"))[::100]:
            path.write_text(path.read_text().replace("0.1", "0.2"))  # an edit that keeps the size
        result["one label in 100 edited"] = scan_elsewhere(root, cache)
        result["cache_mb"] = round(sum(f.stat().st_size for f in cache.rglob("*") if f.is_file()) / 2**20, 1)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
