"""Predictions that stream into a dataset: going on after a kill, what is left alone, what is lost, scores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

fo = pytest.importorskip("fiftyone")

from bson import ObjectId  # noqa: E402
from review_data import AUTHOR, H, W, drawn, make_dataset, raw, rectangle  # noqa: E402

from fiftyone_yoloseg.bridge import predict as predicting  # noqa: E402
from fiftyone_yoloseg.bridge import runs  # noqa: E402
from fiftyone_yoloseg.bridge.database import ensure_database  # noqa: E402
from fiftyone_yoloseg.bridge.label_attributes import OWN  # noqa: E402
from fiftyone_yoloseg.bridge.models import open_backend  # noqa: E402
from fiftyone_yoloseg.bridge.pixels import decode_mask, encode_mask  # noqa: E402
from fiftyone_yoloseg.bridge.predict import predict  # noqa: E402
from fiftyone_yoloseg.bridge.provenance import predicted_labels  # noqa: E402
from fiftyone_yoloseg.bridge.resuming import MARK  # noqa: E402
from fiftyone_yoloseg.engine.checkpoint import load_checkpoint  # noqa: E402
from fiftyone_yoloseg.engine.mask_scores import SCORES  # noqa: E402
from fiftyone_yoloseg.errors import SettingsError, Stopped  # noqa: E402
from fiftyone_yoloseg.types import Instances  # noqa: E402

FAST: dict[str, Any] = {"imgsz": 96, "device": "cpu", "conf": 0.4}


@pytest.fixture
def dataset(fiftyone_db: Any, tmp_path: Path) -> Any:
    """12 images of noise."""
    made = make_dataset(fiftyone_db, tmp_path, 12)
    yield made
    made.delete()


def stop_after(batches: int) -> Any:
    calls = iter([False] * batches)
    return lambda: next(calls, True)


def states(dataset: Any, field: str = "predictions") -> dict[str, Any]:
    """Sample id -> when its predictions were made; None without any."""
    times = dataset.values(f"{field}.detections.predicted_at")
    return {i: (max(t) if t else None) for i, t in zip(dataset.values("id"), times, strict=True)}


def test_a_stopped_call_goes_on_and_a_finished_one_starts_anew(dataset: Any, lively_file: Path) -> None:
    with pytest.raises(Stopped, match="after 4 of 12 images; .* the same call goes on from there"):
        predict(dataset, lively_file, batch=2, should_stop=stop_after(2), **FAST)
    first = states(dataset)
    assert sum(raw(dataset, i, "predictions") != [] for i in first) == 4
    report = predict(dataset, lively_file, batch=3, **FAST)  # how many at a time makes no difference
    assert report.images == 8 and report.skipped == 4 and report.failed == []
    second = states(dataset)
    ids = list(first)
    assert [second[i] for i in ids[:4]] == [first[i] for i in ids[:4]] and None not in second.values()
    # complete: the same call again predicts everything again, unless only what is missing is wanted
    assert predict(dataset, lively_file, **FAST).images == 12
    third = states(dataset)
    assert all(third[i] > second[i] for i in ids)
    dataset.add_sample(fo.Sample(filepath=dataset.first().filepath.replace("0.png", "./0.png")))
    report = predict(dataset, lively_file, resume=True, **FAST)
    assert (report.images, report.skipped) == (1, 12) and [states(dataset)[i] for i in ids] == [third[i] for i in ids]
    # other settings, another checkpoint: nothing that is there counts
    assert predict(dataset, lively_file, resume=True, **{**FAST, "conf": 0.5}).skipped == 0


@pytest.mark.parametrize("change", ["settings", "checkpoint", "resume", "overwrite", "scores"])
def test_what_another_call_wrote_does_not_count(dataset: Any, lively_file: Path, tmp_path: Path, change: str) -> None:
    with pytest.raises(Stopped):
        predict(dataset, lively_file, batch=2, should_stop=stop_after(2), **FAST)
    other = tmp_path / "other.pt"
    if change == "checkpoint":
        from fiftyone_yoloseg.engine.checkpoint import save_checkpoint

        same = load_checkpoint(lively_file)
        save_checkpoint(other, same.net, names=same.names, imgsz=96, train_args={}, origin="another")
    options: dict[str, Any] = {
        "settings": {"iou": 0.5},
        "checkpoint": {},
        "resume": {"resume": False},
        "overwrite": {"overwrite": True},
        "scores": {"scores": "box_mask_gap"},
    }[change]
    report = predict(dataset, other if change == "checkpoint" else lively_file, **{**FAST, **options})
    assert (report.images, report.skipped) == (12, 0)


def test_images_without_objects_are_done_too(dataset: Any, lively_file: Path) -> None:
    none = {**FAST, "conf": 1.0}
    with pytest.raises(Stopped):
        predict(dataset, lively_file, batch=2, should_stop=stop_after(2), **none)
    report = predict(dataset, lively_file, **none)
    assert (report.images, report.skipped, report.objects) == (8, 4, 0)
    assert predict(dataset, lively_file, resume=True, **none).skipped == 12


def test_unreadable_images_are_tried_again(dataset: Any, lively_file: Path) -> None:
    sample = dataset.skip(3).first()
    image = Path(sample.filepath)
    kept = image.read_bytes()
    image.write_bytes(b"no image")
    report = predict(dataset, lively_file, **FAST)
    assert [p.sample_id for p in report.failed] == [sample.id] and "not an image" in report.failed[0].reason and report.images == 11
    image.write_bytes(kept)
    report = predict(dataset, lively_file, resume=True, **FAST)
    assert (report.images, report.skipped) == (1, 11) and raw(dataset, sample.id, "predictions")


def test_resuming_leaves_a_persons_work_alone(dataset: Any, lively_file: Path) -> None:
    with pytest.raises(Stopped):
        predict(dataset, lively_file, batch=2, should_stop=stop_after(2), **FAST)
    done, missing = dataset.first(), dataset.last()
    done.predictions.detections = [*done.predictions.detections[1:], drawn((1, 2, 3, 4))]
    done.save()
    missing["predictions"] = fo.Detections(detections=[drawn((5, 6, 7, 8))])
    missing["other"] = fo.Detections(detections=[drawn((5, 6, 7, 8))])
    missing.save()
    before, other = raw(dataset, done.id, "predictions"), raw(dataset, missing.id, "other")
    report = predict(dataset, lively_file, **FAST)
    assert report.skipped == 4 and report.kept == 1
    assert raw(dataset, done.id, "predictions") == before and raw(dataset, missing.id, "other") == other
    after = raw(dataset, missing.id, "predictions")
    assert after[0]["bounding_box"] == drawn((5, 6, 7, 8)).bounding_box and len(after) > 1


KILLED = """
import os, signal, sys
from fiftyone_yoloseg.bridge.database import ensure_database
ensure_database()
import fiftyone as fo
from fiftyone_yoloseg.bridge.predict import predict
calls = iter(range(100))
def progress(share, label):
    if share >= 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
