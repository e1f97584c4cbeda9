"""Decoded images on disk: found again, never stale, never beside the user's images, never over the budget."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from fiftyone_yoloseg.data import store as store_module
from fiftyone_yoloseg.data.disk_cache import DiskCache, cache_folder, make_room
from fiftyone_yoloseg.data.store import ImageStore
from fiftyone_yoloseg.errors import SettingsError
from fiftyone_yoloseg.types import ImageRecord

SIZE = 64
BYTES = 3 * SIZE * SIZE


@pytest.fixture
def records(tmp_path: Path) -> list[ImageRecord]:
    (tmp_path / "images").mkdir()
    found = []
    for i in range(3):
        path = tmp_path / "images" / f"{i}.png"
        cv2.imwrite(str(path), np.random.default_rng(i).integers(0, 256, (80, 80, 3), dtype=np.uint8))
        found.append(ImageRecord(path, 80, 80))
    return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that were decoded."""
    done: list[str] = []
    original = store_module.read_image
    monkeypatch.setattr(store_module, "read_image", lambda path: done.append(Path(path).stem) or original(path))
    return done


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YOLOSEG_CACHE_DIR", str(tmp_path / "cache"))
    return cache_folder()


def store(records: list[ImageRecord], folder: Path, budget: int = 10 * BYTES) -> ImageStore:
    return ImageStore(records, SIZE, 0, DiskCache(folder, SIZE, budget))


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_an_image_is_decoded_once(records: list[ImageRecord], folder: Path, reads: list[str]) -> None:
    before = files(records[0].path.parent)
    first = [store(records, folder)[i] for i in range(3)]
    again = [store(records, folder)[i] for i in range(3)]
    assert reads == ["0", "1", "2"] and all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(a.shape == (SIZE, SIZE, 3) and a.dtype == np.uint8 for a in again)
    assert len(files(folder)) == 3 and {p.suffix for p in files(folder)} == {".npy"} and files(records[0].path.parent) == before
    ImageStore(records, 32, 0, DiskCache(folder, 32, 10 * BYTES))[0]
    assert reads[3:] == ["0"], "another working size is another image"


@pytest.mark.parametrize("change", ["content", "time"])
def test_a_changed_image_is_decoded_anew(records: list[ImageRecord], folder: Path, reads: list[str], change: str) -> None:
    old = store(records, folder)[0]
    path = records[0].path
    if change == "content":
        status = path.stat()
        cv2.imwrite(str(path), np.zeros((80, 80, 3), np.uint8))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # another size, the same time
    else:
        os.utime(path, ns=(1, 1))
    new = store(records, folder)[0]
    assert reads == ["0", "0"] and np.array_equal(new, old) == (change == "time")
    assert len(files(folder)) == 1, "what was kept of the old one is gone"


@pytest.mark.parametrize("damage", ["truncated", "empty", "another shape", "objects"])
def test_a_damaged_file_is_replaced(records: list[ImageRecord], folder: Path, reads: list[str], damage: str) -> None:
    good = store(records, folder)[0]
    (file,) = files(folder)
    content = file.read_bytes()
    if damage == "another shape":
        np.save(file, np.zeros((5, 5, 3), np.uint8))
    elif damage == "objects":
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    else:
        file.write_bytes(content[: 1000 if damage == "truncated" else 0])
    assert np.array_equal(store(records, folder)[0], good) and reads == ["0", "0"]
    assert file.read_bytes() == content


def test_the_budget(records: list[ImageRecord], folder: Path, reads: list[str]) -> None:
    limited = store(records, folder, 2 * BYTES + 10)
    for i in (0, 1, 2, 2):
        limited[i]
    assert len(files(folder)) == 2 and reads == ["0", "1", "2", "2"]


def test_room_is_made_by_removing_what_other_data_left(records: list[ImageRecord], folder: Path) -> None:
    others = store(records[:2], folder)
    others[0], others[1]
    old, recent = (others.disk.file_of(r.path) for r in records[:2])  # type: ignore[union-attr]
    os.utime(old, (1, 1))
    each = old.stat().st_size
    assert make_room(folder, records[2:], SIZE, 10 * each) == 8 * each and old.exists(), "there is room"
    assert make_room(folder, records[2:], SIZE, 2 * each) == each and not old.exists() and recent.exists(), "the oldest goes first"
    assert make_room(folder, records[1:], SIZE, 2 * each) == each and recent.exists(), "what these records have is kept"
    assert make_room(folder, records[2:], SIZE, each // 2) == each // 2 and not recent.exists()


def test_a_full_disk_ends_the_caching_only(
    records: list[ImageRecord], folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fiftyone_yoloseg.data.disk_cache.np.save", full)
    limited = store(records, folder)
    assert [limited[i].shape for i in range(3)] == [(SIZE, SIZE, 3)] * 3 and files(folder) == []
    assert [r.message for r in caplog.records] == [f"the image cache in {folder} takes no more images: No space left on device"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("YOLOSEG_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(SettingsError, match="cache=disk: cannot write in .*set YOLOSEG_CACHE_DIR"):
        cache_folder()
