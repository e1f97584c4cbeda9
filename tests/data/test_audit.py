"""Every finding is provoked once and counted by hand; a clean dataset has none."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rich
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fiftyone_yoloseg.data import audit as module
from fiftyone_yoloseg.data.audit import Entry, LabelProblem, Surroundings, audit
from fiftyone_yoloseg.data.audit_files import FileFacts, cut_off, look_at
from fiftyone_yoloseg.data.audit_objects import SAME, away, twins
from fiftyone_yoloseg.data.audit_report import KINDS, CheckReport
from fiftyone_yoloseg.data.audit_sources import check_data
from fiftyone_yoloseg.errors import DataError, Stopped
from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.types import ImageRecord, InstanceRecord

NAMES = {0: "cat", 1: "dog"}
SIZE = 96  # of images and of the training, so that one image pixel is one input pixel


def block(
    cls: int = 0, x: int = 10, y: int = 10, w: int = 20, h: int = 20, box: Sequence[float] | None = None, **more: Any
) -> InstanceRecord:
    mask = masks.from_bitmap(np.ones((h, w), np.uint8), x, y)
    return InstanceRecord(cls, mask, (box[0], box[1], box[2], box[3]) if box else mask.box, **{"source_id": f"{cls}@{x},{y}", **more})


def shape(rows: Iterable[str], cls: int = 0) -> InstanceRecord:
    """# marks 4 x 4 pixels of the object."""
    bitmap = np.kron(np.array([[c == "#" for c in row] for row in rows]), np.ones((4, 4))).astype(np.uint8)
    mask = masks.from_bitmap(bitmap, 10, 50)
    return InstanceRecord(cls, mask, mask.box)


def entry(
    name: str,
    *objects: InstanceRecord,
    split: str | None = "train",
    size: tuple[int, int] = (SIZE, SIZE),
    problems: Sequence[LabelProblem] = (),
    same: str = "",
) -> Entry:
    path = f"/data/{name}.png"
    file = FileFacts(size, 1000, (same or name).encode())
    return Entry(path, file, ImageRecord(Path(path), *size, objects), split, problems=problems)


def unusable(kind: str) -> Entry:
    return Entry("/data/x.png", FileFacts(kind=kind, problem="why"), None, "train")


def clean() -> list[Entry]:
    """12 train and 4 val images with a cat and a dog each."""
    return [entry(str(i), block(0, x=i), block(1, y=50), split="train" if i < 12 else "val") for i in range(16)]


def run(entries: list[Entry], names: Mapping[int, str] = NAMES, around: Surroundings | None = None, **options: Any) -> CheckReport:
    return audit(iter(entries), dict(names), len(entries), around=around, **{"imgsz": SIZE, **options})


def test_a_clean_dataset_has_no_finding() -> None:
    report = run(clean(), around=Surroundings("tags", free_memory=4 * 12 * 3 * SIZE**2, free_disk=16_000))
    assert report.findings == [] and report.verdict == "ok"
    assert (report.images, report.objects, report.splits, report.split) == (16, 32, {"train": 12, "val": 4}, "tags")
    assert [(c.name, c.objects, c.images) for c in report.classes] == [
        (n, {"train": 12, "val": 4}, {"train": 12, "val": 4}) for n in ("cat", "dog")
    ]
    assert (report.cache_bytes, report.image_bytes) == (12 * 3 * SIZE**2, 16_000)  # to the byte what the machine has: enough


def third(train: int, val: int) -> list[Entry]:
    """Objects of a third class, one an image."""
    return [entry(f"third{i}", block(2), split="train" if i < train else "val") for i in range(train + val)]


