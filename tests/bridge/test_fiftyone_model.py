"""Our models in FiftyOne's own functions: apply_model, the zoo, embeddings, Brain."""

from __future__ import annotations

import copy
import functools
import http.server
import pickle
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

fo = pytest.importorskip("fiftyone")
fob = pytest.importorskip("fiftyone.brain")

import fiftyone.core.models as fom  # noqa: E402
import fiftyone.zoo as foz  # noqa: E402
from review_data import make_dataset  # noqa: E402

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg import YOLO  # noqa: E402
from fiftyone_yoloseg.errors import DataError, SettingsError, UserError  # noqa: E402

REPO = Path(__file__).resolve().parents[2]
FAST: dict[str, Any] = {"imgsz": 96, "device": "cpu", "conf": 0.4}


@pytest.fixture
def dataset(fiftyone_db: Any, tmp_path: Path) -> Iterator[Any]:
    made = make_dataset(fiftyone_db, tmp_path, 5)
    yield made
    made.delete()


@pytest.fixture
def shapes(fiftyone_db: Any, test_data: Path) -> Iterator[Any]:
    """24 images of discs, squares and stars, with ground truth."""
    everything = fy.import_labels(test_data / "shapes" / "data.yaml")
    made = everything.match_tags("val").limit(24).clone()
    everything.delete()
    yield made
    made.delete()


def summary(dataset: Any, field: str) -> list[Any]:
    return [[(d.label, round(d.confidence, 4), d.bounding_box, d.mask.sum()) for d in x] for x in dataset.values(f"{field}.detections")]


@pytest.mark.parametrize(("batch_size", "workers"), [(None, 0), (2, 0), (3, 2)])
def test_apply_model_finds_what_predict_finds(dataset: Any, lively_file: Path, batch_size: int | None, workers: int) -> None:
    # the same batches: another number of images may be multiplied in another order, and near ties then change places
    fy.predict(dataset, lively_file, "ours", device="cpu", batch=batch_size or 1)
    dataset.apply_model(YOLO(lively_file), label_field="theirs", batch_size=batch_size, num_workers=workers)
    assert summary(dataset, "theirs") == summary(dataset, "ours") and dataset.count("ours.detections")


def test_thresholds_and_classes(dataset: Any, lively_file: Path) -> None:
    fy.predict(dataset, lively_file, "ours", conf=0.05, device="cpu", batch=1)
    middle = float(np.median(dataset.values("ours.detections.confidence", unwind=True)))
    model = fy.as_fiftyone(lively_file, conf=middle, device="cpu")
    dataset.apply_model(model, label_field="many", confidence_thresh=0.05)
    assert summary(dataset, "many") == summary(dataset, "ours"), "lower than the model's own threshold is possible"
    dataset.apply_model(model, label_field="few")  # and gone again
    assert 0 < dataset.count("few.detections") < dataset.count("many.detections")
    name = dataset.distinct("ours.detections.label")[0]
    dataset.apply_model(YOLO(lively_file), label_field="one", confidence_thresh=0.05, classes=[name])
    assert dataset.distinct("one.detections.label") == [name]
    dataset.apply_model(model, label_field="none", classes=["unicorn"])
    assert dataset.count("none.detections") == 0


def test_failures_are_fiftyones(dataset: Any, lively_file: Path) -> None:
    sample = dataset.skip(2).first()
    Path(sample.filepath).write_bytes(b"no image")
    dataset.apply_model(YOLO(lively_file), label_field="one", batch_size=1)
    assert [x is None for x in dataset.values("one")] == [False, False, True, False, False]
    dataset.apply_model(YOLO(lively_file), label_field="two", batch_size=2)  # FiftyOne drops the batch
    assert [x is None for x in dataset.values("two")] == [False, False, True, True, False]
    with pytest.raises(DataError, match=r"2.png: is not an image"):
        dataset.apply_model(YOLO(lively_file), label_field="three", skip_failures=False)


