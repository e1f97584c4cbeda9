"""`yoloseg compare`, `error_types` and `review` on a dataset in MongoDB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

fo = pytest.importorskip("fiftyone")

from fiftyone_yoloseg import cli  # noqa: E402
from fiftyone_yoloseg.bridge.labels import to_detection  # noqa: E402
from fiftyone_yoloseg.errors import DataError, SettingsError, UserError  # noqa: E402
from fiftyone_yoloseg.geometry import masks  # noqa: E402

SIZE = 100


def squares(*places: int, confidence: float | None = None) -> Any:
    more = {} if confidence is None else {"confidence": confidence}
    things = [to_detection(masks.from_bitmap(np.ones((20, 20)), x, 0), "cat", SIZE, SIZE, **more) for x in places]
    return fo.Detections(detections=things)


@pytest.fixture
def name(fiftyone_db: Any, tmp_path: Path) -> Iterator[str]:
    """Two objects; `a` finds the first, `b` the second, and proposals wait."""
    made = fo.Dataset()
    sample = fo.Sample(str(tmp_path / "x.png"), metadata=fo.ImageMetadata(width=SIZE, height=SIZE), ground_truth=squares(0, 40))
    sample["a"], sample["b"] = squares(0, confidence=0.9), squares(40, 70, confidence=0.8)
    sample["proposals"] = squares(72, confidence=0.4)
    made.add_sample(sample)
    yield made.name
    made.delete()


def test_compare(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["compare", f"dataset={name}", "first=a", "second=b", "samples=10"])
    out = capsys.readouterr().out
    assert "'b' against 'a': 1 fixed, 1 broken, 0 right, 0 wrong; false positives 0 -> 1" in out
    assert ["cat", "1", "1", "0", "0"] in [line.split() for line in out.splitlines()] and "saved view: compare: fixed" in out
    assert ["(small)", "1", "1", "0", "0"] in [line.split() for line in out.splitlines()]
    cli.run(["compare", f"dataset={name}", "view=compare: fixed", "first=a", "second=b", "more=proposals", "key=none", "samples=10"])
    assert "'proposals' against 'a'" in capsys.readouterr().out


def test_error_types(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["error_types", f"dataset={name}", "pred_field=b", f"report={tmp_path / 'errors.html'}"])
    out = capsys.readouterr().out
    assert ["missed", "1", "50.0%"] in [line.split()[:3] for line in out.splitlines()] and "saved view: error: missed" in out
    assert out.splitlines()[-1] == str(tmp_path / "errors.html") and (tmp_path / "errors.html").is_file()


def test_review(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = fo.load_dataset(name)
    cli.run(["review", f"dataset={name}", "action=accept", "field=proposals", "min_confidence=0.5"])
    assert "0 objects moved" in capsys.readouterr().out and dataset.count("ground_truth.detections") == 2
    cli.run(["review", f"dataset={name}", "action=accept", "field=proposals", "min_confidence=0.3"])
    assert "1 objects moved to ground_truth" in capsys.readouterr().out.replace("`", "") and dataset.count("ground_truth.detections") == 3
    cli.run(["review", f"dataset={name}", "field=proposals"])
    assert "1 samples: 0 with objects that wait" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ("compare dataset=nope first=a second=b", DataError, "no such FiftyOne dataset"),
        ("compare dataset={} first=a second=a", DataError, "'a' is given twice"),
        ("compare dataset={} first=a second=b iou=0", SettingsError, "iou='0'"),
        ("error_types dataset={} pred_feild=b", SettingsError, "did you mean 'pred_field'"),
        ("error_types dataset={} key=label pred_field=b", UserError, "that is not ours"),
        ("review dataset={} action=accept edited=true", SettingsError, "edited: is for action=reject, not for accept"),
        ("review dataset={} action=prelabel", SettingsError, "needs a checkpoint"),
        ("review dataset={} action=agree", SettingsError, "action='agree'"),
    ],
)
def test_refusals(name: str, arguments: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cli.run(arguments.format(name).split(" "))
