"""The network against the published and computed numbers of YOLOv8-seg."""

import math

import pytest
import torch

from fiftyone_yoloseg.errors import SettingsError
from fiftyone_yoloseg.nn.model import YOLOv8Seg, fused, gflops

# size: parameters, fused parameters, state-dict entries, Conv+BN units, GFLOPs of the convolutions at 640
SIZES = {
    "n": (3_409_968, 3_404_320, 417, 66, 12.00),
    "s": (11_821_056, 11_810_560, 417, 66, 40.09),
    "m": (27_285_968, 27_268_704, 537, 86, 104.54),
    "l": (45_997_728, 45_973_568, 657, 106, 210.39),
    "x": (71_827_888, 71_797_696, 657, 106, 328.36),
}


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("size", SIZES)
def test_counts(size: str) -> None:
    parameters, _, entries, units, flops = SIZES[size]
    with torch.device("meta"):
        net = YOLOv8Seg(80, size)
    assert count(net) == parameters
    assert len(net.state_dict()) == entries
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules()) == units
    assert gflops(net) == pytest.approx(flops, abs=0.006)


@pytest.mark.parametrize("size", ["n", "s"])
def test_fused_counts_and_answers(size: str) -> None:
    torch.manual_seed(0)
    net = YOLOv8Seg(80, size).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    lean = fused(net)
    assert count(lean) == SIZES[size][1]
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for ours, reference in zip(lean(images), net(images), strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)


def test_known_keys_and_shapes() -> None:
    state = YOLOv8Seg(80, "n").state_dict()
    shapes = {
        "model.0.conv.weight": (16, 3, 3, 3),
        "model.2.cv1.conv.weight": (32, 32, 1, 1),
        "model.2.cv2.conv.weight": (32, 48, 1, 1),
        "model.2.m.0.cv1.conv.weight": (16, 16, 3, 3),
        "model.9.cv2.conv.weight": (256, 512, 1, 1),
        "model.22.cv2.0.2.weight": (64, 64, 1, 1),
        "model.22.cv3.0.2.weight": (80, 80, 1, 1),
        "model.22.cv4.1.0.conv.weight": (32, 128, 3, 3),
        "model.22.proto.upsample.weight": (64, 64, 2, 2),
        "model.22.proto.cv3.conv.weight": (32, 64, 1, 1),
        "model.22.dfl.conv.weight": (1, 16, 1, 1),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    assert state["model.22.dfl.conv.weight"].flatten().tolist() == list(range(16))


def test_initial_biases() -> None:
    head = YOLOv8Seg(3, "n").head
    for tower, stride in zip(head.cv3, (8, 16, 32), strict=True):
        torch.testing.assert_close(tower[-1].bias, torch.full((3,), math.log(5 / 3 / (640 / stride) ** 2)))
    assert all(torch.all(tower[-1].bias == 1) for tower in head.cv2)


def test_output_shapes_at_640() -> None:
    with torch.device("meta"):
        net = YOLOv8Seg(80, "n").eval()
        pred, protos = net(torch.zeros(1, 3, 640, 640))
    assert pred.shape == (1, 4 + 80 + 32, 8400)
    assert protos.shape == (1, 32, 160, 160)


def test_decode_by_hand() -> None:
    """Box logits with all mass on bins 1, 2, 3, 4 give those distances, in strides, around the cell centre."""
    net = YOLOv8Seg(2, "n").eval()
    with torch.no_grad():
        out = net.heads(torch.zeros(1, 3, 32, 64))
        logits = torch.zeros_like(out.distances).view(1, 4, 16, -1)
        for side, bin_ in enumerate((1, 2, 3, 4)):
            logits[:, side, bin_] = 100
        out = out._replace(distances=logits.view(1, 64, -1))
        boxes = net.head.boxes(out)[0]
        pred = net.head.decode(out).pred[0]
    # anchor 9: level of stride 8, row 1, column 1 -> centre (12, 12)
    assert boxes[9].tolist() == pytest.approx([12 - 8, 12 - 16, 12 + 24, 12 + 32])
    assert pred[:4, 9].tolist() == pytest.approx([20, 20, 32, 48])
    # last anchor: stride 32, second cell -> centre (48, 16)
    assert boxes[-1].tolist() == pytest.approx([48 - 32, 16 - 64, 48 + 96, 16 + 128])


def test_unknown_size() -> None:
    with pytest.raises(SettingsError, match="n, s, m, l, x"):
        YOLOv8Seg(1, "z")
