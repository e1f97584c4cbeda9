"""The real App in a real browser, on real images: every operator is found, opened, misused and run."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import unavailable

REPO = Path(__file__).resolve().parents[2]
SHOTS = REPO / ".artifacts" / "screenshots"
CHROMIUM = Path(os.environ.get("YOLOSEG_CHROMIUM", "/usr/bin/chromium"))
SLOW = 40_000  # ms; the CI machine has two cores, and others on it

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [pytest.mark.timeout(500), pytest.mark.slow]


@contextlib.contextmanager
def serving(folder: Path, test_data: Path, *arguments: str) -> Iterator[str]:
    """The address of an App whose plugins folder has a link to this repository, with a database of its own. arguments: more for serve.py."""
    from fiftyone_yoloseg.bridge.database import mongod_problem

    if not CHROMIUM.exists():
        unavailable(f"no browser at {CHROMIUM}; set YOLOSEG_CHROMIUM")
    if problem := mongod_problem():
        unavailable(f"no MongoDB: {problem}")
    (folder / "plugins").mkdir()
    (folder / "plugins" / "yoloseg").symlink_to(REPO)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("FIFTYONE_")},
        "FIFTYONE_PLUGINS_DIR": str(folder / "plugins"),
        "FIFTYONE_DEFAULT_DATASET_DIR": str(folder / "data"),
        "FIFTYONE_DO_NOT_TRACK": "true",
        "OMP_NUM_THREADS": "1",
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    command = [
        sys.executable,
        str(Path(__file__).with_name("serve.py")),
        str(folder / "db"),
        str(test_data / "coco_tiny"),
        str(port),
        *arguments,
    ]
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, cwd=folder)
        try:
            deadline = time.monotonic() + 180
            while "serving" not in log.read_text(errors="replace"):
                assert server.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
                time.sleep(0.3)
            yield f"http://127.0.0.1:{port}/datasets/coco-tiny"
        finally:
            server.terminate()
            server.wait(30)
    SHOTS.mkdir(parents=True, exist_ok=True)
    (SHOTS / "server.log").write_bytes(log.read_bytes())


@contextlib.contextmanager
def browsing(url: str) -> Iterator[Any]:
    """A page of a browser that shows the App with its grid."""
    with playwright.sync_playwright() as p:
        arguments = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
        browser = p.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(SLOW)
        page.goto(url)
        page.locator("[data-cy=fo-grid] [data-cy=looker]").first.wait_for()
        dismiss = page.get_by_role("button", name="Dismiss")  # an advertisement that covers the grid
        dismiss.click()
        try:
            yield page
        finally:
            page.screenshot(path=str(SHOTS / "99-last.png"))
            browser.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("app"), test_data) as address:
        yield address


class App:
    """What a user does, in the user's words."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def open_operator(self, name: str) -> None:
        self.page.keyboard.press("Backquote")
        search = self.page.get_by_placeholder(re.compile("Search operations"))
        search.fill("YOLO-seg")
        self.page.get_by_text(f"YOLO-seg: {name}", exact=True).click()
        self.page.get_by_role("button", name="Execute", exact=True).wait_for(timeout=SLOW)

    def open_panel(self) -> None:
        self.page.locator("[data-cy=new-panel-btn]").first.click()
        self.page.get_by_text("YOLO-seg", exact=True).first.click()
        self.page.get_by_role("tab", name="Runs", exact=True).wait_for(timeout=SLOW)

    def close_panel(self) -> None:
        self.page.get_by_text("Samples", exact=True).first.click()

    def field(self, label: str) -> Any:
        title = self.page.locator("p", has_text=re.compile(f"^{re.escape(label)}$"))
        return self.page.locator(".MuiGrid-item").filter(has=title).last

    def type(self, label: str, value: str) -> None:
        self.field(label).locator("input").first.fill(value)

    def choose(self, label: str, option: str | re.Pattern[str]) -> None:
        self.field(label).get_by_role("combobox").click()
        self.page.get_by_role("option", name=option).first.click()

    def sees(self, text: str | re.Pattern[str], timeout: int = SLOW) -> None:
        self.page.get_by_text(text).first.wait_for(timeout=timeout)

    def gone(self, text: str | re.Pattern[str]) -> None:
        playwright.expect(self.page.get_by_text(text)).to_have_count(0, timeout=SLOW)

    def execute(self) -> None:
        button = self.page.get_by_role("button", name="Execute", exact=True)
        playwright.expect(button).to_be_enabled(timeout=SLOW)
        button.click()

    def refused(self, message: str | re.Pattern[str], shot: str) -> None:
        """The form says what is wrong, and does not let itself be executed."""
        self.sees(message)
        playwright.expect(self.page.get_by_role("button", name="Execute", exact=True)).to_be_disabled(timeout=SLOW)
        self.page.wait_for_timeout(400)  # for the button to fade
        self.shot(shot)

    def close(self) -> None:
        done = self.page.get_by_role("button", name="Done", exact=True)
        done.click()
        playwright.expect(done).to_have_count(0, timeout=SLOW)

    def shot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(SHOTS / f"{name}.png"))


