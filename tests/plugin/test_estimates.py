"""What forms say of time, memory and disk: from what this machine has done, and nothing that was never measured."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

from fiftyone.operators.executor import ExecutionContext, Executor  # noqa: E402
from made_runs import add_run  # noqa: E402

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg.bridge import estimates, paces  # noqa: E402
from fiftyone_yoloseg.config import TrainSettings  # noqa: E402
from fiftyone_yoloseg.engine.memory import estimate  # noqa: E402
from fiftyone_yoloseg.nn.model import YOLOv8Seg  # noqa: E402
from fiftyone_yoloseg.plugin.data_operators import Convert  # noqa: E402
from fiftyone_yoloseg.plugin.model_operators import Predict, Train  # noqa: E402


@pytest.fixture(autouse=True)
def no_paces(fiftyone_db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other tests."""
    monkeypatch.setattr(paces, "STORE", "yoloseg_paces_of_a_test")
    paces.ExecutionStore.create(paces.STORE).clear()


def said(operator: Any, dataset: Any, **params: Any) -> str:
    context = ExecutionContext({"dataset_name": dataset.name, "params": params}, executor=Executor(), operator_uri=operator.name)
    fields = operator.resolve_input(context).to_json()["type"]["properties"]
    assert not [f["error_message"] for f in fields.values() if f["invalid"]]
    return str(fields["estimate"])


@pytest.mark.parametrize("size", "ns")
def test_known_figures_are_those_of_the_networks(size: str) -> None:
    """The others are made by the same formula; they only take longer to build."""
    need = estimate(YOLOv8Seg(80, size), 640, half=False)
    assert need.image / 1e6 == pytest.approx(estimates.ACTIVATIONS[size], rel=0.01)
    assert need.fixed / 5e6 == pytest.approx(estimates.WEIGHTS[size], rel=0.01)


def test_nothing_is_invented(coco: Any) -> None:
    trained = said(Train(), coco, model="yolov8s-seg.yaml", device="cpu", batch=4, imgsz=320)
    assert "not known yet: no training of a model of size s with cpu was recorded on this machine" in trained
    assert "about 680 MB of RAM to train" in trained  # 5 x 47.2 MB of weights, and of 4 images of 444 / 4 MB
    assert "free now" in trained and "of checkpoints while it runs" in trained
    assert "Time: not known yet: no conversion" in said(Convert(), coco)


def test_trainings_are_estimated_from_the_nearest_that_was_recorded(coco: Any) -> None:
    paces.note("train", 100, 50.0, model="n", imgsz=320, device="cpu")
    paces.note("train", 100, 500.0, model="n", imgsz=640, device="cpu")
    paces.note("train", 19, 1.0, model="n", imgsz=320, device="cpu")  # too few to tell
    paces.note("train", 100, 1.0, model="n", imgsz=320, device="gpu")
    small = said(Train(), coco, model="yolov8n-seg.yaml", device="cpu", imgsz=320, epochs=100)
    assert "about 5 min for 100 epochs of 3 s (as on 20" in small  # 6 samples at 0.5 s
    assert "about 1 min" not in small and "scaled" not in small
    assert "scaled from 320 px" in said(Train(), coco, model="yolov8n-seg.yaml", device="cpu", imgsz=160)
    assert "at most 2 h, as was set" in said(Train(), coco, model="yolov8n-seg.yaml", device="cpu", imgsz=320, time=2, advanced=True)
    assert "not known yet" in said(Train(), coco, model="yolov8m-seg.yaml", device="cpu", imgsz=320)
    assert "the cluster was recorded" in said(Train(), coco, model="yolov8n-seg.yaml", engine="ray", advanced=True)


