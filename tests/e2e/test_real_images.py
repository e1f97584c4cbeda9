"""The operators in a real browser, on real images: opened, misused and run. What a user does first is in test_first_steps.py, every form in test_forms.py."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import forms
import pytest
from app import PANEL, SLOW, App, Server, playwright

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


def test_operators_on_real_images(app: App, server: Server, test_data: Path, tmp_path: Path) -> None:
    app.go(server.make("coco_tiny", "coco-tiny", test_data / "coco_tiny"))
    check(app)
    convert(app, tmp_path / "converted ü")
    train(app, test_data / "peer" / "yolov8n-seg-shapes.pt")
    validate(app)
    predict_refuses(app)
    export_refuses(app)
    cancel(app)
    import_folder(app, tmp_path / "converted ü")


def test_a_person_decides_on_an_open_sample(app: App, server: Server, test_data: Path) -> None:
    """Its buttons: accept all that waits on one sample, reject it on the next."""
    app.go(server.make("pending", "pending", test_data / "coco_tiny"))
    app.page.locator("[data-cy=fo-grid] [data-cy=looker]").first.click()
    decide(app, "check", "3 objects accepted", "23-accepted", ground_truth=3, review=0)
    decide(app, "check", "No object waits here", "24-nothing-waits", ground_truth=3, review=0)
    app.page.keyboard.press("ArrowRight")
    decide(app, "close", "2 objects rejected", "25-rejected", ground_truth=0, review=0)
    app.page.mouse.click(15, 500)  # beside the sample, which closes it
    playwright.expect(app.page.locator("[data-cy=modal]")).to_have_count(0, timeout=SLOW)
    app.shot("26-decided", 2000)
    assert app.complaints == []


def decide(app: App, icon: str, message: str, shot: str, **counts: int) -> None:
    """Press a button beside the open sample: what is said then, and how many labels each field has."""
    modal = app.page.locator("[data-cy=modal]")
    said = app.page.get_by_text(re.compile("object.* (accepted|rejected|waits here)$"))
    playwright.expect(said).to_have_count(0, timeout=SLOW)
    with app.page.expect_response(loads_dataset, timeout=SLOW):  # until it has come, the App has no page to answer a click with
        modal.locator(".material-icons", has_text=re.compile(f"^{icon}$")).click()
        said.wait_for()
        assert said.inner_text() == message
    for field, n in counts.items():
        playwright.expect(modal.locator(f"[data-cy=sidebar-field-container-{field}]")).to_have_text(re.compile(rf"\D{n}\s*$"), timeout=SLOW)
    app.shot(shot, 1500)


def loads_dataset(response: Any) -> bool:
    return response.url.endswith("/graphql") and "DatasetPageQuery" in (response.request.post_data or "")


def check(app: App) -> None:
    app.open_operator("check the data")
    app.sees("ground_truth (110 masks)")
    app.mistypes("Training size", "7", "from 32 to 8192", "01-check-refused", "320")
    app.type("Merge classes", "person:being")
    app.execute()
    app.sees(re.compile("12 images .8 train, 4 val."))
    app.sees("what to do")
    app.sees("being")
    app.shot("01-check-done", 600)
    app.click("Show crowds")
    app.page.wait_for_url(re.compile("view=yoloseg-check-crowds"))
    app.close()
    app.shot("01-check-view", 2000)
    app.clear_view()
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
    app.shot("02-convert-preview", 600)
    app.choose("Validation samples", "By sample tags: train, val, test")
    app.mistypes("Folder", "some/relative/folder", "give the full path", "02-convert-refused", str(out))
    app.execute()
    app.sees("109 objects in 12 images")
    app.sees(re.compile("mask IoU after reading the rows back"))
    app.shot("03-convert-done")
    assert (out / "dataset.yaml").is_file()
    assert len(list((out / "labels").rglob("*.txt"))) == 12
    app.close()


def train(app: App, checkpoint: Path) -> None:
    app.open_operator("train")
    app.mistypes("epochs", "0", "greater than or equal to 1", "04-train-refused-epochs", "3")
    app.choose("Labels", "boxes (0 masks)")
    app.refused(re.compile("none with a mask"), "05-train-refused-labels")
    app.choose("Labels", "ground_truth (110 masks)")
    app.gone(re.compile("none with a mask"))
    app.choose("Model", "A file ...")
    app.mistypes("Model file", str(checkpoint.with_name("no-such.pt")), "no such file", "06-train-refused-model", str(checkpoint))
    app.fill(imgsz="96", batch="4", device="cpu")
    app.shot("07-train-form", 600)
    app.execute()
    app.sees(re.compile("Checkpoint:"), timeout=2 * SLOW)
    app.shot("09-train-done")
    app.close()


def validate(app: App) -> None:
    app.open_operator("validate")
    app.sees(re.compile(r"train \(.*28 classes"))
    app.mistypes("batch", "0", "greater than or equal to 1", "10-validate-refused", "4")
    app.execute()
    app.sees(re.compile("12 images, "))
    app.shot("11-validate-done")
    app.close()


def predict_refuses(app: App) -> None:
    app.open_operator("predict")
    app.mistypes("Write to field", "ground_truth", "holds ground truth", "12-predict-refused")
    app.close("Cancel")


def export_refuses(app: App) -> None:
    app.open_operator("export a model")
    app.mistypes("imgsz", "7", "from 32 to 8192", "15-export-refused")
    app.close("Cancel")


def cancel(app: App) -> None:
    """A training that nobody follows is found again after the page is loaded anew, and cancelled."""
    app.open_operator("train")
    app.choose("Model", re.compile(r"^train \("))
    app.fill(epochs="500", imgsz="96", batch="4", device="cpu", name="long")
    app.tick("Show the progress here")
    app.page.wait_for_timeout(1000)
    app.execute()
    app.sees(re.compile("runs in a process of its own"))
    app.close()
    app.reload()
    app.open_panel()
    app.sees(re.compile(r"epoch \d+/500 .* RAM"))
    app.shot("21-panel-running", 2500)
    assert forms.faults(app, PANEL) == []
    sizes = app.events(10)
    assert len(sizes) <= 7 and max(sizes) < 50_000  # a look every 2 s; no more, whatever the panel shows, and no pictures in it
    app.click("Cancel")
    begun = time.monotonic()
    playwright.expect(app.page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0, timeout=SLOW)
    app.gone(re.compile(r"epoch \d+/500 .* RAM"))
    assert time.monotonic() - begun < 8  # 5 s, and up to two looks of the panel
    app.sees(re.compile("^stopped$|had not stopped after 3 seconds, and its process was ended"))
    app.shot("22-panel-cancelled")
    app.close_panel()


def import_folder(app: App, folder: Path) -> None:
    app.open_operator("import a folder")
    app.mistypes("Folder", "some/relative/folder", "give the full path", "17-import-refused")
    app.type("Folder", str(folder))
    app.sees("Images: 8 train, 4 val")
    app.mistypes("Name", "coco-tiny", "there is a dataset 'coco-tiny'", "18-import-refused-name", "imported")
    app.execute()
    app.sees("109 objects as masks in 12 images (8 train, 4 val)")
    app.page.wait_for_url(re.compile("/datasets/imported"))
    app.close()
    app.sees_images()
    app.shot("19-import-opened", 2000)
