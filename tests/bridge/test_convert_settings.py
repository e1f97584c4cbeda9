"""What users ask of a conversion besides exactness: other rows, other images, other classes, scores, limits, and doing only what is new."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

fo = pytest.importorskip("fiftyone")

from fiftyone_yoloseg.bridge.conversion import manifest, media  # noqa: E402
from fiftyone_yoloseg.bridge.conversion.preview import preview  # noqa: E402
from fiftyone_yoloseg.bridge.convert import MARKER, convert  # noqa: E402
from fiftyone_yoloseg.bridge.import_labels import import_labels  # noqa: E402
from fiftyone_yoloseg.bridge.read import view_records  # noqa: E402
from fiftyone_yoloseg.data import processes  # noqa: E402
from fiftyone_yoloseg.data.dataset_yaml import read_dataset_yaml  # noqa: E402
from fiftyone_yoloseg.data.files import folder_lock  # noqa: E402
from fiftyone_yoloseg.data.scan import scan_dataset  # noqa: E402
from fiftyone_yoloseg.errors import DataError, FidelityError, SettingsError  # noqa: E402

RING = np.ones((12, 12), bool)
RING[3:9, 3:9] = False
PARTS = np.zeros((12, 12), bool)
PARTS[:4], PARTS[8:, 4:] = True, True
BLOB = cv2.circle(np.zeros((12, 12), np.uint8), (6, 6), 5, 1, -1).astype(bool)
W, H = 40, 30


def detection(label: str, mask: np.ndarray | None, x: int, y: int, **more: Any) -> Any:
    size = (12, 12) if mask is None else mask.shape
    return fo.Detection(label=label, bounding_box=[x / W, y / H, size[1] / W, size[0] / H], mask=mask, **more)


@pytest.fixture
def dataset(fiftyone_db: Any, tmp_path: Path) -> Any:
    """Six images: 0..3 tagged train, 4 and 5 val; each holds a ring, two parts and a blob."""
    made = fiftyone_db.Dataset()
    (tmp_path / "images").mkdir()
    for i in range(6):
        path = tmp_path / "images" / f"bild ü{i}.bmp"
        cv2.imencode(".bmp", np.full((H, W, 3), 40 * i, np.uint8))[1].tofile(path)
        found = [detection("ring", RING, 1, i), detection("parts", PARTS, 20, 2), detection("blob", BLOB, 14, 17)]
        sample = fo.Sample(filepath=str(path), tags=["val" if i > 3 else "train"], ground_truth=fo.Detections(detections=found))
        sample["video"] = f"v{i // 2}"
        made.add_sample(sample)
    yield made
    made.delete()


def rows(out: Path) -> dict[str, list[str]]:
    return {p.stem: p.read_text().splitlines() for p in sorted((out / "labels").rglob("*.txt"))}


def state(out: Path) -> dict[str, tuple[int, int]]:
    """(inode, time) of images and labels: equal for files that were taken over."""
    return {str(p.relative_to(out)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.rglob("*.*") if p.parent.name in ("train", "val")}


@pytest.mark.parametrize(
    ("settings", "each"), [({"dialect": "rows"}, 4), ({"dialect": "rle"}, 3), ({"outline": "edge"}, 3), ({"tolerance": 1.0}, 3)]
)
def test_styles(dataset: Any, tmp_path: Path, settings: dict[str, Any], each: int) -> None:
    report = convert(dataset, tmp_path / "out", **settings)
    assert all(len(lines) == each for lines in rows(tmp_path / "out").values())
    assert (report.rows, report.with_holes, report.with_parts) == (18, 6, 6)
    assert (report.min_iou == 1) == ("tolerance" not in settings) and report.min_iou > 0.7


def test_plain_readers_see_the_bridges(dataset: Any, tmp_path: Path) -> None:
    """The parts are 4 rows apart: 3 pixels of bridge between 48 + 32 pixels. Ring and blob need none outside of themselves."""
    report = convert(dataset, tmp_path / "out")
    assert report.min_iou == 1 and report.plain_min_iou == pytest.approx(80 / 84)
    assert report.plain_mean_iou == pytest.approx((2 + 80 / 84) / 3)
    assert {label for _, _, label in report.plain_worst} <= set(dataset.values("ground_truth.detections.id", unwind=True))
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<img ") == 6 and "data:image/png;base64," in page and "0.9524" in (tmp_path / "out" / "report.md").read_text()


def test_a_reference_folder_has_no_images(dataset: Any, tmp_path: Path) -> None:
    report = convert(dataset, tmp_path / "out", media="reference")
    assert not (tmp_path / "out" / "images").exists() and len(rows(tmp_path / "out")) == 6
    yaml = read_dataset_yaml(report.dataset_yaml)
    assert [str(p) for p in yaml.splits["train"]] == dataset.match_tags("train").values("filepath")
    data, found = scan_dataset(report.dataset_yaml)
    assert found.objects == 18 and found.problems == [] and not list((tmp_path / "images").glob("*.txt"))
    wanted = {r.path: [i.mask for i in r.instances] for r in view_records(dataset, "ground_truth", report.classes).records}
    assert {r.path: [i.mask for i in r.instances] for r in [*data.splits["train"], *data.splits["val"]]} == wanted
    back = import_labels(report.dataset_yaml, "reference-back")
    assert back.count("ground_truth.detections") == 18
    back.delete()
    (tmp_path / "out" / "val.labels.txt").write_text("")
    with pytest.raises(DataError, match="lists 2 images but val.labels.txt 0 label files"):
        scan_dataset(report.dataset_yaml)


def test_merged_and_left_out_classes(dataset: Any, tmp_path: Path) -> None:
    report = convert(dataset, tmp_path / "out", remap="parts:thing, blob:thing, ring:")
    assert report.classes == ["thing"] and report.objects_per_class == {"thing": 12} and report.rows == 12
    assert {line.split()[0] for lines in rows(tmp_path / "out").values() for line in lines} == {"0"}
    assert [reason for _, reason in report.dropped] == ["class 'ring' is not in the class list"] * 6


def test_group_by_and_single_splits(dataset: Any, tmp_path: Path) -> None:
    report = convert(dataset, tmp_path / "out", split="random", val_fraction=0.34, group_by="video")
    assert report.images == {"train": 4, "val": 2}
    assert convert(dataset, tmp_path / "out", split="test").images == {"test": 6}
    assert list(read_dataset_yaml(tmp_path / "out" / "dataset.yaml").splits) == ["test"]
    with pytest.raises(SettingsError, match="no such field"):
        convert(dataset, tmp_path / "out", split="random", group_by="patient")
    with pytest.raises(DataError, match="is in train and val"):
        dataset.set_values("video", ["x"] * 6)
        convert(dataset, tmp_path / "out", group_by="video")


def test_a_slice_of_a_grouped_dataset(fiftyone_db: Any, dataset: Any, tmp_path: Path) -> None:
    grouped = fiftyone_db.Dataset()
    grouped.add_group_field("group", default="left")
    for sample in dataset:
        group = fo.Group()
        for side in ("left", "right"):
            copy = fo.Sample(filepath=sample.filepath, tags=sample.tags, group=group.element(side))
            copy["ground_truth"] = sample.ground_truth.copy() if side == "left" else fo.Detections()
            grouped.add_sample(copy)
    with pytest.raises(DataError, match="slices: left, right"):
        convert(grouped, tmp_path / "out")
    with pytest.raises(DataError, match="there are left, right"):
        convert(grouped, tmp_path / "out", group_slice="top")
    assert convert(grouped, tmp_path / "out", group_slice="left").rows == 18
    with pytest.raises(DataError, match="has no groups"):
        convert(dataset, tmp_path / "out", group_slice="left")
    grouped.delete()


def test_labels_without_masks_are_counted(dataset: Any, tmp_path: Path) -> None:
    sample = dataset.first()
    sample.ground_truth.detections[2].mask = None
    sample.save()
    with pytest.raises(DataError, match="1 labels in 1 samples have no mask"):
        convert(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    boxed = convert(dataset, tmp_path / "out", maskless="box")
    assert (boxed.rows, boxed.boxed, boxed.min_iou) == (18, 1, 1.0)
    skipped = convert(dataset, tmp_path / "out", maskless="skip")
    assert (skipped.rows, skipped.boxed) == (17, 0) and skipped.dropped == [(sample.id, "a 'blob' has no mask")]


def test_a_limit_on_what_may_be_lost(dataset: Any, tmp_path: Path) -> None:
    with pytest.raises(FidelityError, match=r"below require_iou=0.999: sample \w+, label \w+: 0\.\d{4}.*nothing was written"):
        convert(dataset, tmp_path / "out", tolerance=1.5, require_iou=0.999)
    assert list(tmp_path.iterdir()) == [tmp_path / "images"]
    assert convert(dataset, tmp_path / "out", require_iou=1.0).rows == 18


@pytest.mark.parametrize("name", ["label", "mask", "iscrowd"])
def test_scores_never_take_the_place_of_what_makes_a_label(dataset: Any, tmp_path: Path, name: str) -> None:
    before = list(dataset._sample_collection.find())
    with pytest.raises(SettingsError, match=f"iou_attribute='{name}': is an attribute of every label"):
        convert(dataset, tmp_path / "out", iou_attribute=name)
    assert list(dataset._sample_collection.find()) == before and not (tmp_path / "out").exists()


def test_scores_on_the_labels(dataset: Any, tmp_path: Path) -> None:
    report = convert(dataset, tmp_path / "out", tolerance=1.5, iou_attribute="row_iou", iou_threshold=0.9)
    scores = dataset.values("ground_truth.detections.row_iou", unwind=True)
    assert len(scores) == 18 and min(scores) == pytest.approx(report.min_iou) and np.mean(scores) == pytest.approx(report.mean_iou)
    view = dataset.load_saved_view("row_iou below 0.9")
    assert view.count("ground_truth.detections") == sum(score < 0.9 for score in scores) > 0
    assert any("row_iou below 0.9" in note for note in report.notes)


def test_remote_and_missing_images_are_named(dataset: Any, tmp_path: Path) -> None:
    samples = list(dataset)
    samples[0]["filepath"] = "s3://bucket/a.png"
    samples[0].save()
    Path(samples[1].filepath).unlink()
    Path(samples[2].filepath).write_text("not an image")
    report = convert(dataset, tmp_path / "out")
    assert report.images == {"train": 1, "val": 2}
    reasons = dict(report.dropped)
    assert "not on this machine: download" in reasons[samples[0].id] and "No such file" in reasons[samples[1].id]
    assert "is not an image" in reasons[samples[2].id]


# ---- doing only what is new


def test_nothing_new_writes_nothing(dataset: Any, tmp_path: Path) -> None:
    first = convert(dataset, tmp_path / "out")
    before = state(tmp_path / "out")
    again = convert(dataset, tmp_path / "out")
    assert (first.written, first.unchanged) == (6, 0) and (again.written, again.unchanged, again.removed) == (0, 6, 0)
    assert state(tmp_path / "out") == before
    same = {k: v for k, v in again.to_dict().items() if k not in ("written", "unchanged")}
    assert same == {k: v for k, v in first.to_dict().items() if k not in ("written", "unchanged")}


def test_what_has_changed_is_written_and_nothing_else(dataset: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(dataset, out)
    before, samples = state(out), list(dataset)
    samples[0].ground_truth.detections[0].mask = ~RING  # other pixels
    samples[0].save()
    samples[1].ground_truth.detections[0].label = "blob"
    samples[1].save()
    image = Path(samples[2].filepath)  # other content of the same size and time: only the change time tells
    content, times = bytearray(image.read_bytes()), image.stat()
    content[-20] ^= 1
    image.write_bytes(bytes(content))
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.utime(samples[3].filepath)  # touched, not changed
    dataset.delete_samples(samples[5].id)
    report = convert(dataset, out)
    assert (report.written, report.unchanged, report.removed, report.rows) == (3, 2, 1, 15)
    after = state(out)
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed == {
        "labels/train/bild ü0.txt", "labels/train/bild ü1.txt", "images/train/bild ü2.bmp", "images/val/bild ü5.bmp", "labels/val/bild ü5.txt",
    }  # fmt: skip
    assert (out / "images/train/bild ü2.bmp").read_bytes() == bytes(content)
    shutil.rmtree(tmp_path / "fresh", ignore_errors=True)
    convert(dataset, tmp_path / "fresh")
    assert rows(out) == rows(tmp_path / "fresh")


def test_a_converted_folder_that_somebody_edited_is_mended(dataset: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(dataset, out)
    wanted = rows(out)
    (out / "labels/train/bild ü0.txt").write_text("0 0.1 0.1 0.2 0.2 0.3 0.1\n")
    (out / "labels/train/bild ü1.txt").unlink()
    (out / "images/train/bild ü2.bmp").write_bytes(b"")
    report = convert(dataset, out)
    assert rows(out) == wanted and (report.written, report.unchanged) == (3, 3)
    assert (out / "images/train/bild ü2.bmp").read_bytes() == Path(dataset.skip(2).first().filepath).read_bytes()
    (out / manifest.FILE).write_bytes(b"rubbish")
    assert convert(dataset, out).written == 6


@pytest.mark.parametrize("change", [{"tolerance": 1.0}, {"classes": ["blob", "ring", "parts"]}, {"dialect": "rle"}])
def test_other_settings_write_the_labels_anew(dataset: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    convert(dataset, tmp_path / "out")
    images = {name: where for name, where in state(tmp_path / "out").items() if name.startswith("images")}
    assert convert(dataset, tmp_path / "out", **change).written == 6
    assert {name: where for name, where in state(tmp_path / "out").items() if name.startswith("images")} == images
    convert(dataset, tmp_path / "fresh", **change)
    assert rows(tmp_path / "out") == rows(tmp_path / "fresh")


def test_masks_in_files_are_part_of_the_content(dataset: Any, tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), 255 * RING.astype(np.uint8))
    sample = dataset.first()
    sample.ground_truth.detections[0].mask, sample.ground_truth.detections[0].mask_path = None, str(path)
    sample.save()
    convert(dataset, tmp_path / "out")
    cv2.imwrite(str(path), 255 * BLOB.astype(np.uint8))
    assert convert(dataset, tmp_path / "out").written == 1


def test_the_preview_counts_what_is_written(dataset: Any, tmp_path: Path) -> None:
    sample = dataset.first()
    sample.ground_truth.detections[0]["iscrowd"], sample.ground_truth.detections[1]["iscrowd"] = 1, 0
    sample.save()
    shown = preview(dataset)
    assert convert(dataset, tmp_path / "out").rows == 17
    assert shown.startswith("**17 objects of 3 classes**") and "| ring | 3 | 2 |" in shown and "| parts | 4 | 2 |" in shown


# ---- what can go wrong on the way


def test_a_full_disk_half_way_changes_nothing(dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    convert(dataset, out)
    before = {str(p): p.read_bytes() for p in out.rglob("*.*") if p.is_file()}
    dataset.set_values("ground_truth", dataset.values("ground_truth"))
    copied, really = 0, shutil.copyfile

    def full(source: Any, target: Any, **_: Any) -> None:
        nonlocal copied
        copied += 1
        if copied > 2:
            raise OSError(28, "No space left on device", str(target))
        really(source, target)

    monkeypatch.setattr(media.shutil, "copyfile", full)
    monkeypatch.setattr("fiftyone_yoloseg.bridge.conversion.work.is_print", lambda path, wanted: False)  # so that everything is written
    with pytest.raises(DataError, match="No space left on device; nothing was changed"):
        convert(dataset, out)
    assert {str(p): p.read_bytes() for p in out.rglob("*.*") if p.is_file()} == before and not list(tmp_path.glob(".out*"))


def test_a_source_that_cannot_be_copied_loses_only_itself(dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataset.first()

    really = shutil.copyfile

    def copy(source: Any, target: Any, **_: Any) -> None:
        if str(source) == broken.filepath:
            raise OSError(5, "Input/output error", str(source))
        really(source, target)

    monkeypatch.setattr(media.shutil, "copyfile", copy)
    report = convert(dataset, tmp_path / "out")
    assert report.images == {"train": 3, "val": 2} and report.rows == 15 and len(rows(tmp_path / "out")) == 5
    assert [(s, r.split(": ", 1)[1]) for s, r in report.dropped] == [(broken.id, "cannot be copied: Input/output error")]


def test_two_at_once_into_one_folder(dataset: Any, tmp_path: Path) -> None:
    with folder_lock(tmp_path / "out"), pytest.raises(DataError, match="is being written by another process"):
        convert(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert convert(dataset, tmp_path / "out").rows == 18


def _hold(path: str, ready: Any) -> None:
    with folder_lock(Path(path)):
        ready.set()
        multiprocessing.Event().wait()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path / "out"), ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(DataError, match="another process"), folder_lock(tmp_path / "out"):
        pass
    process.kill()
    process.join()
    with folder_lock(tmp_path / "out"):
        pass


def test_what_a_killed_conversion_left_is_cleared_away(dataset: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(dataset, out)
    (tmp_path / ".out.999.partial" / "labels").mkdir(parents=True)
    out.rename(tmp_path / ".out.999.old")  # killed between the two renames
    report = convert(dataset, out)
    assert report.unchanged == 6 and sorted(p.name for p in tmp_path.iterdir()) == ["images", "out"]


def test_names_are_unique_also_where_case_does_not_count() -> None:
    names = media.Names()
    given = [names.unique("train", p) for p in ("/a/x.jpg", "/b/X.png", "/c/x.jpg", "/d/y.jpg")] + [names.unique("val", "/e/x.jpg")]
    assert given == ["x.jpg", "X-2.png", "x-3.jpg", "y.jpg", "x.jpg"]


def test_the_marker_tells_what_was_done(dataset: Any, tmp_path: Path) -> None:
    convert(dataset, tmp_path / "out", media="symlink")
    marker = json.loads((tmp_path / "out" / MARKER).read_text())
    assert marker["media"] == "symlink" and marker["rows"] == 18 and marker["objects_per_class"] == {"blob": 6, "parts": 6, "ring": 6}


def test_other_processes_do_the_same(dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many samples as make them worth it; here they are waited for, so that they get some of the six."""
    alone = convert(dataset, tmp_path / "alone")
    monkeypatch.setattr("fiftyone_yoloseg.bridge.convert.WORTH_PROCESSES", 1)
    monkeypatch.setattr("fiftyone_yoloseg.bridge.convert._CHUNK", 2)
    start = processes.Workers.__init__

    def started(self: Any, *args: Any, **settings: Any) -> None:
        start(self, *args, **settings)
        assert self._processes is not None and self._processes.first.result() != os.getpid()

    monkeypatch.setattr(processes.Workers, "__init__", started)
    report = convert(dataset, tmp_path / "together")
    assert rows(tmp_path / "together") == rows(tmp_path / "alone")
    assert {**report.to_dict(), "out_dir": 0, "dataset_yaml": 0} == {**alone.to_dict(), "out_dir": 0, "dataset_yaml": 0}
    monkeypatch.setattr("fiftyone_yoloseg.bridge.convert.work", _die)
    with pytest.raises(DataError, match="was killed, most likely for want of memory: nothing was written"):
        convert(dataset, tmp_path / "third")
    assert not (tmp_path / "third").exists()


def _die(tasks: Any, setup: Any) -> Any:
    if multiprocessing.parent_process():  # the process of the test does chunks too
        os.kill(os.getpid(), 9)


def test_other_processes_load_neither_fiftyone_nor_torch() -> None:
    code = "import sys, fiftyone_yoloseg.bridge.conversion.work; print({'fiftyone', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
