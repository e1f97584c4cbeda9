"""FiftyOne's own Model Evaluation panel on our evaluations, in a real browser: numbers, classes, confusion matrix, clicks to samples, comparison."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from app import SLOW, App, Server, playwright

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
OBJECTS = 109  # and a crowd, which is in no count


def row(app: App, name: str) -> Any:
    return app.page.locator("tr").filter(has_text=re.compile(name, re.IGNORECASE)).first


def numbers(app: App, name: str, column: int = 1) -> float:
    text = row(app, name).locator("td, th").nth(column).inner_text()
    return float(re.findall(r"[\d.]+", text)[0])


def unfold(app: App, title: str) -> None:
    app.page.get_by_role("button", name=title, exact=True).click()


def test_the_panel_shows_our_evaluations(app: App, server: Server, test_data: Path) -> None:
    page = app.page
    app.go(server.make("coco_tiny", "coco-tiny", test_data / "coco_tiny"))  # of the next one no panel is open then
    app.go(server.make("evaluated", "evaluated", test_data / "coco_tiny"))
    page.locator("[data-cy=new-panel-btn]").click()
    page.get_by_text("Model Evaluation", exact=True).first.click()
    page.get_by_role("button", name=re.compile("Detection eval_poor")).wait_for()
    page.get_by_role("button", name=re.compile("Detection eval_good")).click()
    row(app, "true positives").wait_for(timeout=SLOW)
    found, missed = numbers(app, "true positives"), numbers(app, "false negatives")
    assert found + missed == OBJECTS and found and missed and 0 < numbers(app, "mAP") < 1
    app.shot("30-evaluation")

    page.get_by_text("Select a comparison").click()
    page.get_by_role("option").filter(has_text="eval_poor").click()
    playwright.expect(row(app, "true positives").locator("td, th").nth(2)).to_have_text(re.compile(r"\d"), timeout=SLOW)
    assert numbers(app, "true positives", 2) + numbers(app, "false negatives", 2) == OBJECTS and numbers(app, "true positives", 2) < found
    app.shot("31-two-evaluations")

    unfold(app, "Class Performance")
    page.locator("button[value=table]:visible").click()
    row(app, "^bottle").wait_for(timeout=SLOW)
    assert 0 < numbers(app, "^bottle", 2) < numbers(app, "^bottle") < 1
    app.shot("32-classes")
    unfold(app, "Confusion Matrices")
    drawn = page.locator(".js-plotly-plot:visible")
    playwright.expect(drawn).to_have_count(2, timeout=SLOW)
    playwright.expect(drawn.last).to_contain_text("person", timeout=SLOW)
    app.shot("33-confusion-matrices")
    drawn.first.locator(".nsewdrag").click(position={"x": 2, "y": 2})  # the first class, which was found once: the only book
    shown = page.locator("[data-cy=entry-counts]")
    playwright.expect(shown).to_have_text("1 sample", timeout=SLOW)
    app.shot("34-one-cell")

    unfold(app, "Summary")
    row(app, "false positives").get_by_title("Load view").first.click()
    playwright.expect(shown).to_have_text(re.compile(r"^\d+ samples$"), timeout=SLOW)
    app.shot("35-false-positives", 1000)
