"""The numbers behind the plots, the pictures themselves, and that drawing changes nothing of a training."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from test_metrics import LARGE, MEDIUM, SMALL, image, predictions, rectangle, score

from fiftyone_yoloseg.config import TrainSettings, ValSettings
from fiftyone_yoloseg.data.images import image_size, read_image
from fiftyone_yoloseg.data.synthetic import write_synthetic
from fiftyone_yoloseg.engine.checkpoint import Checkpoint, new_checkpoint
from fiftyone_yoloseg.engine.events import EpochInfo, Phase, RunInfo
from fiftyone_yoloseg.engine.matching import match
from fiftyone_yoloseg.engine.pinned import pictures_of
from fiftyone_yoloseg.engine.plots import ResultsPlot, canvas, confusion, curves, labels, pictures, plot_validation, results, samples
from fiftyone_yoloseg.engine.runlog import COLUMNS, ResultsCsv
from fiftyone_yoloseg.engine.torch_backend import TorchBackend
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.engine.validator import validate
from fiftyone_yoloseg.types import Batch, Instances, SegmentationData

FINAL = ("pr_curves", "f1_curves", "confusion_matrix", "confusion_matrix_normalized", "val_pictures")


# numbers


def test_label_statistics() -> None:
    """Images of 200 x 200 px, at 100 px training size: sides halve. Crowds do not count."""
    found = labels.label_statistics([image((0, SMALL), (2, LARGE), crowds=((1, MEDIUM),)), image()], 3, 100)
    assert found.counts.tolist() == [1, 0, 1]
    assert found.centres == pytest.approx(np.array([[0.05, 0.05], [0.7, 0.7]])) and found.sizes == pytest.approx(
        np.array([[0.1, 0.1], [0.5, 0.5]])
    )
    assert found.sides == pytest.approx([10, 50]), "of squares of 20 and 100 px"
    empty = labels.label_statistics([], 2, 100)
    assert empty.counts.tolist() == [0, 0] and empty.centres.shape == (0, 2) and empty.sides.shape == (0,)


def test_the_largest_classes_and_the_others() -> None:
    assert canvas.largest(np.array([1, 5, 3]), 3) == ([0, 1, 2], []), "in their own order while all are shown"
    assert canvas.largest(np.array([1, 5, 3, 5]), 2) == ([1, 3], [2, 0])
    assert canvas.class_labels({0: "a", 1: "b" * 40, 2: "c"}, [1], [0, 2]) == ["b" * 17 + "…", "2 others"]


def test_condensed_confusions_lose_nothing() -> None:
    counts = np.array([[5, 1, 0, 2], [0, 1, 1, 0], [0, 0, 3, 4], [1, 2, 0, 0]])  # 3 classes and the background
    small, shown, others = confusion.condense(counts, most=1)
    assert (shown, others) == ([0], [2, 1])
    assert small.tolist() == [[5, 1, 2], [0, 5, 4], [1, 2, 0]] and small.sum() == counts.sum()
    assert confusion.condense(counts)[0].tolist() == counts.tolist()
    assert confusion.shares(small) == pytest.approx(np.array([[5 / 8, 1 / 8, 2 / 8], [0, 5 / 9, 4 / 9], [1 / 3, 2 / 3, 0]]))
    assert confusion.shares(np.zeros((2, 2), np.int64)).tolist() == [[0, 0], [0, 0]]


def test_curves_of_half_of_the_objects_missed() -> None:
    metrics = score((image((0, MEDIUM), (0, LARGE)), predictions((0, LARGE, 0.9))))
    for scores in (metrics.box, metrics.seg):
        c = scores.curves
        assert c.pr[0] == pytest.approx([1] * 51 + [0] * 50) and np.isnan(c.pr[1]).all() and np.isnan(c.f1[1]).all()
        below = np.linspace(0, 1, 1000) <= np.float32(0.9)
        assert c.precision[0] == pytest.approx(below.astype(float)) and c.recall[0] == pytest.approx(below / 2)
        assert c.f1[0] == pytest.approx(below * 2 / 3)
        assert curves.class_mean(c.pr) == pytest.approx(c.pr[0]) and c.pr[0].mean() == pytest.approx(scores.map50)
    assert np.isnan(curves.class_mean(np.full((2, 5), np.nan))).all()


def row(epoch: int, box: float | None, mask: float | None = None) -> dict[str, Any]:
    got = {"epoch": epoch, "time": float(epoch), "train/box_loss": 1.5}
    return got if box is None else {**got, "metrics/mAP50-95(B)": box, "metrics/mAP50-95(M)": box if mask is None else mask}


def test_results_are_read_back(tmp_path: Path) -> None:
    table = ResultsCsv(tmp_path / "results.csv")
    table.add(row(1, None))
    assert results.best_epoch(results.with_fitness(table.path)) is None
    for values in (row(2, 0.5, 0.25), row(3, 0.25, 0.5), row(4, 0.1)):
        table.add(values)
    read = results.with_fitness(table.path)
    assert set(read) == {*COLUMNS, "fitness"} and read["epoch"].tolist() == [1, 2, 3, 4] and read["train/box_loss"].tolist() == [1.5] * 4
    assert np.isnan(read["fitness"][0]) and read["fitness"][1:] == pytest.approx([0.75, 0.75, 0.2])
    assert results.best_epoch(read) == 3, "a tie counts as better"


def test_which_images_are_shown() -> None:
    assert samples.spread(3) == [0, 1, 2] and samples.spread(8) == list(range(8)) and samples.spread(80) == list(range(0, 80, 10))
    perfect, missed, wrong = (
        match(image((0, LARGE)), found, 0.5)
        for found in (predictions((0, LARGE, 0.9)), predictions(), predictions((0, SMALL, 0.9), (0, MEDIUM, 0.8)))
    )
    assert samples.worst({0: perfect, 1: missed, 2: wrong, 3: missed}) == [2, 1, 3, 0], "of equal quality, more mistakes first"
    assert samples.worst({0: perfect, 1: missed}, 1) == [1]


# pictures


def test_shapes_are_drawn_where_they_are() -> None:
    """A black picture twice as wide as high, its left half covered: white above and below, tinted left, untouched right."""
    cover = np.zeros((4, 8), np.uint8)
    cover[:, :4] = 255
    sheet = pictures.draw(np.zeros((50, 100, 3), np.uint8), [pictures.Shape(cover, "#ff0000", "")], 200)
    assert sheet.shape == (200, 200, 3) and (sheet[:50] == 255).all() and (sheet[150:] == 255).all()
    assert sheet[100, 50].tolist() == [102, 0, 0] and (sheet[55:145, 110:] == 0).all()
    assert sheet[100, 99].tolist() == [255, 0, 0], "its outline"


def test_small_shapes_lie_above_large_ones() -> None:
    large, small = np.full((10, 10), 255, np.uint8), np.zeros((10, 10), np.uint8)
    small[3:7, 3:7] = 255
    shapes = [pictures.Shape(small, "#0000ff", ""), pictures.Shape(large, "#ff0000", "")]
    sheet = pictures.draw(np.zeros((10, 10, 3), np.uint8), shapes, 100)
    assert sheet[50, 50, 2] > sheet[50, 50, 0] > 0 and sheet[15, 15].tolist() == [102, 0, 0]


@given(st.lists(st.tuples(st.integers(-20, 330), st.integers(-20, 330), st.text(min_size=1, max_size=12)), max_size=25))
def test_names_never_cover_each_other(wanted: list[tuple[int, int, str]]) -> None:
    placed: list[tuple[int, int, int, int]] = []
    for x, y, text in wanted:
        pictures._place(canvas.short(text), (x, y, x + 40, y + 30), 320, 320, placed)
    for i, a in enumerate(placed):
        assert a[0] >= 0 and a[1] >= 0 and a[3] <= 320
        assert all(a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for b in placed[i + 1 :])


def test_a_batch_is_drawn(tmp_path: Path) -> None:
    """Two images of eighteen have objects; sixteen are shown, four a row."""
    covers = torch.zeros(2, 16, 16, dtype=torch.uint8)
    covers[:, 4:12, 4:12] = 255
    batch = Batch(
        torch.full((18, 3, 64, 64), 200, dtype=torch.uint8), torch.tensor([0, 17]), torch.tensor([0, 1]), torch.tensor([[16.0, 16, 48, 48]] * 2), covers
    )  # fmt: skip
    before = [t.clone() for t in (batch.images, batch.masks)]
    samples.plot_batch(0, batch, {0: "Größe", 1: "狗"}, tmp_path / "b.png")
    assert torch.equal(batch.images, before[0]) and torch.equal(batch.masks, before[1]), "the network gets what it would have got"
    sheet = read_image(tmp_path / "b.png")
    assert sheet.shape == (34 + 4 * 326, 4 * 332 + 6, 3)
    middle = sheet[34 + 160 :: 326, 6 + 160 :: 332].reshape(-1, 3).tolist()
    assert middle.count([200, 200, 200]) == 15 and middle[0] == [120, 165, 191], "blue over grey"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    kept: list[Figure] = []
    original = canvas.save

    def save(made: Figure, path: Path) -> None:
        original(made, path)
        kept.append(made)

    for module in (labels, curves, confusion, results):
        monkeypatch.setattr(module, "save", save)
    return kept


def texts(made: Figure) -> list[tuple[str, Any]]:
    """Texts that are drawn, and where they stand, in pixels."""
    renderer = made.canvas.get_renderer()  # type: ignore[attr-defined]
    ticks = [tick for axes in made.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis._update_ticks()]
    hidden = {id(label) for axes in made.axes for axis in (axes.xaxis, axes.yaxis) for label in axis.findobj(Text)}
    shown = {id(label) for tick in ticks for label in (tick.label1, tick.label2)}
    shown |= {id(axis.label) for axes in made.axes for axis in (axes.xaxis, axes.yaxis)}
    found = made.findobj(
        lambda a: isinstance(a, Text) and a.get_visible() and a.get_text().strip() and (id(a) not in hidden or id(a) in shown)
    )
    return [(text.get_text(), text.get_window_extent(renderer)) for text in found]


def overlapping(made: Figure) -> list[tuple[str, str]]:
    boxes = texts(made)
    assert len(boxes) > 10
    return [
        (t, u)
        for i, (t, a) in enumerate(boxes)
        for u, b in boxes[i + 1 :]
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1 and (t, a.bounds) != (u, b.bounds)
    ]


@pytest.mark.parametrize("nc", [1, 3, 80])
def test_no_text_covers_another(nc: int, drawn: list[Figure], tmp_path: Path) -> None:
    names = {i: ("_of $3", "a \n class of long name, number", "$\\frac$ é")[i % 3] + f" {i}" for i in range(nc)}
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 30_000, (nc + 1, nc + 1))  # with the others together, tens of millions
    records = [image(*((c, rectangle(3 * c % 150, c, 20, 30)) for c in range(nc)))]
    confusion.plot_confusion(counts, names, 0.25, tmp_path / "c.png", normalized=False)
    confusion.plot_confusion(counts, names, 0.25, tmp_path / "n.png", normalized=True)
    labels.plot_labels(records * 3, records, names, 640, tmp_path / "l.png")
    assert [overlapping(made) for made in drawn] == [[], [], []]
    for made, name in zip(drawn, ("c", "n", "l"), strict=True):
        width, height = made.canvas.get_width_height()
        assert image_size(tmp_path / f"{name}.png") == (height, width) and width <= 1600
        outside = [t for t, b in texts(made) if (b.x0 < -1 or b.x1 > width + 1 or b.y0 < -1 or b.y1 > height + 1)]
        assert outside == []


def test_results_mark_the_end_of_mosaic(drawn: list[Figure], tmp_path: Path) -> None:
    table = ResultsCsv(tmp_path / "results.csv")
    for epoch in range(1, 6):
        table.add(
            {**row(epoch, epoch / 10), **{f"{kind}/{n}_loss": 1 / epoch for kind in ("train", "val") for n in ("box", "seg", "cls", "dfl")}}
        )
    results.plot_results(table.path, [Phase(4, "no mosaic")], tmp_path / "results.png")
    assert image_size(tmp_path / "results.png") == (860, 1600)
    panels = drawn[0].axes
    assert len(panels) == 8
    for axes in panels:
        marks = [line for line in axes.lines if line.get_linestyle() == "--" and line.get_xdata()[0] == 3.5]
        assert len(marks) == 1 and marks[0].get_label() == "from epoch 4: no mosaic", axes.get_title(loc="left")
    assert panels[0].lines[0].get_ydata().tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5], rel=1e-5)
    assert "best.pt: epoch 5, 1.000" in [
        text.get_text() for axes in panels for text in (axes.get_legend().get_texts() if axes.get_legend() else ())
    ]


def test_validation_plots_without_objects_or_predictions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), np.zeros((200, 200, 3), np.uint8))
    empty, one = image(), image((0, LARGE))
    for record in (empty, one):
        object.__setattr__(record, "path", path)
    plot_validation([empty], {0: predictions()}, score((empty, predictions())), tmp_path / "none")
    assert not (tmp_path / "none").exists() and "no object" in caplog.text
    plot_validation([one], {0: predictions()}, score((one, predictions())), tmp_path / "missed")
    assert sorted(p.stem for p in (tmp_path / "missed").iterdir()) == sorted(FINAL)


# in a training


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    return write_synthetic(tmp_path_factory.mktemp("data"), train=4, val=2)


def options(project: Path, **changes: Any) -> TrainSettings:
    tiny = {"imgsz": 32, "batch": 2, "epochs": 2, "workers": 0, "device": "cpu", "project": project, "close_mosaic": 1}
    return TrainSettings(**{**tiny, **changes})


def fresh(data: SegmentationData) -> Checkpoint:
    return new_checkpoint("yolov8n-seg.yaml", dict(data.names))


def test_drawing_changes_nothing(data: SegmentationData, tmp_path: Path) -> None:
    plain, drawn = (train(fresh(data), data, options(tmp_path / str(plots), plots=plots)) for plots in (False, True))
    assert not list(plain.dir.glob("*.png"))
    expected = {"labels", "results", "train_batch0", "train_batch1", *FINAL}
    assert {p.stem for p in drawn.dir.glob("*.png")} == expected and not list(drawn.dir.glob(".*"))
    assert not pictures_of(plain.dir) and list(pictures_of(drawn.dir)) == [1, 2]
    assert all(min(image_size(p)) > 300 for p in drawn.dir.glob("*.png"))
    weights = [torch.load(r.last, weights_only=True)["model"] for r in (plain, drawn)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    tables = []
    for result in (plain, drawn):
        with (result.dir / "results.csv").open(newline="") as file:
            tables.append([{k: v for k, v in line.items() if k != "time"} for line in csv.DictReader(file)])
    assert tables[0] == tables[1] and len(tables[0]) == 2


def test_validation_with_plots(data: SegmentationData, tmp_path: Path) -> None:
    checkpoint = fresh(data)
    checkpoint.imgsz = 32
    backend = TorchBackend(checkpoint.net, checkpoint.info, torch.device("cpu"))
    settings = ValSettings(batch=2, workers=0, max_det=5)
    plain = validate(backend, data.splits["val"], data.names, settings)
    drawn = validate(backend, data.splits["val"], data.names, settings.model_copy(update={"plots": True, "project": tmp_path}))
    assert plain.results_dict == drawn.results_dict
    assert sorted(p.name for p in (tmp_path / "val").iterdir()) == sorted(f"{name}.png" for name in FINAL)


def test_figures_survive_a_plot_that_fails(
    data: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("fiftyone_yoloseg.engine.plots.plot_validation", fail)
    start = fresh(data)
    backend = TorchBackend(start.net, start.info, torch.device("cpu"))
    settings = ValSettings(imgsz=64, workers=0, plots=True, project=tmp_path)
    metrics = validate(backend, data.splits["val"], data.names, settings)
    assert metrics.images == len(data.splits["val"])
    assert "are not complete" in caplog.text and "no space left on device" in caplog.text


def test_curves_are_redrawn_for_next_to_none_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of ten seconds and a drawing of half a second: again after 100 seconds, that is half a percent."""
    now, calls = 0.0, []

    def plot(*_: Any) -> None:
        nonlocal now
        calls.append(now)
        now += 0.5

    monkeypatch.setattr("fiftyone_yoloseg.engine.plots.plot_results", plot)
    monkeypatch.setattr("fiftyone_yoloseg.engine.plots.time.monotonic", lambda: now)
    listener = ResultsPlot()
    listener.on_run_start(RunInfo(tmp_path, TrainSettings(), {0: "a"}, [], [], 1))
    for epoch in range(1, 41):
        now += 10
        listener.on_epoch_end(EpochInfo(epoch, 40, {}, None, False))
    assert calls == pytest.approx([110, 220.5, 331])
    listener.on_run_failed(KeyboardInterrupt())
    assert len(calls) == 4


