"""YOLOv8-seg, top to bottom. The keys of the state dict (`model.<i>. ...`) are those of the official files.

Departures from the official implementation: none in the network. Layers without weights (upsampling, concatenation) are
written in the forward pass; their places in the numbering are held by `nn.Identity`.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..types import RawOutput
from .blocks import SPPF, C2f, Conv
from .head import HeadOutput, SegmentationHead
from .scales import scale_of


class YOLOv8Seg(nn.Module):
    """Instance segmentation network.

    nc: number of classes.  size: n, s, m, l or x.
    In training mode `net(images)` returns `HeadOutput`, in eval mode `RawOutput`; images are (B, 3, H, W) RGB float in
    [0, 1], H and W multiples of 32.
    """

    def __init__(self, nc: int, size: str = "n") -> None:
        super().__init__()
        self.nc, self.size = nc, size
        scale = scale_of(size)
        c1, c2, c3, c4, c5 = (scale.channels(base) for base in (64, 128, 256, 512, 1024))
        few, many = scale.repeats(3), scale.repeats(6)
        self.model = nn.ModuleList(
            [
                Conv(3, c1, 3, 2),  # 0: stride 2
                Conv(c1, c2, 3, 2),  # 1: stride 4
                C2f(c2, c2, few, residual=True),
                Conv(c2, c3, 3, 2),  # 3: stride 8
                C2f(c3, c3, many, residual=True),
                Conv(c3, c4, 3, 2),  # 5: stride 16
                C2f(c4, c4, many, residual=True),
                Conv(c4, c5, 3, 2),  # 7: stride 32
                C2f(c5, c5, few, residual=True),
                SPPF(c5, c5),
                nn.Identity(),  # 10: upsample
                nn.Identity(),  # 11: concatenate
                C2f(c5 + c4, c4, few, residual=False),
                nn.Identity(),  # 13: upsample
                nn.Identity(),  # 14: concatenate
                C2f(c4 + c3, c3, few, residual=False),
                Conv(c3, c3, 3, 2),  # 16: stride 16
                nn.Identity(),  # 17: concatenate
                C2f(c3 + c4, c4, few, residual=False),
                Conv(c4, c4, 3, 2),  # 19: stride 32
                nn.Identity(),  # 20: concatenate
                C2f(c4 + c5, c5, few, residual=False),
                SegmentationHead(nc, (c3, c4, c5), scale.channels(256)),
            ]
        )
        self.head.init_bias()

    @property
    def head(self) -> SegmentationHead:
        head = self.model[22]
        assert isinstance(head, SegmentationHead)
        return head

    def backbone(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at strides 8, 16 and 32."""
        m = self.model
        p2 = m[2](m[1](m[0](images)))
        p3 = m[4](m[3](p2))
        p4 = m[6](m[5](p3))
        p5 = m[9](m[8](m[7](p4)))
        return p3, p4, p5

    def neck(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Path aggregation: coarse to fine, then fine to coarse. Same strides out."""
        m = self.model
        up4 = m[12](torch.cat((_upsample(p5), p4), 1))
        n3 = m[15](torch.cat((_upsample(up4), p3), 1))
        n4 = m[18](torch.cat((m[16](n3), up4), 1))
        n5 = m[21](torch.cat((m[19](n4), p5), 1))
        return n3, n4, n5

    def heads(self, images: Tensor) -> HeadOutput:
        """The raw output of the head in either mode."""
        out: HeadOutput = self.head(self.neck(*self.backbone(images)))
        return out

    def forward(self, images: Tensor) -> HeadOutput | RawOutput:
        out = self.heads(images)
        return out if self.training else self.head.decode(out)


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def fused(net: YOLOv8Seg) -> YOLOv8Seg:
    """A copy in eval mode with every batch norm folded into its convolution: same answers, fewer operations."""
    net = copy.deepcopy(net).eval()
    for module in net.modules():
        if isinstance(module, Conv):
            module.fuse()
    return net.requires_grad_(False)


def gflops(net: YOLOv8Seg, imgsz: int = 640) -> float:
    """GFLOPs of one image, counted as 2 x multiply-accumulates of all convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(net.parameters()).device
    training = net.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(torch.zeros(1, 3, imgsz, imgsz, device=device))
    net.train(training)
    return float(counter.get_total_flops()) / 1e9
