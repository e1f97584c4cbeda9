"""The command line in both spellings, its exit codes, and one readable message for everything that can go wrong."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fiftyone_yoloseg import __version__
from fiftyone_yoloseg.cli import COMMANDS, main, split
from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.errors import SettingsError

TINY = ("epochs=1", "imgsz=32", "batch=4", "workers=0", "device=cpu")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code: Any = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return int(code or 0), out, err

    return call


def ok(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert code == 0, err
    return out


# the four uses


@pytest.mark.parametrize("long", [False, True])
def test_train_val_predict_export(run: Run, tiny_dataset: Path, lively_file: Path, tmp_path: Path, long: bool) -> None:
    def command(name: str) -> list[str]:
        return ["task=segment", f"mode={name}"] if long else [name]

    out = ok(run(*command("train"), f"data={tiny_dataset}", "model=yolov8n-seg.yaml", "name=mine", *TINY))
    best = tmp_path / "runs/segment/mine/weights/best.pt"
    assert f"best {best}" in out and best.is_file() and "3 images, 6 objects" in out
    out = ok(run(*command("val"), f"model={best}", "workers=0"))
    assert "mask mAP" in out and "milliseconds an image" in out

    images = tiny_dataset.parent / "images" / "val"
    out = ok(run(*command("predict"), f"model={lively_file}", f"source={images / '0.png'}", "conf=0.05"))
    assert out.startswith(f"{images / '0.png'}: 60x90, ")
    saved = tmp_path / "runs/segment/predict"
    assert sorted(p.name for p in saved.iterdir()) == ["0.jpg", "predictions.json"]
    found = json.loads((saved / "predictions.json").read_text())
    assert found and {"image_id", "category_id", "bbox", "score", "segmentation", "file_name"} == set(found[0])
    out = ok(run(*command("predict"), f"model={lively_file}", f"source={images}", "save=false"))
    assert len(out.splitlines()) == 3 and not (tmp_path / "runs/segment/predict2").exists()

    out = ok(run(*command("export"), f"model={lively_file}", "format=onnx", f"output={tmp_path / 'best.onnx'}", "simplify=false"))
    assert "same answers as the network" in out and (tmp_path / "best.onnx").is_file()
    results = []
    for model in (lively_file, tmp_path / "best.onnx"):
        ok(run(*command("predict"), f"model={model}", f"source={images}", "conf=0.05", "rect=false", "name=same"))
        folder = max((tmp_path / "runs/segment").glob("same*"), key=lambda p: p.stat().st_mtime_ns)
        results.append(
            [(e["file_name"], e["category_id"], round(e["score"], 2)) for e in json.loads((folder / "predictions.json").read_text())]
        )
    assert results[0] == results[1] and results[0]


def test_interrupting_and_going_on(run: Run, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fiftyone_yoloseg.api.train", stop)
        for arguments in (("train", f"data={tiny_dataset}", *TINY), ("task=segment", "mode=train", f"data={tiny_dataset}", *TINY)):
            code, _, err = run(*arguments)
            assert code == 130 and "the training goes on with: yoloseg train resume=true" in err and "Traceback" not in err
        patch.setattr("fiftyone_yoloseg.data.audit_sources.check_data", stop)
        assert run("check", f"data={tiny_dataset}") == (130, "", "yoloseg: interrupted\n")


def test_doctor_tells_the_cache_and_its_size(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOSEG_CACHE_DIR", str(tmp_path / "cache"))
    assert json.loads(ok(run("doctor")))["cache"] == {"folder": str(tmp_path / "cache"), "MB": 0}
    (tmp_path / "cache/scans").mkdir(parents=True)
    (tmp_path / "cache/scans/x.sqlite").write_bytes(bytes(1_500_000))
    assert json.loads(ok(run("doctor")))["cache"]["MB"] == 1.5


def test_check_exits_with_its_verdict(run: Run, tiny_dataset: Path, tmp_path: Path) -> None:
    code, out, err = run("check", f"data={tiny_dataset}", "imgsz=96")
    assert code == 0 and out.startswith("warnings: ") and "9 images (6 train, 3 val)" in out, err
    (tmp_path / "noval.yaml").write_text(f"path: {tiny_dataset.parent}\ntrain: images/train\nnames: [a, b, c]\n")
    code, out, err = run("check", f"data={tmp_path / 'noval.yaml'}")
    assert code == 1 and "no val split" in " ".join(out.split()) and "Traceback" not in err
    for arguments in ((), (f"data={tiny_dataset}", "dataset=x")):
        code, out, err = run("check", *arguments)
        assert (code, out) == (1, "") and err == "yoloseg: give one of data=dataset.yaml and dataset=<FiftyOne dataset>\n"


def test_check_of_a_fiftyone_dataset(run: Run, coco: Any) -> None:
    code, out, err = run("check", f"dataset={coco.name}", "remap=person:being", "save_views=true")
    assert code == 0 and "6 images (4 train, 2 val)" in out and "being" in out, err
    assert any(name.startswith("yoloseg check: ") for name in coco.list_saved_views())
    code, _, err = run("check", "dataset=nowhere")
    assert code == 1 and "no such FiftyOne dataset" in err


# help


def test_help_lists_every_setting(run: Run) -> None:
    for arguments in (("help", "train"), ("train", "--help"), ("train", "-h"), ("mode=train", "help=true")):
        out = ok(run(*arguments))
        for name, field in TrainSettings.model_fields.items():
            assert any(line.split()[0] == name and str(field.description) in line for line in out.splitlines()[1:]), name
    for name in COMMANDS:
        assert name in ok(run()) and f"yoloseg {name} key=value" in ok(run("help", name))
    assert ok(run("version")).strip() == ok(run("--version")).strip() == __version__


# arguments


def test_spellings_of_arguments() -> None:
    expected = ("train", {"epochs": "5", "data": "a=b.yaml", "device": None})
    for arguments in (
        ["train", "epochs=5", "data=a=b.yaml", "device=None"],
        ["task=segment", "mode=train", "epochs=5", "data=a=b.yaml", "device=null"],
        ["segment", "train", "epochs=5", "data=a=b.yaml", "device=none"],
        ["train", "--epochs=5", "--data=a=b.yaml", "device="],
        ["mode=train", "train", "epochs=5", "data=a=b.yaml", "device=NONE"],
    ):
        assert split(arguments) == expected, arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "epochs=5"], "unknown command 'trian': did you mean 'train'?"),
        (["qqqq"], "unknown command 'qqqq': use one of train, val"),
        (["train", "epochs", "5"], "'epochs': settings are written key=value"),
        (["epochs=5"], "which command?"),
        (["task=detect", "mode=train"], "task='detect'"),
        (["detect", "train"], "task='detect'"),
        (["train", "mode=val"], "contradicts"),
    ],
)
def test_arguments_that_are_wrong(run: Run, arguments: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        split(arguments)
    assert message in str(error.value)
    code, out, err = run(*arguments)
    assert (code, out) == (1, "") and err.startswith("yoloseg: ") and message in err


# bad input


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("crater",)


@pytest.fixture
def bad(tmp_path: Path, lively_file: Path, tiny_dataset: Path) -> dict[str, Path]:
    """Files that are not what they should be."""
    root = tmp_path / "bad"
    root.mkdir()
    (root / "bomb.pt").write_bytes(pickle.dumps(Bomb()))
    (root / "truncated.pt").write_bytes(lively_file.read_bytes()[:100_000])
    (root / "no.jpg").write_bytes(b"not an image")
    (root / "broken.yaml").write_text("train: [images\nnames: {")
    (root / "classes.yaml").write_text(f"path: {tiny_dataset.parent}\ntrain: images/train\nval: images/val\nnames: [a, b, c]\n")
    (root / "gone.yaml").write_text("train: images/train\nval: images/val\nnames: [a]\n")
    (root / "noval.yaml").write_text(f"path: {tiny_dataset.parent}\ntrain: images/train\nnames: [a, b, c]\n")
    (root / "empty").mkdir()
    return {p.name: p for p in root.iterdir()} | {
        "best.pt": lively_file,
        "dataset.yaml": tiny_dataset,
        "image": tiny_dataset.parent / "images/val/0.png",
    }


BAD = {
    "missing source": ("predict model={best.pt} source=missing.jpg", "missing.jpg: no such file"),
    "not an image": ("predict model={best.pt} source={no.jpg}", "no.jpg: is not an image"),
    "empty folder": ("predict model={best.pt} source={empty}", "no images in this folder"),
    "no source": ("predict model={best.pt}", "source"),
    "missing model": ("predict model=missing.pt source={image}", "missing.pt: no such file"),
    "official weights": ("predict model=yolov8n-seg.pt source={image}", "We ship no weights"),
    "no model": ("val data={dataset.yaml}", "model"),
    "pickle bomb": ("predict model={bomb.pt} source={image}", "bomb.pt: refused, nothing of it was executed"),
    "truncated": ("val model={truncated.pt} data={dataset.yaml}", "truncated.pt"),
    "unknown setting": ("train data={dataset.yaml} epoch=5", "unknown setting 'epoch': did you mean 'epochs'?"),
    "out of range": ("train data={dataset.yaml} lrf=7", "lrf='7': "),
    "not a number": ("train data={dataset.yaml} epochs=many", "epochs='many': "),
    "bad size": ("predict model={best.pt} source={image} imgsz=abc", "imgsz='abc': must be one number"),
    "no dataset": ("train", "which dataset?"),
    "missing yaml": ("train data=missing.yaml", "missing.yaml"),
    "broken yaml": ("train data={broken.yaml}", "broken.yaml:"),
    "no images": ("train data={gone.yaml}", "there is no"),
    "no val split": ("train data={noval.yaml}", "no 'val' entry"),
    "no coco folder": ("train data={empty}", "there is no annotations/instances_*.json"),
    "other classes": ("val model={best.pt} data={classes.yaml}", "the classes differ"),
    "remembers nothing": ("val model={best.pt}", "remembers no dataset"),
    "no device": ("predict model={best.pt} source={image} device=cuda:99", "device='cuda:99'"),
    "unknown format": ("export model={best.pt} format=onxx", "onxx"),
    "unknown among formats": ("export model={best.pt} format=onnx,onxx", "did you mean 'onnx'"),
    "export to a file's inside": ("export model={best.pt} output={no.jpg}/a.onnx", "cannot be written"),
    "data of other classes": ("export model={best.pt} data={classes.yaml}", "are not those of the network"),
    "bad opset": ("export model={best.pt} opset=12", "opset='12'"),
    "bad output": ("export model={best.pt} output=model.engine", "output=model.engine"),
    "nothing to resume": ("train model={best.pt} data={dataset.yaml} resume=true", "nothing to resume"),
    "check of nothing": ("check data=missing.yaml", "missing.yaml"),
    "bad remap": ("check data={dataset.yaml} remap=car", "write old:new pairs"),
    "a file as project": ("train data={dataset.yaml} project={no.jpg}", "cannot write there"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_message(run: Run, bad: dict[str, Path], tmp_path: Path, name: str) -> None:
    line, message = BAD[name]
    arguments = line
    for key, path in bad.items():
        arguments = arguments.replace(f"{{{key}}}", str(path))
    code, out, err = run(*arguments.split(" "))
    assert (code, out) == (1, ""), err
    assert "Traceback" not in err and err.count("yoloseg: ") == 1 and message in " ".join(err.split()), err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad"], "nothing is left behind"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everywhere")
def test_folders_without_permission(run: Run, bad: dict[str, Path], tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    code, _, err = run("train", f"data={bad['dataset.yaml']}", f"project={closed}", *TINY)
    assert code == 1 and "cannot write there" in err and "Traceback" not in err


def test_as_a_program(tmp_path: Path) -> None:
    """The real process: exit code, one line on stderr. It comes before anything heavy is loaded."""
    done = subprocess.run([sys.executable, "-m", "fiftyone_yoloseg", "trian"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "yoloseg: unknown command 'trian': did you mean 'train'?\n"


def test_several_formats_and_the_exit_code(run: Run, lively_file: Path, tmp_path: Path) -> None:
    arguments = ("export", f"model={lively_file}", f"output={tmp_path}", "imgsz=64")
    code, out, _ = run(*arguments, "format=onnx,torchscript")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 3 and lines[0].split()[0] == "format"
    assert [(line.split()[0], line.split()[-1]) for line in lines[1:]] == [("onnx", "verified"), ("torchscript", "verified")]
    code, out, _ = run(*arguments, "format=torchscript,onnx", "opset=17")
    assert code == 1 and "torchscript: opset=17 with format=torchscript" in out and (tmp_path / "best.onnx").is_file()
    code, out, _ = run("benchmark", f"model={lively_file}", "format=onnx", "imgsz=64")
    assert code == 0 and "verified" in out and not list(lively_file.parent.glob("*.onnx"))
