"""What the App's user waits for: the plugin at start, the panel's first paint, forms on a large dataset. `python benchmarks/app.py [folder]`.

Prints JSON. The dataset has 100,000 samples without image files, three objects each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
sys.path.append(str(REPO / "tests" / "plugin"))
SAMPLES, RUNS, EPOCHS = 100_000, 50, 100

REGISTER = """
import sys, time
import fiftyone.operators as foo
from fiftyone.plugins.context import PluginContext
from fiftyone.plugins.definitions import PluginDefinition
begun = time.perf_counter()
context = PluginContext(PluginDefinition.from_disk(sys.argv[1]))
context.register_all()
print(time.perf_counter() - begun, "torch" in sys.modules, len(context.errors))
"""


def registration() -> dict[str, Any]:
    """Seconds to register the plugin in a process that has FiftyOne already: the first in a new environment, and the median of five."""
    times, torch = [], "False"
    for _ in range(5):
        command = [sys.executable, "-c", REGISTER, str(REPO / "fiftyone.yml")]
        seconds, torch, errors = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-3:]
        assert errors == "0"
        times.append(float(seconds))
    return {"seconds": sorted(times)[2], "worst": max(times), "torch_imported": torch}


def large_dataset() -> Any:
    import fiftyone as fo
    import numpy as np

    dataset = fo.Dataset("large")
    mask = np.ones((28, 28), bool)
    names = [f"class {i}" for i in range(20)]

    def objects(i: int) -> Any:
        return fo.Detections(
            detections=[
                fo.Detection(label=names[(i + j) % 20], bounding_box=[0.1 * j, 0.1, 0.2, 0.2], mask=mask, confidence=0.5) for j in range(3)
            ]
        )

    for start in range(0, SAMPLES, 5000):
        dataset.add_samples(
            [
                fo.Sample(
                    filepath=f"/none/{i}.jpg", tags=["val" if i % 5 == 0 else "train"], ground_truth=objects(i), predictions=objects(i),
                    metadata=fo.ImageMetadata(width=640, height=480),
                )
                for i in range(start, start + 5000)
            ],
            progress=False,
            dynamic=False,
        )  # fmt: skip
    return dataset


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
        if operator.name in ("yoloseg_panel", "loop_step"):
            continue
        forget_fields()
        request = {"dataset_name": dataset.name, "params": {}}
        ctx = ExecutionContext(request_params=request, executor=Executor(), operator_uri=operator.uri)
        begun = time.perf_counter()
        operator.resolve_type(ctx, "inputs").to_json()
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


def main(folder: Path) -> None:
    from fiftyone_yoloseg.bridge.database import ensure_database, use_private_database

    use_private_database(folder / "db")
    ensure_database()
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
    dataset = large_dataset()
    report["forms"] = forms(context, dataset)
    report["panel"]["large dataset, no run"] = round(paint(context, dataset), 3)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
