"""SavedModel, GraphDef, TensorFlow Lite, Edge TPU and TensorFlow.js in Python, each artifact in its own runtime against the network.

TensorFlow and Paddle crash each other, so it is only ever imported in one process that these tests start.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fiftyone_yoloseg import YOLO
from fiftyone_yoloseg.config import ExportSettings, PredictSettings, ValSettings, parse
from fiftyone_yoloseg.data.load import load_data
from fiftyone_yoloseg.engine.checkpoint import Checkpoint, load_checkpoint
from fiftyone_yoloseg.engine.predictor import Predictor, to_input
from fiftyone_yoloseg.engine.torch_backend import TorchBackend
from fiftyone_yoloseg.engine.validator import validate
from fiftyone_yoloseg.errors import CheckpointError, ExportError, MissingDependencyError, SettingsError
from fiftyone_yoloseg.export import Samples, export
from fiftyone_yoloseg.export.base import ExportJob
from fiftyone_yoloseg.export.edgetpu_format import EdgeTpuExporter, check_model
from fiftyone_yoloseg.export.parity import compare
from fiftyone_yoloseg.export.place import size_of
from fiftyone_yoloseg.export.registry import check_takes, find_exporter
from fiftyone_yoloseg.export.tflite_format import append_metadata, convert
from fiftyone_yoloseg.geometry import letterbox
from fiftyone_yoloseg.nn.model import fused
from fiftyone_yoloseg.runtime import load_backend
from fiftyone_yoloseg.runtime.metadata import encode
from fiftyone_yoloseg.types import ModelInfo

KINDS = {"saved_model": "_saved_model", "pb": ".pb", "tflite": ".tflite", "tfjs": "_web_model"}
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def there(tensorflow_process: Any) -> Any:
    return tensorflow_process


@pytest.fixture(scope="module")
def written(tensorflow_process: Any, lively_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The artifact of a kind for 64x64 inputs, written once. Copy it to change it."""

    @functools.cache
    def written(kind: str) -> Path:
        path = tmp_path_factory.mktemp("written") / f"a{KINDS[kind]}"
        tensorflow_process(write, lively_file, path, kind, imgsz=64)
        return path

    return written


def copy(path: Path, folder: Path) -> Path:
    return Path((shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name))


# What runs there ---------------------------------------------------------------------------------------------------------


@functools.cache
def checkpoint_of(path: Path) -> Checkpoint:
    return load_checkpoint(path)


def pictures_in(folder: Path, count: int) -> list[np.ndarray]:
    files = sorted(p for p in folder.iterdir() if p.suffix in (".jpg", ".png"))[:count]
    assert len(files) == count
    return [np.ascontiguousarray(cv2.imread(str(p))[..., ::-1]) for p in files]


def job_of(model: Path, kind: str, calibrate_on: Path | None = None, **options: Any) -> ExportJob:
    checkpoint, settings = checkpoint_of(model), parse(ExportSettings, {"format": kind, **options})
    check_takes(kind, settings)
    size = settings.imgsz or (checkpoint.imgsz, checkpoint.imgsz)
    info = ModelInfo(checkpoint.names, size, dynamic=settings.dynamic, batch=settings.batch)
    metadata = encode(info, size="n", half=settings.half, origin="a test")
    calibration = [as_input(p, size) for p in pictures_in(calibrate_on, 32)] if calibrate_on else []
    return ExportJob(fused(checkpoint.net), info, settings, metadata, calibration)


def as_input(picture: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    pixels = letterbox.apply(picture, letterbox.fit((picture.shape[0], picture.shape[1]), size))
    return to_input(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2), torch.device("cpu"))


def write(model: Path, path: Path, kind: str, calibrate_on: Path | None = None, **options: Any) -> int:
    """Export; returns the size in bytes."""
    find_exporter(kind).write(job_of(model, kind, calibrate_on, **options), path)
    return size_of(path)