TWIN = block(0, 10, 10, 40, 40)
CASES: dict[str, tuple[list[Entry], int]] = {
    "missing_images": ([unusable("missing_images")], 1),
    "remote_images": ([unusable("remote_images")] * 2, 2),
    "unreadable_images": ([unusable("unreadable_images")], 1),
    "cut_off_images": ([replace(entry("a", block()), file=FileFacts((SIZE, SIZE), 9, b"a", "cut_off_images", "why"))], 1),
    "bad_labels": ([entry("a", block(), problems=[LabelProblem("bad_labels", "a.txt:3", "why")])], 1),
    "labels_without_mask": ([entry("a", block(), problems=[LabelProblem("labels_without_mask", "7", "why")] * 3)], 3),
    "labels_without_class": ([entry("a", block(), problems=[LabelProblem("labels_without_class", "7", "why")])], 1),
    "images_across_splits": ([entry("a", block(), same="s"), entry("b", block(), same="s"), entry("c", block(), same="s", split="val")], 3),
    "duplicate_images": ([entry("a", block(), same="s"), entry("b", block(), same="s")], 2),
    "images_in_no_split": ([entry("a", block(), split=None), entry("b", block(), split=None)], 2),
    "odd_image_sizes": (
        [
            entry("large", block(w=200, h=200), size=(4 * SIZE + 1, 300)),
            entry("as large as may be", block(w=200, h=200), size=(4 * SIZE, 300)),
            entry("small", block(0, 2, 2, 15, 15), size=(23, 23)),
            entry("as small as may be", block(0, 2, 2, 15, 15), size=(24, 24)),
            entry("long", block(w=200, h=50), size=(60, 300)),
        ],
        3,
    ),
    "empty_masks": ([entry("a", block(), InstanceRecord(0, masks.EMPTY, (5, 5, 9, 9)))], 1),
    "duplicate_objects": (
        [
            entry("yes", TWIN, block(0, 10, 10, 40, 39)),  # IoU 0.975
            entry("thrice", TWIN, TWIN, TWIN),
            entry("no", TWIN, block(0, 10, 10, 40, 37)),  # IoU 0.925
            entry("other class", TWIN, replace(TWIN, cls=1)),
            entry("rows", TWIN, problems=[LabelProblem("duplicate_objects", "rows.txt", "repeated", 2)]),
        ],
        1 + 2 + 2,
    ),
    "tiny_objects": ([entry("a", block(w=4, h=4), block(0, 40, 40, 3, 5), block(0, 60, 60, 1, 1))], 2),
    "huge_objects": ([entry("a", block(0, 0, 0, 96, 92)), entry("b", block(0, 0, 0, 96, 91))], 1),
    "masks_away_from_boxes": (
        [
            entry("fits", block(box=(10, 10, 30, 30))),
            entry("off by two", block(box=(12, 12, 28, 28))),
            entry("fills half", block(box=(10, 10, 30, 50))),
            entry("less than half", block(box=(10, 10, 30, 51))),
            entry("sticks out", block(box=(10, 10, 26, 30))),
            entry("elsewhere", block(box=(60, 60, 80, 80))),
            entry("a small one, rounded", block(w=4, h=4, box=(10.6, 10.6, 12.4, 13.4))),
        ],
        3,
    ),
    "empty_images": ([entry("a"), entry("b")], 2),
    "objects_with_holes": ([entry("a", shape(["###", "#.#", "###"]))], 1),
    "objects_in_parts": ([entry("a", shape(["#.#", "#.#"]))], 1),
    "classes_not_in_train": (third(0, 1), 1),
    "classes_not_in_val": (third(10, 0), 1),
    "rare_classes": (third(9, 1), 1),
    "unused_classes": ([], 1),
}  # fmt: skip
NEEDS_THIRD = {"classes_not_in_train", "classes_not_in_val", "rare_classes", "unused_classes"}