def test_an_exported_model(dataset: Any, lively_file: Path, tmp_path: Path) -> None:
    model = YOLO(YOLO(lively_file).export(format="onnx", imgsz=96, output=tmp_path / "best.onnx"))
    dataset.apply_model(model, label_field="theirs", batch_size=3)
    fy.predict(dataset, model, "ours")
    assert summary(dataset, "theirs") == summary(dataset, "ours") and dataset.count("ours.detections")
    assert not model.has_embeddings
    with pytest.raises(ValueError, match="must expose embeddings"):
        dataset.compute_embeddings(model)


def test_a_yolo_stays_a_yolo(lively_file: Path) -> None:
    model = YOLO(lively_file)
    assert isinstance(model, fom.Model) and isinstance(model, fom.TorchModelMixin) and isinstance(model, YOLO) and type(model) is YOLO
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    before = model(image, **FAST)[0].boxes.conf
    assert type(model.predict(image, **FAST)) is list
    with model:  # as FiftyOne's loops over frames of videos use it: RGB in, Detections out
        assert isinstance(model.predict(image), fo.Detections)
    assert type(model.predict(image, **FAST)) is list
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert type(other) is YOLO and (other(image, **FAST)[0].boxes.conf == before).all()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        model.nothing  # noqa: B018
    assert not isinstance(3, YOLO) and not isinstance(model, fom.SamplesMixin)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fiftyone_db: Any) -> Iterator[str]:
    """The address of an archive of this repository's zoo source, and a zoo folder of its own."""
    monkeypatch.setattr(fo.config, "model_zoo_dir", str(tmp_path / "models"))
    with zipfile.ZipFile(tmp_path / "repo.zip", "w") as archive:
        for file in (REPO / "zoo").glob("*.*"):
            archive.write(file, f"fiftyone-main/zoo/{file.name}")
        archive.write(REPO / "fiftyone.yml", "fiftyone-main/fiftyone.yml")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/repo.zip"
        server.shutdown()


def test_the_zoo(source: str, dataset: Any, lively_file: Path) -> None:
    foz.register_zoo_model_source(source)
    (name,) = foz.list_zoo_models(source=source)
    model = foz.load_zoo_model(name, checkpoint=str(lively_file), conf=0.05)
    assert isinstance(model, fom.Model) and model.media_type == "image"
    dataset.apply_model(model, label_field="zoo", num_workers=2, batch_size=2)  # FiftyOne's module of our folder is unknown to workers
    fy.predict(dataset, lively_file, "ours", conf=0.05, device="cpu", batch=2)
    assert summary(dataset, "zoo") == summary(dataset, "ours") and dataset.count("zoo.detections")
    with pytest.raises(SettingsError, match="give checkpoint="):
        foz.load_zoo_model(name)
    with pytest.raises(SettingsError, match="did you mean 'conf'"):
        foz.load_zoo_model(name, checkpoint=str(lively_file), cof=0.5)
    form = foz.get_zoo_model(name).resolve_input(None)
    assert set(form.type.properties) == {"checkpoint", "conf"}


def test_embeddings_of_images_in_brain(dataset: Any, lively_file: Path) -> None:
    """The last image is the first one again: its nearest neighbour."""
    from fiftyone_yoloseg.bridge.predict import embed

    copied = Path(dataset.first().filepath).with_name("copy.png")
    copied.write_bytes(Path(dataset.first().filepath).read_bytes())
    dataset.add_sample(fo.Sample(filepath=str(copied)))
    model = YOLO(lively_file)
    vectors = dataset.compute_embeddings(model, batch_size=2)
    assert vectors == pytest.approx(embed(dataset, lively_file, device="cpu"), abs=1e-5)
    index = fob.compute_similarity(dataset, model=model, brain_key="near", batch_size=3)
    first, last = dataset.first(), dataset.last()
    assert dataset.sort_by_similarity(first.id, k=2, brain_key="near").values("id") == [first.id, last.id]
    assert index.total_index_size == 6
    points = fob.compute_visualization(dataset, model=model, method="pca", num_dims=2, brain_key="map", batch_size=3).points
    assert points.shape == (6, 2) and points[0] == pytest.approx(points[5], abs=1e-4)