def largest_errors(model: Path, path: Path, *shape: int) -> tuple[float, float, float]:
    """Of boxes in px, probabilities and coefficients, prototypes."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        wanted = checkpoint_of(model).net(x)
    found = load_backend(path, "cpu")(x)
    assert [t.dtype for t in found] == [torch.float32] * 2 and all(t.is_contiguous() for t in found)
    pred = (found.pred - wanted.pred).abs()
    return float(pred[:, :4].max()), float(pred[:, 4:].max()), float((found.protos - wanted.protos).abs().max())


def info_of(path: Path) -> ModelInfo:
    return load_backend(path).info


def failure(path: Path, shape: tuple[int, ...] | None = None, device: str | None = None) -> str:
    """The kind of error and its message for loading, and for running with an input of that shape."""
    try:
        backend = load_backend(path, device)
        backend(torch.zeros(shape or (backend.info.batch, 3, *backend.info.imgsz)))
    except (CheckpointError, SettingsError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def on_real_images(model: Path, path: Path, folder: Path) -> tuple[list[tuple[float, float]], int, int]:
    """Largest errors of each image (see parity.check: boxes in px, the rest relative to values above 1), objects found by torch and by both."""
    checkpoint, pictures = checkpoint_of(model), pictures_in(folder, 20)
    backend = load_backend(path, "cpu")
    errors = []
    for picture in pictures:
        parity = compare(checkpoint.net, backend, [picture])
        rest = [parity.max_abs_error[k] / max(1.0, parity.largest[k]) for k in ("classes", "coefficients", "protos")]
        errors.append((parity.max_abs_error["boxes_px"], max(rest)))
    torch_backend = TorchBackend(checkpoint.net, backend.info, torch.device("cpu"))
    both = [Predictor(b, PredictSettings(batch=4)).instances(pictures) for b in (torch_backend, backend)]
    for ours, theirs in zip(*both, strict=True):
        assert (ours.classes == theirs.classes).all()
        np.testing.assert_allclose(
            ours.boxes, theirs.boxes, atol=0.1 / min(letterbox.fit((ours.height, ours.width), backend.info.imgsz).scale)
        )
        np.testing.assert_allclose(ours.confidences, theirs.confidences, atol=1e-3)
        for a, b in zip(ours.masks, theirs.masks, strict=True):
            assert abs(a.x - b.x) <= 1 and abs(a.w - b.w) <= 1
    return errors, sum(len(i) for i in both[0]), sum(len(i) for i in both[1])


def maps(model: Path, path: Path, data: Path) -> dict[str, tuple[float, float]]:
    """Box and mask mAP of the artifact and of the network at the same input size."""
    checkpoint, backend = checkpoint_of(model), load_backend(path)
    settings = ValSettings(data=data, workers=0, batch=8)
    records = load_data(data, ("val",), None)
    result = {}
    for name, one in (("artifact", backend), ("torch", TorchBackend(fused(checkpoint.net), backend.info, torch.device("cpu")))):
        metrics = validate(one, records.splits["val"], records.names, settings)
        result[name] = metrics.box.map, metrics.seg.map
    return result


def through_the_facade(path: Path, data: Path, picture: Path) -> tuple[float, int]:
    model = YOLO(path)
    metrics = model.val(data=data, workers=0, conf=0.25, imgsz=None)
    return metrics.seg.map, len(model(picture)[0].boxes)


def export_to_edgetpu(model: Path, folder: Path, images: Path, program: str | None) -> dict[str, Any]:
    """The whole way, with a stand-in for the compiler on the PATH, or with none."""
    job, exporter = job_of(model, "edgetpu", images, imgsz=64, int8=True), EdgeTpuExporter()
    before = os.environ["PATH"]
    (folder / "bin").mkdir()
    if program:
        (folder / "bin" / "edgetpu_compiler").write_text(program)
        (folder / "bin" / "edgetpu_compiler").chmod(stat.S_IRWXU)
    os.environ["PATH"] = f"{folder / 'bin'}:/bin:/usr/bin"
    try:
        exporter.check(job.settings)
        path = folder / f"a{exporter.ending(job.settings)}"
        exporter.write(job, path)
        said, stand_in = exporter.unverified(job.settings), exporter.stand_in(job, path)
        parity = compare(job.net, stand_in.backend)
        return {"path": path, "why": said.why, "how": said.how, "proves": stand_in.proves, "classes": parity.max_abs_error["classes"]}
    finally:
        os.environ["PATH"] = before


def problems_of(model: Path, images: Path) -> tuple[list[str], list[str]]:
    """What the Edge TPU's compiler would not take of the 8 bit model, and of the one in floats."""
    return check_model(convert(job_of(model, "edgetpu", images, imgsz=64, int8=True))), check_model(
        convert(job_of(model, "tflite", imgsz=64))
    )


