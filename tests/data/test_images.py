"""Images as RGB, their sizes from the header, and finding them."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fiftyone_yoloseg.data import images
from fiftyone_yoloseg.data.images import image_size, list_images, read_image
from fiftyone_yoloseg.errors import DataError

RED_BLUE = np.zeros((6, 10, 3), np.uint8)
RED_BLUE[:, :5, 0] = 255
RED_BLUE[:, 5:, 2] = 255


def test_channels_are_rgb(tmp_path: Path) -> None:
    Image.fromarray(RED_BLUE).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8 and np.array_equal(image, RED_BLUE)
    assert image_size(tmp_path / "a.png") == (6, 10)


def test_non_ascii_names(tmp_path: Path) -> None:
    path = tmp_path / "Bäume 東京.png"
    Image.fromarray(RED_BLUE).save(path)
    assert np.array_equal(read_image(path), RED_BLUE)
    assert list_images(tmp_path) == [path]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_and_its_size(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RED_BLUE).save(path, exif=exif)
    image = read_image(path)
    assert image.shape[:2] == ((10, 6) if orientation > 4 else (6, 10)) == image_size(path)
    red_corner = {1: (0, 0), 2: (0, -1), 3: (0, -1), 4: (0, 0), 5: (0, 0), 6: (0, 0), 7: (-1, 0), 8: (-1, 0)}[orientation]
    assert image[red_corner][0] > 200 and image[red_corner][2] < 60


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True}), ("RGB", {"comment": b"made by hand"}),
        ("RGB", {"icc_profile": bytes(3000)}), ("RGB", {"icc_profile": bytes(70_000)}), ("RGB", {"exif": b"Exif\0\0damaged"}),
        ("RGB", {"xmp": b'<x tiff:Orientation="6"/>'}),
    ],
)  # fmt: skip
def test_the_quick_look_at_a_jpeg_says_what_pillow_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, options: dict[str, object]
) -> None:
    """Also of the file cut off at any byte of its header."""
    path, whole = tmp_path / "a.jpg", io.BytesIO()
    Image.new(mode, (31, 17)).save(whole, "JPEG", **options)
    plain = not {"exif", "xmp"} & set(options) and len(whole.getvalue()) < 1 << 14
    path.write_bytes(whole.getvalue())
    assert images._plain_jpeg_size(path) == ((17, 31) if plain else None)
    for length in [*range(700), 1500, 3500, 4000, len(whole.getvalue())]:
        path.write_bytes(whole.getvalue()[:length])
        found = outcome(path)
        with monkeypatch.context() as patch:
            patch.setattr(images, "_plain_jpeg_size", lambda path: None)
            assert found == outcome(path), length


def outcome(path: Path) -> tuple[int, int] | str:
    try:
        return image_size(path)
    except DataError as error:
        return str(error)


@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("grey.png", np.full((4, 5), 100, np.uint8), 100),
        ("alpha.png", np.full((4, 5, 4), 100, np.uint8), 100),
        ("deep.png", np.full((4, 5), 100 * 257, np.uint16), 100),
        ("deep.tiff", np.full((4, 5, 3), 100 * 257, np.uint16), 100),
        ("plain.bmp", np.full((4, 5, 3), 100, np.uint8), 100),
    ],
)
def test_grey_alpha_and_16_bits(tmp_path: Path, name: str, pixels: np.ndarray, expected: int) -> None:
    assert cv2.imwrite(str(tmp_path / name), pixels)
    image = read_image(tmp_path / name)
    assert image.shape == (4, 5, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected).max() <= 1


def test_palette_and_cmyk(tmp_path: Path) -> None:
    Image.fromarray(RED_BLUE).convert("P").save(tmp_path / "p.png")
    Image.fromarray(RED_BLUE).convert("CMYK").save(tmp_path / "c.jpg")
    for name in ("p.png", "c.jpg"):
        image = read_image(tmp_path / name)
        assert image.shape == (6, 10, 3) and image[0, 0, 0] > 200 and image[0, 0, 2] < 60


@pytest.mark.parametrize("content", [b"", b"this is text, not an image", b"\xff\xd8\xff\xe0 cut off"])
def test_not_an_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    for function in (read_image, image_size):
        with pytest.raises(DataError, match=r"bad\.jpg: .*(not an image|is an empty file)"):
            function(path)
    assert path.read_bytes() == content


def test_missing_and_folder(tmp_path: Path) -> None:
    for function in (read_image, image_size):
        with pytest.raises(DataError, match=r"none\.jpg: cannot be read: No such file"):
            function(tmp_path / "none.jpg")
        with pytest.raises(DataError, match="cannot be read"):
            function(tmp_path)


def test_floating_point_images_are_refused_rather_than_black(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "f.tiff"), np.full((4, 5), 0.5, np.float32))
    with pytest.raises(DataError, match="32-bit samples"):
        read_image(tmp_path / "f.tiff")


def test_size_of_an_image_that_pillow_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RED_BLUE).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert image_size(tmp_path / "a.png") == (6, 10)


def test_listing_is_recursive_sorted_and_of_images_only(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "sub/c.jpeg", "sub/deep/d.webp", "notes.txt", ".hidden.jpg", "._b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path)] == ["a.PNG", "b.jpg", "sub/c.jpeg", "sub/deep/d.webp"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs symlinks")
def test_symlink_loops_end(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "real" / "a.jpg").touch()
    (tmp_path / "real" / "sub" / "loop").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "alias").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "real" / "dead.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert list_images(tmp_path) == [tmp_path / "real" / "a.jpg", tmp_path / "real" / "dead.jpg"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        list_images(tmp_path / "none")


def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:  # as root, permissions stop nobody
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="locked: cannot be read: Permission denied"):
        list_images(tmp_path)
