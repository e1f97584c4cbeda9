"""Optimizer, learning-rate schedule, warm-up and weight averaging."""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..config import TrainSettings
from ..nn.blocks import BN_MOMENTUM
from ..nn.model import YOLOv8Seg

LONG_RUN = 10_000
NOMINAL_BATCH = 64
WARMUP_STEPS = 100
SHORT_BN_MOMENTUM = 0.1


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings in force after `optimizer=auto` was resolved, and why."""

    optimizer: str
    lr0: float
    momentum: float
    warmup_bias_lr: float
    nbs: int
    reason: str
    bn_momentum: float = BN_MOMENTUM


def resolve(settings: TrainSettings, images: int, nc: int) -> Recipe:
    """auto: AdamW at 0.002 * 5 / (4 + nc) for runs of up to 10,000 steps of 64 images, SGD at 0.01 for longer ones.

    Short runs also update the weights after every batch instead of every `nbs` images, because steps are what they lack, and let the
    batch-norm statistics follow faster, because weights move fast in them.
    """
    s, nominal = settings, settings.nbs or NOMINAL_BATCH
    if s.optimizer != "auto":
        return Recipe(s.optimizer, s.lr0, s.momentum, s.warmup_bias_lr, nominal, "as set")
    steps = math.ceil(images / max(s.batch, nominal)) * s.epochs
    if steps > LONG_RUN:
        return Recipe("SGD", 0.01, 0.9, 0.0, nominal, f"auto: {steps:,} nominal steps, a long run")
    reason = f"auto: {steps:,} nominal steps, a short run"
    return Recipe("AdamW", round(0.002 * 5 / (4 + nc), 6), 0.9, 0.0, s.nbs or s.batch, reason, SHORT_BN_MOMENTUM)


def build_optimizer(net: nn.Module, recipe: Recipe, weight_decay: float) -> torch.optim.Optimizer:
    """Three groups: biases, convolution weights (the only ones that decay), batch norm weights."""
    biases: list[nn.Parameter] = []
    weights: list[nn.Parameter] = []
    norms: list[nn.Parameter] = []
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            group = biases if name == "bias" else norms if isinstance(module, nn.BatchNorm2d) else weights
            group.append(parameter)
    groups = [
        {"params": biases, "weight_decay": 0.0},
        {"params": weights, "weight_decay": weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "SGD":
        return _undecorated(torch.optim.SGD)(groups, lr=recipe.lr0, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    if recipe.optimizer == "RMSProp":
        return _undecorated(torch.optim.RMSprop)(groups, lr=recipe.lr0, momentum=recipe.momentum)
    kind = torch.optim.Adam if recipe.optimizer == "Adam" else torch.optim.AdamW
    return _undecorated(kind)(groups, lr=recipe.lr0, betas=(recipe.momentum, 0.999))


@functools.cache
def _undecorated(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The optimizer without the decorators that keep torch's compiler off its methods: they import it, which takes longer than all else at the start.

    We compile the network only, never an optimizer.
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "state_dict", "load_state_dict", "zero_grad")}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(inspect.unwrap(kind.step))})


class Schedule:
    """Learning rate, momentum and accumulation of each step; a pure function of the step number.

    epochs: over which the rate falls; fewer than the settings' where the time is limited.
    """

    def __init__(self, settings: TrainSettings, recipe: Recipe, steps_per_epoch: int) -> None:
        self.settings, self.recipe, self.steps_per_epoch = settings, recipe, steps_per_epoch
        self.epochs = settings.epochs
        warmup = round(settings.warmup_epochs * steps_per_epoch)
        self.warmup = max(warmup, WARMUP_STEPS) if settings.warmup_epochs > 0 else 0
        self.accumulate = max(round(recipe.nbs / settings.batch), 1)

    def factor(self, epoch: int) -> float:
        """Share of lr0 in this epoch: from 1 down to lrf."""
        s = self.settings
        if s.cos_lr:
            return (1 + math.cos(math.pi * epoch / self.epochs)) / 2 * (1 - s.lrf) + s.lrf
        return max(1 - epoch / self.epochs, 0) * (1 - s.lrf) + s.lrf

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> int:
        """Set rates and momentum for a step; returns how many batches make one update."""
        rate = self.recipe.lr0 * self.factor(step // self.steps_per_epoch)
        momentum, accumulate = self.recipe.momentum, self.accumulate
        starts = (self.recipe.warmup_bias_lr, 0.0, 0.0)
        warming = step < self.warmup
        if warming:
            accumulate = max(round(float(np.interp(step, [0, self.warmup], [1, self.recipe.nbs / self.settings.batch]))), 1)
            momentum = float(np.interp(step, [0, self.warmup], [self.settings.warmup_momentum, momentum]))
        for group, start in zip(optimizer.param_groups, starts, strict=True):
            group["lr"] = float(np.interp(step, [0, self.warmup], [start, rate])) if warming else rate
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum
        return accumulate


class Average:
    """Exponential moving average of weights and batch-norm statistics: the model that is validated and saved."""

    DECAY, RAMP = 0.9999, 2000

    def __init__(self, net: YOLOv8Seg) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.updates = 0

    def decay(self, updates: int) -> float:
        return self.DECAY * (1 - math.exp(-updates / self.RAMP))

    @torch.no_grad()
    def update(self, net: YOLOv8Seg) -> None:
        self.updates += 1
        keep = self.decay(self.updates)
        new = net.state_dict()
        averaged = [(v, new[k]) for k, v in self.net.state_dict().items() if v.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in averaged], [b for _, b in averaged], 1 - keep)
        for key, value in self.net.state_dict().items():
            if not value.is_floating_point():
                value.copy_(new[key])