# The tests ---------------------------------------------------------------------------------------------------------------


@kinds
def test_static(there: Any, lively_file: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a{KINDS[kind]}"
    there(write, lively_file, path, kind, imgsz=(64, 96), batch=2)
    assert max(there(largest_errors, lively_file, path, 2, 3, 64, 96)) < 1e-3
    assert there(info_of, path) == ModelInfo(checkpoint_of(lively_file).names, (64, 96), 32, dynamic=False, batch=2)
    assert re.search(r"SettingsError.*\(2, 3, 64, 96\) only, not \(1, 3, 64, 96\)", there(failure, path, (1, 3, 64, 96)))


@pytest.mark.parametrize("kind", ["saved_model", "pb", "tfjs"])
def test_dynamic(there: Any, lively_file: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a{KINDS[kind]}"
    there(write, lively_file, path, kind, dynamic=True)
    for shape in ((1, 3, 96, 96), (3, 3, 64, 160), (2, 3, 32, 32)):
        assert max(there(largest_errors, lively_file, path, *shape)) < 1e-3, shape


@kinds
def test_answers_on_real_images(there: Any, test_data: Path, tmp_path: Path, kind: str) -> None:
    model, path = test_data / "peer" / "yolov8n-seg-shapes.pt", tmp_path / f"a{KINDS[kind]}"
    there(write, model, path, kind, imgsz=(192, 256))
    errors, objects, found = there(on_real_images, model, path, test_data / "coco_tiny" / "val2017")
    assert len(errors) == 20 and max(e[0] for e in errors) <= 0.1 and max(e[1] for e in errors) <= 1e-3
    assert found == objects > 100


@pytest.mark.parametrize("kind", ["tflite", "tfjs"])
def test_half_precision_halves_the_file(there: Any, written: Any, lively_file: Path, tmp_path: Path, kind: str) -> None:
    whole = size_of(written(kind))
    half = there(write, lively_file, tmp_path / f"b{KINDS[kind]}", kind, imgsz=64, half=True)
    assert half < 0.55 * whole
    boxes, rest, protos = there(largest_errors, lively_file, tmp_path / f"b{KINDS[kind]}", 1, 3, 64, 64)
    assert 1e-4 < boxes < 1 and rest < 2e-2 and protos < 5e-2


def test_eight_bits_keep_the_accuracy(there: Any, test_data: Path, tmp_path: Path) -> None:
    model, shapes, path = test_data / "peer" / "yolov8n-seg-shapes.pt", test_data / "shapes", tmp_path / "a.tflite"
    size = there(write, model, path, "tflite", shapes / "images" / "train", imgsz=(192, 256), int8=True)
    assert size < 4.2e6
    found = there(maps, model, path, shapes / "data.yaml")
    (box, mask), (torch_box, torch_mask) = found["artifact"], found["torch"]
    assert torch_mask > 0.5
    assert torch_mask - mask <= 0.02 and torch_box - box <= 0.02, found


def test_validates_and_predicts_as_any_model(there: Any, lively_file: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    picture = next((tiny_dataset.parent / "images" / "val").iterdir())
    found = []
    for kind, ending in KINDS.items():
        path = tmp_path / f"best{ending}"
        there(write, lively_file, path, kind)
        found.append(there(through_the_facade, path, tiny_dataset, picture))
    assert len(set(found)) == 1 and found[0][1] > 0


@pytest.mark.parametrize("kind", ["tflite", "tfjs"])
def test_same_checkpoint_gives_the_same_files(there: Any, written: Any, lively_file: Path, tmp_path: Path, kind: str) -> None:
    there(write, lively_file, tmp_path / f"a{KINDS[kind]}", kind, imgsz=64)
    contents = [
        [(f.name, f.read_bytes()) for f in sorted([path] if path.is_file() else path.iterdir())]
        for path in (written(kind), tmp_path / f"a{KINDS[kind]}")
    ]
    assert contents[0] == contents[1]


def test_other_programs_find_the_metadata(written: Any) -> None:
    with zipfile.ZipFile(written("tflite")) as archive:
        lite = json.loads(archive.read("metadata.json"))
    web = json.loads((written("tfjs") / "model.json").read_text())
    saved = json.loads((written("saved_model") / "assets.extra" / "metadata.json").read_text())
    assert lite == web["userDefinedMetadata"] == saved
    assert lite["task"] == "segment" and lite["imgsz"] == "[64, 64]" and lite["stride"] == "32"
    assert web["format"] == "graph-model" and list(web["signature"]["outputs"]) == ["output0", "output1"]
    assert all(f.stat().st_size <= 4 << 20 for f in written("tfjs").glob("*.bin"))


# Edge TPU ----------------------------------------------------------------------------------------------------------------


def test_edgetpu_takes_what_is_compiled_for_it(there: Any, test_data: Path, tmp_path: Path) -> None:
    model, images = test_data / "peer" / "yolov8n-seg-shapes.pt", test_data / "shapes" / "images" / "train"
    eight, whole = there(problems_of, model, images)
    assert eight == [] and any("is FLOAT32" in p for p in whole) and "operation TRANSPOSE" in whole


@pytest.mark.parametrize(
    "program",
    [None, '#!/bin/sh\n[ "$1$2" = -s-o ] && cp "$4" "$3/model_edgetpu.tflite"\n', "#!/bin/sh\necho no such operation >&2\nexit 3\n"],
)
def test_edgetpu_compiler(there: Any, test_data: Path, tmp_path: Path, program: str | None) -> None:
    model, images = test_data / "peer" / "yolov8n-seg-shapes.pt", test_data / "shapes" / "images" / "train"
    if program and "exit 3" in program:
        with pytest.raises(ExportError, match="edgetpu_compiler failed with code 3: no such operation"):
            there(export_to_edgetpu, model, tmp_path, images, program)
        return
    done = there(export_to_edgetpu, model, tmp_path, images, program)
    assert done["proves"] == "the same 8 bit model on the CPU" and done["classes"] < 0.1
    assert done["path"].name == ("a_edgetpu.tflite" if program else "a_int8.tflite")
    assert ("only a machine with that device" if program else "not compiled for it") in done["why"]
    assert ("yoloseg val" if program else "https://coral.ai/docs/edgetpu/compiler") in done["how"]
    assert there(failure, done["path"]) == "none", "the stand-in compiler copies, so the result runs on the CPU"


def test_edgetpu_by_the_usual_way(test_data: Path, tmp_path: Path) -> None:
    """In a process of its own, without the compiler: the model is kept, under a name that says what it is, and the report says the rest."""
    checkpoint = load_checkpoint(test_data / "peer" / "yolov8n-seg-shapes.pt")
    pictures = pictures_in(test_data / "shapes" / "images" / "val", 4)
    settings = parse(ExportSettings, {"format": "edgetpu", "int8": True, "imgsz": (192, 256), "output": tmp_path})
    report = export(checkpoint, settings, Samples(images=pictures, calibration=pictures_in(test_data / "shapes" / "images" / "train", 16)))
    assert report.path == tmp_path / "yolov8n-seg-shapes_int8.tflite" and report.verdict == "unverified" and report.latency_ms is None
    assert "not compiled for it" in report.why and report.proves == "the same 8 bit model on the CPU"
    assert report.predictions >= 4 and report.predictions_matched >= 0.8 * report.predictions
    assert sorted(p.name for p in tmp_path.iterdir()) == [report.path.name, f"{report.path.name}.report.json"]


def test_edgetpu_is_8_bits() -> None:
    with pytest.raises(SettingsError, match="8 bit integers only; give int8=true"):
        EdgeTpuExporter().check(parse(ExportSettings, {"format": "edgetpu"}))


# What must fail ----------------------------------------------------------------------------------------------------------


@kinds
def test_cut_off(there: Any, written: Any, tmp_path: Path, kind: str) -> None:
    path = copy(written(kind), tmp_path)
    vital = [path] if path.is_file() else [path / "saved_model.pb"] if kind == "saved_model" else list(path.iterdir())
    for file in vital:
        whole = file.read_bytes()
        for share in (0.0, 0.01, 0.5, 0.999):
            file.write_bytes(whole[: int(len(whole) * share)])
            said = there(failure, path)
            assert (
                re.match(r"CheckpointError: .*(empty|truncated|damaged|not exported by)", said) and str(path) in said and "\n" not in said
            ), said
        file.unlink()
        assert re.match("CheckpointError: .*(missing|no such file)", there(failure, path))
        file.write_bytes(whole)
    assert there(failure, path) == "none"


def test_what_is_none_of_ours(there: Any, tmp_path: Path) -> None:
    (tmp_path / "a_web_model").mkdir()
    (tmp_path / "a_web_model" / "model.json").write_text('{"format": "graph-model", "modelTopology": {}, "weightsManifest": []}')
    assert "not exported by fiftyone-yoloseg" in there(failure, tmp_path / "a_web_model")
    (tmp_path / "a.pb").write_bytes(b"")
    assert "empty" in there(failure, tmp_path / "a.pb")
    (tmp_path / "a.tflite").write_bytes(b"anything at all")
    assert "not a readable TensorFlow Lite model" in there(failure, tmp_path / "a.tflite")
    (tmp_path / "a_saved_model").mkdir()
    assert "saved_model.pb is missing" in there(failure, tmp_path / "a_saved_model")


def test_of_a_newer_version_or_for_another_device(there: Any, written: Any, tmp_path: Path) -> None:
    path = copy(written("tflite"), tmp_path)
    with zipfile.ZipFile(path) as archive:
        metadata = json.loads(archive.read("metadata.json"))
    model = path.read_bytes()
    own = {**json.loads(metadata["fiftyone_yoloseg"]), "format_version": 99}
    path.write_bytes(model[: model.rindex(b"PK\x03\x04")])
    assert "no metadata behind the model: it is truncated" in there(failure, path)
    append_metadata(path, {**metadata, "fiftyone_yoloseg": json.dumps(own)})
    assert "newer fiftyone-yoloseg: pip install -U" in there(failure, path)
    path.write_bytes(model.replace(b"main", b"mai2", 1) + b"edgetpu-custom-op")  # the name that the compiler gives its operation
    assert "compiled for the Edge TPU, and its runtime (libedgetpu.so.1) or the device is not here" in there(failure, path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite", "dynamic": True}, "dynamic=True with format=tflite: its memory is planned for one input size"),
        ({"format": "pb", "half": True}, "half=True with format=pb: TensorFlow computes this graph in full precision"),
        ({"format": "saved_model", "int8": True}, "use tflite"),
        ({"format": "tfjs", "int8": True}, "use tflite"),
        ({"format": "edgetpu", "int8": True, "batch": 2}, "one image at a time"),
        ({"format": "tfjs", "opset": 17}, "matter of ONNX"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check_takes(options["format"], parse(ExportSettings, options))


@kinds
def test_without_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / f"a{KINDS[kind]}"
    path.write_bytes(b"something")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fiftyone-yoloseg\[tf\]'"):
        load_backend(path)
