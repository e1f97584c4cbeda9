"""TensorFlow.js models in its own runtime: node, and the page of recipes/web in a browser."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import unavailable
from filelock import FileLock

from fiftyone_yoloseg.config import PredictSettings
from fiftyone_yoloseg.engine.checkpoint import load_checkpoint
from fiftyone_yoloseg.engine.predictor import Predictor
from fiftyone_yoloseg.engine.torch_backend import TorchBackend
from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.types import ModelInfo

VERSION = "4.22.0"
PACKAGES = [f"@tensorflow/tfjs@{VERSION}", f"@tensorflow/tfjs-backend-wasm@{VERSION}"]
REPO = Path(__file__).resolve().parents[2]
SHOTS = REPO / ".artifacts" / "screenshots"
CHROMIUM = Path(os.environ.get("YOLOSEG_CHROMIUM", "/usr/bin/chromium"))
SIZE = 192, 256


@pytest.fixture(scope="session")
def modules() -> Path:
    """The folder node_modules with TensorFlow.js, installed once on a machine."""
    if not (shutil.which("node") and shutil.which("npm")):
        unavailable("no node and npm")
    folder = Path(tempfile.gettempdir()) / f"yoloseg-tfjs-{VERSION}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            folder.mkdir(exist_ok=True)
            command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
            done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
            if done.returncode:
                unavailable(f"npm cannot install TensorFlow.js: {done.stderr[-300:]}")
            (folder / "complete").touch()
    return folder / "node_modules"


@pytest.fixture(scope="module")
def web(tensorflow_process: Any, test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Web models of the peer's checkpoint for `shapes`: of one size, dynamic, and with weights in half precision."""
    from test_tensorflow import write

    folder, model = tmp_path_factory.mktemp("web"), test_data / "peer" / "yolov8n-seg-shapes.pt"
    options = {"static": {"imgsz": SIZE}, "dynamic": {"imgsz": SIZE, "dynamic": True}, "half": {"imgsz": SIZE, "half": True}}
    for name, chosen in options.items():
        tensorflow_process(write, model, folder / f"{name}_web_model", "tfjs", **chosen)
    return {name: folder / f"{name}_web_model" for name in options}


