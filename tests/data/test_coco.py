"""COCO files as records, equal to pycocotools, with one clear error for each thing that can be wrong."""

from __future__ import annotations

import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from fiftyone_yoloseg.data.coco import annotation_mask, coco_records, load_coco
from fiftyone_yoloseg.errors import DataError
from fiftyone_yoloseg.geometry import masks

BITS = np.zeros((20, 30), np.uint8)
BITS[3:7, 2:8] = BITS[12:19, 20:30] = 1


def example() -> dict[str, Any]:
    compressed = coco_mask.encode(np.asfortranarray(BITS))
    counts = np.diff(np.flatnonzero(np.diff(BITS.ravel(order="F"), prepend=0)), prepend=0, append=BITS.size).tolist()
    return {
        "images": [{"id": 7, "file_name": "a.png", "height": 20, "width": 30}, {"id": 9, "file_name": "b.png", "height": 20, "width": 30}],
        "categories": [{"id": 40, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 3,
                "segmentation": [[2, 3, 8, 3, 8, 7, 2, 7], [20, 12, 30, 12, 30, 19, 20, 19]],
                "bbox": [2, 3, 28, 16.5],
                "iscrowd": 0,
            },
            {"id": 2, "image_id": 7, "category_id": 40, "segmentation": {"size": [20, 30], "counts": counts}, "iscrowd": 1},
            {"id": 3, "image_id": 7, "category_id": 40, "segmentation": {"size": [20, 30], "counts": compressed["counts"].decode()}},
        ],
    }


def write(root: Path, data: Any, split: str = "train2017", images: str = "{split}") -> Path:
    folder = root / images.format(split=split)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / name)
    (root / "annotations").mkdir(exist_ok=True)
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("images", ["{split}", "images/{split}", "images/train", "train", "images", "."])
def test_layouts_and_records(tmp_path: Path, images: str) -> None:
    write(tmp_path, example(), images=images)
    data = load_coco(tmp_path)
    assert data.names == {0: "cat", 1: "dog"} and list(data.splits) == ["train"]
    first, second = data.splits["train"]
    assert second.instances == () and (first.height, first.width, first.path.name) == (20, 30, "a.png")
    polygons, crowd, compressed = first.instances
    assert [i.mask for i in first.instances] == [masks.from_bitmap(BITS)] * 3
    assert (polygons.cls, polygons.box, polygons.crowd, polygons.source_id) == (0, (2, 3, 30, 19.5), False, "1")
    assert (crowd.cls, crowd.crowd, crowd.box) == (1, True, (2, 3, 30, 19))
    assert not compressed.crowd


def test_splits_share_their_classes(tmp_path: Path) -> None:
    train, val = example(), example()
    val["categories"].append({"id": 5, "name": "eel"})
    write(tmp_path, train)
    write(tmp_path, val, "val2017")
    data = load_coco(tmp_path)
    assert data.names == {0: "cat", 1: "eel", 2: "dog"} and list(data.splits) == ["train", "val"]
    assert [i.cls for i in data.splits["train"][0].instances] == [0, 2, 2]
    val["categories"][0]["name"] = "wolf"
    write(tmp_path, val, "val2017")
    with pytest.raises(DataError, match="category 40 is 'wolf' here and 'dog'"):
        load_coco(tmp_path)


def test_two_files_for_one_split(tmp_path: Path) -> None:
    write(tmp_path, example(), "train2017")
    write(tmp_path, example(), "train2014")
    with pytest.raises(DataError, match="second file for the split 'train'"):
        load_coco(tmp_path)


def test_missing_images_are_counted_and_named_or_skipped(tmp_path: Path) -> None:
    path = write(tmp_path, example())
    (tmp_path / "train2017" / "b.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images are missing in .*train2017: b\.png"):
        load_coco(tmp_path)
    assert [r.path.name for r in load_coco(tmp_path, missing="skip").splits["train"]] == ["a.png"]
    with pytest.raises(DataError, match="2 of 2 images are missing"):
        coco_records(path, tmp_path / "nowhere", missing="skip")


