"""The real App in a real browser: a server, a page, and what a user does with it, in the user's words. All browser tests drive the App by this."""

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

playwright = pytest.importorskip("playwright.sync_api")
REPO = Path(__file__).resolve().parents[2]
SHOTS = REPO / ".artifacts" / "screenshots"
CHROMIUM = Path(os.environ.get("YOLOSEG_CHROMIUM", "/usr/bin/chromium"))
DIALOG = ".MuiDialog-paper"  # a form, or what an operator says at its end
PANEL = "[data-cy=panel-content-yoloseg_panel]"
THEIRS = ("net::ERR_", "Error posting message to worker", "entry is loading")
"""Errors in the console that are FiftyOne's own: it asks for things of the net, its grid loses images when it is drawn anew while they are decoded, and its
router raises the last one where a panel changes again before the page of its first change has come, as two do when a page opens, with nobody's click."""
SLOW = 90_000  # ms, of patience only: the CI machine has two cores, and another browser test with a training of its own on it
LIMIT = 80
"""Seconds after which this App ends an operator, as FiftyOne does after 600."""


def missing_part() -> str | None:
    """Why the App cannot be driven on this machine."""
    from fiftyone_yoloseg.bridge.database import mongod_problem

    if not CHROMIUM.exists():
        return f"no browser at {CHROMIUM}; set YOLOSEG_CHROMIUM"
    problem = mongod_problem()
    return f"no MongoDB: {problem}" if problem else None


