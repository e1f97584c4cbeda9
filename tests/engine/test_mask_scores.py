"""Scores of predicted masks, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fiftyone_yoloseg.config import PredictSettings
from fiftyone_yoloseg.engine.checkpoint import Checkpoint
from fiftyone_yoloseg.engine.decode import assemble_masks
from fiftyone_yoloseg.engine.devices import select_device
from fiftyone_yoloseg.engine.mask_scores import (
    SCORES,
    box_mask_gap,
    certainty_sums,
    flip_agreement,
    mask_certainty,
    mirrored,
)
from fiftyone_yoloseg.engine.predictor import Predictor
from fiftyone_yoloseg.engine.torch_backend import TorchBackend
from fiftyone_yoloseg.geometry import letterbox, masks
from fiftyone_yoloseg.types import CropMask, Instances, ModelInfo, RawOutput


def rectangle(x: int, y: int, w: int, h: int) -> CropMask:
    return masks.from_bitmap(np.ones((h, w), np.uint8), x, y)


def found(*objects: tuple[int, tuple[float, float, float, float], CropMask], width: int = 20) -> Instances:
    classes, boxes, crops = (list(column) for column in zip(*objects, strict=True)) if objects else ([], [], [])
    return Instances(
        10, width, np.array(boxes, np.float32).reshape(-1, 4), np.ones(len(crops), np.float32), np.array(classes, np.int64), crops
    )


def test_certainty_by_hand() -> None:
    """Probabilities 0.9 and 0.6 inside, 0.2 and 0.5 (logit 0: not in the mask) outside: (0.9 + 0.6) / (1 + 1 + 0.2 + 0.5)."""
    p = np.array([[0.9, 0.6], [0.2, 0.5]])
    inside, either = certainty_sums(np.log(p / (1 - p)).astype(np.float32))
    assert inside == pytest.approx(1.5) and either == pytest.approx(2.7)
    assert mask_certainty(inside, either) == pytest.approx(1.5 / 2.7)
    assert mask_certainty(*certainty_sums(np.array([[800.0, -800.0]], np.float32))) == 1.0, "no overflow"
    assert mask_certainty(*certainty_sums(np.full((2, 2), -1.0, np.float32))) == 0.0, "no pixel"


@pytest.mark.parametrize("band", [1 << 20, 7])
def test_certainty_of_assembled_masks(band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Constant logits 2 and -2 over 8 x 8 pixels each, boxes that take 6 x 8 of the first and 2 x 8 of the second; in one band of rows or many."""
    monkeypatch.setattr("fiftyone_yoloseg.engine.decode.BAND_PIXELS", band)
    protos = torch.full((1, 8, 16), 2.0)
    protos[:, :, 8:] = -2.0
    box = letterbox.fit((8, 16), (8, 16))  # prototypes at the resolution of the image
    certainties = np.zeros(2, np.float32)
    boxes = np.array([[2, 0, 10, 8], [12, 0, 14, 8]], np.float32)
    crops = assemble_masks(torch.ones(2, 1), protos, boxes, box, certainties)
    p = 1 / (1 + np.exp(-2.0))
    assert (crops[0].x, crops[0].w, crops[0].h) == (2, 6, 8) and crops[1].w == 0
    assert certainties[0] == pytest.approx(6 * p / (6 + 2 * (1 - p)), rel=1e-5) and certainties[1] == 0


def test_gap_by_hand() -> None:
    gaps = box_mask_gap(
        found(
            (0, (2, 2, 6, 6), rectangle(2, 2, 4, 4)),  # the whole box
            (0, (2, 2, 6, 6), rectangle(2, 2, 2, 4)),  # its left half
            (0, (1.5, 2, 6, 6), rectangle(2, 2, 4, 4)),  # half a pixel of 4.5
            (0, (0, 0, 3, 3), masks.EMPTY),
        )
    )
    assert gaps.tolist() == pytest.approx([0, 0.5, 0.5 / 4.5, 1])
    assert box_mask_gap(found()).shape == (0,)


