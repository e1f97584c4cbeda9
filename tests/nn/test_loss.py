"""Assignment and losses on cases that can be computed by hand."""

import math

import pytest
import torch

from fiftyone_yoloseg.geometry.boxes import ciou
from fiftyone_yoloseg.nn.assign import assign
from fiftyone_yoloseg.nn.head import make_anchors
from fiftyone_yoloseg.nn.loss import SegmentationLoss, _dfl, _mask_loss
from fiftyone_yoloseg.nn.model import YOLOv8Seg
from fiftyone_yoloseg.types import Batch


def batch(boxes: list[list[float]], classes: list[int], size: int = 64, images: list[int] | None = None, fill: int = 255) -> Batch:
    n = len(boxes)
    index = torch.tensor(images or [0] * n, dtype=torch.int64)
    return Batch(
        torch.zeros(int(index.max()) + 1 if n else 1, 3, size, size, dtype=torch.uint8),
        index,
        torch.tensor(classes, dtype=torch.int64),
        torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        torch.full((n, size // 4, size // 4), fill, dtype=torch.uint8),
    )


def test_ciou_by_hand() -> None:
    a, b = torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 0, 3, 2])
    # IoU 2/6; centres 1 apart, enclosing box 3 x 2; same aspect
    assert ciou(a, b).item() == pytest.approx(2 / 6 - 1 / 13, abs=1e-5)
    assert ciou(a, a).item() == pytest.approx(1, abs=1e-5)
    wide = torch.tensor([0.0, 0, 4, 2])
    v = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    expected = 0.5 - (1 / 20 + v * v / (v - 0.5 + 1))
    assert ciou(a, wide).item() == pytest.approx(expected, abs=1e-5)


def uniform_predictions(anchors: torch.Tensor, half: float, nc: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    boxes = torch.cat((anchors - half, anchors + half), 1)[None]
    return torch.full((1, nc, len(anchors)), 0.5), boxes


def test_assign_takes_the_ten_best_inside() -> None:
    anchors, _ = make_anchors([(8, 8), (4, 4), (2, 2)], torch.device("cpu"))
    scores, boxes = uniform_predictions(anchors, 24)
    gt = torch.tensor([[0.0, 0, 48, 48]])
    result = assign(scores, boxes, anchors, torch.tensor([0]), torch.tensor([1]), gt)
    assert len(result.anchor) == 10
    overlap = ciou(boxes[0], gt).clamp(min=0)
    inside = ((anchors > 0) & (anchors < 48)).all(1)
    expected = overlap.masked_fill(~inside, -1).topk(10).values.sort().values
    torch.testing.assert_close(overlap[result.anchor].sort().values, expected)
    # the best anchor's target is the best overlap
    assert result.weight.max().item() == pytest.approx(overlap[result.anchor].max().item(), abs=1e-4)


def test_a_wanted_anchor_goes_to_the_larger_overlap() -> None:
    anchors, _ = make_anchors([(8, 8), (4, 4), (2, 2)], torch.device("cpu"))
    scores, boxes = uniform_predictions(anchors, 16)
    gt = torch.tensor([[16.0, 16, 48, 48], [14.0, 14, 46, 46]])
    result = assign(scores, boxes, anchors, torch.tensor([0, 0]), torch.tensor([0, 0]), gt)
    assert len(result.anchor.unique()) == len(result.anchor)
    for anchor, owner in zip(result.anchor, result.object, strict=True):
        overlaps = ciou(boxes[0, anchor].expand(2, 4), gt)
        assert overlaps.argmax() == owner


def test_small_object_between_centres_is_learnt() -> None:
    anchors, _ = make_anchors([(8, 8), (4, 4), (2, 2)], torch.device("cpu"))
    scores, boxes = uniform_predictions(anchors, 6)
    gt = torch.tensor([[13.0, 13, 19, 19]])  # centres of the finest grid are at 12 and 20
    assert len(assign(scores, boxes, anchors, torch.tensor([0]), torch.tensor([0]), gt).anchor) > 0


def test_no_objects() -> None:
    net = YOLOv8Seg(2).train()
    losses = SegmentationLoss(net.head)(net(torch.zeros(1, 3, 64, 64)), batch([], []))
    assert losses.box == 0 and losses.seg == 0 and losses.dfl == 0 and losses.cls > 0
    SegmentationLoss(net.head).total(losses, 1).backward()
    assert net.head.proto.cv1.conv.weight.grad is not None  # DDP needs every parameter in the graph


@pytest.mark.parametrize("box", [[0.0, 0, 64, 64], [8.0, 16, 24, 20], [4.0, 4, 8, 8]])
def test_mask_loss_of_zero_logits_is_ln2(box: list[float]) -> None:
    data = batch([box], [0], fill=255)
    loss = _mask_loss(
        torch.zeros(3, 32), torch.rand(1, 32, 16, 16), torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), data
    )
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)


def test_mask_loss_ignores_everything_outside_the_box() -> None:
    data = batch([[8.0, 8, 24, 24]], [0])
    protos = torch.zeros(1, 32, 16, 16)
    reference = _mask_loss(torch.ones(1, 32), protos, torch.tensor([0]), torch.tensor([0]), data)
    protos[:, :, :2], protos[:, :, 6:] = 50, -50
    assert _mask_loss(torch.ones(1, 32), protos, torch.tensor([0]), torch.tensor([0]), data) == reference


def test_dfl_by_hand() -> None:
    """Distance 2.25 between the bins 2 and 3: cross-entropy with weights 0.75 and 0.25."""
    logits = torch.zeros(1, 4, 16)
    logits[:, :, 2] = 1.0
    log_rest = -math.log(15 + math.e)
    expected = -(0.75 * (1 + log_rest) + 0.25 * log_rest)
    box = torch.tensor([[5 - 2.25, 5 - 2.25, 5 + 2.25, 5 + 2.25]])
    assert _dfl(logits, torch.tensor([[5.0, 5.0]]), box).item() == pytest.approx(expected, abs=1e-6)


def test_loss_falls_on_one_batch() -> None:
    torch.manual_seed(0)
    net = YOLOv8Seg(2).train()
    data = batch([[8.0, 8, 40, 40], [30, 30, 60, 60]], [0, 1])
    images = torch.rand(1, 3, 64, 64)
    loss_of = SegmentationLoss(net.head)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    history = []
    for _ in range(25):
        total = loss_of.total(loss_of(net(images), data), 1)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert history[-1] < 0.5 * history[0]


def test_the_mask_loss_of_500_objects_keeps_little_memory() -> None:
    """What is kept for the backward pass follows the objects' area, not objects x grid: on a GPU that is what bounds the batch."""
    rows = [[20.0 * (i % 25), 20.0 * (i // 25), 20.0 * (i % 25) + 24, 20.0 * (i // 25) + 24] for i in range(500)]
    objects = batch(rows, [0] * 500, size=640)
    gt = torch.arange(500).repeat_interleave(10)  # ten positives an object
    coefficients, protos = torch.randn(5000, 32, requires_grad=True), torch.randn(1, 32, 160, 160, requires_grad=True)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = _mask_loss(coefficients, protos, torch.zeros(5000, dtype=torch.int64), gt, objects)
    loss.backward()
    whole_grids = 5000 * 160 * 160 * 4
    assert sum(kept.values()) < whole_grids / 20