class Server:
    """An App's server with a database of its own, without a dataset at first."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, port: int) -> None:
        self.process, self.log, self.address = process, log, f"http://127.0.0.1:{port}"
        self.answers = 0

    def said(self, text: str, seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while text not in (said := self.log.read_text(errors="replace")):
            assert self.process.poll() is None and time.monotonic() < deadline, said[-3000:]
            time.sleep(0.2)

    def make(self, kind: str, name: str, source: Path, seconds: float = 180) -> str:
        """Make and open a dataset (see app_server.py); its address."""
        self.ask(kind, name, str(source), seconds=seconds)
        return f"{self.address}/datasets/{name}"

    def empty(self) -> str:
        """Delete all datasets; the address of the App without one."""
        self.ask("nothing", "nothing", "")
        return self.address

    def ask(self, *words: str, seconds: float = 180) -> None:
        assert self.process.stdin
        self.process.stdin.write(("\t".join(words) + "\n").encode())
        self.process.stdin.flush()
        self.answers += 1
        self.said(f"made {words[1]} ({self.answers})", seconds)


@contextlib.contextmanager
def serving(folder: Path, limit: int = LIMIT) -> Iterator[Server]:
    """A server whose plugins folder has a link to this repository; all that it writes is in `folder`."""
    (folder / "plugins").mkdir()
    (folder / "plugins" / "yoloseg").symlink_to(REPO)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("FIFTYONE_")},
        "FIFTYONE_PLUGINS_DIR": str(folder / "plugins"),
        "FIFTYONE_DEFAULT_DATASET_DIR": str(folder / "data"),
        "FIFTYONE_DO_NOT_TRACK": "true",
        "FIFTYONE_OPERATOR_TIMEOUT": str(limit),
        "OMP_NUM_THREADS": "1",
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    command = [sys.executable, str(Path(__file__).with_name("app_server.py")), str(folder / "db"), str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, cwd=folder)
        try:
            server = Server(process, log, port)
            server.said("serving")
            yield server
        finally:
            process.terminate()
            process.wait(30)
            SHOTS.mkdir(parents=True, exist_ok=True)
            (SHOTS / "server.log").write_bytes(log.read_bytes())


@contextlib.contextmanager
def browsing(shots: Path = SHOTS) -> Iterator[App]:
    """A page of a browser, without an address."""
    with playwright.sync_playwright() as p:
        arguments = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
        browser = p.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        app = App(browser.new_page(viewport={"width": 1440, "height": 1000}), shots)
        try:
            yield app
        finally:
            app.shot("99-last")
            browser.close()


class App:
    """What a user does, in the user's words. complaints: errors in the page's console."""

    def __init__(self, page: Any, shots: Path) -> None:
        self.page, self.shots = page, shots
        self.complaints: list[str] = []
        page.set_default_timeout(SLOW)
        page.on("pageerror", lambda error: self.heard(str(error)))
        page.on("console", lambda message: self.heard(message.text) if message.type == "error" else None)
        dismiss = page.get_by_role("button", name="Dismiss")  # an advertisement that covers the grid
        page.add_locator_handler(dismiss, lambda button: button.click())

    def heard(self, error: str) -> None:
        if not any(known in error for known in THEIRS):
            self.complaints.append(error)

    def go(self, url: str) -> None:
        """Open a dataset, and wait for its images."""
        self.page.goto(url)
        self.sees_images()

    def reload(self) -> None:
        self.page.reload()
        self.sees_images()

    def sees_images(self) -> None:
        self.page.locator("[data-cy=fo-grid] [data-cy=looker]").first.wait_for()

    def clear_view(self) -> None:
        self.page.locator("[data-cy=btn-clear-view-bar]").click()

    def list_operators(self) -> None:
        self.page.keyboard.press("Backquote")
        self.page.get_by_placeholder(re.compile("Search operations")).fill("YOLO-seg")

    def open_operator(self, name: str) -> None:
        self.list_operators()
        self.page.get_by_text(f"YOLO-seg: {name}", exact=True).click()
        self.page.get_by_role("button", name="Execute", exact=True).wait_for()

    def open_panel(self) -> None:
        self.page.locator("[data-cy=new-panel-btn]").first.click()
        self.page.get_by_text("YOLO-seg", exact=True).first.click()
        self.page.get_by_role("tab", name="Runs", exact=True).wait_for()

    def close_panel(self) -> None:
        self.page.get_by_text("Samples", exact=True).first.click()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def click(self, button: str | re.Pattern[str]) -> None:
        self.page.get_by_role("button", name=button, exact=isinstance(button, str)).first.click()

    def field(self, label: str) -> Any:
        title = self.page.locator("p", has_text=re.compile(f"^{re.escape(label)}$"))
        return self.page.locator(".MuiGrid-item").filter(has=title).last

    def type(self, label: str, value: str) -> None:
        self.field(label).locator("input").first.fill(value)

    def fill(self, **values: str) -> None:
        """Settings by name."""
        for name, value in values.items():
            self.type(name, value)

    def tick(self, label: str) -> None:
        self.field(label).locator("input").first.click()

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
        self.shot(shot, 400)  # for the button to fade

    def mistypes(self, label: str, wrong: str, message: str, shot: str, right: str | None = None) -> None:
        """What is typed is refused with a message (a regular expression); what is typed then, if anything, is not."""
        self.type(label, wrong)
        self.refused(re.compile(message), shot)
        if right is not None:
            self.type(label, right)
            self.gone(re.compile(message))

    def close(self, button: str = "Done") -> None:
        done = self.page.get_by_role("button", name=button, exact=True)
        done.click()
        playwright.expect(done).to_have_count(0, timeout=SLOW)

    def theme(self, name: str) -> None:
        """Dark or Light."""
        self.page.locator(f"[title='{name} mode']").click()

    def events(self, seconds: float) -> list[int]:
        """How much the page sends with each event of a panel meanwhile, in characters."""
        sizes: list[int] = []

        def note(request: Any) -> None:
            if request.url.endswith("/operators/execute"):
                sizes.append(len(request.post_data))

        self.page.on("request", note)
        self.page.wait_for_timeout(1000 * seconds)
        self.page.remove_listener("request", note)
        return sizes

    def shot(self, name: str, wait: int = 0, of: str | None = None) -> None:
        """wait: milliseconds for what moves. of: the CSS selector of a part of the page."""
        self.page.wait_for_timeout(wait)
        file = self.shots / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        (self.page.locator(of).last if of else self.page).screenshot(path=str(file))


def write_shapes(folder: Path, train: int, val: int) -> Path:
    """A YOLO-seg folder of synthetic images of discs, squares and rings, as a user might have one; without noise, which makes large pictures."""
    import cv2

    from fiftyone_yoloseg.data.dataset_yaml import write_dataset_yaml
    from fiftyone_yoloseg.data.label_rows import write_label_file
    from fiftyone_yoloseg.data.synthetic import write_synthetic

    data = write_synthetic(folder, train=train, val=val)
    for split, records in data.splits.items():
        (folder / "labels" / split).mkdir(parents=True)
        for record in records:
            cv2.imwrite(str(record.path), cv2.medianBlur(cv2.imread(str(record.path)), 7))
            write_label_file(folder / "labels" / split / f"{record.path.stem}.txt", record.instances, record.height, record.width)
    write_dataset_yaml(folder / "dataset.yaml", data.names, {split: f"images/{split}" for split in data.splits})
    return folder
