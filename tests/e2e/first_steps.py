"""From an App without a dataset to predictions, their evaluation and an exported model, by clicking and filling in forms only.

The test and the pictures of docs/quickstart.md are these steps.
"""

from __future__ import annotations

import re
from pathlib import Path

import forms
from app import DIALOG, PANEL, SLOW, App

DATASET = "shapes"
SETTINGS = {"lr0": "0.003", "nbs": "4", "warmup_bias_lr": "0", "mosaic": "0", "scale": "0.1"}
"""With AdamW: so that a network without any earlier training knows a few images after a minute."""


def find_operators(app: App, address: str) -> None:
    app.page.goto(address)
    app.sees("No datasets yet")
    app.list_operators()
    app.sees("YOLO-seg: import a folder")
    app.shot("step-01-operators", 600)
    app.page.keyboard.press("Escape")


def import_folder(app: App, folder: Path, images: int) -> None:
    app.open_operator("import a folder")
    app.type("Folder", str(folder))
    app.sees(re.compile(r"Images: \d+ train, \d+ val"))
    app.shot("step-02-import", 600, DIALOG)
    app.execute()
    app.sees(re.compile(f"objects as masks in {images} images"))
    app.page.wait_for_url(re.compile(f"/datasets/{DATASET}"))
    app.close()
    app.sees_images()
    app.shot("step-03-dataset", 2000)


def check(app: App) -> None:
    app.open_operator("check the data")
    app.execute()
    app.sees("what to do")
    app.shot("step-04-check", 2500, DIALOG)  # the App reads the dataset anew
    app.close()


def begin_training(app: App, epochs: int, limit: int) -> None:
    """The operator follows it until the App's limit for operators is near: then it leaves, and the training goes on. limit: seconds."""
    patience = (limit + 20) * 1000
    app.open_operator("train")
    app.fill(epochs=str(epochs), imgsz="160", batch="4", device="cpu")
    app.shot("step-05-train", 800, DIALOG)
    app.tick("Advanced settings")
    app.choose("optimizer", "AdamW")
    app.fill(**SETTINGS)
    app.page.wait_for_timeout(800)  # for the form's answers to come
    app.execute()
    left = re.compile("goes on in a process of its own")
    app.page.get_by_text(re.compile(rf"epoch \d+/{epochs} box")).or_(app.page.get_by_text(left)).first.wait_for(timeout=patience)
    app.shot("step-06-progress", 600, DIALOG)
    app.sees(left, timeout=patience)
    app.shot("step-07-goes-on", 600, DIALOG)


def watch_training(app: App, epochs: int) -> None:
    """The panel has it, also after the page was loaded anew."""
    app.click("Open the YOLO-seg panel")
    app.sees(re.compile(rf"epoch \d+/{epochs} .* RAM"))
    app.page.reload()
    app.sees(re.compile(rf"epoch \d+/{epochs} .* RAM"))
    app.page.locator(".js-plotly-plot .scatterlayer").first.wait_for()
    app.shot("step-08-panel", 2500)


def stop_training(app: App, epochs: int, after: int, seconds: int) -> None:
    """Stop it in the panel when it has begun epoch `after` or a later one, which may take so many seconds."""
    late = "|".join(str(epoch) for epoch in range(after, epochs + 1))
    app.sees(re.compile(rf"epoch ({late})/{epochs} .* RAM"), timeout=seconds * 1000)
    app.click("Stop and keep the best epoch")
    app.sees("stopped")
    app.gone(re.compile(rf"epoch \d+/{epochs} .* RAM"))
    app.shot("step-09-trained", 2500)
    app.close_panel()


def predict(app: App) -> int:
    """The number of objects."""
    app.open_operator("predict")
    app.sees("predictions")
    app.shot("step-10-predict", 600, DIALOG)
    app.execute()
    done = re.compile(r"([1-9]\d*) objects? in \d+ images")
    app.sees(done, timeout=2 * SLOW)
    objects = done.search(app.page.get_by_text(done).first.inner_text())
    app.close()
    app.page.locator("[data-cy=sidebar-field-container-predictions]").wait_for()
    app.page.locator("[data-cy=checkbox-ground_truth]").click()
    app.shot("step-11-predictions", 2500)
    assert objects
    return int(objects[1])


def evaluate(app: App, val: int) -> None:
    """On the samples that the training has not learnt from, which the panel shows."""
    app.open_panel()
    app.tab("Runs")
    app.click("Show what it was validated on")
    app.close_panel()
    app.sees(f"{val} samples")
    app.open_operator("evaluate")
    app.execute()
    app.sees(re.compile("mask mAP"), timeout=2 * SLOW)
    app.shot("step-12-evaluated", 600, DIALOG)
    app.close()
    app.open_panel()
    app.tab("Evaluation")
    app.sees("Click a cell to see its objects.")
    app.shot("step-13-evaluation", 2500)
    app.close_panel()


def export(app: App) -> None:
    app.open_operator("export a model")
    app.execute()
    app.sees(re.compile("Compared with the torch model"), timeout=2 * SLOW)  # a process that has to load torch first
    app.shot("step-14-exported", 600, DIALOG)
    app.close()
    app.open_panel()
    app.sees("Click a cell to see its objects.")  # the tab that was left
    app.tab("Export")
    app.page.locator(PANEL).get_by_text("Largest difference").wait_for()
    app.shot("step-15-exports", 2500)
    assert forms.faults(app, PANEL) == []
    app.close_panel()
