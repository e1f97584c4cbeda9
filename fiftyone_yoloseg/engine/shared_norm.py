"""Batch normalisation over the images of all processes: what one process would compute from the whole batch.

Written out instead of torch.nn.SyncBatchNorm, which refuses CPU tensors, so that one code serves GPUs and CPUs and is tested on the latter. Messages: one
gathering of (mean, variance, count) forward, one sum backward. State dict and parameters stay those of BatchNorm2d.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SharedNorm(nn.BatchNorm2d):
    """Over all processes of `group` while it trains, a plain BatchNorm2d otherwise. Each process has to call it, without images too."""

    group: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.BatchNorm2d:
        """A copy is a plain one: it belongs to one process."""
        plain = nn.BatchNorm2d(self.num_features, self.eps, self.momentum)
        plain._parameters, plain._buffers = copy.deepcopy(self._parameters, memo), copy.deepcopy(self._buffers, memo)
        return plain.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y, mean, variance, count = _Normalize.apply(x, self.weight, self.bias, self.eps, self.group)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), self.momentum or 0.0)
        out: Tensor = y
        return out


def share_norms(net: nn.Module, group: Any) -> None:
    """Replace each BatchNorm2d of `net`; its parameters and buffers stay the same objects."""
    for parent in list(net.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm) is nn.BatchNorm2d:
                shared = SharedNorm(norm.num_features, norm.eps, norm.momentum)
                shared._parameters, shared._buffers, shared.training, shared.group = norm._parameters, norm._buffers, norm.training, group
                setattr(parent, name, shared)


class _Normalize(torch.autograd.Function):
    """Ioffe and Szegedy, "Batch Normalization" (2015); statistics of parts are put together as in Chan et al. (1979)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels = x.shape[1]
        count = x.numel() // channels
        variance, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0) if count else (x.new_zeros(channels).float(),) * 2
        own = torch.cat((mean, variance, mean.new_tensor([count])))
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, own, group=group)
        means, variances, counts = torch.stack(parts).split((channels, channels, 1), 1)
        total = counts.sum()
        mean = (means * counts).sum(0) / total
        variance = ((variances + (means - mean) ** 2) * counts).sum(0) / total
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale, total)
        ctx.group = group
        ctx.mark_non_differentiable(mean, variance, total)
        y = (x - _wide(mean)) * _wide(scale * weight) + _wide(bias)
        return y.to(x.dtype), mean, variance, total

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, total = ctx.saved_tensors
        normal, dy = (x - _wide(mean)) * _wide(scale), dy.float()
        own = torch.stack((dy.sum((0, 2, 3)), (dy * normal).sum((0, 2, 3))))
        both = own.clone()
        dist.all_reduce(both, group=ctx.group)
        mean_dy, mean_dy_x = both / total
        dx = (dy - _wide(mean_dy) - normal * _wide(mean_dy_x)) * _wide(scale * weight)
        return dx.to(x.dtype), own[1], own[0], None, None


def _wide(channels: Tensor) -> Tensor:
    return channels[:, None, None]
