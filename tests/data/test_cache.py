"""A second scan reads only what changed, and says the same as a scan without a cache whatever happens to the files and to the cache."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from fiftyone_yoloseg.data import cache, places, reading, scan
from fiftyone_yoloseg.data.cache import ScanCache, cache_files
from fiftyone_yoloseg.data.processes import LightPool
from fiftyone_yoloseg.data.scan import ScanReport, label_path, scan_dataset
from fiftyone_yoloseg.errors import DataError, Stopped
from fiftyone_yoloseg.types import SegmentationData

TRIANGLE = "0 0.1 0.1 0.9 0.1 0.5 0.9\n"
IMAGES = 6


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; files are trusted as soon as they are written, for a test cannot wait."""
    monkeypatch.setenv("YOLOSEG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(places, "SETTLE", 0)
    return tmp_path / "cache"


@pytest.fixture
def dataset(tmp_path: Path, folder: Path) -> Path:
    """train: 0 ... 3, val: 4 and 5; image i has i rows, the third of them bad, and one row twice in the last."""
    for i in range(IMAGES):
        image = tmp_path / "data" / "images" / ("train" if i < 4 else "val") / f"{i}.png"
        write_image(image, 20, 40 + i)
        rows = [TRIANGLE, "1 0.5 0.5 0.2 0.4\n", "7 0 0 1 1\n", "0 0.3 0.3 0.2 0.2\n", TRIANGLE.replace("0.9", "0.8"), TRIANGLE]
        write(label_path(image), "".join(rows[:i] + rows[: i == 5]))
    write(tmp_path / "data" / "data.yaml", "train: images/train\nval: images/val\nnames: [x, y]\n")
    return tmp_path / "data" / "data.yaml"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_image(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)


def checked(dataset: Path, **options: Any) -> ScanReport:
    """Scan with the cache, and compare with a scan without."""
    data, report = scan_dataset(dataset, **options)
    plain, expected = scan_dataset(dataset, cache=False, **options)
    assert data == plain
    assert expected.cached == 0
    expected.cached = report.cached
    assert report == expected
    return report


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the label files whose rows were parsed."""
    names: list[str] = []
    original = reading.parse_label_file

    def record(path: str, *args: Any) -> Any:
        names.append(Path(path).name)
        return original(path, *args)

    monkeypatch.setattr(reading, "parse_label_file", record)
    return names


def again(dataset: Path, parsed: list[str], **options: Any) -> tuple[SegmentationData, ScanReport, list[str]]:
    parsed.clear()
    data, report = scan_dataset(dataset, **options)
    return data, report, sorted(parsed)


def rows(folder: Path) -> int:
    (file,) = (folder / "scans").iterdir()
    with sqlite3.connect(file) as connection:
        return int(connection.execute("SELECT count(*) FROM images").fetchone()[0])


def test_a_second_scan_opens_no_file_of_the_user(dataset: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = checked(dataset)
    assert (first.images, first.objects, first.duplicates, len(first.problems), first.cached) == (6, 12, 1, 3, 0)
    (file,) = cache_files()
    assert file.parent.parent == folder and file.read_bytes().startswith(b"SQLite format 3") and rows(folder) == IMAGES
    before = file.stat().st_ino
    expected, _ = scan_dataset(dataset, cache=False)

    def refuse(*_: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(reading, "read", refuse)
    data, report = scan_dataset(dataset)
    assert data == expected and report.cached == IMAGES and "6 images from the cache" in report.summary()
    assert report.problems == first.problems and report.duplicates == 1
    assert cache_files() == [file] and file.stat().st_ino == before  # nothing new, nothing written


def test_no_cache(dataset: Path, folder: Path) -> None:
    _, report = scan_dataset(dataset, cache=False)
    assert report.cached == 0 and not folder.exists() and "from the cache" not in report.summary()


def test_an_edit_that_keeps_size_and_time_is_seen(dataset: Path, parsed: list[str]) -> None:
    scan_dataset(dataset)
    label = dataset.parent / "labels/train/1.txt"
    status = label.stat()
    label.write_text(TRIANGLE.replace("0 0.1", "1 0.1"))
    os.utime(label, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (label.stat().st_size, label.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    data, report, read = again(dataset, parsed)
    assert data.splits["train"][1].instances[0].cls == 1 and report.cached == IMAGES - 1 and read == ["1.txt"]
    checked(dataset)


def test_an_edit_in_the_same_tick_of_a_coarse_clock_is_seen(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SETTLE", 60)
    monkeypatch.setattr(places, "_print", lambda kind, seen: bytes(33))  # nothing about the file tells
    scan_dataset(dataset)
    (dataset.parent / "labels/train/1.txt").write_text(TRIANGLE.replace("0 0.1", "1 0.1"))
    assert checked(dataset).cached == IMAGES - 1
    monkeypatch.setattr(places, "SETTLE", -60)  # the same without the waiting time: it is this that sees the edit
    scan_dataset(dataset)
    (dataset.parent / "labels/train/1.txt").write_text(TRIANGLE)
    data, report = scan_dataset(dataset)
    assert report.cached == IMAGES and data.splits["train"][1].instances[0].cls == 1


def test_files_that_were_only_touched_are_not_parsed_again(dataset: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    scan_dataset(dataset)
    for path in dataset.parent.rglob("*.*"):
        os.utime(path, (1e9, 1e9))
    _, report, read = again(dataset, parsed)
    assert read == [] and report.cached == IMAGES
    monkeypatch.setattr(reading, "read", None)  # and the new prints were kept
    assert scan_dataset(dataset)[1].cached == IMAGES


CHANGES: dict[str, Callable[[Path], object]] = {
    "image of another size": lambda root: write_image(root / "images/train/1.png", 30, 30),
    "image destroyed": lambda root: (root / "images/train/1.png").write_bytes(b"no image"),
    "image removed": lambda root: (root / "images/train/1.png").unlink(),
    "image added": lambda root: write_image(root / "images/train/9.png", 9, 9),
    "label removed": lambda root: (root / "labels/train/1.txt").unlink(),
    "label for a background": lambda root: write(root / "labels/train/0.txt", TRIANGLE),
    "label moved beside the image": lambda root: (root / "labels/train/1.txt").rename(root / "images/train/1.txt"),
    "label beside the image, not read": lambda root: write(root / "images/train/1.txt", TRIANGLE.replace("0.9", "0.7")),
    "label exchanged for another": lambda root: (root / "labels/train/2.txt").replace(root / "labels/train/1.txt"),
    "label not text": lambda root: (root / "labels/train/1.txt").write_bytes(b"\xff\xfe"),
    "row added": lambda root: write(root / "labels/train/1.txt", TRIANGLE + "1 0.5 0.5 0.2 0.2\n"),
    "one class more": lambda root: write(root / "data.yaml", "train: images/train\nval: images/val\nnames: [x, y, z, a, b, c, d, e]\n"),
    "one class less": lambda root: write(root / "data.yaml", "train: images/train\nval: images/val\nnames: [x]\n"),
    "splits exchanged": lambda root: write(root / "data.yaml", "train: images/val\nval: images/train\nnames: [x, y]\n"),
    "all in one list": lambda root: (
        write(root / "all.txt", "images/val/4.png\nimages/train/1.png\n"),
        write(root / "data.yaml", "train: all.txt\nnames: [x, y]\n"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen(dataset: Path, change: str) -> None:
    checked(dataset)
    CHANGES[change](dataset.parent)
    first = checked(dataset)
    second = checked(dataset)
    unusable = sum("left out" in p or "is not an image" in p for p in second.problems)
    assert second.cached == second.images and second.images >= first.cached and second.images + unusable >= 2


def test_a_change_of_the_reader_discards_all(dataset: Path, folder: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    scan_dataset(dataset)
    monkeypatch.setattr(cache, "reader_stamp", lambda: "another")
    _, report, read = again(dataset, parsed)
    assert report.cached == 0 and len(read) == IMAGES and rows(folder) == IMAGES
    assert again(dataset, parsed)[1].cached == IMAGES


def test_the_stamp_changes_with_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data" / "cache.py", "")
    write(tmp_path / "geometry" / "rasterize.py", "one")
    write(tmp_path / "types.py", "")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "data" / "cache.py"))
    before = cache.reader_stamp.__wrapped__()
    assert before == cache.reader_stamp.__wrapped__() != cache.reader_stamp()
    write(tmp_path / "geometry" / "rasterize.py", "two")
    assert cache.reader_stamp.__wrapped__() != before


def test_removed_images_leave_and_other_splits_stay(dataset: Path, folder: Path) -> None:
    scan_dataset(dataset)
    (dataset.parent / "images/train/3.png").unlink()
    assert checked(dataset, splits=["val"]).cached == 2 and rows(folder) == IMAGES
    assert checked(dataset, splits=["train"]).cached == 3 and rows(folder) == IMAGES - 1
    assert checked(dataset).cached == IMAGES - 1


def test_messages_name_the_path_as_it_is_given_now(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan_dataset(dataset)
    monkeypatch.chdir(dataset.parent)
    report = checked(Path("data.yaml"))
    assert report.cached == IMAGES and report.problems[0].startswith("labels/train/3.txt:3: class 7")
    monkeypatch.chdir(dataset.parent / "images")
    report = checked(Path("../data.yaml"))
    assert report.cached == IMAGES and report.problems[0].startswith("../labels/train/3.txt:3: class 7")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_file_names_that_are_not_text(dataset: Path) -> None:
    image = Path(os.fsdecode(os.fsencode(dataset.parent / "images" / "train") + b"/\xff\xfe.png"))
    write_image(image, 20, 20)
    write(label_path(image), TRIANGLE + "9 0 0 1 1\n")
    checked(dataset)
    report = checked(dataset)
    assert report.cached == IMAGES + 1 and any("\udcff\udcfe.txt:2" in p for p in report.problems)


def damage_cut(data: bytearray) -> bytes:
    return bytes(data[: len(data) // 2])


def damage_middle(data: bytearray) -> bytes:
    data[4096:] = bytes(len(data) - 4096)
    return bytes(data)


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: b"no database" * 999, damage_cut, damage_middle, lambda data: bytes(len(data))],
    ids=["empty", "foreign", "cut", "middle", "zeros"],
)
def test_a_damaged_cache_is_made_anew_with_one_line(
    dataset: Path, damage: Callable[[bytearray], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    scan_dataset(dataset)
    (file,) = cache_files()
    file.write_bytes(damage(bytearray(file.read_bytes())))
    with caplog.at_level(logging.WARNING):
        assert checked(dataset).cached == 0
    assert len(caplog.messages) == 1 and f"{file} is damaged" in caplog.messages[0] and "read anew" in caplog.messages[0]
    assert checked(dataset).cached == IMAGES


def test_a_flipped_bit_anywhere_changes_no_answer(dataset: Path) -> None:
    expected, plain = scan_dataset(dataset, cache=False)
    scan_dataset(dataset)
    (file,) = cache_files()
    good = file.read_bytes()
    found = 0
    used = [i for i in range(len(good)) if good[i]]
    for position in used[:: max(1, len(used) // 150)]:
        data = bytearray(good)
        data[position] ^= 1 << (position % 8)
        file.write_bytes(data)
        result, report = scan_dataset(dataset)
        assert result == expected and report.problems == plain.problems and report.objects == plain.objects, position
        found += report.cached < IMAGES
    assert found > 30  # some bits are not read: free space, or a name in the schema


@pytest.mark.parametrize("place", ["folder", "file", "full"])
def test_a_cache_that_cannot_be_written_costs_one_line(
    dataset: Path, folder: Path, place: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "folder":
        folder.write_text("a file in its place")
    elif place == "file":
        cache.ScanCache(dataset, 2).path.mkdir(parents=True)
    else:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(cache.os, "replace", full)
    with caplog.at_level(logging.WARNING):
        assert checked(dataset).images == IMAGES
    assert "cannot be written" in caplog.messages[-1] and len(caplog.messages) <= 2
    assert place == "folder" or not list((folder / "scans").glob(".*.tmp"))


def test_an_interrupted_scan_keeps_what_it_read(dataset: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "CHUNK", 1)
    scan_dataset(dataset)
    write(dataset.parent / "labels/train/1.txt", TRIANGLE.replace("0.9", "0.7"))
    write(dataset.parent / "labels/val/4.txt", TRIANGLE.replace("0.9", "0.7"))

    def stop(share: float, label: str) -> None:
        if share >= 0.5:
            raise Stopped("enough")

    with pytest.raises(Stopped):
        scan_dataset(dataset, progress=stop)
    assert rows(folder) == IMAGES
    assert checked(dataset).cached == IMAGES - 1  # only the second edit was left to read


SCAN = """
import sys, json
from fiftyone_yoloseg.data import reading, places
from fiftyone_yoloseg.data.scan import scan_dataset
places.SETTLE = 0
reading.WORTH_PROCESSES = int(sys.argv[2])
data, report = scan_dataset(sys.argv[1])
print(json.dumps([report.images, report.objects, report.cached, len(report.problems)]))
"""


def test_scans_at_the_same_time(dataset: Path, folder: Path) -> None:
    command = [sys.executable, "-c", SCAN, str(dataset), "1000000"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        images, objects, _, problems = json.loads(process.communicate(timeout=60)[0])
        assert (images, objects, problems) == (6, 12, 3) and process.returncode == 0
    assert rows(folder) == IMAGES and checked(dataset).cached == IMAGES


def test_two_writers_both_leave_a_whole_file(dataset: Path, folder: Path) -> None:
    """A scan of val ends while a scan of train goes on: neither loses the other's images."""
    train, val = ScanCache(dataset, 2), ScanCache(dataset, 2)
    entry = cache.Entry(bytes(33), bytes(33), bytes(16), 1, 1, 0, 0, b"")
    for kept, split, key in ((train, "train", 1), (val, "val", 2)):
        assert kept.lookup([key]) == {}
        kept.put(split, key, entry)
    val.finish(["val"], complete=True)
    train.finish(["train"], complete=True)
    assert rows(folder) == 2 and ScanCache(dataset, 2).lookup([1, 2, 3]) == {1: entry, 2: entry}


@pytest.mark.slow
def test_processes_need_no_main_guard_and_say_the_same(dataset: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('started')\n" + SCAN.replace("places.SETTLE = 0", "from fiftyone_yoloseg.data import scan\nscan.CHUNK = 1"))
    for i in range(60):
        write_image(dataset.parent / f"images/train/more{i}.png", 10, 10)
        write(dataset.parent / f"labels/train/more{i}.txt", TRIANGLE)
    script.write_text(script.read_text().replace("data, report =", "reading.THREADS = 1\nimport time\nslow(reading, time)\ndata, report =").replace(
        "import sys, json\n",
        "import sys, json\n"
        "def slow(reading, time):\n"  # threads so slow that processes have started before all is read
        "    submit, begun = reading.Readers.submit, []\n"
        "    def waiting(self, *args):\n"
        "        if self._processes is not None:\n"
        "            begun.append(self._processes.first.result())\n"
        "        return submit(self, *args)\n"
        "    reading.Readers.submit = waiting\n"
        "    import atexit; atexit.register(lambda: print('processes', len(begun)))\n",
    ))  # fmt: skip
    done = subprocess.run([sys.executable, str(script), str(dataset), "1"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    started, result, processes = done.stdout.splitlines()
    assert started == "started" and json.loads(result)[:2] == [IMAGES + 60, 12 + 60]
    assert int(processes.split()[1]) > 30


@pytest.mark.parametrize("error", [ValueError("bad value(s) in fds_to_keep"), BrokenPipeError("the pipe is closed")])
def test_a_pool_that_breaks_while_it_starts_another_process_is_a_broken_pool(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """What Python 3.11 raised when a process was killed at that moment."""
    pool = LightPool(1)
    monkeypatch.setattr(pool._pool, "submit", Mock(side_effect=error))
    try:
        with pytest.raises(BrokenProcessPool, match=re.escape(str(error))):
            pool.submit(os.getpid).result()
    finally:
        pool.close(failed=True)


def test_a_killed_reading_process_is_one_clear_error(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    submit = reading.Readers.submit

    def after_a_kill(self: reading.Readers, *args: Any) -> Any:
        if self._processes is not None and not killed:
            killed.append(self._processes.first.result())
            os.kill(killed[0], signal.SIGKILL)
        return submit(self, *args)

    monkeypatch.setattr(reading, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(reading, "may_have_helpers", lambda: True)
    monkeypatch.setattr(scan, "CHUNK", 1)
    monkeypatch.setattr(reading.Readers, "submit", after_a_kill)
    for i in range(60):
        write_image(dataset.parent / f"images/train/more{i}.png", 10, 10)
    with pytest.raises(DataError, match=r"\.png: a process that read the files from here to \w+\.png was killed"):
        scan_dataset(dataset)
    assert killed
    monkeypatch.undo()


def test_unused_and_orphaned_caches_and_what_a_killed_scan_left_are_removed(dataset: Path, folder: Path, tmp_path: Path) -> None:
    def other(name: str) -> Path:
        yaml = tmp_path / f"{name}.yaml"
        yaml.write_text("train: data/images/train\nnames: [x, y]\n")
        before = set(cache_files())
        scan_dataset(yaml)
        (file,) = set(cache_files()) - before
        return file

    used, unused, orphan, fresh = (other(name) for name in ("used", "unused", "orphan", "fresh"))
    (tmp_path / "orphan.yaml").unlink()
    now = time.time()
    os.utime(unused, (now, now - 91 * 86400))
    os.utime(used, (now, now - 89 * 86400))
    left, running = folder / "scans" / ".a.tmp", folder / "scans" / ".b.tmp"
    for path in (left, running):
        path.touch()
    os.utime(left, (now, now - 2 * 86400))
    foreign = folder / "scans" / "notes.md"
    foreign.touch()
    scan_dataset(dataset)
    assert {used, fresh} < set(cache_files()) and not {unused, orphan} & set(cache_files())
    assert not left.exists() and running.exists() and foreign.exists()


def test_use_is_noted(dataset: Path) -> None:
    scan_dataset(dataset)
    (file,) = cache_files()
    os.utime(file, (1e9, 1e9))
    scan_dataset(dataset)
    assert time.time() - file.stat().st_mtime < 100


def test_nothing_of_the_user_is_touched(dataset: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        paths = sorted(dataset.parent.rglob("*"))
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in paths}

    before = state()
    scan_dataset(dataset)
    scan_dataset(dataset)
    assert state() == before
