"""Input that nobody meant well: one clear outcome for each, what is good is kept, and no file of the user changes.

Plain bad rows, yaml entries and images are in test_yolo_labels.py, test_dataset_yaml.py, test_scan.py and test_images.py.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fiftyone_yoloseg.data.audit_files import look_at
from fiftyone_yoloseg.data.audit_sources import check_data
from fiftyone_yoloseg.data.dataset_yaml import read_dataset_yaml
from fiftyone_yoloseg.data.images import read_image
from fiftyone_yoloseg.data.scan import ScanReport, scan_dataset
from fiftyone_yoloseg.data.yolo_labels import read_label_file
from fiftyone_yoloseg.errors import DataError
from fiftyone_yoloseg.geometry import masks

GOOD = "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"
OTHER = "1 0.1 0.1 0.4 0.1 0.4 0.4"
YAML = "train: images/train\nval: images/val\n"
FAST = 3.0
"""Seconds, on a machine that is doing other things too."""


def put(path: Path, content: bytes | str = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def picture(format: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (40, 20), **options: object) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(out, format, **options)
    return out.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """train: a, b; val: c. One object each."""
    folder = tmp_path / "data"
    for name in ("train/a", "train/b", "val/c"):
        put(folder / "images" / f"{name}.png", picture())
        put(folder / "labels" / f"{name}.txt", GOOD)
    put(folder / "data.yaml", YAML + "names: [x, y, z]\n")
    return folder


def state(folder: Path) -> dict[str, object]:
    """Every file and link below a folder as it is."""
    found: dict[str, object] = {}
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in [*folders, *files]):
            found[str(path)] = path.readlink() if path.is_symlink() else path.is_file() and (path.read_bytes(), path.stat().st_mtime_ns)
    return found


def scanned(root: Path) -> ScanReport:
    """Twice: the cache remembers an outcome, and does not change it. Nothing beside the dataset changes either."""
    before = state(root.parent)
    data, report = scan_dataset(root / "data.yaml")
    again, second = scan_dataset(root / "data.yaml")
    assert again == data and second.problems == report.problems and state(root.parent) == before
    return report


def short(message: str, root: Path) -> str:
    assert len(message.replace(str(root), "")) < 400 and "\n" not in message
    return message.removeprefix(f"{root}/")


# label files


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("0 0.1 1e999 0.9 0.1 0.5 0.9", "holds a number that is not finite (nan, inf, or too large): "),
        ("0 " + "9" * 1_000_000 + " 0.1 0.9 0.1 0.5 0.9", "holds a number that is not finite"),
        ("1e999 0.1 0.1 0.9 0.1 0.5 0.9", "holds a number that is not finite"),
        ("99999999999999999999 0.1 0.1 0.9 0.1 0.5 0.9", "class 99999999999999999999 is not in 0..2: correct it, or "),
        ("\u0661 0.1 0.1 0.9 0.1 0.5 0.9", "'\u0661' is not a number: a row is "),
        ("0 \uff10.1 0.1 0.9 0.1 0.5 0.9", "'\uff10.1' is not a number"),
        ("0 0.1_5 0.1 0.9 0.1 0.5 0.9", "'0.1_5' is not a number"),
        ("0 0x1 0.1 0.9 0.1 0.5 0.9", "'0x1' is not a number"),
        ("0 0.1 0.1 0.9 0.1 0.5 0.9\0", "holds zero bytes"),
        ("\0" * 4096, "holds zero bytes"),
        (
            "0 0.1 0.1 0.9 0.1 0.5",
            "has an odd number of coordinates (5): complete the row, or remove it; if the last number is a confidence",
        ),
        ("0 0.1 0.1 0.9", "has 3 coordinates, but a box needs 4 and a polygon 6 or more: "),
        ("0 1.01 1.01 0.001 0.001", "is a box outside the image: "),
        ("0 rle " + "9" * 5000 + " 40 04", "RLE of size [inf, 40], image of [20, 40] (height, width): write it anew"),
        ("0 rle 20 40 " + "o" * 100_000, "RLE counts end in the middle of a number: write it anew"),
        ("0 -0.02 0.1 0.9 0.1 0.5 0.9", "coordinate -0.02 is not in [0, 1]: cut the outline"),
        ("0 4 2 36 2 20 18", "coordinate 36 is not in [0, 1]: divide pixels by the image's width and height"),
        ('{"shapes": []}', "'{\"shapes\":' is not a number"),
    ],
)
def test_a_bad_row_says_what_is_wrong_and_what_to_do_and_costs_no_other(root: Path, row: str, problem: str) -> None:
    put(root / "labels/train/a.txt", f"{GOOD}\n{row}\n{OTHER}\n")
    report = scanned(root)
    (found,) = report.problems
    assert short(found, root).startswith(f"labels/train/a.txt:2: {problem}") and ": " in found.split(problem[:12])[1]
    assert report.objects == 4 and report.images == 3
    (finding,) = (f for f in check_data(root / "data.yaml").findings if f.kind == "bad_labels")
    assert finding.cases[0].label == "a.txt:2" and finding.cases[0].note in found


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("space", [" ", "\t", " \t  "])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_dress_of_a_text_file_is_no_matter(root: Path, end: str, space: str, bom: str) -> None:
    rows = [GOOD, "", "2 0.5 0.5 0.2 0.4", OTHER]  # polygons and a box
    put(root / "labels/train/a.txt", bom + end.join(rows).replace(" ", space) + end)
    dressed = read_label_file(root / "labels/train/a.txt", 20, 40, 3)
    assert [(o.cls, masks.area(o.mask), o.source_id) for o in dressed.records] == [
        (0, 200, "a.txt:1"),
        (2, 64, "a.txt:3"),
        (1, 49, "a.txt:4"),
    ]
    assert not dressed.problems


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (GOOD.encode("utf-16"), "is UTF-16 text: save it as UTF-8. Its image is left out"),
        (b"\xfe\xff" + GOOD.encode("utf-16-be"), "is UTF-16 text: save it as UTF-8. Its image is left out"),
        (bytes(range(256)), "is not UTF-8 text (byte 129): save it as UTF-8, or take it away. Its image is left out"),
        (None, "is a folder, not a file: move it away. Its image is left out"),
        ("loop", "cannot be read: Too many levels of symbolic links. Its image is left out"),
        ("nowhere.txt", "is a link to a file that is not there: mend the link, or remove it. Its image is left out"),
    ],
)
def test_a_label_file_that_cannot_be_read_makes_no_background(root: Path, content: bytes | str | None, problem: str) -> None:
    label = root / "labels/train/a.txt"
    label.unlink()
    if content is None:
        label.mkdir()
    elif isinstance(content, bytes):
        label.write_bytes(content)
    else:
        label.symlink_to(label if content == "loop" else root / content)
    report = scanned(root)
    assert report.problems == [f"{label}: {problem}"] and (report.images, report.objects, report.backgrounds) == (2, 2, 0)
    if content != "loop":  # which ends in the system's own words
        assert read_label_file(label, 20, 40, 3).problems == [f"{label}: {problem.removesuffix('. Its image is left out')}"]
    (finding,) = (f for f in check_data(root / "data.yaml").findings if f.kind == "bad_labels")
    assert finding.count == 1


@pytest.mark.parametrize("kind", ["file", "loop"])
def test_a_labels_folder_that_is_none_makes_no_backgrounds(root: Path, kind: str) -> None:
    folder = root / "labels/train"
    folder.rename(root / "elsewhere")
    if kind == "file":
        folder.write_text("a note")
    else:
        folder.symlink_to(folder)
    words = "Not a directory" if kind == "file" else "Too many levels of symbolic links"
    with pytest.raises(DataError, match=rf"(?s)train: none of 2 images can be used:.*labels/train/a.txt: cannot be read: {words}"):
        scan_dataset(root / "data.yaml")


def tangle(n: int) -> str:
    return "0 " + " ".join(f"{v:.3f}" for v in np.random.default_rng(0).random(2 * n))


@pytest.mark.parametrize(
    ("row", "pixels"),
    [
        ("0 " + "0.5 " * 250_000, 1),
        (f"0 {'0.2 0.2 0.8 0.8 ' * 60_000}", None),
        (f"0 {'0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.25 ' * 30_000}", None),
        (tangle(80_000), None),
        (f"{GOOD} 0.25 0.25 {GOOD[2:]} 0.25 0.25", 60_000),
    ],
    ids=["one point", "to and fro", "one part again and again", "tangle", "one part twice"],
)
def test_outlines_of_a_megabyte_end_soon(tmp_path: Path, row: str, pixels: int | None) -> None:
    """None: refused. Filling the tangle took minutes, and COCO's rasteriser gigabytes."""
    start = time.monotonic()
    out = read_label_file(put(tmp_path / "a.txt", f"{row}\n{OTHER}"), 400, 600, 3)
    assert time.monotonic() - start < FAST
    if pixels is None:
        assert len(out.records) == 1 and "a.txt:1: has an outline that crosses itself without end: draw it anew" in out.problems[0]
    else:
        assert not out.problems and masks.area(out.records[0].mask) == pixels


