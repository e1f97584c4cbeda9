"""Core ML: the saved files, interpreted over their saved weights, against the network; on a Mac, Apple's runtime."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fiftyone_yoloseg.config import ExportSettings, parse
from fiftyone_yoloseg.engine.checkpoint import Checkpoint, load_checkpoint
from fiftyone_yoloseg.errors import CheckpointError, ExportError, MissingDependencyError, SettingsError
from fiftyone_yoloseg.export import coreml_interpreter
from fiftyone_yoloseg.export.base import ExportJob
from fiftyone_yoloseg.export.coreml_format import exporter
from fiftyone_yoloseg.export.coreml_interpreter import InterpretedCoreML
from fiftyone_yoloseg.export.parity import compare
from fiftyone_yoloseg.export.place import target
from fiftyone_yoloseg.export.registry import check_needs, check_takes
from fiftyone_yoloseg.nn.model import fused
from fiftyone_yoloseg.runtime import load_backend
from fiftyone_yoloseg.runtime.coreml_backend import read_model
from fiftyone_yoloseg.runtime.metadata import encode
from fiftyone_yoloseg.types import ModelInfo

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, lively_checkpoint: Checkpoint) -> Make:
    """Write an artifact, each kind once."""
    folder, made = tmp_path_factory.mktemp("coreml"), {}

    def run(ending: str, option: str = "", checkpoint: Checkpoint = lively_checkpoint, imgsz: tuple[int, int] = (64, 96)) -> Path:
        path = folder / f"{option or 'full'}{imgsz[0]}{ending}"
        if path not in made:
            settings = parse(ExportSettings, {"format": "coreml", "output": path, **({option: True} if option else {})})
            assert exporter.ending(settings) == ending
            info = ModelInfo(checkpoint.names, imgsz, dynamic=False)
            exporter.write(
                ExportJob(fused(checkpoint.net), info, settings, encode(info, size="n", half=option == "half", origin="a test")), path
            )
            made[path] = True
        return path

    return run


def pixels(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(7)) / 255


def errors(path: Path, checkpoint: Checkpoint) -> tuple[float, float, float]:
    """Largest differences: boxes in px, probabilities and coefficients, prototypes."""
    x = pixels(1, 3, 64, 96)
    with torch.inference_mode():
        wanted = checkpoint.net(x)
    found = InterpretedCoreML(path)(x)
    assert [t.dtype for t in found] == [torch.float32] * 2 and [t.shape for t in found] == [t.shape for t in wanted]
    pred = (found.pred - wanted.pred).abs()
    return float(pred[:, :4].max()), float(pred[:, 4:].max()), float((found.protos - wanted.protos).abs().max())


@pytest.mark.parametrize("ending", [".mlpackage", ".mlmodel"])
def test_the_saved_program_is_the_network(make: Make, lively_checkpoint: Checkpoint, ending: str) -> None:
    path = make(ending)
    assert max(errors(path, lively_checkpoint)) < 1e-3
    model = read_model(path, skip_model_load=True)
    description = model.get_spec().description
    (image,) = description.input
    assert image.name == "image" and image.type.WhichOneof("Type") == "imageType"
    kind = image.type.imageType
    assert (kind.width, kind.height, kind.colorSpace) == (96, 64, kind.ColorSpace.Value("RGB"))
    assert [o.name for o in description.output] == ["output0", "output1"]
    shapes = [list(o.type.multiArrayType.shape) for o in description.output]
    assert ending == ".mlmodel" or shapes == [[1, 39, 126], [1, 32, 16, 24]]
    info = InterpretedCoreML(path).info
    assert (info.names, info.imgsz, info.batch, info.dynamic) == (lively_checkpoint.names, (64, 96), 1, False)
    assert model.user_defined_metadata["task"] == "segment" and model.author == "fiftyone-yoloseg"


@pytest.mark.parametrize("ending", [".mlpackage", ".mlmodel"])
def test_half_and_int8_are_smaller_and_near(make: Make, lively_checkpoint: Checkpoint, ending: str) -> None:
    def size(path: Path) -> int:
        return sum(f.stat().st_size for f in (path.rglob("*") if path.is_dir() else [path]) if f.is_file())

    full, half, int8 = (make(ending, option) for option in ("", "half", "int8"))
    assert size(half) < 0.55 * size(full) and size(int8) < 0.35 * size(full)
    boxes, rest, protos = errors(half, lively_checkpoint)
    assert 1e-4 < boxes < 1 and rest < 5e-2 and protos < 0.1
    # weights of 8 bits: near, but not nearer than those of 16
    assert errors(half, lively_checkpoint)[2] < errors(int8, lively_checkpoint)[2] < 1.5


def test_half_computes_boxes_in_full(make: Make) -> None:
    program = InterpretedCoreML(make(".mlpackage", "half")).run
    assert isinstance(program, coreml_interpreter.Program)
    by_kind = {"conv": 0, "conv in full": 0}
    for op in program.operations:
        if op.op_type == "conv":
            by_kind["conv" if op.outputs[0].name in program.half else "conv in full"] += 1
        if op.op_type in ("softmax", "sub"):
            assert op.outputs[0].name not in program.half
    assert by_kind["conv in full"] == 1 and by_kind["conv"] > 60, "the mean of the distribution over bins, and all others"


def test_predicts_what_torch_predicts_on_real_pictures(make: Make, test_data: Path) -> None:
    checkpoint = load_checkpoint(test_data / "peer" / "yolov8n-seg-shapes.pt")
    pictures = [
        np.ascontiguousarray(cv2.imread(str(p))[..., ::-1]) for p in sorted((test_data / "coco_tiny" / "val2017").glob("*.jpg"))[:20]
    ]
    path = make(".mlpackage", "", checkpoint, (320, 320))
    parity = compare(checkpoint.net, InterpretedCoreML(path), pictures)
    assert parity.matched == parity.predictions >= 8
    assert parity.max_abs_error["boxes_px"] < 0.1 and max(v for k, v in parity.max_abs_error.items() if k != "boxes_px") < 1e-3


def test_a_wrong_weight_is_found(make: Make, lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The interpreter reads what was saved, not what was meant."""
    path = tmp_path / "a.mlmodel"
    path.write_bytes(make(".mlmodel").read_bytes())
    import coremltools

    spec = coremltools.utils.load_spec(str(path))
    layer = next(la for la in spec.neuralNetwork.layers if la.WhichOneof("layer") == "convolution")
    layer.convolution.weights.floatValue[0] += 1
    coremltools.utils.save_spec(spec, str(path))
    assert errors(path, lively_checkpoint)[2] > 1e-2


