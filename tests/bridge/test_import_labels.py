"""A YOLO-seg folder becomes a dataset without losing a shape, a broken row is named, and nothing that was there is lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

fo = pytest.importorskip("fiftyone")

import fiftyone_yoloseg as fy  # noqa: E402
from fiftyone_yoloseg.bridge import import_labels as module  # noqa: E402
from fiftyone_yoloseg.bridge import jobs, runs  # noqa: E402
from fiftyone_yoloseg.bridge.convert import convert  # noqa: E402
from fiftyone_yoloseg.bridge.import_labels import INFO, import_report  # noqa: E402
from fiftyone_yoloseg.bridge.read import view_records  # noqa: E402
from fiftyone_yoloseg.cli import main  # noqa: E402
from fiftyone_yoloseg.data.label_rows import format_record  # noqa: E402
from fiftyone_yoloseg.data.scan import load_dataset  # noqa: E402
from fiftyone_yoloseg.errors import DataError, SettingsError, Stopped, UserError  # noqa: E402
from fiftyone_yoloseg.geometry import masks  # noqa: E402
from fiftyone_yoloseg.types import InstanceRecord  # noqa: E402

H, W = 20, 30
DONUT = np.ones((9, 9), np.uint8)
DONUT[2:7, 2:7] = 0
PARTS = np.zeros((9, 9), np.uint8)
PARTS[:3], PARTS[6:] = 1, 1
ISLAND = DONUT.copy()
ISLAND[4, 4] = 1
NAMES = ["disc", "square", "star"]


def row(cls: int, bits: Any, x: int = 3, y: int = 2, confidence: float | None = None) -> str:
    mask = masks.from_bitmap(bits, x, y)
    return format_record(InstanceRecord(cls, mask, mask.box, confidence=confidence), H, W, confidence=True)[0]


@pytest.fixture(autouse=True)
def clean(fiftyone_db: Any) -> Iterator[None]:
    """No dataset that a test made outlives it."""
    before = set(fiftyone_db.list_datasets())
    yield
    for name in set(fiftyone_db.list_datasets()) - before:
        fiftyone_db.delete_dataset(name)


def write(path: Path, text: str | bytes = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def write_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (W, H)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images in two splits: a donut and two parts; an island; a background; a square with a broken row."""
    root = tmp_path / "my shapes"
    for name in ("train/a", "train/b", "train/c", "val/d"):
        write_image(root / "images" / f"{name}.png")
    write(root / "labels/train/a.txt", f"{row(0, DONUT)}\n{row(1, PARTS)}\n")
    write(root / "labels/train/b.txt", row(2, ISLAND))
    write(root / "labels/val/d.txt", f"{row(1, np.ones((4, 4)))}\n\n0 0.5 many 0.1 0.1\n{row(1, np.ones((4, 4)))}\n")
    write(root / "dataset.yaml", f"train: images/train\nvalidation: images/val\nnames: {NAMES}\n")
    return root


def objects(dataset: Any, field: str = "ground_truth") -> dict[str, list[tuple[str, Any]]]:
    """File name -> (class, mask) of each object."""
    classes = dataset.default_classes or dataset.classes[field]
    read = view_records(dataset, field, classes)
    assert read.skipped == read.dropped == []
    return {str(r.path): [(read.names[i.cls], i.mask) for i in r.instances] for r in read.records}


EXPECTED = {
    "a.png": [("disc", masks.from_bitmap(DONUT, 3, 2)), ("square", masks.from_bitmap(PARTS, 3, 2))],
    "b.png": [("star", masks.from_bitmap(ISLAND, 3, 2))],
    "c.png": [],
    "d.png": [("square", masks.from_bitmap(np.ones((4, 4)), 3, 2))],
}


# what is read