def test_predictions_and_conversions(coco: Any, tmp_path: Path, lively_file: Path) -> None:
    unknown = said(Predict(), coco, model=str(lively_file), imgsz="320", device="cpu")
    assert "Time and memory: not known yet" in unknown and "in the database, if it finds as much as `ground_truth` holds" in unknown
    add_run(coco, tmp_path, "mine", size="n")
    (run,) = fy.runs(coco)
    paces.note("predict", 100, 200.0, model="n", imgsz=320, device="cpu", memory={"ram": 700_000_000})
    known = said(Predict(), coco, model=str(run.best), device="cpu")
    assert "about 12 s at 0.5 images/s (as on" in known and "Memory: 700 MB of RAM that time" in known
    paces.note("convert", 100, 400.0, model="copy")
    converted = said(Convert(), coco)
    files = sum(Path(file).stat().st_size for file in coco.values("filepath"))
    assert "Time: about 24 s (as on" in converted and "(images and labels)" in converted
    labels = estimates.label_bytes(coco, ["ground_truth"])
    assert labels is not None and estimates.room(6 * labels + files) in converted
    assert "not known yet: no conversion with media=reference" in said(Convert(), coco, media="reference")


@pytest.mark.slow
def test_work_is_recorded(coco: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paces, "LEAST", 1)
    settings = {"imgsz": 64, "batch": 2, "workers": 0, "device": "cpu"}
    trained = fy.train(coco, epochs=3, plots=False, project=tmp_path, **settings)
    fy.predict(coco, trained.best, imgsz=96, device="cpu", conf=0.9)
    fy.convert(coco, tmp_path / "converted")
    fy.convert(coco, tmp_path / "converted")  # nothing to do: no pace
    (run,) = fy.runs(coco)
    assert run.facts["size"] == "n"
    found = {p.what: p for what in ("train", "predict", "convert") for p in paces.known(what)}  # type: ignore[arg-type]
    assert [(p.model, p.imgsz, p.device) for p in found.values()] == [("n", 64, "cpu"), ("n", 96, "cpu"), ("copy", 0, "")]
    assert all(0 < p.seconds < 10 for p in found.values()) and found["train"].memory["ram"] > 1e8
    times = [0.0, *run.history()["time"]]
    assert found["train"].seconds * 6 == pytest.approx((times[3] - times[1]) / 2, rel=0.5)
    assert "0 s" in said(Train(), coco, **{**settings, "imgsz": 64}, epochs=1) or "about" in said(Train(), coco, **settings)


def test_tagged_samples_are_pinned(coco: Any, caplog: pytest.LogCaptureFixture) -> None:
    from fiftyone_yoloseg.bridge.prepare import prepare
    from fiftyone_yoloseg.bridge.train import tagged

    validation = prepare(coco, "ground_truth").splits["val"]
    assert tagged(coco, validation) == ()
    last = coco.match_tags("val").last()
    for sample in (coco.match_tags("train").first(), last):
        sample.tags.append("pinned")
        sample.save()
    assert tagged(coco.match_tags("val"), validation) == (last.id,), "training samples are not validated"
    assert TrainSettings(pinned=tagged(coco, validation)).pinned == (last.id,)


@pytest.mark.parametrize(
    ("device", "kind"), [("cpu", "cpu"), ("cpu,cpu", "cpu x 2"), ("0", "gpu"), ("cuda:1", "gpu"), ("0,1", "gpu x 2"), (None, "cpu")]
)
def test_kinds_of_devices(device: str | None, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paces.shutil, "which", lambda name: None)
    assert paces.device_kind(device) == kind
    monkeypatch.setattr(paces.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert paces.device_kind(None) == "gpu"


def test_a_form_of_a_large_dataset_opens_at_once(fiftyone_db: Any) -> None:
    """benchmarks/app.py has 100,000 samples; here only that nothing grows with them."""
    dataset = fiftyone_db.Dataset()
    mask = __import__("numpy").ones((8, 8), bool)
    label = [fo.Detection(label="a", bounding_box=[0, 0, 1, 1], mask=mask)]
    dataset.add_samples(
        [fo.Sample(filepath=f"/none/{i}.jpg", ground_truth=fo.Detections(detections=label)) for i in range(3000)],
        progress=False,
        dynamic=False,
    )
    begun = time.perf_counter()
    assert estimates.label_bytes(dataset, ["ground_truth"]) is not None and estimates.image_bytes(dataset) is None
    assert time.perf_counter() - begun < 0.2
    dataset.delete()