@pytest.fixture(scope="module")
def app(url: str) -> Iterator[App]:
    with browsing(url) as page:
        yield App(page)


def test_loop_in_the_app(app: App, test_data: Path, tmp_path: Path) -> None:
    browser_lists_operators(app)
    check(app)
    convert(app, tmp_path / "converted ü")
    best = train(app, test_data / "peer" / "yolov8n-seg-shapes.pt")
    validate(app)
    predict(app, best.replace("best.pt", "last.pt"))
    export(app)
    panel(app)
    import_folder(app, tmp_path / "converted ü")


def browser_lists_operators(app: App) -> None:
    app.page.keyboard.press("Backquote")
    app.page.get_by_placeholder(re.compile("Search operations")).fill("YOLO-seg")
    for name in ("check the data", "convert to a folder", "train", "validate", "predict", "export a model", "import a folder"):
        app.sees(f"YOLO-seg: {name}")
    app.shot("01-operator-browser")
    app.page.keyboard.press("Escape")


def check(app: App) -> None:
    app.open_operator("check the data")
    app.sees("ground_truth (110 masks)")
    app.type("Training size", "7")
    app.refused(re.compile("from 32 to 8192"), "01-check-refused")
    app.type("Training size", "320")
    app.gone(re.compile("from 32 to 8192"))
    app.type("Merge classes", "person:being")
    app.execute()
    app.sees(re.compile("12 images .8 train, 4 val."))
    app.sees("what to do")
    app.sees("being")
    app.page.wait_for_timeout(600)  # for the window to appear
    app.shot("01-check-done")
    app.page.get_by_role("button", name="Show crowds").click()
    app.page.wait_for_url(re.compile("view=yoloseg-check-crowds"))
    app.close()
    app.page.wait_for_timeout(2000)
    app.shot("01-check-view")
    app.page.locator("[data-cy=btn-clear-view-bar]").click()
    app.sees("12 samples")


def convert(app: App, out: Path) -> None:
    app.open_operator("convert to a folder")
    app.sees("ground_truth (110 masks)")
    app.sees("8 train, 4 val by their tags")
    app.sees(re.compile(r"of 28 classes"))
    app.choose("Validation samples", "At random")
    app.gone("8 train, 4 val by their tags")  # which is what the other choice would give
    app.sees(re.compile("split by random 0.2 for validation, seed 0"))
    app.page.get_by_text(re.compile("split by random")).last.scroll_into_view_if_needed()
    app.page.mouse.move(720, 600)
    app.page.mouse.wheel(0, 2000)
    app.page.wait_for_timeout(600)
    app.shot("02-convert-preview")
    app.choose("Validation samples", "By sample tags: train, val, test")
    app.type("Folder", "some/relative/folder")
    app.refused(re.compile("give the full path"), "02-convert-refused")
    app.type("Folder", str(out))
    app.gone(re.compile("give the full path"))
    app.execute()
    app.sees("109 objects in 12 images")
    app.sees(re.compile("mask IoU after reading the rows back"))
    app.shot("03-convert-done")
    assert (out / "dataset.yaml").is_file()
    assert len(list((out / "labels").rglob("*.txt"))) == 12
    app.close()


def train(app: App, checkpoint: Path) -> str:
    app.open_operator("train")
    app.type("epochs", "0")
    app.refused(re.compile("greater than or equal to 1"), "04-train-refused-epochs")
    app.type("epochs", "80")
    app.gone(re.compile("greater than or equal to 1"))
    app.choose("Labels", "boxes (0 masks)")
    app.refused(re.compile("none with a mask"), "05-train-refused-labels")
    app.choose("Labels", "ground_truth (110 masks)")
    app.gone(re.compile("none with a mask"))
    app.choose("Model", "A file ...")
    app.type("Model file", str(checkpoint.with_name("no-such.pt")))
    app.refused(re.compile("no such file"), "06-train-refused-model")
    app.type("Model file", str(checkpoint))
    app.gone(re.compile("no such file"))
    app.type("imgsz", "96")
    app.type("batch", "4")
    app.type("device", "cpu")
    app.field("Advanced settings").locator("input").first.click()
    app.choose("optimizer", "AdamW")
    for setting, value in {"lr0": "0.002", "nbs": "4", "warmup_bias_lr": "0", "mosaic": "0", "scale": "0.1"}.items():
        app.type(setting, value)  # so that it soon knows these few images by heart, and has something to show
    app.page.wait_for_timeout(1500)
    app.shot("07-train-form")
    app.execute()
    app.sees(re.compile(r"epoch \d+/80 box"))
    app.shot("08-train-progress")
    app.sees(re.compile("Checkpoint:"), timeout=150_000)
    app.shot("09-train-done")
    best = app.page.get_by_text(re.compile(r"best\.pt$")).first.inner_text()
    app.close()
    return str(best)