@pytest.mark.parametrize("kind", CASES)
def test_findings(kind: str) -> None:
    more, n = CASES[kind]
    report = run([*clean(), *more], {**NAMES, 2: "cow"} if kind in NEEDS_THIRD else NAMES)
    assert [(f.kind, f.count) for f in report.findings] == [(kind, n)]
    (found,) = report.findings
    severity, advice = KINDS[kind]
    assert (found.severity, found.advice) == (severity, advice) and str(n) in found.message and found is report[kind]
    assert report.verdict == {"error": "errors", "warning": "warnings", "info": "ok"}[severity]
    if kind not in NEEDS_THIRD and kind != "duplicate_objects":
        assert len(found.cases) == n and {c.path for c in found.cases} <= {e.path for e in more}


def test_cases_tell_the_place() -> None:
    report = run([*clean(), *CASES["masks_away_from_boxes"][0], *CASES["images_across_splits"][0]])
    assert [(c.path, c.split, c.label, c.note) for c in report["masks_away_from_boxes"].cases] == [
        ("/data/less than half.png", "train", "0@10,10", "the mask fills 49% of its box"),
        ("/data/sticks out.png", "train", "0@10,10", "the mask sticks out of its box by 4 px"),
        ("/data/elsewhere.png", "train", "0@10,10", "the mask sticks out of its box by 50 px"),
    ]
    assert [c.note.partition(",")[0] for c in report["images_across_splits"].cases] == ["train", "train", "val"]


def test_a_twin_in_no_split_is_no_leak() -> None:
    report = run([*clean(), entry("a", block(), same="s"), entry("b", block(), same="s", split=None)])
    assert {f.kind: f.count for f in report.findings} == {"images_in_no_split": 1, "duplicate_images": 2}


def test_crowds_are_neither_objects_nor_twins() -> None:
    crowd = replace(TWIN, crowd=True)
    report = run([*clean(), entry("a", crowd, crowd, TWIN), entry("only a crowd", crowd)])
    assert {f.kind: f.count for f in report.findings} == {"crowds": 3, "empty_images": 1}
    assert report.objects == 33


def test_remap() -> None:
    entries = [*clean(), entry("a", TWIN, replace(TWIN, cls=1), split="val")]
    assert run(entries).findings == []
    report = run(entries, remap={"cat": "animal", "dog": "animal"})
    assert {f.kind: f.count for f in report.findings} == {"collisions_after_remap": 1, "merged_classes": 1}
    assert "'cat', 'dog' -> 'animal'" in report["merged_classes"].message
    assert [(c.name, c.objects, c.images) for c in report.classes] == [("animal", {"train": 24, "val": 10}, {"train": 12, "val": 5})]
    report = run(entries, remap={"cta": "animal"})
    assert {f.kind: f.count for f in report.findings} == {"unknown_in_remap": 1} and "did you mean 'cat'?" in report.findings[0].message
    assert run(entries, remap={"cat": "dog"})["merged_classes"].count == 1  # onto a name that exists


def test_names() -> None:
    report = run([*clean(), *third(10, 1)], {0: "traffic light", 1: "dog", 2: " Traffic  Light"})
    assert {f.kind: f.count for f in report.findings} == {"similar_names": 1} and "' Traffic  Light' / 'traffic light'" in report.findings[
        0
    ].message
    blank = run([*clean(), *third(10, 1)], {**NAMES, 2: " "})
    assert {f.kind: f.count for f in blank.findings} == {"labels_without_class": 11}