@pytest.mark.parametrize("form", ["masks", "polylines"])
def test_a_new_dataset(folder: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fiftyone_yoloseg"):
        dataset = fy.import_labels(folder / "dataset.yaml", form=form)
    assert dataset.name == "my shapes" and dataset.persistent and dataset.media_type == "image"
    assert {Path(f).name: found for f, found in objects(dataset).items()} == EXPECTED
    assert {Path(f).name: tags for f, tags in zip(*dataset.values(["filepath", "tags"]), strict=True)} == {
        "a.png": ["train"], "b.png": ["train"], "c.png": ["train"], "d.png": ["val"],
    }  # fmt: skip
    assert dataset.default_classes == NAMES and dataset.classes == {"ground_truth": NAMES}
    assert set(zip(*dataset.values(["metadata.width", "metadata.height"]), strict=True)) == {(W, H)}
    if form == "polylines":
        donut, parts = dataset.match(fo.ViewField("filepath").ends_with("a.png")).first().ground_truth.polylines
        assert donut.closed and donut.filled and len(donut.points) == len(parts.points) == 2
    else:
        assert dataset.first().ground_truth.detections[0].bounding_box == pytest.approx([3 / W, 2 / H, 9 / W, 9 / H])

    facts = dataset.info[INFO]["ground_truth"]
    assert (facts["images"], facts["objects"], facts["backgrounds"], facts["duplicates"]) == ({"train": 3, "val": 1}, 4, 1, 1)
    (problem,) = facts["problems"]
    assert problem.startswith(f"{folder / 'labels/val/d.txt'}:3: 'many' is not a number: ") and facts["problem_count"] == 1
    assert f"4 objects as {form} in 4 images (3 train, 1 val); new dataset 'my shapes'" in caplog.text and problem in caplog.text


@pytest.mark.parametrize("form", ["masks", "polylines"])
def test_real_images_go_out_and_come_back(coco: Any, tmp_path: Path, form: str) -> None:
    report = convert(coco, tmp_path / "out")
    back = fy.import_labels(tmp_path / "out", form=form, bad_rows="error")
    wanted, got = objects(coco), objects(back)
    crowds = coco.filter_labels("ground_truth", fo.ViewField("iscrowd") == 1, only_matches=False)
    for (file, found), crowd in zip(wanted.items(), crowds.values("ground_truth.detections.label"), strict=True):
        file = next(f for f in got if Path(f).name == Path(file).name)
        assert len(got[file]) == len(found) - len(crowd)
        assert [f for f in found if f in got[file]] == got[file]  # the same classes and pixels in the same order
    assert back.count_sample_tags() == report.images == {"train": 4, "val": 2}
    assert view_records(back, "ground_truth").objects == report.rows


def test_another_folder_layout_reads_as_training_reads_it(test_data: Path) -> None:
    dataset = fy.import_labels(test_data / "shapes")
    data = load_dataset(test_data / "shapes" / "data.yaml")
    wanted = {str(r.path): [(data.names[i.cls], i.mask) for i in r.instances] for records in data.splits.values() for r in records}
    assert objects(dataset) == wanted and len(wanted) == 320
    assert dataset.count_sample_tags() == {"train": 256, "val": 64}


def test_lists_of_images_labels_beside_them_and_chosen_splits(tmp_path: Path) -> None:
    for i in range(3):
        write(write_image(tmp_path / "pictures" / f"{i}.jpg").with_suffix(".txt"), row(0, DONUT))
    write(tmp_path / "some.txt", "./pictures/0.jpg\n./pictures/../pictures/0.jpg\n")
    write(tmp_path / "data.yaml", "train: [some.txt, pictures/1.jpg]\nval: pictures\ntest: pictures/2.jpg\nnames: {0: ring}\n")
    dataset = fy.import_labels(tmp_path / "data.yaml", "chosen", splits=["train"])
    assert dataset.name == "chosen" and dataset.count_sample_tags() == {"train": 2}
    report = import_report(tmp_path / "data.yaml", "all of them")
    assert (report.images, report.shared, report.added, report.objects) == ({"train": 2, "val": 3, "test": 1}, 3, 3, 3)
    assert sorted(map(sorted, fo.load_dataset("all of them").values("tags"))) == [["test", "val"], ["train", "val"], ["train", "val"]]


def test_turned_images_have_the_size_that_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    path = write_image(tmp_path / "images/x.jpg")
    Image.new("RGB", (H, W)).save(path, exif=exif)
    write(tmp_path / "labels/x.txt", row(0, DONUT))
    write(tmp_path / "data.yaml", "val: images\nnames: [ring]\n")
    (sample,) = fy.import_labels(tmp_path)
    assert (sample.metadata.width, sample.metadata.height) == (W, H)
    assert np.array_equal(sample.ground_truth.detections[0].mask, DONUT)


# existing datasets


@pytest.fixture
def mine(folder: Path) -> Any:
    """A dataset with a, d and an image from elsewhere, with tags and fields of its user's."""
    dataset = fo.Dataset("mine")
    old = fo.Detections(detections=[fo.Detection(label="old", bounding_box=[0, 0, 1, 1], mask=np.ones((H, W), bool))])
    for name in ("train/a", "val/d"):
        path = folder / "images" / f"{name}.png"
        dataset.add_sample(fo.Sample(filepath=str(path), tags=["precious"], other=old.copy(), note=name))
    dataset.add_sample(fo.Sample(filepath=str(write_image(folder.parent / "elsewhere.png")), other=old.copy()))
    dataset.default_classes = ["star", "old"]  # in another order
    return dataset


def everything_but(dataset: Any, field: str, ids: list[str]) -> list[dict[str, Any]]:
    samples = [s.to_dict(include_private=True) for s in dataset.select(ids, ordered=True)]
    return [{k: v for k, v in s.items() if k not in (field, "_last_modified_at", "last_modified_at")} for s in samples]


def test_samples_are_matched_by_path_and_only_the_field_changes(folder: Path, mine: Any) -> None:
    ids = mine.values("id")
    before = everything_but(mine, "ground_truth", ids)
    report = import_report(folder, mine)
    assert (report.created, report.added, report.matched, report.images) == (False, 2, 2, {"train": 3, "val": 1})
    assert everything_but(mine, "ground_truth", ids) == before
    assert mine.default_classes == ["star", "old"] and mine.classes["ground_truth"] == NAMES
    mine.default_classes = NAMES
    assert {Path(f).name: found for f, found in objects(mine).items()} == {**EXPECTED, "elsewhere.png": []}
    assert mine.match_tags("train").values("note") == [None, None] and mine[ids[2]].ground_truth is None

    with pytest.raises(DataError, match=r"field 'ground_truth' of 'mine' has labels on 3 of 4 matched samples.*overwrite=True"):
        import_report(folder, "mine")
    a, b = folder / "labels/train/a.txt", folder / "labels/train/b.txt"
    a.write_text(row(2, np.ones((1, 1))))
    b.write_bytes(b"\xff\xff")  # an unreadable file must not empty the sample
    report = import_report(folder, "mine", overwrite=True)
    assert (report.added, report.matched, report.objects) == (0, 3, 2) and f"{b}: is not UTF-8 text" in report.problems[0]
    found = {Path(f).name: found for f, found in objects(mine).items()}
    assert found["a.png"] == [("star", masks.from_bitmap(np.ones((1, 1)), 3, 2))] and found["b.png"] == EXPECTED["b.png"]
    assert everything_but(mine, "ground_truth", ids) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_field": "other"}, "has labels on 2 of 2 matched samples"),
        ({"label_field": "other", "form": "polylines"}, "field 'other' of 'mine' holds Detections; polylines are Polylines"),
        ({"label_field": "note", "overwrite": True}, "field 'note' of 'mine' holds StringField"),
        ({"label_field": "tags", "overwrite": True}, "one of FiftyOne's own fields"),
        ({"label_field": "a b"}, "use letters, digits and underscores"),
        ({"predictions": True}, "is for ground truth: give another label_field"),
        ({"label_field": "trained", "predictions": True}, "is for ground truth"),
        ({"label_field": "predicted"}, "is for predictions"),
        ({"bad_rows": "error"}, r"1 rows or files cannot be used, and nothing was written:\n.*d.txt:3: 'many' is not a number"),
    ],
)
def test_what_is_there_is_safe(folder: Path, mine: Any, options: dict[str, Any], message: str) -> None:
    mine.add_sample_field("predicted", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    runs.remember(mine, "predict", "predicted")
    runs.remember(mine, "train", "run", trained_on_field="trained")
    before = everything_but(mine, "", mine.values("id")), list(mine.get_field_schema()), mine.info, mine.classes
    with pytest.raises(UserError, match=message):
        import_report(folder, mine, **options)
    mine.reload()
    assert (everything_but(mine, "", mine.values("id")), list(mine.get_field_schema()), mine.info, mine.classes) == before
    assert len(mine) == 3


def test_datasets_that_cannot_be_used(folder: Path, mine: Any) -> None:
    with pytest.raises(DataError, match="expected a FiftyOne dataset or its name, not DatasetView"):
        import_report(folder, mine.limit(1))
    with pytest.raises(DataError, match="there is a dataset 'mine', and FiftyOne would not tell them apart"):
        import_report(folder, "Mine")
    with pytest.raises(DataError, match="cannot be the name of a dataset"):
        import_report(folder, "?!")
    videos = fo.Dataset("videos")
    videos.add_sample(fo.Sample(filepath="/tmp/x.mp4"))
    with pytest.raises(DataError, match="only images can be used"):
        import_report(folder, videos)
    mine.add_sample(fo.Sample(filepath=str(folder / "images/train/a.png")))
    with pytest.raises(DataError, match=r"train/a.png: two samples have this image"):
        import_report(folder, mine)
    assert fo.load_dataset("mine").get_field("ground_truth") is None


# bare folders of label files


def test_predictions_are_matched_by_the_name_of_the_image(folder: Path, mine: Any, tmp_path: Path) -> None:
    labels = tmp_path / "runs/predict/labels"
    write(labels / "a.txt", row(0, DONUT, confidence=0.25) + "\n" + row(1, PARTS, confidence=1.5))
    write(labels / "d.txt", "")
    write(labels / "stranger.txt", row(0, DONUT))
    options: dict[str, Any] = {"label_field": "predictions", "predictions": True, "classes": NAMES}
    report = import_report(labels, mine, **options)
    assert (report.images, report.objects, report.added, report.matched, report.backgrounds) == ({}, 1, 0, 2, 1)
    assert report.unmatched == [labels / "stranger.txt"]
    assert report.problems == [f"{labels / 'a.txt'}:2: confidence 1.5 is not in [0, 1]: correct it, or leave it out"]
    assert report.details()[1] == f"no sample for: {labels / 'stranger.txt'}"
    a, d, elsewhere = mine.values("predictions.detections")
    assert [(o.label, o.confidence) for o in a] == [("disc", 0.25)] and np.array_equal(a[0].mask, DONUT)
    assert (d, elsewhere) == ([], None)
    # they are known as predictions, but not as this tool's own, which could be made again
    assert [facts["about"] for facts in runs.recall(mine, "predict")] == ["predictions"]
    with pytest.raises(UserError, match="labels that this tool did not write"):
        runs.check_writable(mine, "predictions", overwrite=False)
    with pytest.raises(DataError, match="has labels on 1 of 2 matched samples"):
        import_report(labels, mine, **options)
    assert import_report(labels, mine, **options, overwrite=True).objects == 1


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    dataset = fo.Dataset()
    for split in ("train", "val"):
        dataset.add_sample(fo.Sample(filepath=str(write_image(tmp_path / f"images/{split}/1.png"))))
    for name in ("train/1", "val/1", "1"):
        write(tmp_path / f"labels/{name}.txt", row(0, np.ones((1, len(name)))))
    report = import_report(tmp_path / "labels", dataset, classes=["line"])
    assert [label[0].mask.shape for label in dataset.values("ground_truth.detections")] == [(1, 7), (1, 5)]
    assert report.problems == [
        f"{tmp_path / 'labels/1.txt'}: 2 samples have an image of this name, and its folder does not tell which one it is"
    ]
    dataset.delete_samples(dataset.last())
    with pytest.raises(DataError, match="already has the label file"):
        import_report(tmp_path / "labels", dataset, classes=["line"], overwrite=True, bad_rows="error")


# bad input


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"source": "nowhere.yaml"}, "nowhere.yaml: there is no such file or folder"),
        ({}, {"source": "images/train/a.png"}, "a.png: give a dataset.yaml, its folder, or a folder of label files"),
        ({"dataset.yaml": "train: images/train\n"}, {}, "dataset.yaml: has no names"),
        ({"dataset.yaml": "train: images/no\nnames: [a]\n"}, {}, "there is no .*images/no"),
        ({"other.yaml": "", "dataset.yaml": None, "more.yml": ""}, {}, r"holds 2 yaml files \(more.yml, other.yaml\): give one of them"),
        ({}, {"splits": "test"}, "has no 'test' entry; it has"),
        ({}, {"classes": NAMES}, "has the class names"),
        ({}, {"form": "boxes"}, "form='boxes': Input should be 'masks' or 'polylines'"),
        ({}, {"bad_row": "skip"}, "unknown setting 'bad_row': did you mean 'bad_rows'"),
        ({}, {"bad_rows": "error"}, "d.txt:3: 'many' is not a number"),
        ({}, {"source": "labels"}, "has no dataset.yaml to name its classes: give classes="),
        ({}, {"source": "labels", "classes": NAMES}, "label files without a dataset.yaml: give dataset="),
        ({}, {"source": "labels", "classes": ["a", "a"]}, "'a' is given twice"),
        ({}, {"source": "labels", "classes": NAMES, "splits": "val"}, "no splits to choose from"),
        ({"empty/.x": ""}, {"source": "empty"}, "empty: holds neither a dataset.yaml nor label files"),
        ({"labels/train/a.txt": None, "labels/train/b.txt": None, "labels/val/d.txt": None}, {}, "none of 4 images has a label file"),
        ({f"images/{n}.png": "no image" for n in ("train/a", "train/b", "train/c", "val/d")}, {},
         r"4 rows or files cannot be used, and no image is left:\n.*a.png: is not an image"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message_and_leaves_nothing(
    folder: Path, change: dict[str, str | None], options: dict[str, Any], message: str
) -> None:
    for name, text in change.items():
        (folder / name).unlink() if text is None else write(folder / name, text)
    before = fo.list_datasets()
    source = folder / options.pop("source", "")
    with pytest.raises(UserError, match=message):
        fy.import_labels(source, **options)
    assert fo.list_datasets() == before


def test_broken_files_are_named_and_the_rest_is_read(folder: Path) -> None:
    write(folder / "images/train/a.png", "no image")
    write(folder / "labels/train/b.txt", b"\xff")
    (folder / "labels/train/c.txt").mkdir()
    write(folder / "labels/val/d.txt", "0 0.1\n7 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n1 90 80 10 20 5 5\n")
    report = import_report(folder)
    kinds = [problem.removeprefix(f"{folder}/") for problem in report.problems]
    for kind, start in zip(kinds, ["images/train/a.png: is not an image", "labels/train/b.txt: is not UTF-8", "labels/train/c.txt: is a folder",
                                   "labels/val/d.txt:1: has 1 coord", "labels/val/d.txt:2: class 7 is not in 0..2", "labels/val/d.txt:4: coordinate 90"],
                           strict=True):  # fmt: skip
        assert kind.startswith(start)
    dataset = fo.load_dataset(report.dataset)
    assert (report.images, report.objects, report.backgrounds) == ({"train": 2, "val": 1}, 1, 0)
    # what could not be read is unlabelled, not background
    assert [s.ground_truth is None for s in dataset] == [True, True, False]


def test_labels_that_cannot_be_reached_are_no_background_and_old_ones_stay(folder: Path, mine: Any) -> None:
    import_report(folder, mine)
    (folder / "labels/val/d.txt").unlink()
    (folder / "labels/val/d.txt").symlink_to(folder / "gone.txt")
    write(folder / "labels/train/b.txt", row(2, ISLAND).encode("utf-16"))
    report = import_report(folder, mine, overwrite=True)
    assert report.problems == [
        f"{folder}/labels/train/b.txt: is UTF-16 text: save it as UTF-8",
        f"{folder}/labels/val/d.txt: is a link to a file that is not there: mend the link, or remove it",
    ]
    kept = {Path(s.filepath).name: len(s.ground_truth.detections) for s in mine if s.ground_truth is not None}
    assert kept == {"a.png": 2, "b.png": 1, "c.png": 0, "d.png": 1}


def test_many_problems_are_counted_and_the_first_kept(folder: Path) -> None:
    write(folder / "labels/train/a.txt", f"{row(0, DONUT)}\n" + "x\n" * 2500)
    report = import_report(folder)
    assert report.problem_count == 2501 and len(report.problems) == 1000
    assert report.details()[-1] == "... and 2481 more" and len(report.details()) == 21
    assert len(fo.load_dataset(report.dataset).info[INFO]["ground_truth"]["problems"]) == 100
    assert "2501 left out" in jobs.run("import_labels", {"options": {"source": str(folder)}})["summary"]


# new datasets appear whole or not at all


def test_a_new_dataset_gets_a_free_name_when_it_is_complete(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 2)
    fo.Dataset("My-Shapes")
    before = set(fo.list_datasets())
    seen: list[float] = []

    def progress(share: float, label: str) -> None:
        new = set(fo.list_datasets()) - before
        if share < 1:
            assert all(not fo.load_dataset(name).persistent and name.startswith("yoloseg-import-") for name in new)
        seen.append(share)

    dataset = fy.import_labels(folder, progress=progress)
    assert dataset.name == "my shapes-2" and dataset.persistent and seen == [0, 0.5, 1]
    assert set(fo.list_datasets()) == before | {"my shapes-2"}


@pytest.mark.parametrize("existing", [False, True])
def test_stopping(folder: Path, mine: Any, existing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 2)
    before = fo.list_datasets()
    answers = iter([False, True])
    told = "'mine' has got 1 new samples, and labels in 'ground_truth' of 1 others" if existing else "the new dataset was removed"
    with pytest.raises(Stopped, match=f"stopped after 2 of 4 images; {told}"):
        fy.import_labels(folder, mine if existing else None, should_stop=lambda: next(answers))
    assert fo.list_datasets() == before
    assert (len(mine), mine.count("ground_truth.detections") if existing else 0) == ((4, 3) if existing else (3, 0))


@pytest.mark.parametrize("existing", [False, True])
def test_a_database_that_fails_half_way(
    folder: Path, mine: Any, existing: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 2)
    before, real, calls = fo.list_datasets(), fo.Dataset.add_samples, []

    def fail(self: Any, samples: Any, **options: Any) -> Any:
        calls.append(len(samples))
        if len(calls) == 2:
            raise OSError("disk full")
        return real(self, samples, **options)

    monkeypatch.setattr(fo.Dataset, "add_samples", fail)
    with pytest.raises(OSError, match="disk full"):
        fy.import_labels(folder, mine if existing else None)
    assert fo.list_datasets() == before
    assert ("the import ended early: 'mine' has got 1 new samples" in caplog.text) == existing


def test_a_file_that_breaks_after_the_check_is_still_refused(folder: Path) -> None:
    write(folder / "labels/val/d.txt", row(1, PARTS))
    before = fo.list_datasets()

    real = module._Import.check
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Import, "check", lambda self, p: (real(self, p), write(folder / "labels/train/b.txt", "x")))
        with pytest.raises(
            DataError, match=r"1 rows or files cannot be used, and the new dataset was removed:\n.*b.txt:1: 'x' is not a number"
        ):
            import_report(folder, bad_rows="error")
    assert fo.list_datasets() == before


# command line


def test_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["import", f"data={folder}", "dataset=typed", "splits=train,val", "form=polylines", "label_field=outlines"])
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("4 objects as polylines in 4 images (3 train, 1 val); new dataset 'typed', field 'outlines'")
    assert len(out) == 2 and out[1].startswith(f"left out: {folder / 'labels/val/d.txt'}:3: 'many' is not a number: ")
    assert fo.load_dataset("typed").count("outlines.polylines") == 4
    with pytest.raises(SystemExit):
        main(["import", f"data={folder / 'labels'}", "dataset=typed", "classes=[disc, square]", "label_field=p", "bad_rows=error"])
    assert "class 2 is not in 0..1" in capsys.readouterr().err
    with pytest.raises(SettingsError, match="form='boxes'"):
        import_report(folder, form="boxes")