def validate(app: App) -> None:
    app.open_operator("validate")
    app.sees(re.compile(r"train \(.*28 classes"))
    app.type("batch", "0")
    app.refused(re.compile("greater than or equal to 1"), "10-validate-refused")
    app.type("batch", "4")
    app.gone(re.compile("greater than or equal to 1"))
    app.execute()
    app.sees(re.compile("12 images, "))
    app.shot("11-validate-done")
    app.close()


def predict(app: App, last: str) -> None:
    app.open_operator("predict")
    app.type("Write to field", "ground_truth")
    app.refused(re.compile("holds ground truth"), "12-predict-refused")
    app.type("Write to field", "predictions")
    app.gone(re.compile("holds ground truth"))
    app.choose("Model", "A file ...")
    app.type("Model file", last)
    app.type("conf", "0.25")
    app.execute()
    app.sees(re.compile(r"[1-9]\d* objects? in 12 images"), timeout=2 * SLOW)  # a process that has to load torch first
    app.page.wait_for_timeout(2000)
    app.shot("13-predict-done")
    app.close()
    predictions = app.page.locator("[data-cy=sidebar-field-container-predictions]")
    predictions.wait_for()
    for field in ("ground_truth", "boxes"):
        app.page.locator(f"[data-cy=checkbox-{field}]").click()
    app.page.wait_for_timeout(2000)
    app.shot("14-predictions-in-grid")


def export(app: App) -> None:
    app.open_operator("export a model")
    app.type("imgsz", "7")
    app.refused(re.compile("from 32 to 8192"), "15-export-refused")
    app.type("imgsz", "96")
    app.gone(re.compile("from 32 to 8192"))
    app.execute()
    app.sees(re.compile("Compared with the torch model"))
    app.shot("16-export-done")
    app.close()


def panel(app: App) -> None:
    """The finished training with its curves, then one that runs: found again after the page is loaded anew, and cancelled."""
    app.open_panel()
    app.sees("80 of 80")
    app.page.locator(".js-plotly-plot .scatterlayer").first.wait_for()
    app.shot("20-panel-runs")
    app.page.get_by_role("tab", name="Export").click()
    app.sees(re.compile("No export yet|same answers"))
    app.open_operator("train")
    app.choose("Model", re.compile(r"^train \("))
    for setting, value in {"epochs": "500", "imgsz": "96", "batch": "4", "device": "cpu", "name": "long"}.items():
        app.type(setting, value)
    app.field("Show the progress here").locator("input").first.click()
    app.page.wait_for_timeout(1000)
    app.execute()
    app.sees(re.compile("runs in a process of its own"))
    app.close()
    app.page.reload()
    app.page.locator("[data-cy=fo-grid] [data-cy=looker]").first.wait_for()
    app.open_panel()
    app.sees(re.compile(r"epoch \d+/500 .* RAM"))
    app.page.wait_for_timeout(2500)
    app.shot("21-panel-running")
    app.page.get_by_role("button", name="Cancel", exact=True).click()
    begun = time.monotonic()
    playwright.expect(app.page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0, timeout=SLOW)
    app.gone(re.compile(r"epoch \d+/500 .* RAM"))
    assert time.monotonic() - begun < 8  # 5 s, and up to two looks of the panel
    app.sees("stopped")
    app.shot("22-panel-cancelled")
    app.close_panel()


def import_folder(app: App, folder: Path) -> None:
    app.open_operator("import a folder")
    app.type("Folder", "some/relative/folder")
    app.refused(re.compile("give the full path"), "17-import-refused")
    app.type("Folder", str(folder))
    app.sees("Images: 8 train, 4 val")
    app.type("Name", "coco-tiny")
    app.refused(re.compile("there is a dataset 'coco-tiny'"), "18-import-refused-name")
    app.type("Name", "imported")
    app.gone(re.compile("there is a dataset 'coco-tiny'"))
    app.execute()
    app.sees("109 objects as masks in 12 images (8 train, 4 val)")
    app.page.wait_for_url(re.compile("/datasets/imported"))
    app.close()
    app.page.locator("[data-cy=fo-grid] [data-cy=looker]").first.wait_for()
    app.page.wait_for_timeout(2000)
    app.shot("19-import-opened")
