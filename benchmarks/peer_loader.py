"""How many objects the peer's own loader sees in a folder that we converted: one for each row. Prints JSON.

uv run python benchmarks/peer_loader.py

The peer runs as a black box in an environment of its own; its validation counts the instances of the labels that its loader has read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fiftyone_yoloseg.bridge.database import private_database

os.environ.setdefault("FIFTYONE_LOGGING_LEVEL", "ERROR")  # its hints go to stdout, where JSON alone belongs

PEER = """
import json, sys
from ultralytics import YOLO
counts = {}
for split in ("train", "val"):
    metrics = YOLO("yolov8n-seg.yaml").val(data=sys.argv[1], split=split, imgsz=64, batch=16, plots=False, workers=0, device="cpu", verbose=False)
    counts[split] = int(metrics.nt_per_class.sum())
print("COUNTS " + json.dumps(counts))
"""


@private_database()
def main() -> None:
    import fiftyone as fo
    from convert import dataset

    from fiftyone_yoloseg.bridge.convert import convert

    fo.config.show_progress_bars = False
    with tempfile.TemporaryDirectory() as folder:
        report = convert(dataset(fo, Path(folder) / "images", 1), Path(folder) / "yolo", split="tags")
        yaml = Path(folder) / "peer.yaml"  # the peer wants an absolute root
        yaml.write_text(f"path: {folder}/yolo\n" + report.dataset_yaml.read_text())
        rows = {
            split: sum(len(p.read_text().splitlines()) for p in (report.out_dir / "labels" / split).iterdir()) for split in report.images
        }
        command = ["uv", "run", "--isolated", "--no-project", "--with", "ultralytics", "python", "-c", PEER, str(yaml)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        line = next((line for line in done.stdout.splitlines() if line.startswith("COUNTS ")), None)
        if line is None:
            sys.exit(f"the peer failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        print(json.dumps({"objects written": rows, "instances that the peer's loader sees": json.loads(line[7:])}, indent=2))


if __name__ == "__main__":
    main()