predict(fo.load_dataset(sys.argv[1]), sys.argv[2], batch=2, imgsz=96, device="cpu", conf=0.4, progress=progress)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_process_loses_nothing_that_was_written(dataset: Any, lively_file: Path) -> None:
    dataset.persistent = True
    ensure_database()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, dataset.name, str(lively_file)], capture_output=True, text=True, timeout=240, env=dict(os.environ)
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    dataset.reload()
    before = states(dataset)
    written = sum(time is not None for time in before.values())
    assert 6 <= written < 12, "half-way"
    (facts,) = runs.recall(dataset, "predict")
    assert facts["complete"] is False
    report = predict(dataset, lively_file, **FAST)
    assert (report.skipped, report.images, report.failed) == (written, 12 - written, [])
    after = states(dataset)
    assert None not in after.values() and all(after[i] == time for i, time in before.items() if time is not None)
    assert runs.recall(dataset, "predict")[0]["complete"] is True


def test_a_folder_is_a_model_with_a_hash_too(tmp_path: Path, lively_file: Path) -> None:
    from fiftyone_yoloseg.runtime.reports import file_sha256

    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.bin").write_bytes(b"1")
    first = file_sha256(folder)
    assert first == file_sha256(folder) and first is not None
    (folder / "sub" / "a.bin").write_bytes(b"2")
    assert file_sha256(folder) != first
    _, source = open_backend(lively_file)
    assert source.sha256 == file_sha256(lively_file)


