"""dataset.yaml: every layout that people have, and one clear error for everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fiftyone_yoloseg.data.dataset_yaml import read_dataset_yaml, write_dataset_yaml
from fiftyone_yoloseg.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("images/train/a.jpg", "images/train/sub/b.jpg", "images/val/c.jpg", "more/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def write(root: Path, text: str) -> Path:
    (root / "data.yaml").write_text(text, encoding="utf-8")
    return root / "data.yaml"


def names_of(paths: list[Path]) -> list[str]:
    return [p.name for p in paths]


def test_folders_relative_to_the_yaml(root: Path) -> None:
    data = read_dataset_yaml(write(root, "train: images/train\nval: images/val\nnames: [cat, dog]\n"))
    assert data.names == {0: "cat", 1: "dog"} and data.root == root and data.download is False
    assert {k: names_of(v) for k, v in data.splits.items()} == {"train": ["a.jpg", "b.jpg"], "val": ["c.jpg"]}


@pytest.mark.parametrize("place", ["absolute", "relative", "gone"])
def test_path_key(root: Path, place: str) -> None:
    (root / "yamls").mkdir()
    value = {"absolute": str(root), "relative": "..", "gone": "/home/author/data"}[place]
    folder = root if place == "gone" else root / "yamls"  # a path of another machine: images are beside the yaml
    data = read_dataset_yaml(write(folder, f"path: {value}\ntrain: images/train\nnames: {{0: cat}}\nnc: 1\n"))
    assert names_of(data.splits["train"]) == ["a.jpg", "b.jpg"]


def test_home_folder(root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.setenv("USERPROFILE", str(root.parent))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for text in (f"path: ~/{root.name}\ntrain: images/train\n", f"train: ~/{root.name}/images/train\n"):
        assert names_of(read_dataset_yaml(write(elsewhere, f"{text}names: [x]\n")).splits["train"]) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("key", ["val", "validation", "valid"])
def test_names_of_the_val_split(root: Path, key: str) -> None:
    assert list(read_dataset_yaml(write(root, f"{key}: images/val\nnames: [x]\n")).splits) == ["val"]


def test_lists_of_folders_lists_and_files(root: Path) -> None:
    (root / "lists").mkdir()
    (root / "lists" / "e.jpg").touch()
    text = f"\ufeff./e.jpg\r\nimages/val/c.jpg\r\n\r\n# comment\r\n{root}/more/d.jpg\nmissing.jpg\n"
    (root / "lists" / "some.txt").write_text(text, encoding="utf-8")
    data = read_dataset_yaml(write(root, "train: [images/train, lists/some.txt, more/d.jpg, images/train]\nnames: [x]\n"))
    assert names_of(data.splits["train"]) == ["a.jpg", "b.jpg", "e.jpg", "c.jpg", "d.jpg", "missing.jpg"]
    assert data.splits["train"][2] == root / "lists" / "e.jpg"


def test_dots_of_a_widespread_exporter(root: Path) -> None:
    (root / "set").mkdir()
    (root / "images").rename(root / "set" / "images")
    assert names_of(read_dataset_yaml(write(root / "set", "train: ../images/train\nnames: [x]\n")).splits["train"]) == ["a.jpg", "b.jpg"]
    assert names_of(read_dataset_yaml(write(root / "set", "train: ../more\nnames: [x]\n")).splits["train"]) == ["d.jpg"]


def test_only_the_requested_splits_are_listed(root: Path) -> None:
    path = write(root, "train: images/none\nval: images/val\nnames: [x]\n")
    assert list(read_dataset_yaml(path, ["val"]).splits) == ["val"]
    with pytest.raises(DataError, match="train: there is no .*images/none"):
        read_dataset_yaml(path)
    with pytest.raises(DataError, match="has no 'test' entry; it has train, val"):
        read_dataset_yaml(path, ["test"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [x]\n", "has no train, val or test entry"),
        ("train: images/none\nnames: [x]\n", "train: there is no .*none"),
        ("train: empty\nnames: [x]\n", "train: no images in .*empty"),
        ("train: data.yaml\nnames: [x]\n", "neither a folder nor a .txt list"),
        ("train: 5\nnames: [x]\n", "train: 5 is not a path"),
        ("train: []\nnames: [x]\n", "train: no images"),
        ("path: [a]\ntrain: images/train\nnames: [x]\n", "path must be a folder"),
        ("train: images/train\n", "has no names"),
        ("train: images/train\nnc: 3\n", "has no names"),
        ("train: images/train\nnames: []\n", "has no names"),
        ("train: images/train\nnames: cat\n", "has no names"),
        ("train: images/train\nnames: {1: a, 2: b}\n", r"must be 0..1 without gaps, got \[1, 2\]"),
        ("train: images/train\nnames: {a: 0}\n", "names must be a list or index: name"),
        ("train: images/train\nnames: [a, b]\nnc: 3\n", "nc is 3 but names has 2 classes"),
        ("- just\n- a list\n", "is not a dataset.yaml"),
        ("", "is not a dataset.yaml"),
        ("train: [\nnames: x\n", r"data.yaml:\d: is not plain YAML"),
        ("train: !!python/object/apply:os.system ['touch owned']\nnames: [x]\n", "is not plain YAML"),
    ],
)
def test_bad_yaml(root: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    (root / "empty").mkdir()
    with pytest.raises(DataError, match=message) as caught:
        read_dataset_yaml(write(root, text))
    assert "data.yaml" in str(caught.value)
    assert not (root / "owned").exists()


def test_missing_file_folder_and_binary(root: Path) -> None:
    with pytest.raises(DataError, match="none.yaml: cannot be read: No such file"):
        read_dataset_yaml(root / "none.yaml")
    with pytest.raises(DataError, match="is a folder"):
        read_dataset_yaml(root)
    (root / "b.yaml").write_bytes(b"\xff\xd8\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_dataset_yaml(root / "b.yaml")


def test_download_is_never_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    script = "download: |\n  import pathlib\n  pathlib.Path('owned').touch()\n"
    data = read_dataset_yaml(write(root, "train: images/train\nnames: [x]\n" + script))
    assert data.download and len(data.splits["train"]) == 2
    with pytest.raises(DataError, match="which we never run: fetch the images yourself"):
        read_dataset_yaml(write(root, "train: images/none\nnames: [x]\n" + script))
    assert not (root / "owned").exists()


def test_written_yaml_reads_back(root: Path) -> None:
    path = root / "out.yaml"
    write_dataset_yaml(path, {1: "Hündin: größer", 0: "no"}, {"val": Path("images/val"), "train": ["images/train", "more"]})
    data = read_dataset_yaml(path)
    assert data.names == {0: "no", 1: "Hündin: größer"}
    assert {k: names_of(v) for k, v in data.splits.items()} == {"train": ["a.jpg", "b.jpg", "d.jpg"], "val": ["c.jpg"]}
    assert list(yaml.safe_load(path.read_text(encoding="utf-8"))) == ["train", "val", "nc", "names"]
    write_dataset_yaml(path, {0: "x"}, {"train": "images/train"}, root=root)
    assert read_dataset_yaml(path).root == root
    with pytest.raises(DataError, match="unknown split 'trian'"):
        write_dataset_yaml(path, {0: "x"}, {"trian": "images"})
