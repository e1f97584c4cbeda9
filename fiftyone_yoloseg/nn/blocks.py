"""Building blocks. Submodule names are those of the official files, so that their weights fit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BN_EPS, BN_MOMENTUM = 1e-3, 0.03


class Conv(nn.Module):
    """Convolution without bias, batch norm, SiLU. (B, c_in, H, W) -> (B, c_out, H/stride, W/stride)."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c_out, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the batch norm, in its eval form, into the convolution."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = nn.utils.fusion.fuse_conv_bn_eval(self.conv, self.bn)
            self.bn = nn.Identity()


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, with a residual connection if asked. (B, c, H, W) -> (B, c, H, W)."""

    def __init__(self, channels: int, residual: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 3)
        self.cv2 = Conv(channels, channels, 3)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.residual else y


class C2f(nn.Module):
    """Cross-stage block: half the channels pass by, half go through n bottlenecks, every stage is kept."""

    def __init__(self, c_in: int, c_out: int, repeats: int, residual: bool) -> None:
        super().__init__()
        hidden = c_out // 2
        self.cv1 = Conv(c_in, 2 * hidden)
        self.cv2 = Conv((2 + repeats) * hidden, c_out)
        self.m = nn.ModuleList(Bottleneck(hidden, residual) for _ in range(repeats))

    def forward(self, x: Tensor) -> Tensor:
        pieces = list(self.cv1(x).chunk(2, 1))
        for bottleneck in self.m:
            pieces.append(bottleneck(pieces[-1]))
        out: Tensor = self.cv2(torch.cat(pieces, 1))
        return out


class SPPF(nn.Module):
    """Pyramid pooling: three chained 5x5 max-pools see 5, 9 and 13 cells around."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.cv1 = Conv(c_in, c_in // 2)
        self.cv2 = Conv(c_in // 2 * 4, c_out)
        self.m = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        pieces = [self.cv1(x)]
        for _ in range(3):
            pieces.append(self.m(pieces[-1]))
        out: Tensor = self.cv2(torch.cat(pieces, 1))
        return out


class Proto(nn.Module):
    """Mask prototypes at twice the resolution of the input. (B, c_in, H, W) -> (B, masks, 2H, 2W). Bolya et al., arXiv 1904.02689."""

    def __init__(self, c_in: int, hidden: int, masks: int) -> None:
        super().__init__()
        self.cv1 = Conv(c_in, hidden, 3)
        self.upsample = nn.ConvTranspose2d(hidden, hidden, 2, 2)
        self.cv2 = Conv(hidden, hidden, 3)
        self.cv3 = Conv(hidden, masks)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv3(self.cv2(self.upsample(self.cv1(x))))
        return out


class DFL(nn.Module):
    """Expectation over distance bins. (B, 4 * bins, A) logits -> (B, 4, A) distances in bins. Li et al., arXiv 2006.04388.

    A convolution with fixed weights 0..bins-1, because official files hold it as a parameter and it exports well.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.conv = nn.Conv2d(bins, 1, 1, bias=False)
        self.conv.weight.requires_grad_(False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.arange(bins).view(1, bins, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, anchors = x.shape
        shares = x.view(batch, 4, self.bins, anchors).transpose(1, 2).softmax(1)
        out: Tensor = self.conv(shares).view(batch, 4, anchors)
        return out