def test_many_bad_rows_make_one_short_message(root: Path) -> None:
    put(root / "labels/val/c.txt", "x\n" * 50_000)
    with pytest.raises(DataError, match=r"val: no label row can be used") as caught:
        scan_dataset(root / "data.yaml")
    assert len(str(caught.value)) < 4000 and str(caught.value).endswith("and 49990 more")


# folders and links


def test_links_that_lead_in_circles_or_nowhere(root: Path) -> None:
    train = root / "images/train"
    (train / "again").symlink_to(root / "images", target_is_directory=True)
    (train / "self.png").symlink_to(train / "self.png")
    (train / "dead.png").symlink_to(root / "nowhere.png")
    (train / "folder.png").mkdir()
    report = scanned(root)
    assert report.images == 4  # those of val are reached from train too, and said to be in both
    assert [short(p, root) for p in report.problems] == [
        "images/train/dead.png: cannot be read: No such file or directory",
        "images/train/self.png: cannot be read: Too many levels of symbolic links",
        f"data.yaml: train and val have 1 images in common, such as {train}/again/val/c.png: what is measured on val says little;"
        " list each image in one split",
    ]


def test_images_beyond_dots_are_read_and_nothing_is_written_there(root: Path) -> None:
    """`path: ../..` and `../images` are in real datasets."""
    put(root / "deep/er/data.yaml", f"path: ../..\n{YAML}names: [x, y, z]\n")
    put(root / "side/data.yaml", "train: ../images/train\nval: ../images/val\nnames: [x, y, z]\n")
    before = state(root.parent)
    for yaml in ("deep/er/data.yaml", "side/data.yaml"):
        data, report = scan_dataset(root / yaml)
        assert report.objects == 3 and not report.problems and {k: len(v) for k, v in data.splits.items()} == {"train": 2, "val": 1}
    assert state(root.parent) == before