def test_imbalance() -> None:
    def grid(n: int) -> list[InstanceRecord]:
        return [block(0, 8 * (i % 12), 8 * (i // 12), 4, 4) for i in range(n)]

    few = [entry(f"{i}", *grid(100), block(1, 0, 80, 16, 16), split="train" if i < 12 else "val") for i in range(13)]
    assert {f.kind for f in run(few).findings} == {"imbalance"} and "1200 training objects of 'cat' but 12 of 'dog'" in run(few).findings[
        0
    ].message
    few[0] = entry("0", *grid(99), block(1, 0, 80, 16, 16))
    assert run(few).findings == []


def test_the_machine() -> None:
    cache = 12 * 3 * SIZE**2
    report = run(clean(), around=Surroundings(free_memory=4 * cache - 1, free_disk=15_999))
    assert [f.kind for f in report.findings] == ["disk", "memory"] and report.verdict == "warnings"
    assert "0.33 MB" in report["memory"].message and "0.02 MB" in report["disk"].message
    wide = [entry("wide", block(w=60), size=(SIZE, 2 * SIZE))]
    assert run(wide).cache_bytes == 3 * SIZE * SIZE // 2  # at the training size, without padding


def test_splits_that_cannot_be_made() -> None:
    entries = [replace(e, split=None) for e in clean()]
    report = run(entries, around=Surroundings(split_problem="no sample for val"))
    assert [(f.kind, f.message) for f in report.findings] == [("split", "no sample for val")] and report.splits == {"-": 16}
    assert report.verdict == "errors" and report.cache_bytes == 16 * 3 * SIZE**2


def test_nothing_to_train_on() -> None:
    report = run([*(entry(f"{i}") for i in range(3)), entry("v", block(), split="val")], {0: "cat"})
    assert {f.kind: f.count for f in report.findings} == {"no_objects": 1, "empty_images": 3, "classes_not_in_train": 1}


def test_cases_are_bounded_but_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CASES", 5)
    found = run([*clean(), *(entry(f"e{i}") for i in range(7))])["empty_images"]
    assert found.count == 7 and [c.path for c in found.cases] == [f"/data/e{i}.png" for i in range(5)] and "7 of 23 images" in found.message


def test_progress_and_stop() -> None:
    told: list[float] = []
    run(clean() * 4, progress=lambda share, label: told.append(share))
    assert told == sorted(told) and told[-1] == 1 and len(told) > 3
    left = iter([False, False, True])
    with pytest.raises(Stopped, match="after 2 of 16 images"):
        run(clean(), should_stop=lambda: next(left))


def test_every_kind_can_be_written_down() -> None:
    kinds = {
        *CASES,
        "crowds",
        "collisions_after_remap",
        "merged_classes",
        "unknown_in_remap",
        "similar_names",
        "imbalance",
        "memory",
        "disk",
        "split",
        "no_objects",
    }
    assert kinds == set(KINDS)  # each is provoked in this file
    everything = [*clean(), *(e for more, _ in CASES.values() for e in more)]
    report = run(everything, {0: "cat | [red]dog[/red]", 1: "<b>", 2: "cow"})
    assert json.loads(json.dumps(report.to_dict()))["verdict"] == "errors"
    assert max(len(f["cases"]) for f in report.to_dict(cases=1)["findings"]) == 1
    rows = [line for line in report.finding_markdown().splitlines() if line.startswith("| ") and "what to do" not in line]
    assert (
        len(rows) == len(report.findings)
        and all(len(row.replace("\\|", "").split("|")) == 5 for row in rows)
        and "<b>" not in report.markdown()
    )
    out = io.StringIO()
    rich.print(report.table(), file=out)
    assert "[red]dog[/red]" in out.getvalue() and "tiles" in out.getvalue()


@given(st.lists(st.tuples(*[st.integers(1, 24)] * 4, st.sampled_from("ab")), max_size=7), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_twins_are_those_of_brute_force(rectangles: list[tuple[int, int, int, int, str]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    crops, names = [], []
    for x, y, w, h, name in rectangles:
        for dw in (0, rng.integers(0, 2)):  # nearly the same again
            crops.append(masks.from_bitmap(np.ones((h, w + dw)), x, y))
            names.append(name)
    iou = masks.iou(crops, crops)
    expected = {j for j in range(len(crops)) if any(iou[i, j] >= SAME and names[i] == names[j] for i in range(j))}
    found = list(twins(crops, names))
    assert {later for later, _, _ in found} == expected and len(found) == len(expected)
    assert all(earlier < later and value == iou[later, earlier] for later, earlier, value in found)


def test_a_thin_mask_that_fits_its_box() -> None:
    assert (
        away(masks.from_bitmap(np.eye(30)), (10, 10, 40, 40)) != "" and away(masks.from_bitmap(np.eye(30), 10, 10), (10, 10, 40, 40)) == ""
    )


# files


def encoded(suffix: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(out, suffix, **options)
    return out.getvalue()


def test_files_that_are_cut_off() -> None:
    thumbnail = encoded("JPEG")
    exif = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    for whole in (
        encoded("PNG"),
        encoded("JPEG"),
        encoded("JPEG", progressive=True),
        encoded("WEBP"),
        b"\xff\xd8" + exif + encoded("JPEG")[2:],
    ):
        assert not cut_off(whole)
        assert not cut_off(whole + b"\xff\xda what a phone writes behind it")
        assert cut_off(whole[:-20]) and cut_off(whole[: len(whole) * 3 // 4])
    assert not cut_off(b"") and not cut_off(b"BM a bitmap") and not cut_off(b"\xff\xd8\xff")


def test_look_at(tmp_path: Path) -> None:
    good, twin, text, empty, cut = (tmp_path / name for name in ("good.jpg", "a twin.jpg", "text.jpg", "empty.png", "cut.jpg"))
    exif = Image.Exif()
    exif[274] = 6
    for path in (good, twin):
        path.write_bytes(encoded("JPEG", exif=exif))
    text.write_text("no image")
    empty.touch()
    cut.write_bytes(encoded("JPEG")[:-100])
    facts = look_at(str(good))
    assert (facts.size, facts.length, facts.kind) == ((60, 40), good.stat().st_size, "") and facts.digest == look_at(str(twin)).digest
    assert look_at(str(cut)).kind == "cut_off_images" and look_at(str(cut)).size == (40, 60) and look_at(str(cut)).digest != facts.digest
    for path in (text, empty, tmp_path):
        assert look_at(str(path)).kind == "unreadable_images" and look_at(str(path)).size is None and look_at(str(path)).problem
    assert look_at(str(tmp_path / "nowhere.jpg")).kind == "missing_images"
    for remote in ("s3://bucket/a.jpg", "gs://b/a.jpg", "https://x.org/a.jpg", "/data/s3:/bucket/a.jpg"):
        assert look_at(remote).kind == "remote_images"


def test_long_files_are_hashed_to_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fiftyone_yoloseg.data.audit_files._WHOLE", 1000)
    one, other = tmp_path / "1.png", tmp_path / "2.png"
    one.write_bytes(encoded("PNG"))
    other.write_bytes(encoded("PNG") + b"x")
    assert look_at(str(one)).digest != look_at(str(other)).digest and look_at(str(other)).length == other.stat().st_size
    assert look_at(str(one)).kind == look_at(str(other)).kind == ""


# datasets on the disk

ROWS = "0 0.1 0.1 0.4 0.1 0.4 0.4 0.1 0.4\n1 0.5 0.5 0.9 0.5 0.9 0.9 0.5 0.9\n"


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """dataset.yaml of 12 train and 4 val images with a cat and a dog each."""
    rng = np.random.default_rng(0)
    for i in range(16):
        split = "train" if i < 12 else "val"
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / split / f"{i}.png"), rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
        (tmp_path / "labels" / split / f"{i}.txt").write_text(ROWS)
    (tmp_path / "dataset.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return tmp_path / "dataset.yaml"


def test_a_dataset_yaml(yolo: Path) -> None:
    report = check_data(yolo, imgsz=SIZE)
    assert report.findings == [] and (report.images, report.objects, report.splits) == (16, 32, {"train": 12, "val": 4})
    train, labels = yolo.parent / "images/train", yolo.parent / "labels/train"
    (labels / "0.txt").write_text(ROWS + ROWS + "7 0.1 0.1 0.2 0.1 0.2 0.2\n")
    (train / "12.png").write_bytes((yolo.parent / "images/val/12.png").read_bytes())
    (train / "bad.png").write_text("text")
    (train / "list.txt").write_text("images/train/1.png\nimages/train/gone.png\ns3://bucket/far.png\n")
    yolo.write_text("train: [images/train, images/train/list.txt]\nval: images/val\nnames: [cat, dog]\n")
    before = {p: p.read_bytes() for p in yolo.parent.rglob("*") if p.is_file()}
    report = check_data(yolo.parent, imgsz=SIZE)
    assert {f.kind: f.count for f in report.findings} == {
        "missing_images": 1, "remote_images": 1, "unreadable_images": 1, "bad_labels": 1, "images_across_splits": 2, "duplicate_objects": 2, "empty_images": 1,
    }  # fmt: skip
    (bad,) = report["bad_labels"].cases
    assert bad.label == "0.txt:5" and "class 7 is not in 0..1" in bad.note and bad.path == str(train / "0.png")
    assert before == {p: p.read_bytes() for p in yolo.parent.rglob("*") if p.is_file()}


def test_a_dataset_yaml_without_val(yolo: Path) -> None:
    yolo.write_text("train: images/train\nnames: [cat, dog]\n")
    report = check_data(yolo, imgsz=SIZE)
    assert [f.kind for f in report.findings] == ["split"] and "no val split; there are train" in report.findings[0].message
    with pytest.raises(DataError, match="no train, val or test entry"):
        yolo.write_text("names: [cat, dog]\n")
        check_data(yolo)


def test_a_coco_folder(tmp_path: Path) -> None:
    polygon = [[10, 10, 40, 10, 40, 40, 10, 40]]
    for split, n in (("train", 12), ("val", 1)):
        (tmp_path / split).mkdir()
        images, annotations = [], []
        for i in range(n):
            cv2.imwrite(str(tmp_path / split / f"{i}.png"), np.full((SIZE, SIZE, 3), 20 * i + (split == "val"), np.uint8))
            images.append({"id": i, "file_name": f"{i}.png", "width": SIZE, "height": SIZE})
            annotations.append({"id": i, "image_id": i, "category_id": 3, "bbox": [10, 10, 30, 30], "segmentation": polygon})
        if split == "train":
            images += [{"id": 50, "file_name": "gone.png"}, {"id": 51, "file_name": "turned.png", "width": SIZE, "height": SIZE}]
            cv2.imwrite(str(tmp_path / split / "turned.png"), np.zeros((SIZE, 50, 3), np.uint8))
            annotations += [
                {"id": 60, "image_id": 0, "category_id": 3, "bbox": [1, 1, 9, 9], "segmentation": []},
                {"id": 61, "image_id": 0, "category_id": 3, "bbox": [1, 1, 9, 9], "segmentation": [[1, 2, 3]]},
                {"id": 62, "image_id": 1, "category_id": 3, "bbox": [60, 60, 9, 9], "segmentation": [[50, 50, 90, 50, 90, 90, 50, 90]]},
            ]
        (tmp_path / "annotations").mkdir(exist_ok=True)
        data = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "cat"}]}
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(data))
    report = check_data(tmp_path, imgsz=SIZE)
    assert {f.kind: (f.count, [c.label for c in f.cases]) for f in report.findings} == {
        "missing_images": (1, [None]), "bad_labels": (2, ["61", None]), "labels_without_mask": (1, ["60"]), "masks_away_from_boxes": (1, ["62"]),
    }  # fmt: skip
    assert report.images == 13 and report.objects == 14


def test_real_images(test_data: Path) -> None:
    report = check_data(test_data / "coco_tiny")
    assert (report.images, report.objects, report["crowds"].count) == (160, 1503, 17)
    assert (report["objects_with_holes"].count, report["objects_in_parts"].count) == (52, 129)
    assert report.verdict == "warnings" and {f.kind for f in report.findings if f.severity == "warning"} == {
        "tiny_objects", "huge_objects", "rare_classes", "imbalance",
    }  # fmt: skip