def test_refusals(dataset: Any, lively_file: Path) -> None:
    with pytest.raises(SettingsError, match="resume=True leaves .* overwrite=True replaces"):
        predict(dataset, lively_file, resume=True, overwrite=True, **FAST)
    with pytest.raises(SettingsError, match="'certainty' is none of mask_certainty, box_mask_gap, flip_agreement"):
        predict(dataset, lively_file, scores=["certainty"], **FAST)
    model = load_checkpoint(lively_file)
    object.__setattr__(model, "path", None)
    with pytest.raises(SettingsError, match="resume=True: this model has no file"):
        predict(dataset, model, resume=True, **FAST)
    assert not dataset.has_field("predictions")


def test_scores_are_attributes_of_the_objects(dataset: Any, lively_file: Path) -> None:
    predict(dataset, lively_file, "plain", **FAST)
    predict(dataset, lively_file, "scored", scores="all", **FAST)
    for plain, scored in zip(dataset.values("plain.detections"), dataset.values("scored.detections"), strict=True):
        for one, other in zip(plain, scored, strict=True):
            assert all(0 <= other[name] <= 1 for name in SCORES) and not any(one.has_field(name) for name in SCORES)
            assert (one.label, one.bounding_box, one.confidence) == (other.label, other.bounding_box, other.confidence)
            assert (one.mask == other.mask).all()
    low = dataset.filter_labels("scored", fo.ViewField("mask_certainty") < 0.9)  # the App's filters know them
    assert low.count("scored.detections") <= dataset.count("scored.detections") > 0
    assert predict(dataset, lively_file, "scored", scores=["flip_agreement"], **FAST).kept == 0, "scores are no edit"


def test_a_score_never_replaces_what_makes_a_label() -> None:
    assert not OWN & set(SCORES)
    names = {"label", "_id", "mask", "bounding_box", "confidence", "model_hash", "origin", "mask_certainty"}
    found = Instances(
        H, W, np.zeros((1, 4), np.float32), np.array([0.5], np.float32), np.array([0]), [rectangle(1, 2, 3, 4)],
        {name: np.array([7], np.float32) for name in names},
    )  # fmt: skip
    (label,) = predicted_labels(found, {0: "cat"}, AUTHOR)
    assert label["label"] == "cat" and label["confidence"] == 0.5 and label["origin"] == "model" and label["mask_certainty"] == 7
    assert isinstance(label["mask"], bytes) and isinstance(label["model_hash"], str)


def test_a_sample_that_mongodb_refuses_costs_only_itself(dataset: Any) -> None:
    ids = dataset.values("id")[:3]
    dataset.add_sample_field("big", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    batch = predicting._Batch({i: [{"_id": ObjectId(), "label": "x"}] for i in ids})
    batch.labels[ids[1]][0]["mask"] = os.urandom(17 << 20)  # type: ignore[index]
    done = predicting._write(dataset, "big", batch, "k.r", False)
    assert set(done.labels) == {ids[0], ids[2]} and [p.sample_id for p in done.failed] == [ids[1]]
    assert "MongoDB refused" in done.failed[0].reason and done.failed[0].path == dataset[ids[1]].filepath
    assert [bool(raw(dataset, i, "big")) for i in ids] == [True, False, True]


def test_the_mark_survives_a_save(dataset: Any, lively_file: Path) -> None:
    """A script, or the App, that saves a sample keeps what we do not declare as a field."""
    predict(dataset, lively_file, **FAST)
    sample = dataset.first()
    sample.predictions.detections[0].label = "changed"
    sample.save()

    document = dataset._sample_collection.find_one({"_id": ObjectId(sample.id)})
    assert document["predictions"][MARK].count(".") == 1 and document["predictions"]["detections"][0]["label"] == "changed"


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (37, 41), (640, 480), (10, 100000)])
def test_masks_are_stored_as_fiftyone_stores_them(shape: tuple[int, int]) -> None:
    """Byte for byte, once decompressed, and read back by FiftyOne's own function."""
    from fiftyone.core.utils import deserialize_numpy_array, serialize_numpy_array

    rng = np.random.default_rng(0)
    blobs = np.kron(rng.random((-(-shape[0] // 8), -(-shape[1] // 8))) < 0.5, np.ones((8, 8), bool))[: shape[0], : shape[1]]
    for mask in (rng.random(shape) < 0.5, np.asfortranarray(blobs), np.ones(shape, bool)):
        stored = encode_mask(mask)
        assert zlib.decompress(stored) == zlib.decompress(serialize_numpy_array(np.ascontiguousarray(mask)))
        back = deserialize_numpy_array(stored)
        assert back.dtype == np.bool_ and (back == mask).all() and (decode_mask(stored) == mask).all()