# dataset.yaml


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB + YAML + "names: *a11\n", "class 0 is called "),
        (BOMB + YAML + "names: {0: *a11}\n", "class 0 is called "),
        (BOMB + YAML + "names: !!omap [a: *a11]\n", "class 0 is called "),
        (BOMB + "train: *a11\nnames: [x]\n", "train: .* is not a path"),
        (BOMB + YAML + "path: *a11\nnames: [x]\n", "path must be a folder, not "),
        (BOMB + YAML + "nc: *a11\nnames: [x]\n", "nc is .* but names has 1 classes: correct one of them"),
        (YAML + "names: &n [*n]\n", "class 0 is called "),
        (YAML + "names: " + "[" * 5000 + "]" * 5000, r":3: more than 100 lists or mappings in each other"),
        (YAML + "names: " + "[" * 5000, r":3: more than 100 lists or mappings in each other"),
        (YAML + "names: " + "{a: " * 5000, r":3: more than 100 lists or mappings in each other"),
        (YAML + "names: [x]\nmore:\n" + "- " * 5000, r":5: more than 100 lists or mappings in each other"),
        (YAML + "names: " + "9" * 5000, "is not plain YAML: Exceeds the limit"),
        (YAML + "names: [x]\nmore: !!python/object/new:os.system [touch owned]\n", "is not plain YAML: could not determine a constructor"),
        (YAML + "names: [x]\nmore: !" + "y" * 100_000 + " z\n", "is not plain YAML: could not determine a constructor"),
        (YAML + "names: [x]\ntrain: images/val\n", ":4: the key 'train' is on line 1 too: remove one of them"),
        (YAML + "names:\n  0: x\n  1: y\n  1: z\n", ":6: the key '1' is on line 5 too: remove one of them"),
        (YAML + "names: {0: x, '0': y}\n", ":3: the key '0' is on line 3 too"),
        (YAML + "names: {0: x, 2: z}\n", r"must be 0\.\.1 without gaps, got \[0, 2\]"),
        (YAML + "names: {-1: x, 0: y}\n", r"must be 0\.\.1 without gaps"),
        (YAML + "names: {0.0: x, 1.7: y}\n", "0.0 is not the index of a class"),
        (YAML + "names: [x, y, x]\n", "classes 0 and 2 are both called 'x'"),
        (YAML + "names: [on, off]\n", "class 0 is called True, which is not text: put its name in quotes"),
        (YAML + "names: [x, ~]\n", "class 1 is called None, which is not text: put its name in quotes"),
        (YAML + "names: [x, [y]]\n", r"class 1 is called \['y'\], which is not text"),
        (YAML + "names: [x, ' ']\n", "class 1 has an empty name"),
        (YAML + 'names: [x, "\\e[31mred"]\n', "class 1 is called .*: names are one line without control characters"),
        (YAML + "names: [x]\nnc: 80\n", "nc is 80 but names has 1 classes: correct one of them, or leave nc out"),
        ("train: ''\nval:\nnames: [x]\n", "has no train, val or test entry: add one"),
        ("train: ['']\nnames: [x]\n", "train: '' is not a path"),
        (f"train: {'a' * 5000}\nnames: [x]\n", "train: there is no .*: correct the entry or `path`"),
        ('train: "images\\0"\nnames: [x]\n', "train: there is no "),
        ("train: link\nnames: [x]\n", "there is no .*link, a link that leads nowhere: correct"),
        ("train: https://example.com/data.zip\nnames: [x]\n", "train: there is no "),
        (YAML + "names: {{ names }}\n", ":3: is not plain YAML"),
        (YAML + "---\n" + YAML, ":3: is not plain YAML"),
    ],
)
def test_a_bad_yaml_is_one_short_message_soon(root: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    (root / "link").symlink_to("link")
    put(root / "data.yaml", text)
    before, start = state(root.parent), time.monotonic()
    with pytest.raises(DataError, match=message) as caught:
        read_dataset_yaml(root / "data.yaml")
    assert time.monotonic() - start < FAST and state(root.parent) == before
    assert str(caught.value).startswith(f"{root / 'data.yaml'}:") and len(str(caught.value).replace(str(root), "")) < 400


def test_what_aliases_stand_for_is_no_matter_where_nobody_looks(root: Path) -> None:
    put(root / "data.yaml", BOMB + YAML + "names: [1, 2.5, 2020-01-01, 'no']\nmore: " + "[" * 90 + "]" * 90)
    assert list(read_dataset_yaml(root / "data.yaml").names.values()) == ["1", "2.5", "2020-01-01", "no"]


def test_a_download_script_is_never_run_and_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    script = "download: |\n  import os; os.system('touch owned')\n"
    put(root / "data.yaml", YAML + "names: [x, y, z]\n" + script)
    assert scanned(root).objects == 3
    put(root / "data.yaml", "train: gone.txt\nnames: [x]\n" + script)
    with pytest.raises(DataError, match=r"there is no .*gone\.txt.* download entry, which we never run: fetch the images yourself"):
        scan_dataset(root / "data.yaml")
    put(root / "gone.txt", "images/1.jpg\n")
    with pytest.raises(DataError, match=r"(?s)none of 1 images can be used.* download entry, which we never run"):
        scan_dataset(root / "data.yaml")
    assert not list(root.rglob("owned"))


def test_a_list_in_any_dress_beside_a_folder(root: Path) -> None:
    rows = ["\ufeffimages/val/c.png", "", "  ", "./gone.png", "images/val/c.png", "bad\0name.png", "data.yaml", "images", "odd\u2028.png"]
    put(root / "list.txt", "\r\n".join(rows[:5]) + "\r" + "\n".join(rows[5:]))
    put(root / "data.yaml", "train: [images/train, list.txt]\nnames: [x, y, z]\n")
    report = scanned(root)
    assert report.images == 3
    assert [p.removeprefix(f"{root}/") for p in report.problems] == [
        f"list.txt:4: {root}/gone.png: cannot be read: No such file or directory; correct or remove this line",
        f"list.txt:6: {root}/bad\0name.png: cannot be read: embedded null byte; correct or remove this line",
        f"{root}/data.yaml: is not an image".removeprefix(f"{root}/"),
        f"list.txt:8: {root}/images: is not a file; remove it or take it off the list; correct or remove this line",
        f"list.txt:9: {root}/odd\u2028.png: cannot be read: No such file or directory; correct or remove this line",
    ]


def test_label_files_that_a_list_names_are_those_that_are_compared(root: Path) -> None:
    """A reference folder: labels by list, not by the names of the images."""
    put(root / "images/train/a.jpg", picture("JPEG"))  # beside a.png, whose labels would be in the same file by name
    put(root / "images.txt", "images/train/a.png\nimages/train/a.jpg\nimages/train/b.png\n")
    for name in ("1", "2"):
        put(root / f"own/{name}.txt", GOOD)
    put(root / "data.yaml", "train: images.txt\nnames: [x, y, z]\nlabels: {train: labels.txt}\n")
    (root / "own/3.txt").hardlink_to(root / "own/1.txt")
    put(root / "labels.txt", "own/1.txt\nown/3.txt\nown/2.txt\n")
    assert scanned(root).problems == []  # equal files under names of their own, as deduplication leaves them
    put(root / "labels.txt", "own/1.txt\nown/2.txt\nown/2.txt\n")
    assert scanned(root).problems == [f"{root}/own/2.txt: is the label file of a.jpg and of b.png: correct the list of label files"]


# image files

JPEG, PNG = picture("JPEG", size=(64, 48)), picture("PNG", size=(64, 48))


@pytest.mark.parametrize(
    ("name", "content", "size"),
    [
        ("cmyk.jpg", lambda: picture("JPEG", "CMYK"), (20, 40)),
        ("16 bits.png", lambda: cv2.imencode(".png", np.full((20, 40), 25_700, np.uint16))[1].tobytes(), (20, 40)),
        ("alpha.png", lambda: picture("PNG", "RGBA"), (20, 40)),
        ("bits.png", lambda: picture("PNG", "1"), (20, 40)),
        ("pixel.png", lambda: picture(size=(1, 1)), (1, 1)),
        ("pixel.gif", lambda: picture("GIF", size=(1, 1)), (1, 1)),
        ("two frames.gif", lambda: picture("GIF", save_all=True, append_images=[Image.new("RGB", (40, 20))]), (20, 40)),
        ("two frames.webp", lambda: picture("WEBP", save_all=True, append_images=[Image.new("RGB", (40, 20))]), (20, 40)),
        ("two pages.tiff", lambda: picture("TIFF", save_all=True, append_images=[Image.new("RGB", (7, 7))]), (20, 40)),
        ("a jpeg.png", lambda: JPEG, (48, 64)),
        ("empty.jpg", lambda: b"", "not an image"),
        ("page.jpg", lambda: b"<html>404</html>", "not an image"),
        ("noise.jpg", lambda: b"\xff\xd8\xff" + bytes(500), "not an image"),
        ("header.jpg", lambda: JPEG[:100], "not an image"),
        ("half.png", lambda: PNG[: len(PNG) // 2], "not an image"),
        ("half.webp", lambda: picture("WEBP")[:60], "not an image"),
    ],
)  # fmt: skip
def test_an_image_file_is_used_at_its_size_or_named(
    root: Path, name: str, content: Callable[[], bytes], size: tuple[int, int] | str
) -> None:
    path = put(root / "images/train" / name, content())
    put(root / "labels/train" / f"{path.stem}.txt", "0 0.5 0.5 1 1")
    data, _ = scan_dataset(root / "data.yaml")
    report, records = scanned(root), {r.path: r for r in data.splits["train"]}
    if isinstance(size, str):
        assert report.problems == [f"{path}: is {size}"] and path not in records and look_at(str(path)).kind == "unreadable_images"
        with pytest.raises(DataError, match=rf"{path.name}: .*not an image"):
            read_image(path)
    else:
        (only,) = records[path].instances
        assert not report.problems and masks.area(only.mask) == size[0] * size[1]
        assert read_image(path).shape == (*size, 3) and look_at(str(path)).size == size


def test_a_jpeg_that_ends_too_early_is_found_by_the_check_and_named_by_the_decoder(root: Path) -> None:
    path = put(root / "images/train/half.jpg", JPEG[: len(JPEG) // 2])
    assert scanned(root).images == 4  # its header is whole, and a scan decodes nothing
    assert look_at(str(path)).kind == "cut_off_images"
    with pytest.raises(DataError, match=r"half\.jpg: .*truncated"):
        read_image(path)


def test_labels_are_in_the_frame_of_the_image_as_it_is_seen(root: Path) -> None:
    """EXIF orientation 6: stored lying, seen standing. The label is about the bright corner as it is seen."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[10:, :20] = 255  # at the bottom left as stored, at the top left as seen
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(root / "images/val/c.png", exif=exif)
    put(root / "labels/val/c.txt", "0 0 0 0.5 0 0.5 0.5 0 0.5")
    data, report = scan_dataset(root / "data.yaml")
    (record,) = data.splits["val"]
    assert (record.height, record.width) == (40, 20) and not report.problems
    mask = masks.full_bitmap(record.instances[0].mask, 40, 20).astype(bool)
    image = read_image(record.path)
    assert image[mask].min() == 255 and image[~mask].max() == 0
