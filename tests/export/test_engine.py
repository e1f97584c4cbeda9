"""TensorRT: the engine is built by TensorRT-RTX, which needs no GPU for that, and run where there is a GPU."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import unavailable

from fiftyone_yoloseg.config import ExportSettings, parse
from fiftyone_yoloseg.engine.checkpoint import Checkpoint
from fiftyone_yoloseg.errors import CheckpointError, ExportError, MissingDependencyError, SettingsError
from fiftyone_yoloseg.export.base import ExportJob
from fiftyone_yoloseg.export.engine_format import build_engine, exporter
from fiftyone_yoloseg.export.parity import Parity, compare
from fiftyone_yoloseg.nn.model import fused
from fiftyone_yoloseg.runtime import load_backend
from fiftyone_yoloseg.runtime.metadata import decode, encode
from fiftyone_yoloseg.runtime.tensorrt_engine import read_engine, write_engine
from fiftyone_yoloseg.types import ModelInfo

GPU = torch.cuda.is_available()
RTX = importlib.util.find_spec("tensorrt_rtx") is not None
builds = pytest.mark.skipif(GPU, reason="there is a GPU: building without one is what it tests")
needs_gpu = pytest.mark.skipif(not GPU, reason="needs an NVIDIA GPU, and tensorrt or tensorrt-rtx")


def job_of(checkpoint: Checkpoint, **given: Any) -> ExportJob:
    settings = parse(ExportSettings, {"format": "engine", **given})
    info = ModelInfo(checkpoint.names, (64, 96), dynamic=settings.dynamic, batch=settings.batch)
    metadata = encode(info, size="n", half=settings.half, origin="a test", int8=settings.int8)
    pictures = [torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    return ExportJob(fused(checkpoint.net), info, settings, metadata, pictures if settings.int8 else ())


def near(job: ExportJob, parity: Parity) -> None:
    if job.settings.int8:  # probabilities of this network vary by 0.1 and more
        assert parity.mean_abs_error["classes"] < 0.1
    else:
        parity.check(1e-3, job.settings.half)


@builds
@pytest.mark.parametrize("options", [{}, {"half": True}, {"int8": True}, {"dynamic": True}], ids=str)
def test_builds_without_a_gpu_and_says_so(lively_checkpoint: Checkpoint, tmp_path: Path, options: dict[str, Any]) -> None:
    if not RTX:
        unavailable("no tensorrt-rtx")
    job, path = job_of(lively_checkpoint, **options), tmp_path / "a.engine"
    exporter.check(job.settings)
    exporter.write(job, path)
    metadata, plan = read_engine(path)
    assert metadata["builder"].startswith("tensorrt_rtx ") and decode(metadata, path) == job.info
    assert len(plan) > (6e6 if options.get("half") else 3e6 if options.get("int8") else 12e6), "the weights are in it"
    # as tools for engine files read it
    data = path.read_bytes()
    length = int.from_bytes(data[:4], "little")
    assert json.loads(data[4 : 4 + length])["stride"] == "32" and data[4 + length :] == plan
    found = exporter.unverified(job.settings)
    assert found is not None and "was not run" in found.why and "plain TensorRT cannot run it" in found.why and "device=0" in found.how
    stand_in = exporter.stand_in(job, path)
    assert stand_in is not None and "ONNX graph" in stand_in.proves
    near(job, compare(lively_checkpoint.net, stand_in.backend))
    with pytest.raises(CheckpointError, match="run on an NVIDIA GPU only"):
        load_backend(path)


@needs_gpu
@pytest.mark.parametrize("options", [{}, {"half": True}, {"dynamic": True}, {"batch": 2}, {"int8": True}], ids=str)
def test_gives_the_answers_of_the_network_on_a_gpu(lively_checkpoint: Checkpoint, tmp_path: Path, options: dict[str, Any]) -> None:
    job, path = job_of(lively_checkpoint, device="0", **options), tmp_path / "a.engine"
    exporter.check(job.settings)
    exporter.write(job, path)
    assert exporter.unverified(job.settings) is None
    backend = load_backend(path, "0")
    near(job, compare(lively_checkpoint.net, backend))
    if not options.get("dynamic"):
        with pytest.raises(SettingsError, match="only, not"):
            backend(torch.rand(3, 3, 64, 96))


@builds
def test_a_graph_that_it_cannot_read() -> None:
    import tensorrt_rtx

    with pytest.raises(ExportError, match="TensorRT cannot read the ONNX graph: .+"):
        build_engine(tensorrt_rtx, b"no graph", ModelInfo({0: "a"}, (64, 96)))


@pytest.mark.parametrize("length", [0, 3, 4, 40, 1000, -1])
def test_cut_off(lively_checkpoint: Checkpoint, tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.engine"
    write_engine(path, job_of(lively_checkpoint).metadata, bytes(5000), "tensorrt 10.9.0")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="empty|truncated") as caught:
        load_backend(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_engine_of_another_tool(tmp_path: Path) -> None:
    path = tmp_path / "a.engine"
    path.write_bytes(b"ftrt" * 100)
    with pytest.raises(CheckpointError, match="made by another tool"):
        load_backend(path)
    header = json.dumps({"task": "detect"}).encode()
    path.write_bytes(struct.pack("<I", len(header)) + header + bytes(100))
    with pytest.raises(CheckpointError, match="task 'detect'"):
        load_backend(path)


def test_without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None)
    with pytest.raises(MissingDependencyError, match="pip install tensorrt, on a machine with an NVIDIA GPU") as caught:
        exporter.check(parse(ExportSettings, {"format": "engine"}))
    assert "format=onnx" in str(caught.value) and "\n" not in str(caught.value)
