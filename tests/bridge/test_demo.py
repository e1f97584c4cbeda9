"""The demo, on a few real images and few epochs: every figure of its summary is there and holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fiftyone_yoloseg.config import DemoSettings
from fiftyone_yoloseg.errors import DataError


def coco_subset(source: Path, folder: Path, level: str, count: int = 6) -> Path:
    """A COCO folder with the first images of each split, below `level`."""
    (folder / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        data = json.loads((source / "annotations" / f"instances_{split}.json").read_text())
        data["images"] = data["images"][:count]
        kept = {image["id"] for image in data["images"]}
        data["annotations"] = [a for a in data["annotations"] if a["image_id"] in kept]
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(data))
        (folder / level / split).mkdir(parents=True)
        for image in data["images"]:
            (folder / level / split / image["file_name"]).symlink_to(source / split / image["file_name"])
    return folder


@pytest.mark.parametrize("level", ["", "images"])
def test_demo_on_a_coco_folder(fiftyone_db: Any, test_data: Path, tmp_path: Path, level: str, capsys: pytest.CaptureFixture[str]) -> None:
    from fiftyone_yoloseg.bridge.demo import demo

    data = coco_subset(test_data / "coco_tiny", tmp_path / "coco", level)
    out = tmp_path / "out"
    returned = demo(DemoSettings(data=data, out=out, dataset="demo-test", epochs=1, imgsz=64, conf=0.0001, workers=0))
    summary = json.loads((out / "summary.json").read_text())

    annotations = [json.loads(f.read_text())["annotations"] for f in sorted((data / "annotations").iterdir())]
    assert summary["images"] == {"train": 6, "val": 6}
    assert summary["objects"] == {"train": len(annotations[0]), "val": len(annotations[1])}
    assert summary["conversion_min_iou"] == 1
    assert summary["epochs"] == 1 and summary["seconds_per_step"] > 0
    assert 0 <= summary["mask_map"] <= 1 and 0 <= summary["box_map"] <= 1
    assert Path(summary["export_path"]).is_file() and 0 <= summary["export_max_abs_error"] < 1e-2
    assert Path(summary["checkpoint"]).is_file() and (out / "yolo" / "dataset.yaml").is_file()

    dataset = fiftyone_db.load_dataset("demo-test")
    assert dataset.count("ground_truth.detections") == sum(map(len, annotations))
    assert dataset.count("predictions.detections") == summary["predictions"] == returned.predictions
    assert dataset.match_tags("train").count("predictions.detections") == 0
    assert "eval" in dataset.list_evaluations()
    assert "fiftyone app launch demo-test" in capsys.readouterr().out
    dataset.delete()


def test_demo_does_not_replace_a_dataset_of_the_user(fiftyone_db: Any, tmp_path: Path) -> None:
    from fiftyone_yoloseg.bridge.demo import demo

    theirs = fiftyone_db.Dataset("theirs")
    with pytest.raises(DataError, match="'theirs' exists"):
        demo(DemoSettings(out=tmp_path, dataset="theirs", epochs=1))
    assert "theirs" in fiftyone_db.list_datasets()
    theirs.delete()


def test_demo_names_what_is_missing(tmp_path: Path) -> None:
    from fiftyone_yoloseg.bridge.demo import demo

    with pytest.raises(DataError, match=r"there is no such folder"):
        demo(DemoSettings(data=tmp_path / "nowhere", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_synthetic_dataset_touches_nothing_of_others(fiftyone_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a dataset of that name, nor the folder in which FiftyOne's zoo has one of that name."""
    import fiftyone_yoloseg as fy

    monkeypatch.setattr(fiftyone_db.config, "default_dataset_dir", str(tmp_path))
    zoo = tmp_path / "quickstart" / "images" / "train" / "00000.png"
    zoo.parent.mkdir(parents=True)
    zoo.write_bytes(b"of the zoo")
    made = fy.synthetic_dataset("quickstart", train=2, val=1)
    assert made.count("ground_truth.detections") > 2 and made.count_sample_tags() == {"train": 2, "val": 1}
    assert len(fy.synthetic_dataset("quickstart", train=1, val=1)) == 2, "our own is replaced"
    assert zoo.read_bytes() == b"of the zoo" and len(list((tmp_path / "quickstart").rglob("*.png"))) == 1
    fiftyone_db.delete_dataset("quickstart")
    theirs = fiftyone_db.Dataset("quickstart")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="exists and is not ours to replace"):
        fy.synthetic_dataset("quickstart", train=3, val=1)
    assert sorted(tmp_path.rglob("*")) == before
    theirs.delete()
