"""What can be predicted on: every kind of source gives the same pixels, and a bad one is named."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from fiftyone_yoloseg.engine.sources import Frame, frames
from fiftyone_yoloseg.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
BGR = np.ascontiguousarray(RGB[..., ::-1])


def read(source: Any, **more: Any) -> list[Frame]:
    got = list(frames(source, **more))
    assert all(isinstance(f, Frame) for f in got), got
    for f in got:
        assert (
            isinstance(f, Frame)
            and f.image.dtype == np.uint8
            and f.image.ndim == 3
            and f.image.shape[2] == 3
            and f.image.flags.c_contiguous
        )
    return got  # type: ignore[return-value]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.png, sub/b.png and a file that is no image."""
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        cv2.imwrite(str(tmp_path / name), BGR)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_path(folder: Path) -> None:
    for source in (folder / "a.png", str(folder / "a.png")):
        (frame,) = read(source)
        assert np.array_equal(frame.image, RGB) and frame.name == str(folder / "a.png") and frame.frame is None


def test_a_folder_and_globs(folder: Path) -> None:
    assert [f.name for f in read(folder)] == [str(folder / "a.png"), str(folder / "sub/b.png")]
    assert [f.name for f in read(str(folder / "*.png"))] == [str(folder / "a.png")]
    assert [f.name for f in read(str(folder / "**" / "*"))] == [str(folder / "a.png"), str(folder / "sub/b.png")]


def test_names_that_look_like_globs(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a[1].png"), BGR)
    (frame,) = read(str(tmp_path / "a[1].png"))
    assert np.array_equal(frame.image, RGB)


def test_a_broken_image_among_others_does_not_end_the_rest(folder: Path) -> None:
    (folder / "aa.png").write_bytes(b"no image")
    for source in (folder, str(folder / "**" / "*.png"), [folder / "a.png", folder / "aa.png", folder / "sub/b.png"]):
        first, broken, last = frames(source)
        assert isinstance(first, Frame) and isinstance(last, Frame)
        assert isinstance(broken, DataError) and str(folder / "aa.png") in str(broken)
    with pytest.raises(DataError, match="aa.png"):
        list(frames(folder / "aa.png"))


def test_a_list_of_anything(folder: Path) -> None:
    got = list(frames([folder / "a.png", BGR, Image.fromarray(RGB), folder / "missing.png", 5]))
    assert [f.name if isinstance(f, Frame) else None for f in got] == [str(folder / "a.png"), "1", "2", None, None]
    assert all(np.array_equal(f.image, RGB) for f in got if isinstance(f, Frame))
    assert "missing.png: no such file" in str(got[3]) and "source is a int" in str(got[4])
    assert len(read((BGR, BGR))) == 2


def test_arrays() -> None:
    grey = RGB[..., 0]
    for array, expected in (
        (BGR, RGB),
        (np.dstack([BGR, grey]), RGB),
        (grey, np.repeat(grey[..., None], 3, 2)),
        (grey[..., None], np.repeat(grey[..., None], 3, 2)),
        (BGR[::2, ::-1], RGB[::2, ::-1]),
    ):
        (frame,) = read(array)
        assert np.array_equal(frame.image, expected)


@pytest.mark.parametrize(
    "array",
    [
        RGB.astype(np.float32),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros(5, np.uint8),
    ],
)
def test_arrays_that_are_no_images(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(DataError, match="is not an image: give"):
        list(frames(array))


def test_pil_images(tmp_path: Path) -> None:
    (frame,) = read(Image.fromarray(RGB))
    assert np.array_equal(frame.image, RGB) and frame.name == "PIL image"
    assert np.array_equal(read(Image.fromarray(RGB[..., 0]))[0].image, np.repeat(RGB[..., :1], 3, 2))
    exif = Image.Exif()
    exif[274] = 6  # turn right
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        (frame,) = read(image)
    assert np.array_equal(frame.image, np.rot90(RGB, -1)) and frame.name == str(tmp_path / "turned.png")
    assert np.array_equal(read(tmp_path / "turned.png")[0].image, frame.image), "the same file gives the same pixels either way"


def test_a_truncated_pil_image(tmp_path: Path) -> None:
    Image.fromarray(np.tile(RGB, (20, 20, 1))).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:3000])
    with Image.open(tmp_path / "a.jpg") as image, pytest.raises(DataError, match="a.jpg: cannot be decoded"):
        list(frames(image))


def test_video(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for i in range(7):
        writer.write(np.full((48, 64, 3), (0, 0, 30 * i), np.uint8))  # BGR: ever more red
    writer.release()
    got = read(path)
    assert [f.frame for f in got] == list(range(7)) and {f.name for f in got} == {str(path)}
    assert all(
        f.image.shape == (48, 64, 3) and abs(int(f.image[24, 32, 0]) - 30 * i) < 12 and f.image[24, 32, 2] < 12 for i, f in enumerate(got)
    )
    assert [f.frame for f in read(path, vid_stride=3)] == [0, 3, 6]
    assert [f.frame for f in read([path], vid_stride=6)] == [0, 6]


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"a\.mp4: not a video"):
        list(frames(tmp_path / "a.mp4"))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_url(server: str) -> None:
    (frame,) = read(f"{server}/a.png?size=large")
    assert np.array_equal(frame.image, RGB) and frame.name == f"{server}/a.png?size=large"
    for wrong, reason in (("/missing.png", "File not found"), ("/notes.txt", "is not an image"), ("/a b.png", "cannot be fetched")):
        with pytest.raises(DataError, match=reason):
            list(frames(server + wrong))


def test_url_without_a_server(server: str) -> None:
    for url in ("http://127.0.0.1:9/a.png", "http://[broken", "http://"):
        with pytest.raises(DataError, match="cannot be fetched"):
            list(frames(url))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "empty list"),
        ("", "empty text"),
        ("nothing/here.jpg", "nothing/here.jpg: no such file or folder"),
        ("nothing/*.jpg", "no image matches"),
        ("x" * 5000, "too long"),
        ("~nobody-of-this-name/a.png", "no such file"),
        (None, "source is a NoneType"),
        (3.5, "source is a float"),
    ],
)
def test_sources_that_are_none(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        list(frames(source))
    assert len(str(error.value)) < 400


def test_an_empty_folder_and_a_text_file(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no images in this folder"):
        list(frames(folder / "empty"))
    with pytest.raises(DataError, match=r"notes\.txt"):
        list(frames(folder / "notes.txt"))
