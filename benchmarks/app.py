"""What the App's user waits for: the plugin at start, the panel's first paint, forms on a large dataset. `python benchmarks/app.py [--samples n] [--folder f]`.

Prints JSON, seconds. The dataset has 100,000 samples without image files, three objects each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fiftyone_yoloseg.bridge.database import private_database

os.environ.setdefault("FIFTYONE_LOGGING_LEVEL", "ERROR")  # its hints go to stdout, where JSON alone belongs

REPO = Path(__file__).resolve().parents[1]
sys.path.append(str(REPO / "tests" / "plugin"))
SAMPLES, RUNS, EPOCHS = 100_000, 50, 100
NO_FORMS = ("yoloseg_panel", "loop_step")

REGISTER = """
import sys, time
import fiftyone.operators as foo
import fiftyone.server.app  # as in the process of the App
from fiftyone.plugins.context import PluginContext
from fiftyone.plugins.definitions import PluginDefinition
begun = time.perf_counter()
context = PluginContext(PluginDefinition.from_disk(sys.argv[1]))
context.register_all()
print(time.perf_counter() - begun, "torch" in sys.modules, len(context.errors))
"""


def registration() -> dict[str, Any]:
    """Seconds to register the plugin in a process that has FiftyOne and the App's server already: the first in a new environment, and the median of five."""
    times, torch = [], "False"
    for _ in range(5):
        command = [sys.executable, "-c", REGISTER, str(REPO / "fiftyone.yml")]
        seconds, torch, errors = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-3:]
        assert errors == "0"
        times.append(float(seconds))
    return {"seconds": sorted(times)[2], "worst": max(times), "torch_imported": torch}


def large_dataset(samples: int) -> Any:
    """Three objects in each of two fields a sample. The first few are made by FiftyOne, the others are copies with ids of their own, written to MongoDB directly."""
    import fiftyone as fo
    import numpy as np

    dataset = fo.Dataset("large")
    mask = np.ones((28, 28), bool)

    def objects() -> Any:
        return fo.Detections(
            detections=[fo.Detection(label="class 0", bounding_box=[0.1 * j, 0.1, 0.2, 0.2], mask=mask, confidence=0.5) for j in range(3)]
        )

    first = fo.Sample(
        filepath="/none/0.jpg",
        tags=["val"],
        ground_truth=objects(),
        predictions=objects(),
        metadata=fo.ImageMetadata(width=640, height=480),
    )
    dataset.add_samples([first], progress=False)
    collection = dataset._sample_collection
    pattern = collection.find_one()
    for start in range(1, samples, 5000):
        collection.insert_many([_copy(pattern, i) for i in range(start, min(start + 5000, samples))], ordered=False)
    dataset.reload()
    return dataset


def _copy(pattern: dict[str, Any], i: int) -> dict[str, Any]:
    from bson import ObjectId

    path, labels = f"/none/{i}.jpg", dict[str, Any]()
    for field in ("ground_truth", "predictions"):
        found = [{**o, "_id": ObjectId(), "label": f"class {(i + j) % 20}"} for j, o in enumerate(pattern[field]["detections"])]
        labels[field] = {**pattern[field], "detections": found}
    return {**pattern, "_id": ObjectId(), "filepath": path, "tags": ["val" if i % 5 == 0 else "train"], "_rand": random.random(), **labels}


def plugin() -> Any:
    from fiftyone.plugins.context import PluginContext
    from fiftyone.plugins.definitions import PluginDefinition

    context = PluginContext(PluginDefinition.from_disk(str(REPO / "fiftyone.yml")))
    context.register_all()
    return context


def forms(context: Any, dataset: Any) -> dict[str, float]:
    """Seconds to open each operator's form for the first time."""
    from fiftyone.operators.executor import ExecutionContext, Executor

    from fiftyone_yoloseg.plugin.forms import forget_fields

    found = {}
    for operator in context.instances:
        if operator.name in NO_FORMS:
            continue
        forget_fields()
        request = {"dataset_name": dataset.name, "params": {}}
        ctx = ExecutionContext(request_params=request, executor=Executor(), operator_uri=operator.uri)
        begun = time.perf_counter()
        form = operator.resolve_type(ctx, "inputs")
        if form is None:  # a metric, which is chosen in the form of an evaluation
            continue
        form.to_json()
        found[operator.name] = round(time.perf_counter() - begun, 3)
    return found


def paint(context: Any, dataset: Any, tab: str = "runs") -> float:
    """Seconds from the panel's first event to its layout and data."""
    from fiftyone.operators.executor import ExecutionContext, Executor

    panel = next(i for i in context.instances if i.name == "yoloseg_panel")
    params = {"panel_id": "p", "__method__": "on_load", "panel_state": {"tab": tab}}
    ctx = ExecutionContext(request_params={"dataset_name": dataset.name, "params": params}, executor=Executor(), operator_uri=panel.uri)
    begun = time.perf_counter()
    panel.execute(ctx)
    json.dumps([request.to_json() for request in ctx.executor._requests])
    return time.perf_counter() - begun


def main(folder: Path, samples: int) -> None:
    import fiftyone as fo
    from made_runs import add_run

    context = plugin()
    report: dict[str, Any] = {"registration": registration()}
    small = fo.Dataset("small")
    small.add_samples([fo.Sample(filepath=f"/none/{i}.jpg") for i in range(10)], progress=False)
    for i in range(RUNS):
        add_run(small, folder / "runs", f"run{i}", EPOCHS)
    fo.load_dataset("small").reload()
    report["panel"] = {tab: round(paint(context, small, tab), 3) for tab in ("runs", "compare", "export")}
    begun = time.perf_counter()
    dataset = large_dataset(samples)
    report["samples"], report["built in"] = len(dataset), round(time.perf_counter() - begun, 1)
    report["forms"] = forms(context, dataset)
    masks = {f"{field}.detections.$[].mask": "" for field in ("ground_truth", "predictions")}
    dataset._sample_collection.update_many({}, {"$unset": masks})
    report["forms without any mask"] = forms(context, dataset)
    report["panel"]["large dataset, no run"] = round(paint(context, dataset), 3)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--folder", type=Path, help="keep the database and the runs there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = given.folder or Path(temporary)
        with private_database(place / "db"):
            main(place, given.samples)