def nearest_of_the_same_class(vectors: Any, labels: Any) -> float:
    """Share of objects whose nearest neighbour (cosine) is of their class."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -2)
    return float((labels[likeness.argmax(1)] == labels).mean())


def test_embeddings_of_objects_in_brain(shapes: Any, test_data: Path) -> None:
    model = YOLO(test_data / "peer" / "yolov8n-seg-shapes.pt")
    field = "ground_truth"
    found = fy.compute_object_embeddings(shapes, model, field, imgsz=160, device="cpu")
    labels = np.concatenate([np.array(x) for x in shapes.values(f"{field}.detections.label") if x])
    vectors = np.concatenate([found[i] for i in shapes.values("id") if i in found])
    assert len(vectors) == len(labels) > 40 and np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    chance = max(np.mean(labels == name) for name in set(labels))
    same = labels[:, None] == labels
    np.fill_diagonal(same, False)
    likeness = vectors @ vectors.T
    other = labels[:, None] != labels
    assert likeness[same].mean() > likeness[other].mean() and nearest_of_the_same_class(vectors, labels) > chance + 0.2
    # written to the labels, and used by Brain
    assert fy.compute_object_embeddings(shapes, model, field, "features", imgsz=160, device="cpu", batch=5) is None
    written = np.concatenate([np.stack(x) for x in shapes.values(f"{field}.detections.features") if x])
    assert written == pytest.approx(vectors, abs=1e-5), "the size of batches makes no difference"
    index = fob.compute_similarity(shapes, patches_field=field, embeddings="features", brain_key="objects")
    assert index.total_index_size == len(labels)
    patches = shapes.to_patches(field)
    kinds = []
    for patch in patches.limit(20):
        near = patches.sort_by_similarity(patch[field].id, k=2, brain_key="objects").last()
        kinds.append(near[field].label == patch[field].label)
    assert np.mean(kinds) > chance
    points = fob.compute_visualization(
        shapes, patches_field=field, embeddings=found, method="pca", num_dims=2, brain_key="objects_map"
    ).points
    assert points.shape == (len(labels), 2)


def test_patches_work_too(shapes: Any, test_data: Path) -> None:
    """FiftyOne's own crops, of any number and size."""
    few = shapes.limit(3)
    model = fy.as_fiftyone(test_data / "peer" / "yolov8n-seg-shapes.pt", imgsz=64, device="cpu")
    found = few.compute_patch_embeddings(model, "ground_truth", batch_size=2)
    counts = [len(x or []) for x in few.values("ground_truth.detections.id")]
    assert [0 if found[i] is None else len(found[i]) for i in few.values("id")] == counts and sum(counts)


def test_embedding_objects_refuses_and_goes_on(shapes: Any, test_data: Path, tmp_path: Path) -> None:
    model, small = test_data / "peer" / "yolov8n-seg-shapes.pt", {"imgsz": 64, "device": "cpu"}
    for name in ("label", "mask", "my name", "confidence", "iscrowd"):
        with pytest.raises(UserError, match="not a name for an attribute"):
            fy.compute_object_embeddings(shapes, model, "ground_truth", name, **small)
    with pytest.raises(DataError, match="no field 'nope'"):
        fy.compute_object_embeddings(shapes, model, "nope", **small)
    sample = shapes.match(fo.ViewField("ground_truth.detections").length() > 0).first()
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "x.png").write_bytes(b"none")
    sample.filepath = str(tmp_path / "x.png")
    sample.save()
    with pytest.raises(DataError, match=f"sample {sample.id}.*leave it out of the view"):
        fy.compute_object_embeddings(shapes, model, "ground_truth", **small)
    fy.compute_object_embeddings(shapes, model, "ground_truth", "features", **small)
    missing = [x is None for x in shapes[sample.id].ground_truth.detections for x in [x.features if x.has_field("features") else None]]
    assert all(missing) and shapes.count("ground_truth.detections.features") == shapes.count("ground_truth.detections") - len(missing)
