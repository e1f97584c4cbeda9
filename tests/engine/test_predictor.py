"""Prediction on arrays: order, grouping, input sizes, and artifacts that take one shape only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fiftyone_yoloseg.config import PredictSettings, ValSettings
from fiftyone_yoloseg.data.synthetic import NAMES, write_synthetic
from fiftyone_yoloseg.engine.predictor import Predictor, Stopwatch, input_size, run
from fiftyone_yoloseg.engine.validator import check_names, validate
from fiftyone_yoloseg.errors import DataError, SettingsError
from fiftyone_yoloseg.types import ModelInfo, RawOutput


class Brightness:
    """A backend that finds one object an image: its confidence tells the image's red level, its box is the whole input."""

    def __init__(self, imgsz: tuple[int, int] = (96, 96), dynamic: bool = True, batch: int = 1) -> None:
        self.info, self.device = ModelInfo({0: "a", 1: "b"}, imgsz, dynamic=dynamic, batch=batch), torch.device("cpu")
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images: torch.Tensor) -> RawOutput:
        count, _, height, width = images.shape
        self.shapes.append(tuple(images.shape))
        if not self.info.dynamic:
            assert tuple(images.shape) == (self.info.batch, 3, *self.info.imgsz)
        assert images.dtype == torch.float32 and images.min() >= 0 and images.max() <= 1
        pred = torch.zeros(count, 4 + 2 + 32, 2)
        pred[:, :4, 0] = torch.tensor([width / 2, height / 2, width, height])
        pred[:, 4, 0] = images[:, 0, height // 2, width // 2]
        pred[:, 6, 0] = 1
        protos = torch.zeros(count, 32, height // 4, width // 4)
        protos[:, 0] = 1
        return RawOutput(pred, protos)


def flat(level: int, height: int, width: int) -> np.ndarray[Any, Any]:
    return np.full((height, width, 3), (level, 0, 0), np.uint8)


SIZES = [(60, 100), (100, 60), (96, 96), (60, 100), (33, 200), (100, 60), (60, 100)]
IMAGES = [flat(100 + 20 * i, h, w) for i, (h, w) in enumerate(SIZES)]


@pytest.mark.parametrize("batch", [1, 2, 16])
@pytest.mark.parametrize("rect", [True, False])
def test_images_of_any_sizes_keep_their_order(batch: int, rect: bool) -> None:
    backend = Brightness()
    predictor = Predictor(backend, PredictSettings(batch=batch, rect=rect))
    found = predictor.instances(IMAGES)
    assert [f.confidences[0] for f in found] == pytest.approx([(100 + 20 * i) / 255 for i in range(7)], abs=1e-6)
    assert [(f.height, f.width) for f in found] == SIZES
    for f, (h, w) in zip(found, SIZES, strict=True):
        assert f.boxes.tolist() == [[0, 0, w, h]] and f.masks[0].box == (0, 0, w, h), "the padding is cut off"
    assert max(s[0] for s in backend.shapes) <= batch and sum(s[0] for s in backend.shapes) == 7
    expected = {(64, 96), (96, 64), (96, 96), (32, 96)} if rect else {(96, 96)}
    assert {s[2:] for s in backend.shapes} == expected
    assert predictor.watch.images == 7 and set(predictor.watch.speed()) == {"preprocess", "inference", "postprocess"}
    assert all(ms > 0 for ms in predictor.watch.speed().values())


def test_images_of_one_size_go_together() -> None:
    backend = Brightness()
    Predictor(backend, PredictSettings(batch=2, rect=True)).instances(IMAGES)
    assert sorted(s[0] for s in backend.shapes if s[2:] == (64, 96)) == [1, 2]
    assert len(backend.shapes) == 5


def test_no_images() -> None:
    backend = Brightness()
    assert Predictor(backend).instances([]) == [] and backend.shapes == []


def test_settings_reach_the_decoder() -> None:
    backend = Brightness()
    assert [len(f) for f in Predictor(backend, PredictSettings(conf=0.6)).instances(IMAGES)] == [0, 0, 0, 1, 1, 1, 1]
    assert not any(map(len, Predictor(backend, PredictSettings(classes=(1,))).instances(IMAGES)))


def test_another_size_can_be_asked_of_a_dynamic_model() -> None:
    backend = Brightness()
    Predictor(backend, PredictSettings(imgsz=(64, 160), rect=False)).instances(IMAGES[:1])
    assert backend.shapes == [(1, 3, 64, 160)]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_fixed_artifact_gets_exactly_its_shape(batch: int) -> None:
    """Batch 2, whatever the settings say; the last batch is filled up, and what was filled in is thrown away."""
    backend = Brightness((64, 96), dynamic=False, batch=2)
    found = Predictor(backend, PredictSettings(batch=batch)).instances(IMAGES[:5])
    assert set(backend.shapes) == {(2, 3, 64, 96)}
    assert [f.confidences[0] for f in found] == pytest.approx([(100 + 20 * i) / 255 for i in range(5)], abs=1e-6)


def test_run_splits_and_fills() -> None:
    backend = Brightness((32, 32), dynamic=False, batch=2)
    images = torch.rand(5, 3, 32, 32)
    raw = run(backend, images)
    assert raw.pred.shape[0] == raw.protos.shape[0] == 5 and len(backend.shapes) == 3
    assert torch.equal(raw.pred[:, 4, 0], images[:, 0, 16, 16])


def test_a_fixed_artifact_refuses_another_size() -> None:
    backend = Brightness((64, 96), dynamic=False)
    assert Predictor(backend, PredictSettings(imgsz=(64, 96))).size == (64, 96)
    with pytest.raises(SettingsError, match=r"imgsz=\(96, 96\): this exported model takes only 64x96; .* dynamic=true"):
        Predictor(backend, PredictSettings(imgsz=96))
    assert input_size(Brightness().info, None) == (96, 96) and input_size(Brightness().info, (64, 64)) == (64, 64)


def test_stopwatch_without_images() -> None:
    assert Stopwatch(torch.device("cpu")).speed() == {"preprocess": 0, "inference": 0, "postprocess": 0}


# validation


class ThreeClasses(Brightness):
    """With the classes of the synthetic data."""

    def __init__(self, dynamic: bool = True, batch: int = 1) -> None:
        super().__init__(dynamic=dynamic, batch=batch)
        self.info = replace(self.info, names=dict(NAMES))

    def __call__(self, images: torch.Tensor) -> RawOutput:
        raw = super().__call__(images)
        return RawOutput(torch.cat((raw.pred[:, :5], raw.pred[:, 5:6], raw.pred[:, 5:]), 1), raw.protos)


def test_validation_goes_through_every_image_once(tmp_path: Any) -> None:
    data = write_synthetic(tmp_path, train=1, val=5)
    told: list[float] = []
    for backend in (ThreeClasses(), ThreeClasses(dynamic=False, batch=2)):
        seen: list[list[int]] = []
        metrics = validate(
            backend,
            data.splits["val"],
            data.names,
            ValSettings(workers=0, batch=2),
            progress=lambda share, _: told.append(share),
            observer=lambda batch, seen=seen: seen.append(batch.indices),  # type: ignore[misc]
        )
        assert sorted(i for part in seen for i in part) == list(range(5)) and metrics.images == 5
        assert metrics.objects == sum(len(r.instances) for r in data.splits["val"]) and metrics.speed["inference"] > 0
    assert told[-1] == 1


def test_validation_refuses_what_it_cannot_score() -> None:
    backend = Brightness()
    with pytest.raises(DataError, match="no images"):
        validate(backend, [], {0: "a", 1: "b"})
    with pytest.raises(DataError, match="the model does not know 'c'"):
        check_names({0: "a", 1: "b"}, {0: "a", 1: "c"})
    with pytest.raises(DataError, match="another order"):
        check_names({0: "a", 1: "b"}, {0: "b", 1: "a"})
    check_names({0: "a", 1: "b"}, {0: "a", 1: "b"})