def test_flip_agreement_by_hand() -> None:
    straight = found(
        (0, (2, 2, 6, 6), rectangle(2, 2, 4, 4)),
        (1, (10, 0, 14, 4), rectangle(10, 0, 4, 4)),
        (0, (0, 8, 2, 10), rectangle(0, 8, 2, 2)),
    )
    flipped = found(
        (0, (14, 2, 18, 6), rectangle(14, 2, 4, 4)),  # 20 - 2 - 4: the first, exactly
        (1, (4, 0, 8, 4), rectangle(4, 0, 4, 4)),  # 20 - 4 - 4 = 12: overlaps the second by 2 of 4 columns
        (1, (18, 8, 20, 10), rectangle(18, 8, 2, 2)),  # where the third is, of another class
    )
    assert flip_agreement(straight, flipped).tolist() == pytest.approx([1, 8 / 24, 0])
    assert flip_agreement(straight, found()).tolist() == [0, 0, 0] and flip_agreement(found(), flipped).shape == (0,)
    corner = masks.from_bitmap(np.array([[1, 0], [1, 1]]), 1, 3)
    back = masks.from_bitmap(np.array([[0, 1], [1, 1]]), 17, 3)
    assert flip_agreement(found((0, (1, 3, 3, 5), corner)), found((0, (17, 3, 19, 5), back))).tolist() == [1]


def test_a_mirrored_input_has_its_padding_on_the_other_side() -> None:
    box = letterbox.fit((50, 32), (64, 64))
    other = mirrored(box)
    assert (box.left, other.left) == (11, 12) and mirrored(other) == box
    pixels = letterbox.apply(np.random.default_rng(0).integers(0, 256, (50, 32, 3), dtype=np.uint8), box)[:, ::-1]
    assert (pixels[:, : other.left] == letterbox.PAD_VALUE).all() and (pixels[0, other.left : other.left + 41] != letterbox.PAD_VALUE).any()


def test_scores_change_nothing_else(lively_checkpoint: Checkpoint) -> None:
    """And an image that is its own mirror image agrees with itself."""
    backend = TorchBackend(lively_checkpoint.net, lively_checkpoint.info, select_device("cpu"))
    half = np.random.default_rng(1).integers(0, 256, (70, 40, 3), dtype=np.uint8)
    image = np.concatenate([half, half[:, ::-1]], 1)
    settings = PredictSettings(conf=0.3, imgsz=96)
    plain = Predictor(backend, settings).instances([image])[0]
    scored = Predictor(backend, settings, SCORES).instances([image])[0]
    assert len(plain) and plain.scores == {} and tuple(scored.scores) == SCORES
    assert scored.masks == plain.masks and (scored.confidences == plain.confidences).all()
    for values in scored.scores.values():
        assert values.shape == (len(plain),) and values.dtype == np.float32 and (values >= 0).all() and (values <= 1).all()
    assert tuple(Predictor(backend, settings, ["box_mask_gap"]).instances([image])[0].scores) == ("box_mask_gap",)


class Bright:
    """A backend that finds the bright part of an image: its box, and as mask the brightness of each cell less one half."""

    def __init__(self) -> None:
        self.info, self.device = ModelInfo({0: "a"}, (96, 96)), torch.device("cpu")

    def __call__(self, images: torch.Tensor) -> RawOutput:
        pred = torch.zeros(len(images), 4 + 1 + 32, 1)
        for i, image in enumerate(images):
            y, x = (image[0] > 0.7).nonzero(as_tuple=True)
            x1, x2, y1, y2 = int(x.min()), int(x.max()) + 1, int(y.min()), int(y.max()) + 1
            pred[i, :6, 0] = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.9, 1.0])
        protos = torch.zeros(len(images), 32, 24, 24)
        protos[:, 0] = torch.nn.functional.avg_pool2d(images[:, 0], 4) - 0.5
        return RawOutput(pred, protos)


def test_the_flipped_pass_looks_where_the_image_is() -> None:
    """An image 61 pixels wide has 17 columns of padding on its left and 18 on its right; a shift by one would leave 15 of 17 columns, an IoU of 0.88."""
    image = np.zeros((96, 61, 3), np.uint8)
    image[20:60, 4:20] = 255
    settings = PredictSettings(conf=0.5, rect=False)
    one = Predictor(Bright(), settings, ["flip_agreement"]).instances([image])[0]
    assert len(one) == 1 and one.boxes.tolist() == [[4, 20, 20, 60]] and one.scores["flip_agreement"][0] > 0.93