def test_matplotlib_is_loaded_late_and_its_state_left_alone() -> None:
    code = (
        "import sys\n"
        "import fiftyone_yoloseg.engine.train, fiftyone_yoloseg.api\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import fiftyone_yoloseg.engine.plots as plots\n"
        "from pathlib import Path\n"
        "import tempfile, matplotlib\n"
        "before = dict(dict.items(matplotlib.rcParams))\n"  # reading it the usual way chooses a backend
        "plots.plot_labels([], [], {0: 'a'}, 64, Path(tempfile.mkdtemp()) / 'a.png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules and dict(dict.items(matplotlib.rcParams)) == before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]


def test_found_objects_are_those_of_the_best_checkpoint(data: SegmentationData, tmp_path: Path) -> None:
    """What the last validation found is what the pictures and confusions show."""
    shown: dict[int, Instances] = {}
    checkpoint = fresh(data)
    checkpoint.imgsz = 32
    backend = TorchBackend(checkpoint.net, checkpoint.info, torch.device("cpu"))
    metrics = validate(backend, data.splits["val"], data.names, ValSettings(batch=2, workers=0, max_det=5), on_image=shown.__setitem__)
    assert sorted(shown) == [0, 1] and metrics.images == 2
    assert all((shown[i].height, shown[i].width) == (r.height, r.width) for i, r in enumerate(data.splits["val"]))
