"""A dataset folder as records: what is good is kept, what is bad is named, and no file of the user changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fiftyone_yoloseg.data.scan import find_label, label_path, load_dataset, scan_dataset
from fiftyone_yoloseg.errors import DataError
from fiftyone_yoloseg.geometry import masks

SQUARE = "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """train: a (one object), b (background without a file), c (background with an empty file); val: d (one object)."""
    for split, name, label in (("train", "a", SQUARE), ("train", "b", None), ("train", "c", ""), ("val", "d", SQUARE)):
        image = tmp_path / "images" / split / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(image)
        if label is not None:
            label_path(image).parent.mkdir(parents=True, exist_ok=True)
            label_path(image).write_text(label)
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [x, y]\n")
    return tmp_path / "data.yaml"


def state(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(root.rglob("*")) if p.is_file()}


def test_records(dataset: Path) -> None:
    data, report = scan_dataset(dataset)
    assert data.names == {0: "x", 1: "y"} and data.origin == str(dataset)
    assert [(r.path.name, r.height, r.width, len(r.instances)) for r in data.splits["train"]] == [
        ("a.png", 20, 40, 1),
        ("b.png", 20, 40, 0),
        ("c.png", 20, 40, 0),
    ]
    (instance,) = data.splits["val"][0].instances
    assert (instance.cls, instance.box, masks.area(instance.mask)) == (0, (10, 5, 30, 15), 200)
    assert (report.images, report.objects, report.backgrounds, report.problems) == (4, 2, 2, [])
    assert report.summary() == "4 images, 2 objects, 2 backgrounds"


def test_bad_images_and_rows_are_left_out_and_named(dataset: Path) -> None:
    root = dataset.parent
    (root / "images/train/bad.jpg").write_bytes(b"no image")
    (root / "labels/train/a.txt").write_text(SQUARE + SQUARE + "9 0.1 0.1 0.2 0.2 0.3 0.1\n0 nan 0 0 1 1 1\n")
    before = state(root)
    data, report = scan_dataset(dataset)
    assert [r.path.name for r in data.splits["train"]] == ["a.png", "b.png", "c.png"]
    assert (report.objects, report.duplicates) == (2, 1)
    assert [p.split(": ")[0] for p in report.problems] == [
        f"{root}/labels/train/a.txt:3",
        f"{root}/labels/train/a.txt:4",
        f"{root}/images/train/bad.jpg",
    ]
    assert "1 duplicate rows dropped, 3 problems (first: " in report.summary()
    with pytest.raises(DataError, match="3 problems:"):
        load_dataset(dataset, strict=True)
    assert load_dataset(dataset) == data
    assert state(root) == before


def test_requested_splits(dataset: Path) -> None:
    assert list(load_dataset(dataset, splits=["val"]).splits) == ["val"]
    with pytest.raises(DataError, match="no 'test' entry"):
        load_dataset(dataset, splits=["val", "test"])


def test_a_split_without_any_usable_image(dataset: Path) -> None:
    (dataset.parent / "images/val/d.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)val: none of 1 images can be used:.*d\.png"):
        load_dataset(dataset)
    assert load_dataset(dataset, splits=["train"]).splits


def test_a_list_of_missing_images_says_that_download_is_not_run(dataset: Path) -> None:
    (dataset.parent / "list.txt").write_text("images/x.jpg\nimages/y.jpg\n")
    dataset.write_text("train: list.txt\nnames: [x]\ndownload: https://example.com/x.zip\n")
    with pytest.raises(DataError, match=r"(?s)none of 2 images.*x\.jpg: cannot be read.*never run"):
        load_dataset(dataset)


def test_labels_in_the_wrong_place_are_explained(dataset: Path) -> None:
    (dataset.parent / "labels").rename(dataset.parent / "annotations")
    with pytest.raises(DataError, match=r"train: none of 3 images has an object; expected labels such as .*labels/train/a\.txt"):
        load_dataset(dataset)


def test_a_split_of_bad_rows_only(dataset: Path) -> None:
    (dataset.parent / "labels/val/d.txt").write_text("5 0.1 0.1 0.2 0.2 0.3 0.1\n")
    with pytest.raises(DataError, match=r"(?s)val: no label row can be used:.*d\.txt:1: class 5"):
        load_dataset(dataset)


def test_a_test_split_needs_no_labels(dataset: Path) -> None:
    (dataset.parent / "labels/val/d.txt").unlink()
    dataset.write_text("train: images/train\ntest: images/val\nnames: [x]\n")
    assert len(load_dataset(dataset).splits["test"]) == 1


def test_progress_ends_at_one(dataset: Path) -> None:
    told: list[tuple[float, str]] = []
    scan_dataset(dataset, progress=lambda share, label: told.append((share, label)))
    assert told[-1] == (1.0, "val: 1 images")


def test_label_paths() -> None:
    assert label_path(Path("/x/images/old/images/train/a.b.jpg")) == Path("/x/images/old/labels/train/a.b.txt")
    assert label_path(Path("/x/train/a.jpg")) == Path("/x/train/a.txt")
    assert label_path(Path("/x/images")) == Path("/x/images.txt")


def test_labels_beside_the_images(tmp_path: Path) -> None:
    image = tmp_path / "images" / "a.jpg"
    image.parent.mkdir()
    assert find_label(image) == tmp_path / "labels" / "a.txt"
    image.with_suffix(".txt").touch()
    assert find_label(image) == image.with_suffix(".txt")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").touch()
    assert find_label(image) == tmp_path / "labels" / "a.txt"


def test_shapes(test_data: Path) -> None:
    data, report = scan_dataset(test_data / "shapes" / "data.yaml")
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 256, "val": 64}
    rows = sum(len(p.read_text().splitlines()) for p in (test_data / "shapes/labels").rglob("*.txt"))
    assert report.objects == rows and not report.problems