def test_missing_folder_and_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no annotations/instances_"):
        load_coco(tmp_path)
    with pytest.raises(DataError, match="there is no such folder"):
        load_coco(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read"):
        coco_records(tmp_path / "none.json", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a COCO file"),
        ("{}", "'images' is missing"),
        ('{"images": [1]}', "'images' is missing"),
    ],
)
def test_bad_json(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path, {})
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        load_coco(tmp_path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(categories=[]), "has no categories"),
        (lambda d: d["categories"][0].pop("name"), "each category needs"),
        (lambda d: d.update(images=[]), "does not list"),
        (lambda d: d["annotations"][0].update(image_id=8), "does not list, such as image_id 8"),
        (lambda d: d["annotations"][0].update(image_id=[8]), "image_id must be a number"),
        (lambda d: d["annotations"][0].update(category_id=4), "annotation 1: category_id 4 is not"),
        (lambda d: d["annotations"][0].update(segmentation=[]), "annotation 1: bad segmentation: .*boxes alone"),
        (lambda d: d["annotations"][0].update(segmentation=None), "annotation 1: bad segmentation"),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5]]), "annotation 1: bad segmentation: a polygon"),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, "x", 5, 6]]), "annotation 1: bad segmentation"),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, float("nan"), 5, 6]]), "annotation 1: bad segmentation: a polygon"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), "annotation 1: bbox must be"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, 3, float("inf")]), "annotation 1: bbox holds"),
        (lambda d: d["annotations"][1]["segmentation"].update(size=[30, 20]), r"annotation 2: bad segmentation: RLE of size \[30, 20\]"),
        (lambda d: d["annotations"][1]["segmentation"].update(counts=[5, 5]), "annotation 2: bad segmentation: RLE counts do not add up"),
        (
            lambda d: d["annotations"][1]["segmentation"].update(counts=[700, -100]),
            "annotation 2: bad segmentation: RLE counts do not add up",
        ),
        (lambda d: d["annotations"][1]["segmentation"].update(counts=[600]), "annotation 2: bad segmentation: RLE without any pixel"),
        (lambda d: d["annotations"][2]["segmentation"].update(counts="zzzzzz"), "annotation 3: bad segmentation: RLE counts"),
        (lambda d: d["annotations"][2]["segmentation"].update(counts="0o0o0o0oT:"), "annotation 3: bad segmentation: RLE counts"),
        (lambda d: d["annotations"][2]["segmentation"].pop("counts"), "annotation 3: bad segmentation"),
        (lambda d: d["images"][0].update(height=30, width=20), "is 30 x 20 pixels but instances_train2017.json says 20 x 30"),
        (lambda d: d["images"][0].pop("file_name"), "an image without file_name"),
    ],
)
def test_bad_content(tmp_path: Path, change: Any, message: str) -> None:
    data = example()
    change(data)
    write(tmp_path, data)
    with pytest.raises(DataError, match=message):
        load_coco(tmp_path)


def test_outlines_that_no_rasteriser_should_see() -> None:
    """From one side of a large image to the other 60,000 times; and one whose end is 10 million pixels away."""
    zigzag = np.stack([np.arange(60_000) % 2000, np.tile([0, 1999], 30_000)], 1)
    for polygon in (zigzag.ravel().tolist(), [1, 1, 1e7, 1, 1e7, 9]):
        start = time.perf_counter()
        with pytest.raises(ValueError, match="crosses itself without end, or reaches far out"):
            annotation_mask([polygon], 2000, 2000)
        assert time.perf_counter() - start < 1
    assert masks.area(annotation_mask([[-500, 5, 500, 5, 500, 15, -500, 15]], 20, 30)) == 300  # a little outside is cut


def test_an_image_that_is_none(tmp_path: Path) -> None:
    write(tmp_path, example())
    (tmp_path / "train2017" / "a.png").write_text("text")
    with pytest.raises(DataError, match=r"a\.png: is not an image"):
        load_coco(tmp_path)


def test_shapes_too_thin_for_pycocotools_are_not_lost() -> None:
    for polygon in ([5.1, 5.1, 5.2, 5.1, 5.1, 5.2], [3, 4, 9, 4]):
        mask = annotation_mask([polygon], 20, 30)
        assert masks.area(mask) >= 1


def test_coco_tiny_is_what_pycocotools_says(test_data: Path) -> None:
    data = load_coco(test_data / "coco_tiny")
    assert len(data.names) == 80 and data.names[0] == "person" and data.names[79] == "toothbrush"
    assert {k: (len(v), sum(len(r.instances) for r in v)) for k, v in data.splits.items()} == {"train": (80, 705), "val": (80, 815)}
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(test_data / "coco_tiny/annotations/instances_val2017.json"))
    crowds = 0
    for record in data.splits["val"]:
        for instance in record.instances:
            annotation = coco.anns[int(instance.source_id or 0)]
            assert coco_mask.encode(np.asfortranarray(coco.annToMask(annotation))) == masks.to_coco_rle(
                instance.mask, record.height, record.width
            )
            x, y, w, h = annotation["bbox"]
            assert instance.box == (x, y, x + w, y + h) and instance.crowd == bool(annotation["iscrowd"])
            crowds += instance.crowd
    assert crowds == 11
