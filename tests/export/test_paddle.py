"""PaddlePaddle: exported and run in one process of its own, because TensorFlow, which other tests load, and Paddle crash in one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fiftyone_yoloseg.config import ExportSettings, parse
from fiftyone_yoloseg.engine.checkpoint import Checkpoint
from fiftyone_yoloseg.errors import MissingDependencyError, SettingsError
from fiftyone_yoloseg.export.registry import check_needs, check_takes
from fiftyone_yoloseg.runtime import load_backend

SCRIPT = """
import json, sys, shutil
from pathlib import Path
import cv2, numpy as np, torch
torch.set_num_threads(1)
from fiftyone_yoloseg.config import ExportSettings, PredictSettings, parse
from fiftyone_yoloseg.engine.checkpoint import load_checkpoint
from fiftyone_yoloseg.engine.predictor import Predictor
from fiftyone_yoloseg.engine.torch_backend import TorchBackend
from fiftyone_yoloseg.errors import UserError
from fiftyone_yoloseg.export.base import ExportJob
from fiftyone_yoloseg.export.parity import compare
from fiftyone_yoloseg.export.registry import find_exporter
from fiftyone_yoloseg.nn.model import fused
from fiftyone_yoloseg.runtime import load_backend
from fiftyone_yoloseg.runtime.metadata import encode
from fiftyone_yoloseg.types import ModelInfo

lively, peer, pictures, folder = (Path(a) for a in sys.argv[1:])
facts = {}

def write(checkpoint, name, imgsz, **settings):
    job_settings = parse(ExportSettings, {"format": "paddle", **settings})
    info = ModelInfo(checkpoint.names, imgsz, dynamic=job_settings.dynamic, batch=job_settings.batch)
    path = folder / f"{name}_paddle_model"
    find_exporter("paddle").write(ExportJob(fused(checkpoint.net), info, job_settings, encode(info, size="n", half=False, origin="a test")), path)
    return path

def refused(action):
    try:
        action()
    except UserError as error:
        return [type(error).__name__, str(error)]
    return None

def answers(checkpoint, backend, *shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        wanted = checkpoint.net(x)
    return max(float((a - b).abs().max()) for a, b in zip(backend(x), wanted, strict=True))

checkpoint = load_checkpoint(lively)
path = write(checkpoint, "static", (64, 96), batch=2)
facts["files"] = sorted(p.name for p in path.iterdir())
backend = load_backend(path, "cpu")
info = backend.info
facts["info"] = [list(info.names.values()) == list(checkpoint.names.values()), list(info.imgsz), info.batch, info.dynamic]
facts["static"] = answers(checkpoint, backend, 2, 3, 64, 96)
facts["wrong shape"] = refused(lambda: backend(torch.rand(1, 3, 64, 96)))
facts["gpu"] = refused(lambda: load_backend(path, "0"))

path = write(checkpoint, "dynamic", (96, 96), dynamic=True)
backend = load_backend(path, "cpu")
facts["dynamic"] = {str(s): answers(checkpoint, backend, *s) for s in ((1, 3, 96, 96), (3, 3, 64, 160), (2, 3, 32, 32))}

facts["cut off"] = {}
for file in sorted(path.iterdir()):
    whole = file.read_bytes()
    for share in (0.0, 0.01, 0.5, 0.99):
        file.write_bytes(whole[: int(len(whole) * share)])
        facts["cut off"][f"{file.name} {share}"] = refused(lambda: load_backend(path, "cpu"))
    file.unlink()
    facts["cut off"][f"{file.name} missing"] = refused(lambda: load_backend(path, "cpu"))
    file.write_bytes(whole)

checkpoint = load_checkpoint(peer)
images = [np.ascontiguousarray(cv2.imread(str(p))[..., ::-1]) for p in sorted(pictures.glob("*.jpg"))[:20]]
path = write(checkpoint, "real", (320, 320), dynamic=True)
backend = load_backend(path, "cpu")
parity = compare(checkpoint.net, backend, images)
facts["real"] = {"images": len(images), "errors": parity.max_abs_error, "predictions": parity.predictions, "matched": parity.matched}
torch_backend = TorchBackend(checkpoint.net, backend.info, torch.device("cpu"))
ours, theirs = (Predictor(b, PredictSettings(batch=4)).instances(images) for b in (backend, torch_backend))
facts["objects"] = sum(map(len, theirs))
facts["same"] = all(
    (a.classes == b.classes).all() and np.allclose(a.boxes, b.boxes, atol=0.1) and np.allclose(a.confidences, b.confidences, atol=1e-3)
    for a, b in zip(ours, theirs, strict=True)
)
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def facts(lively_file: Path, test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    arguments = [
        lively_file,
        test_data / "peer" / "yolov8n-seg-shapes.pt",
        test_data / "coco_tiny" / "val2017",
        tmp_path_factory.mktemp("paddle"),
    ]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_static(facts: Any) -> None:
    assert facts["files"] == ["metadata.json", "model.json", "model.pdiparams"]
    assert facts["info"] == [True, [64, 96], 2, False]
    assert facts["static"] < 1e-3
    kind, text = facts["wrong shape"]
    assert kind == "SettingsError" and "(2, 3, 64, 96) only, not (1, 3, 64, 96)" in text


def test_dynamic(facts: Any) -> None:
    assert len(facts["dynamic"]) == 3 and max(facts["dynamic"].values()) < 1e-3


def test_predicts_what_torch_predicts_on_real_pictures(facts: Any) -> None:
    real = facts["real"]
    assert real["images"] == 20 and real["matched"] == real["predictions"] >= 8
    assert real["errors"]["boxes_px"] < 0.1 and max(v for k, v in real["errors"].items() if k != "boxes_px") < 1e-3
    assert facts["objects"] >= 8 and facts["same"]


def test_cut_off(facts: Any) -> None:
    assert len(facts["cut off"]) == 15
    for what, found in facts["cut off"].items():
        assert found is not None, what
        kind, text = found
        assert kind == "CheckpointError" and "dynamic_paddle_model" in text and "\n" not in text, what
        assert any(word in text for word in ("missing", "truncated", "damaged")), what


def test_on_a_gpu(facts: Any) -> None:
    assert facts["gpu"][0] == "SettingsError" and "device=cpu" in facts["gpu"][1]


def test_settings_that_it_does_not_take() -> None:
    for setting, reason in (("half", "on a GPU only"), ("int8", "paddleslim")):
        with pytest.raises(SettingsError, match=reason):
            check_takes("paddle", parse(ExportSettings, {"format": "paddle", setting: True}))


def test_without_paddle(lively_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_paddle_model").mkdir()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fiftyone-yoloseg\[paddle\]'"):
        load_backend(tmp_path / "a_paddle_model")
    with pytest.raises(MissingDependencyError, match=r"pip install 'fiftyone-yoloseg\[paddle\]'"):
        check_needs("paddle", parse(ExportSettings, {"format": "paddle"}))
