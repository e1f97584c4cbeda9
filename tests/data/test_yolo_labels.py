"""Label files: rows of every kind, every kind of bad row, and the way back to the same pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fiftyone_yoloseg.data import files
from fiftyone_yoloseg.data.label_rows import EXACT, RowStyle, format_objects, format_record, write_label_file
from fiftyone_yoloseg.data.label_text import decimals
from fiftyone_yoloseg.data.yolo_labels import read_label_file, read_rows
from fiftyone_yoloseg.errors import DataError, SettingsError
from fiftyone_yoloseg.geometry import masks
from fiftyone_yoloseg.types import InstanceRecord

TRIANGLE = "0 0.1 0.1 0.9 0.1 0.5 0.9"


def label(folder: Path, content: str | bytes) -> Path:
    path = folder / "a.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def record(bits: np.ndarray, cls: int = 0, x: int = 0, y: int = 0, confidence: float | None = None) -> InstanceRecord:
    mask = masks.from_bitmap(bits, x, y)
    return InstanceRecord(cls, mask, mask.box, confidence=confidence)


def test_polygon_row(tmp_path: Path) -> None:
    out = read_label_file(label(tmp_path, "1 0.1 0.2 0.5 0.2 0.5 0.8 0.1 0.8\n"), 100, 200, nc=2)
    (only,) = out.records
    assert (only.cls, only.box, masks.area(only.mask), only.source_id) == (1, (20, 20, 100, 80), 80 * 60, "a.txt:1")
    assert out.problems == [] and out.duplicates == 0


def test_box_row_is_a_rectangle(tmp_path: Path) -> None:
    (only,) = read_label_file(label(tmp_path, "0 0.5 0.5 0.2 0.4"), 100, 200, nc=1).records
    assert only.box == pytest.approx((80, 30, 120, 70))
    assert only.mask.box == (80, 30, 120, 70) and masks.area(only.mask) == 40 * 40


def test_tiny_box_keeps_one_pixel_inside_the_image(tmp_path: Path) -> None:
    out = read_label_file(label(tmp_path, "0 1 1 0.0001 0.0001\n0 0 0 0.0001 0.0001"), 100, 200, nc=1)
    assert [r.mask.box for r in out.records] == [(199, 99, 200, 100), (0, 0, 1, 1)]


def test_boxes_and_polygons_in_one_file(tmp_path: Path) -> None:
    out = read_label_file(label(tmp_path, f"{TRIANGLE}\n0 0.5 0.5 0.2 0.4\n{TRIANGLE} 0.4 0.4\n"), 50, 50, nc=1)
    assert len(out.records) == 3 and not out.problems


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b"  \t\r\n"])
def test_empty_files_are_background(tmp_path: Path, content: bytes) -> None:
    out = read_label_file(label(tmp_path, content), 10, 10, nc=1)
    assert (out.records, out.problems) == ([], [])


def test_missing_file_is_background(tmp_path: Path) -> None:
    assert read_label_file(tmp_path / "none.txt", 10, 10, nc=1).records == []


def test_bom_crlf_and_tabs(tmp_path: Path) -> None:
    plain = read_label_file(label(tmp_path, TRIANGLE + "\n0 0.5 0.5 0.2 0.4\n"), 40, 60, nc=1).records
    dressed = "\ufeff" + TRIANGLE.replace(" ", "\t") + "\r\n\r\n  0 0.5\t0.5 0.2 0.4  \r\n"
    out = read_label_file(label(tmp_path, dressed), 40, 60, nc=1)
    assert [r.mask for r in out.records] == [r.mask for r in plain] and not out.problems
    assert [r.source_id for r in out.records] == ["a.txt:1", "a.txt:3"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("7 0.1 0.1 0.9 0.1 0.5 0.9", "class 7 is not in 0..2"),
        ("3 0.1 0.1 0.9 0.1 0.5 0.9", "class 3 is not in 0..2"),
        ("-1 0.1 0.1 0.9 0.1 0.5 0.9", "class -1 is not in 0..2"),
        ("0.5 0.1 0.1 0.9 0.1 0.5 0.9", "class 0.5 is not a whole number"),
        ("car 0.1 0.1 0.9 0.1 0.5 0.9", "'car' is not a number"),
        ("0", "has 0 coordinates"),
        ("0 0.1 0.1", "has 2 coordinates"),
        ("0 0.1 0.1 0.2", "has 3 coordinates"),
        ("0 0.1 0.1 0.9 0.1 0.5", "odd number of coordinates (5)"),
        ("0 0.1 0.1 0.9 0.1 0.5 0.9 0.3", "odd number of coordinates (7)"),
        ("0 0.1 nan 0.9 0.1 0.5 0.9", "not finite"),
        ("0 0.1 inf 0.9 0.1 0.5 0.9", "not finite"),
        ("nan 0.1 0.1 0.9 0.1 0.5 0.9", "not finite"),
        ("0 0.1 -0.2 0.9 0.1 0.5 0.9", "coordinate -0.2 is not in [0, 1]"),
        ("0 0.1 1.2 0.9 0.1 0.5 0.9", "coordinate 1.2 is not in [0, 1]"),
        ("0 10 10 90 10 50 90", "divide pixels by the image's width and height"),
        ("0 0.1,0.1,0.9,0.1,0.5,0.9", "is not a number"),
        ("0 0.5 0.5 0 0.2", "box without area"),
        ("0 " + "x" * 1_000_000, "is not a number"),
    ],
)
def test_a_bad_row_is_reported_with_its_place_and_the_rest_is_kept(tmp_path: Path, row: str, message: str) -> None:
    path = label(tmp_path, f"{TRIANGLE}\n{row}\n0 0.5 0.5 0.2 0.4\n")
    out = read_label_file(path, 50, 50, nc=3)
    assert len(out.records) == 2
    (problem,) = out.problems
    assert problem.startswith(f"{path}:2: ") and message in problem and len(problem) < 300
    with pytest.raises(DataError, match=r"a\.txt:2: "):
        read_label_file(path, 50, 50, nc=3, strict=True)


def test_coordinates_a_little_outside_are_clipped(tmp_path: Path) -> None:
    out = read_label_file(label(tmp_path, "0 -0.01 -0.005 1.01 -0.005 1.01 1.01 -0.01 1.01"), 50, 60, nc=1)
    assert not out.problems and masks.area(out.records[0].mask) == 50 * 60


def test_exact_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    other_class, other_shape = "1" + TRIANGLE[1:], TRIANGLE[:-1] + "8"
    content = "\n".join([TRIANGLE, TRIANGLE, other_class, other_shape, TRIANGLE.replace("0.1", "0.10")])
    out = read_label_file(label(tmp_path, content), 50, 50, nc=2)
    assert (len(out.records), out.duplicates, out.problems) == (3, 2, [])


def test_different_objects_in_one_box_are_both_kept(tmp_path: Path) -> None:
    out = read_label_file(label(tmp_path, "0 0.1 0.1 0.9 0.1 0.9 0.9\n0 0.1 0.1 0.1 0.9 0.9 0.9"), 50, 50, nc=1)
    assert len(out.records) == 2 and out.duplicates == 0


def test_a_megabyte_line(tmp_path: Path) -> None:
    angle = np.linspace(0, 2 * np.pi, 60_000)
    points = np.stack([0.5 + 0.4 * np.cos(angle), 0.5 + 0.4 * np.sin(angle)], 1).ravel()
    text = "0 " + " ".join(f"{p:.7f}" for p in points)
    assert len(text) > 1_000_000
    (only,) = read_label_file(label(tmp_path, text), 500, 500, nc=1).records
    assert masks.area(only.mask) == pytest.approx(np.pi * 200**2, rel=0.01)


def test_not_text(tmp_path: Path) -> None:
    path = label(tmp_path, b"\xff\xd8\xff\xe0 a jpeg")
    out = read_label_file(path, 10, 10, nc=1)
    assert out.records == [] and out.problems == [f"{path}: is not UTF-8 text (byte 1): save it as UTF-8, or take it away"]
    with pytest.raises(DataError, match="not UTF-8"):
        read_label_file(path, 10, 10, nc=1, strict=True)


def test_a_folder_with_the_name_of_a_label_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    assert "a.txt: is a folder, not a file: move it away" in read_label_file(tmp_path / "a.txt", 10, 10, nc=1).problems[0]


def test_confidences_of_prediction_files(tmp_path: Path) -> None:
    path = label(tmp_path, f"{TRIANGLE} 0.75\n0 0.5 0.5 0.2 0.4 0.5\n{TRIANGLE}\n{TRIANGLE} 0.75\n{TRIANGLE} 1.5")
    out = read_label_file(path, 50, 50, nc=1, confidences=True)
    assert [r.confidence for r in out.records] == [0.75, 0.5, None]
    assert out.duplicates == 1 and "confidence 1.5" in out.problems[0]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            hnp.arrays(np.bool_, st.tuples(st.integers(1, 8), st.integers(1, 8)), fill=st.booleans()),
            st.integers(0, 3),
            st.integers(0, 40),
            st.integers(0, 20),
        ),
        max_size=4,
    )
)
def test_written_files_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, items: list) -> None:  # type: ignore[type-arg]
    path = tmp_path_factory.mktemp("labels") / "a.txt"
    written = [record(bits, cls, x, y) for bits, cls, x, y in items if bits.any()]
    write_label_file(path, written, 28, 48)
    out = read_label_file(path, 28, 48, nc=4)
    assert [(r.cls, r.mask, r.box) for r in out.records] == list(dict.fromkeys((r.cls, r.mask, r.box) for r in written))
    assert out.problems == []
    assert len(path.read_text().splitlines()) == len(written)


def test_row_format() -> None:
    (row,) = format_record(record(np.ones((2, 3)), cls=5, x=1, y=1, confidence=0.5), 10, 10)
    fields = row.split()
    assert fields[0] == "5" and sorted(set(fields[1:])) == ["0.125000", "0.225000", "0.325000"] and len(fields) == 9
    (row,) = format_record(record(np.ones((2, 3)), confidence=0.5), 10, 10, confidence=True)
    assert row.endswith(" 0.500000")


def test_confidence_round_trip(tmp_path: Path) -> None:
    write_label_file(
        tmp_path / "a.txt", [record(np.eye(4), confidence=0.625), record(np.ones((1, 1)), confidence=0.25)], 9, 9, confidence=True
    )
    assert [r.confidence for r in read_label_file(tmp_path / "a.txt", 9, 9, nc=1, confidences=True).records] == [0.625, 0.25]


def test_decimals_grow_with_the_image() -> None:
    assert [decimals(10, 10), decimals(480, 640), decimals(100, 10_000), decimals(10_001, 5), decimals(1, 200_000)] == [6, 6, 6, 7, 8]


def test_an_object_without_pixels_cannot_be_written_and_nothing_is(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    empty = InstanceRecord(2, masks.EMPTY, (0, 0, 0, 0), source_id="abc")
    with pytest.raises(DataError, match="abc of class 2 has no pixel"):
        write_label_file(path, [record(np.ones((2, 2))), empty], 10, 10)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_no_objects_give_an_empty_file(tmp_path: Path) -> None:
    write_label_file(tmp_path / "deep" / "a.txt", [], 10, 10)
    assert (tmp_path / "deep" / "a.txt").read_text() == ""


def test_a_failing_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(DataError, match="No space left"):
        write_label_file(path, [record(np.ones((2, 2)))], 10, 10)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_label_file(tmp_path / "labels" / "a.txt", [], 10, 10)


# ---- styles of writing


def crop(bits: np.ndarray, x: int = 0, y: int = 0) -> masks.Crop:
    return bits.astype(np.uint8), x, y


def same_pixels(a: masks.Crop, b: masks.Crop) -> bool:
    return masks.from_bitmap(*a) == masks.from_bitmap(*b)


DONUT_AND_ISLAND = np.array([[c == "#" for c in row] for row in ("#######", "#.....#", "#..#..#", "#.....#", "#######")])
TWO_PARTS = np.array([[1, 1, 0, 0, 1], [1, 1, 0, 0, 1]])


@pytest.mark.parametrize(
    ("style", "rows"),
    [(EXACT, [1, 1]), (RowStyle("rows"), [2, 2]), (RowStyle("rle"), [1, 1]), (RowStyle(outline="edge"), [1, 1])],
)
def test_every_style_gives_one_object_back_for_each(style: RowStyle, rows: list[int]) -> None:
    objects = [(1, crop(DONUT_AND_ISLAND, 3, 2)), (1, crop(TWO_PARTS, 0, 9))]
    text = format_objects(objects, 20, 30, style)
    assert [len(r) for r in text] == rows
    back = read_rows("\n".join(row for r in text for row in r), 20, 30, nc=2)
    assert back.problems == [] and [o.cls for o in back.objects] == [1, 1]
    assert all(same_pixels(o.crop, wanted) for o, (_, wanted) in zip(back.objects, objects, strict=True))


def test_parts_in_rows_of_their_own_never_fill_a_hole() -> None:
    island, ring = sorted(format_objects([(0, crop(DONUT_AND_ISLAND))], 5, 7, RowStyle("rows"))[0], key=len)
    without_island = DONUT_AND_ISLAND.copy()
    without_island[2, 3] = False
    assert same_pixels(read_rows(ring, 5, 7, 1).objects[0].crop, crop(without_island))
    assert same_pixels(read_rows(island, 5, 7, 1).objects[0].crop, crop(np.ones((1, 1)), 3, 2))


def test_parts_that_objects_share_stay_with_each_of_them() -> None:
    """A repeated row is a repeated object only if the whole object is repeated."""
    a, b = np.array([[1, 0, 1, 0, 0]]), np.array([[1, 0, 0, 0, 1]])
    objects = [(0, crop(a)), (0, crop(b)), (0, crop(a))]
    text = [row for rows in format_objects(objects, 1, 5, RowStyle("rows")) for row in rows]
    back = read_rows("\n".join(text), 1, 5, nc=1)
    assert len(text) == 6 and back.duplicates == 2
    assert [masks.full_bitmap(masks.from_bitmap(*o.crop), 1, 5).tolist() for o in back.objects] == [a.tolist(), b.tolist()]


@settings(max_examples=150, deadline=None)
@given(
    hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)), fill=st.booleans()),
    st.sampled_from([EXACT, RowStyle("rows"), RowStyle("rle"), RowStyle(outline="edge")]),
    st.integers(0, 3),
)
def test_any_object_survives_any_exact_style(bits: np.ndarray, style: RowStyle, margin: int) -> None:
    if not bits.any():
        return
    height, width = bits.shape[0] + 2 * margin, bits.shape[1] + 2 * margin
    (rows,) = format_objects([(0, crop(bits, margin, margin))], height, width, style)
    (only,) = read_rows("\n".join(rows), height, width, nc=1).objects
    assert same_pixels(only.crop, crop(bits, margin, margin))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.sampled_from([0.5, 1.0, 3.0, 10.0]), st.sampled_from(["bridge", "rows"]))
def test_no_tolerance_closes_a_hole(w: int, h: int, wall: int, tolerance: float, dialect: str) -> None:
    bits = np.ones((h + 2 * wall, w + 2 * wall), np.uint8)
    bits[wall:-wall, wall:-wall] = 0
    (rows,) = format_objects([(0, crop(bits, 2, 1))], 40, 40, RowStyle(dialect, tolerance=tolerance))  # type: ignore[arg-type]
    (only,) = read_rows("\n".join(rows), 40, 40, nc=1).objects
    back = masks.full_bitmap(masks.from_bitmap(*only.crop), 40, 40)[1 + wall : 1 + wall + h, 2 + wall : 2 + wall + w]
    assert back.sum() <= back.size / 2


@pytest.mark.parametrize(
    "style", [("polygons",), ("bridge", "corner"), ("bridge", "pixel", -1), ("rle", "edge"), ("rle", "pixel", 1), ("rows", "edge")]
)
def test_styles_that_make_no_sense_are_refused(style: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="dialect|outline|tolerance"):
        RowStyle(*style)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 rle 4", "is cut off"),
        ("0 rle 4 5 04", "image of [4, 6]"),
        ("0 rle 4 x 04", "'x' is not a number"),
        ("0 rle 4 6 \x7f", "does not belong there"),
        ("0 rle 4 6 04", "do not add up"),
        ("0 rle 4 6 H", "do not add up"),
        ("0 rle 4 6 h0", "without any pixel"),
        ("9 rle 4 6 04d0", "class 9 is not in 0..1"),
        ("0 rle 4 6 04d0 0.5", "has 1 numbers after its run lengths"),
    ],
)
def test_bad_run_lengths(row: str, message: str) -> None:
    ((line, problem),) = read_rows(f"0 rle 4 6 04d0\n{row}", 4, 6, nc=2).problems
    assert line == 2 and message in problem


def test_run_lengths_with_a_confidence() -> None:
    (only,) = read_rows("1 rle 4 6 04d0 0.5", 4, 6, nc=2, confidences=True).objects
    assert (only.cls, only.confidence, only.crop[0].sum(), only.crop[1:]) == (1, 0.5, 4, (0, 0))


def test_a_row_whose_parts_are_closed_by_their_first_point_is_one_object() -> None:
    """Parts beside each other are joined, a ring inside a part is a hole; no line between them is painted."""

    def square(x: float, y: float, side: float) -> list[tuple[float, float]]:
        return [(x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y)]

    def row(*rings: list[tuple[float, float]]) -> str:
        return "0 " + " ".join(f"{x / 40:.8f} {y / 40:.8f}" for ring in rings for x, y in ring)

    def area(text: str) -> int:
        (only,) = read_rows(text, 40, 40, nc=1).objects
        return int(only.crop[0].sum())

    assert area(row(square(1, 1, 10), square(20, 20, 5))) == 125
    assert area(row(square(1, 1, 10), square(3, 3, 4), square(30, 1, 2))) == 100 - 16 + 4
    assert area(row(square(1.4, 1.4, 10), square(20.4, 1.4, 5))) == area(row(square(1.4, 1.4, 10))) + area(row(square(20.4, 1.4, 5)))


def test_the_fast_way_of_reading_reads_what_the_slow_one_does() -> None:
    rng = np.random.default_rng(0)
    rows = [f"{rng.integers(3)} " + " ".join(f"{v:.6f}" for v in rng.random(2 * rng.integers(2, 9))) for _ in range(50)]
    fast = read_rows("\n".join(rows), 97, 131, nc=3)
    slow = read_rows("\n".join(row + " " for row in rows), 97, 131, nc=3)  # a space at the end is not how we write
    assert fast.problems == slow.problems
    assert [(o.line, o.cls, o.box) for o in fast.objects] == [(o.line, o.cls, o.box) for o in slow.objects]
    assert all(np.array_equal(a.crop[0], b.crop[0]) for a, b in zip(fast.objects, slow.objects, strict=True))