def in_node(
    modules: Path, model: Path, images: torch.Tensor, folder: Path, batch: int = 1
) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
    """What node says of the model, and its outputs in torch's layout."""
    (folder / "input.bin").write_bytes(images.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
    height, width = images.shape[2:]
    command = ["node", str(Path(__file__).with_name("tfjs_run.js")), str(modules), str(model), str(folder / "input.bin"), str(folder)]
    done = subprocess.run([*command, str(batch), str(height), str(width)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.strip().splitlines()[-1])
    values = [np.fromfile(folder / f"{name}.bin", np.float32) for name in ("output0", "output1")]
    pred, protos = (
        torch.from_numpy(v.reshape(len(images), *said["shapes"][name][1:])) for v, name in zip(values, ("output0", "output1"), strict=True)
    )
    return said, pred, protos.permute(0, 3, 1, 2)


def test_node_gives_the_networks_answers(modules: Path, web: dict[str, Path], test_data: Path, tmp_path: Path) -> None:
    from test_tensorflow import as_input, pictures_in

    images = torch.cat([as_input(p, SIZE) for p in pictures_in(test_data / "coco_tiny" / "val2017", 20)])
    net = load_checkpoint(test_data / "peer" / "yolov8n-seg-shapes.pt").net
    with torch.inference_mode():
        wanted = net(images)
        other = net(images[:2, :, :160, :224])
    said, pred, protos = in_node(modules, web["static"], images, tmp_path)
    assert said["backend"] == "wasm" and said["inputs"] == ["images"] and said["shapes"]["output1"] == [1, 48, 64, 32]
    assert json.loads(said["metadata"]["fiftyone_yoloseg"])["imgsz"] == [192, 256]
    assert float((pred[:, :4] - wanted.pred[:, :4]).abs().max()) <= 0.1
    assert float((pred[:, 4:] - wanted.pred[:, 4:]).abs().max()) <= 1e-3
    assert float((protos - wanted.protos).abs().max()) <= 1e-3 * max(1.0, float(wanted.protos.abs().max()))

    _, pred, protos = in_node(modules, web["dynamic"], images[:2, :, :160, :224], tmp_path, batch=2)
    assert float((pred - other.pred).abs().max()) <= 0.1 and float((pred[:, 4:] - other.pred[:, 4:]).abs().max()) <= 1e-3
    _, pred, protos = in_node(modules, web["half"], images[:1], tmp_path)
    assert 1e-5 < float((pred[:, 4:7] - wanted.pred[:1, 4:7]).abs().max()) <= 2e-2


@pytest.fixture(scope="module")
def site(web: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> Iterator[str]:
    """recipes/web with a model and a picture, served on this machine."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(REPO / "recipes" / "web", folder, dirs_exist_ok=True)
    shutil.copytree(web["static"], folder / "best_web_model")
    shutil.copy(picture(test_data), folder / "picture.jpg")
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


def picture(test_data: Path) -> Path:
    return sorted((test_data / "shapes" / "images" / "val").iterdir())[0]


@pytest.fixture(scope="module")
def browser(modules: Path) -> Iterator[Any]:
    """A browser that gets TensorFlow.js from this machine, and nothing from any other."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        unavailable(f"no browser at {CHROMIUM}; set YOLOSEG_CHROMIUM")

    def answer(route: Any) -> None:
        if route.request.url == f"https://cdn.jsdelivr.net/npm/@tensorflow/tfjs@{VERSION}/dist/tf.min.js":
            route.fulfill(path=modules / "@tensorflow" / "tfjs" / "dist" / "tf.min.js", content_type="text/javascript")
        else:
            route.abort()

    with playwright.sync_playwright() as p:
        arguments = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
        browser = p.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        context = browser.new_context(viewport={"width": 1000, "height": 900})
        context.set_default_timeout(60_000)
        context.route(re.compile("^https:"), answer)
        yield context
        browser.close()


def open_page(browser: Any, url: str) -> Any:
    page = browser.new_page()
    page.goto(url)
    page.locator("#status[data-state=done], #status[data-state=error]").wait_for()
    return page


def test_page_draws_what_python_finds(browser: Any, site: str, test_data: Path) -> None:
    page = open_page(browser, f"{site}/?image=picture.jpg")
    assert " objects in " in page.locator("#status").inner_text()
    found = page.evaluate("objects.map(o => ({...o, mask: {...o.mask, data: Array.from(o.mask.data)}}))")

    checkpoint = load_checkpoint(test_data / "peer" / "yolov8n-seg-shapes.pt")
    backend = TorchBackend(checkpoint.net, ModelInfo(checkpoint.names, SIZE, dynamic=False), torch.device("cpu"))
    image = np.ascontiguousarray(cv2.imread(str(picture(test_data)))[..., ::-1])
    wanted = Predictor(backend, PredictSettings()).instances([image])[0]
    assert [o["classId"] for o in found] == wanted.classes.tolist() and len(found) >= 2
    np.testing.assert_allclose([o["confidence"] for o in found], wanted.confidences, atol=0.01)  # the browser reads the JPEG itself
    np.testing.assert_allclose([o["box"] for o in found], wanted.boxes, atol=0.7)
    for ours, theirs in zip(found, wanted.masks, strict=True):
        mask, part = np.zeros((2, *image.shape[:2]), bool), ours["mask"]
        mask[0, part["y"] : part["y"] + part["height"], part["x"] : part["x"] + part["width"]] = np.reshape(
            part["data"], (part["height"], part["width"])
        )
        mask[1, theirs.y : theirs.y + theirs.h, theirs.x : theirs.x + theirs.w] = masks.crop_bitmap(theirs)
        assert mask.all(0).sum() / mask.any(0).sum() > 0.97

    assert page.locator("tbody tr").count() == len(found)
    small = """async () => {
        const { YoloSeg } = await import("./yoloseg.js"), image = new Image(50, 20);
        image.src = "picture.jpg";
        await image.decode();
        return (await (await YoloSeg.load("best_web_model/model.json")).predict(image)).map(o => o.box);
    }"""
    assert page.evaluate(small) == [o["box"] for o in found], "an image that is shown small is read as a whole"
    page.wait_for_timeout(200)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(SHOTS / "web-recipe.png"))
    at = next(i for i, value in enumerate(found[0]["mask"]["data"]) if value)
    x, y = found[0]["mask"]["x"] + at % found[0]["mask"]["width"], found[0]["mask"]["y"] + at // found[0]["mask"]["width"]
    drawn = page.evaluate(f"[...document.querySelector('canvas').getContext('2d').getImageData({x}, {y}, 1, 1).data]")
    assert np.abs(np.array(drawn[:3]) - image[y, x]).max() > 10, "the mask is painted"

    page.locator("#conf").fill("0.95")
    page.locator("#file").set_input_files(str(picture(test_data)))
    playwright = pytest.importorskip("playwright.sync_api")
    playwright.expect(page.locator("tbody tr")).to_have_count(int((wanted.confidences > 0.95).sum()))


def test_page_says_what_is_wrong(browser: Any, site: str) -> None:
    page = open_page(browser, f"{site}/?model=nothing/model.json")
    assert "nothing/model.json" in page.locator("#status[data-state=error]").inner_text()
