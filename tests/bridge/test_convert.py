"""A conversion loses no shape, and leaves nothing half-written behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

fo = pytest.importorskip("fiftyone")

from fiftyone_yoloseg.bridge.convert import MARKER, convert  # noqa: E402
from fiftyone_yoloseg.bridge.read import view_records  # noqa: E402
from fiftyone_yoloseg.data.dataset_yaml import read_dataset_yaml  # noqa: E402
from fiftyone_yoloseg.data.yolo_labels import read_label_file  # noqa: E402
from fiftyone_yoloseg.errors import DataError, SettingsError, Stopped  # noqa: E402
from fiftyone_yoloseg.geometry import masks  # noqa: E402


def test_real_images_come_back_exactly(coco: Any, tmp_path: Path) -> None:
    out = tmp_path / "größe 1"
    before = coco.values(["filepath", "last_modified_at"])
    report = convert(coco, out)
    crowds = sum(bool(crowd) for sample in coco.values("ground_truth.detections.iscrowd") for crowd in sample or ())
    assert report.images == {"train": 4, "val": 2} and report.split == "sample tags"
    assert report.objects == coco.count("ground_truth.detections") and report.rows == report.objects - crowds
    assert len(report.dropped) == crowds and all("crowd" in reason for _, reason in report.dropped)
    assert report.min_iou == report.mean_iou == 1.0 and report.worst == []
    yaml = read_dataset_yaml(report.dataset_yaml)
    assert {split: len(files) for split, files in yaml.splits.items()} == report.images
    # what a reader of the files gets is what FiftyOne holds, object by object
    for record in view_records(coco, "ground_truth", report.classes).records:
        file = next((out / "labels").rglob(f"{record.path.stem}.txt"))
        back = read_label_file(file, record.height, record.width, len(report.classes), strict=True).records
        wanted = [i for i in record.instances if not i.crowd]
        assert [b.cls for b in back] == [w.cls for w in wanted]
        assert all(masks.iou([b.mask], [w.mask])[0, 0] == 1.0 for b, w in zip(back, wanted, strict=True))
    assert json.loads((out / MARKER).read_text())["rows"] == report.rows
    assert coco.values(["filepath", "last_modified_at"]) == before
    assert [p for p in tmp_path.iterdir() if p != out] == []


@pytest.fixture
def odd(fiftyone_db: Any, tmp_path: Path) -> Any:
    """Four images of one name in different folders; a ring, two parts, twins, a crowd and a pseudo-label with a confidence."""
    ring = np.ones((9, 9), bool)
    ring[3:6, 3:6] = False
    parts = np.zeros((9, 9), bool)
    parts[:3], parts[6:] = True, True
    dot = np.ones((1, 1), bool)
    box = [2 / 30, 2 / 20, 9 / 30, 9 / 20]
    objects = [
        [fo.Detection(label="ring", bounding_box=box, mask=ring), fo.Detection(label="parts", bounding_box=box, mask=parts)],
        [fo.Detection(label="dot", bounding_box=[29 / 30, 19 / 20, 1 / 30, 1 / 20], mask=dot, confidence=0.7)],
        [fo.Detection(label="ring", bounding_box=box, mask=ring) for _ in range(2)],
        [fo.Detection(label="ring", bounding_box=box, mask=ring, iscrowd=True)],
    ]
    dataset = fiftyone_db.Dataset()
    for i, found in enumerate(objects):
        path = tmp_path / f"folder {i}" / ("Same.png" if i % 2 else "same.jpg")
        path.parent.mkdir()
        cv2.imwrite(str(path), np.zeros((20, 30, 3), np.uint8))
        dataset.add_sample(fo.Sample(filepath=str(path), tags=["val" if i == 3 else "train"], ground_truth=fo.Detections(detections=found)))
    yield dataset
    dataset.delete()


def test_holes_parts_dots_twins_crowds_and_equal_names(odd: Any, tmp_path: Path) -> None:
    report = convert(odd, tmp_path / "out")
    assert (report.objects, report.rows, report.with_holes, report.with_parts, report.min_iou) == (6, 4, 2, 1, 1.0)
    ids = odd.values("id")
    assert [(s, r.split(":")[0]) for s, r in report.dropped] == [
        (ids[2], "the same pixels and class as another object"),
        (ids[3], "a crowd region"),
    ]
    assert sorted(p.name for p in (tmp_path / "out/images/train").iterdir()) == ["Same-2.png", "same-3.jpg", "same.jpg"]
    assert sorted(p.name for p in (tmp_path / "out/labels/train").iterdir()) == ["Same-2.txt", "same-3.txt", "same.txt"]
    assert len((tmp_path / "out/labels/train/Same-2.txt").read_text().split()) % 2 == 1  # class and pairs: no confidence


def test_links(odd: Any, tmp_path: Path) -> None:
    convert(odd, tmp_path / "out", media="symlink")
    assert (tmp_path / "out/images/train/same.jpg").readlink() == Path(odd.first().filepath)


def test_a_folder_of_somebody_else_is_never_touched(odd: Any, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="is not empty and was not written by an earlier conversion"):
        convert(odd, out)
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not a folder"):
        convert(odd, tmp_path / "file")
    with pytest.raises(SettingsError, match="media='move'"):
        convert(odd, tmp_path / "out", media="move")


def test_an_earlier_conversion_is_replaced_whole_and_survives_a_failure(odd: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(odd, out)
    first = sorted(str(p) for p in out.rglob("*"))
    calls = iter([False, True])
    with pytest.raises(Stopped, match="nothing was written"):
        convert(odd, out, should_stop=lambda: next(calls))
    shutil.rmtree(tmp_path / "folder 3")
    with pytest.raises(DataError, match="no sample for val can be read"):
        convert(odd, out)
    assert sorted(str(p) for p in out.rglob("*")) == first
    assert not list(tmp_path.glob(".out*"))
    report = convert(odd.match_tags("train"), out, split="random", val_fraction=0.4)
    assert report.images == {"train": 2, "val": 1} and len(list((out / "images").rglob("*.*"))) == 3


def test_count_parts() -> None:
    ring = np.ones((5, 5), np.uint8)
    ring[2, 2] = 0
    assert masks.count_parts(ring) == (1, 1)
    assert masks.count_parts(np.array([[1, 0, 1]], np.uint8)) == (2, 0)
    assert masks.count_parts(np.eye(3, dtype=np.uint8)) == (1, 0)