def test_an_unknown_operation_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(coreml_interpreter._OPERATIONS, "softmax")
    with pytest.raises(ExportError, match="does not know the operations softmax"):
        InterpretedCoreML(make(".mlpackage"))


def test_a_second_export_replaces_the_first(lively_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """An ML package is a folder with a file's ending."""
    path = tmp_path / "a.mlpackage"
    for _ in range(2):
        assert target(lively_checkpoint, parse(ExportSettings, {"format": "coreml", "output": path}), ".mlpackage") == path
        path.mkdir(exist_ok=True)


@pytest.mark.parametrize("ending", [".mlpackage", ".mlmodel"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_cut_off(make: Make, ending: str, share: float) -> None:
    path = make(ending)
    for file in [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]:
        whole = file.read_bytes()
        file.write_bytes(whole[: int(len(whole) * share)])
        try:
            with pytest.raises(CheckpointError, match="truncated|damaged|not exported") as caught:
                InterpretedCoreML(path)(torch.zeros(1, 3, 64, 96))
            assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        finally:
            file.write_bytes(whole)


@pytest.mark.skipif(sys.platform == "darwin", reason="Apple's runtime is here")
def test_off_a_mac(make: Make) -> None:
    with pytest.raises(CheckpointError, match="run on a Mac only; here use the .pt"):
        load_backend(make(".mlpackage"))
    found = exporter.unverified(parse(ExportSettings, {"format": "coreml"}))
    assert found is not None and "not run by Apple's runtime" in found.why and "yoloseg val model=best.mlpackage" in found.how


@pytest.mark.skipif(sys.platform != "darwin", reason="needs Apple's runtime, which is on macOS only")
@pytest.mark.parametrize("ending", [".mlpackage", ".mlmodel"])
def test_on_a_mac(make: Make, lively_checkpoint: Checkpoint, ending: str) -> None:
    assert exporter.unverified(parse(ExportSettings, {"format": "coreml"})) is None
    x = pixels(1, 3, 64, 96)
    with torch.inference_mode():
        wanted = lively_checkpoint.net(x)
    found = load_backend(make(ending), "cpu")(x)
    assert max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True)) < 1e-2


def test_settings_that_it_does_not_take() -> None:
    for setting, value in (("dynamic", True), ("batch", 2)):
        with pytest.raises(SettingsError, match="a Core ML model takes"):
            check_takes("coreml", parse(ExportSettings, {"format": "coreml", setting: value}))


def test_without_coremltools(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path: Any = make(".mlpackage")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fiftyone-yoloseg\[coreml\]'"):
        InterpretedCoreML(path)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fiftyone-yoloseg\[coreml\]'"):
        check_needs("coreml", parse(ExportSettings, {"format": "coreml"}))
