"""The check of a view counts what is wrong, shows it in saved views, and changes nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

fo = pytest.importorskip("fiftyone")

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg.bridge import check as module  # noqa: E402
from fiftyone_yoloseg.bridge import jobs  # noqa: E402
from fiftyone_yoloseg.bridge.check import PREFIX, check  # noqa: E402
from fiftyone_yoloseg.errors import DataError, SettingsError, Stopped  # noqa: E402

SIZE = 96


def label(name: str | None = "cat", x: float = 10, y: float = 10, w: float = 20, h: float = 20, mask: Any = "full", **more: Any) -> Any:
    """A Detection with a box in pixels."""
    mask = np.ones((round(h), round(w)), bool) if isinstance(mask, str) else mask
    return fo.Detection(label=name, bounding_box=[x / SIZE, y / SIZE, w / SIZE, h / SIZE], mask=mask, **more)


@pytest.fixture
def clean(fiftyone_db: Any, tmp_path: Path) -> Any:
    """12 train and 4 val images with a cat and a dog each."""
    dataset = fiftyone_db.Dataset()
    rng = np.random.default_rng(0)
    samples = []
    for i in range(16):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
        labels = fo.Detections(detections=[label("cat"), label("dog", 50, 50)])
        samples.append(fo.Sample(filepath=str(path), tags=["train" if i < 12 else "val"], gt=labels))
    dataset.add_samples(samples)
    yield dataset
    dataset.delete()


def add(dataset: Any, number: int, *labels: Any) -> list[str]:
    """More labels for a sample; their ids."""
    sample = dataset.skip(number).first()
    sample.gt.detections.extend(labels)
    sample.save()
    return [x.id for x in labels]


@pytest.fixture
def broken(clean: Any, tmp_path: Path) -> dict[str, list[str]]:
    """Puts one thing of each kind into `clean`: kind of finding -> ids of the labels, or of the samples."""
    spotted = np.zeros((20, 20), bool)
    spotted[:4, :4] = spotted[16:, 16:] = True
    ring = np.ones((20, 20), bool)
    ring[5:9, 5:9] = False
    expected = {
        "labels_without_mask": add(clean, 0, label(mask=None), label("dog", mask=None)),
        "labels_without_class": add(clean, 1, label(None, 70, 10)),
        "empty_masks": add(clean, 2, label("cat", 70, 10, mask=np.zeros((20, 20), bool))),
        "bad_labels": add(clean, 3, label("cat", 70, 10, 0, 20), label("cat", mask=None, mask_path="/no/such.png")),
        "duplicate_objects": add(clean, 4, label("cat")),
        "tiny_objects": add(clean, 5, label("cat", 70, 10, 3, 3)),
        "huge_objects": add(clean, 6, label("cat", 0, 0, SIZE, SIZE)),
        "masks_away_from_boxes": add(clean, 7, label("cat", 70, 10, mask=np.pad(np.ones((9, 9), bool), (0, 11)))),
        "crowds": add(clean, 8, label("cat", 70, 10, iscrowd=True)),
        "objects_in_parts": add(clean, 9, label("cat", 70, 10, mask=spotted)),
        "objects_with_holes": add(clean, 9, label("cat", 70, 50, mask=ring)),
    }
    files = {
        "images_across_splits": [(clean.first().filepath, "val")],
        "duplicate_images": [(clean.skip(13).first().filepath, "val")],
        "missing_images": [(str(tmp_path / "gone.png"), "train")],
        "remote_images": [("s3://bucket/far.png", "train"), ("gs://bucket/far.png", "val")],
        "unreadable_images": [(str(tmp_path / "text.png"), "train")],
        "images_in_no_split": [(str(tmp_path / "loose.png"), "neither")],
        "empty_images": [(str(tmp_path / "empty.png"), "val")],
        "odd_image_sizes": [(str(tmp_path / "long.png"), "train")],
    }
    (tmp_path / "text.png").write_text("text")
    for name, height, grey in (("loose", SIZE, 1), ("empty", SIZE, 2), ("long", 20, 3)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((height, SIZE, 3), grey, np.uint8))
    for kind, rows in files.items():
        for path, tag in rows:
            labels = fo.Detections(detections=[] if kind == "empty_images" else [label("cat"), label("dog", 50, 50)])
            if path == clean.first().filepath or kind == "duplicate_images":  # twins are found by their bytes, not by their path
                twin = tmp_path / f"twin-{kind}.png"
                twin.write_bytes(Path(path).read_bytes())
                path = str(twin)
            expected.setdefault(kind, []).append(clean.add_sample(fo.Sample(filepath=path, tags=[tag], gt=labels)))
    ids = clean.values("id")
    expected["images_across_splits"].append(ids[0])
    expected["duplicate_images"].append(ids[13])
    return expected


def test_a_clean_dataset_has_no_finding(clean: Any) -> None:
    report = fy.check(clean, "gt", imgsz=SIZE)
    assert report.findings == [] and report.verdict == "ok" and report.views == {} and clean.list_saved_views() == []
    assert (report.images, report.objects, report.splits, report.split) == (16, 32, {"train": 12, "val": 4}, "sample tags")
    assert report.image_bytes == sum(Path(f).stat().st_size for f in clean.values("filepath"))


@pytest.mark.parametrize("chunk", [3, 256])
def test_findings_and_the_views_that_show_them(
    clean: Any, broken: dict[str, list[str]], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    before = clean.values(["id", "filepath", "tags", "last_modified_at"])
    clean.save_view("mine", clean.limit(1))
    report = check(clean, "gt", imgsz=SIZE, save_views=True)
    assert {f.kind: f.count for f in report.findings} == {kind: len(ids) for kind, ids in broken.items()}
    assert clean.values(["id", "filepath", "tags", "last_modified_at"]) == before
    assert report.views == {kind: PREFIX + kind.replace("_", " ") for kind in broken}
    assert sorted(clean.list_saved_views()) == sorted(["mine", *report.views.values()])
    for kind, ids in broken.items():
        view = clean.load_saved_view(report.views[kind])
        shown = view.values("gt.detections.id", unwind=True) if kind in module._OBJECTS else view.values("id")
        assert sorted(shown) == sorted(ids), kind


def test_a_second_check_replaces_the_views_of_the_first(clean: Any) -> None:
    ids = add(clean, 0, label("cat", 70, 10, 3, 3))
    clean.save_view("mine", clean.limit(1))
    assert check(clean, "gt", imgsz=SIZE, save_views=True).views == {"tiny_objects": "yoloseg check: tiny objects"}
    clean.delete_labels(ids=ids)
    add(clean, 0, label("cat"))
    assert check(clean, "gt", imgsz=SIZE).views == {}  # leaves alone what it was not asked to save
    assert "yoloseg check: tiny objects" in clean.list_saved_views()
    with pytest.raises(Stopped):
        check(clean, "gt", imgsz=SIZE, save_views=True, should_stop=lambda: True)
    assert "yoloseg check: tiny objects" in clean.list_saved_views()
    check(clean, "gt", imgsz=SIZE, save_views=True)
    assert sorted(clean.list_saved_views()) == ["mine", "yoloseg check: duplicate objects"]


def test_only_the_view_is_checked(clean: Any, broken: dict[str, list[str]]) -> None:
    part = clean.match_tags(["train", "val"]).skip(1).limit(3)
    report = check(part, "gt", split=0.3, imgsz=SIZE, save_views=True)
    assert report.images == 3 and {f.kind for f in report.findings} >= {"labels_without_class", "empty_masks", "bad_labels"}
    assert "tiny_objects" not in report.views
    assert clean.load_saved_view(report.views["empty_masks"]).values("gt.detections.id", unwind=True) == broken["empty_masks"]


def test_polylines(clean: Any) -> None:
    square = [[[0.1, 0.1], [0.4, 0.1], [0.4, 0.4], [0.1, 0.4]]]
    for i, sample in enumerate(clean):
        sample["lines"] = fo.Polylines(polylines=[fo.Polyline(label="cat", points=square, closed=True, filled=i > 0)])
        sample.save()
    report = check(clean, "lines", imgsz=SIZE)
    assert {f.kind: f.count for f in report.findings} == {"labels_without_mask": 1, "empty_images": 1} and report.objects == 15


def test_remap(clean: Any) -> None:
    add(clean, 0, label("dog"))
    assert check(clean, "gt", imgsz=SIZE).findings == []
    report = check(clean, "gt", imgsz=SIZE, remap={"cat": "animal", "dog": "animal"})
    assert {f.kind: f.count for f in report.findings} == {"collisions_after_remap": 1, "merged_classes": 1}
    assert [c.name for c in report.classes] == ["animal"]


def test_a_split_that_cannot_be_made_is_a_finding(clean: Any) -> None:
    report = check(clean.match_tags("train"), "gt", split="tags", imgsz=SIZE)
    assert [f.kind for f in report.findings] == ["split"] and "no sample for val (12 train)" in report.findings[0].message
    both = clean.first()
    both.tags.append("val")
    both.save()
    assert "is tagged train and val" in check(clean, "gt", split="tags", imgsz=SIZE)["split"].message
    assert check(clean, "gt", split="random", val_fraction=0.5, imgsz=SIZE).splits == {"train": 8, "val": 8}


def test_what_cannot_be_checked(clean: Any) -> None:
    with pytest.raises(DataError, match="no field 'nope'; fields with masks: 'gt'"):
        check(clean, "nope")
    with pytest.raises(DataError, match="empty"):
        check(clean.match_tags("nothing"), "gt")
    with pytest.raises(SettingsError, match="imgsz=7"):
        check(clean, "gt", imgsz=7)
    clean.add_sample_field("bare", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    with pytest.raises(DataError, match="field 'bare' has no labelled object"):
        check(clean, "bare")
    for path in clean.values("filepath"):
        Path(path).unlink()
    report = check(clean, "gt", imgsz=SIZE)
    assert report["missing_images"].count == 16 and report["no_objects"].count == 1 and report.images == 0


def test_the_job(clean: Any, broken: dict[str, list[str]]) -> None:
    told: list[float] = []
    params = jobs.view_params(clean, label_field="gt", imgsz=SIZE, save_views=True, remap={"dog": "cat"})
    result = jobs.run("check", params, lambda share, label: told.append(share))
    assert json.loads(json.dumps(result)) == result and result["verdict"] == "errors" and told[-1] == 1
    assert "| error | 1 image is not on the disk: gone.png" in result["summary"]
    assert set(result["views"]) >= set(broken) - {"labels_without_class"}


def test_real_images(coco: Any) -> None:
    report = check(coco)
    crowds = sum(bool(c) for sample in coco.values("ground_truth.detections.iscrowd") for c in sample or ())
    assert report.images == 6 and report.objects == coco.count("ground_truth.detections") - crowds
    assert {f.kind for f in report.findings if f.severity == "error"} == set()
    assert report.splits == {"train": 4, "val": 2}
