"""Optimizer, schedule and averaging: the figures of the recipe."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.engine.optim import Average, Recipe, Schedule, build_optimizer, resolve
from fiftyone_yoloseg.nn.model import YOLOv8Seg


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{"optimizer": "SGD", "lr0": 0.01, "momentum": 0.937, "warmup_bias_lr": 0.1, "nbs": 64, "reason": "", **changes})


@pytest.fixture(scope="module")
def net() -> YOLOv8Seg:
    torch.manual_seed(0)
    net = YOLOv8Seg(80, "n")
    net.head.dfl.requires_grad_(False)
    return net


@pytest.mark.parametrize(("nc", "rate"), [(80, 0.000119), (1, 0.002), (3, 0.001429)])
def test_auto_takes_adamw_for_a_short_run(nc: int, rate: float) -> None:
    got = resolve(TrainSettings(epochs=100, batch=16), images=1000, nc=nc)
    assert (got.optimizer, got.lr0, got.momentum, got.warmup_bias_lr) == ("AdamW", rate, 0.9, 0.0)


def test_auto_takes_sgd_above_ten_thousand_steps() -> None:
    """Steps of 64 images: 6400 images are 100 steps an epoch."""
    short, long = (resolve(TrainSettings(epochs=epochs, batch=16), images=6400, nc=80) for epochs in (100, 101))
    assert short.optimizer == "AdamW" and (long.optimizer, long.lr0, long.momentum, long.warmup_bias_lr, long.nbs) == (
        "SGD",
        0.01,
        0.9,
        0.0,
        64,
    )
    assert resolve(TrainSettings(epochs=101, batch=128), images=6400, nc=80).optimizer == "AdamW", "a larger batch makes fewer steps"


def test_what_is_set_counts() -> None:
    got = resolve(TrainSettings(optimizer="SGD", lr0=0.02, momentum=0.8, warmup_bias_lr=0.05), images=100, nc=80)
    assert (got.optimizer, got.lr0, got.momentum, got.warmup_bias_lr, got.nbs) == ("SGD", 0.02, 0.8, 0.05, 64)


def test_short_auto_runs_update_after_each_batch_unless_told_otherwise() -> None:
    assert resolve(TrainSettings(batch=8), images=100, nc=3).nbs == 8
    assert resolve(TrainSettings(batch=8, nbs=64), images=100, nc=3).nbs == 64


def test_groups(net: YOLOv8Seg) -> None:
    optimizer = build_optimizer(net, recipe(), weight_decay=5e-4)
    biases, weights, norms = optimizer.param_groups
    assert [len(g["params"]) for g in optimizer.param_groups] == [76, 76, 66]
    named = {id(p): n for n, p in net.named_parameters()}
    assert all(named[id(p)].endswith(".bias") for p in biases["params"])
    assert all(p.ndim == 4 for p in weights["params"]) and all(p.ndim == 1 and named[id(p)].endswith("bn.weight") for p in norms["params"])
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0, 5e-4, 0]
    every = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert len(set(every)) == len(every) == sum(p.requires_grad for p in net.parameters())
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["nesterov"] and optimizer.defaults["momentum"] == 0.937
    adamw = build_optimizer(net, recipe(optimizer="AdamW"), 0)
    assert isinstance(adamw, torch.optim.AdamW) and adamw.defaults["betas"] == (0.937, 0.999)
    assert type(build_optimizer(net, recipe(optimizer="Adam"), 0)).__bases__ == (torch.optim.Adam,)
    build_optimizer(net, recipe(momentum=0.0), 0).step()  # nesterov needs momentum


KINDS = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW, "RMSProp": torch.optim.RMSprop}


@pytest.mark.parametrize("name", KINDS)
def test_steps_are_those_of_torch(name: str) -> None:
    """Without torch's decorators: the same weights and state after each step, to the bit, also after a state was loaded."""
    torch.manual_seed(0)
    nets = [torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    mine = build_optimizer(nets[0], recipe(optimizer=name), 1e-2)
    theirs = KINDS[name](build_optimizer(nets[1], recipe(optimizer=name), 1e-2).param_groups)
    for step in range(4):
        for a, b in zip(*(net.parameters() for net in nets), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        mine.step()
        theirs.step()
        assert all(torch.equal(a, b) for a, b in zip(*(net.state_dict().values() for net in nets), strict=True))
        one, two = (o.state_dict()["state"] for o in (mine, theirs))
        assert one.keys() == two.keys() and all(torch.equal(one[k][n], two[k][n]) for k in one for n in one[k] if one[k][n] is not None)
        if step == 1:
            mine.load_state_dict(copy.deepcopy(theirs.state_dict()))
    mine.zero_grad()
    assert all(p.grad is None and p.requires_grad and p.is_leaf for p in nets[0].parameters())


def test_a_training_does_not_import_the_compiler() -> None:
    """It takes longer than the rest of the start; only compile=true needs it."""
    code = """
import sys, tempfile
from pathlib import Path
from fiftyone_yoloseg.config import TrainSettings
from fiftyone_yoloseg.data.synthetic import write_synthetic
from fiftyone_yoloseg.engine.checkpoint import new_checkpoint
from fiftyone_yoloseg.engine.train import train
with tempfile.TemporaryDirectory() as folder:
    data = write_synthetic(Path(folder) / "data", train=2, val=2)
    settings = TrainSettings(imgsz=64, batch=2, epochs=1, workers=0, device="cpu", deterministic=True, project=Path(folder) / "runs")
    train(new_checkpoint("yolov8n-seg.yaml", dict(data.names)), data, settings)
print([name for name in ("torch._dynamo", "torch._inductor", "triton") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_all_tensors_of_n_in_groups() -> None:
    """The official counts, 76 biases, 66 batch norms and 77 others, have the fixed weights of the DFL among the others."""
    optimizer = build_optimizer(YOLOv8Seg(80, "n").requires_grad_(True), recipe(), 0)
    assert [len(g["params"]) for g in optimizer.param_groups] == [76, 77, 66]


def test_frozen_parameters_are_left_out() -> None:
    net = YOLOv8Seg(2, "n")
    for p in net.model[0].parameters():
        p.requires_grad_(False)
    optimizer = build_optimizer(net, recipe(), 0)
    assert not {id(p) for p in net.model[0].parameters()} & {id(p) for g in optimizer.param_groups for p in g["params"]}


def schedule(steps_per_epoch: int = 50, used: Recipe | None = None, **changes: Any) -> tuple[Schedule, torch.optim.Optimizer]:
    used = used or recipe()
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))
    return Schedule(TrainSettings(**{"optimizer": "SGD", "epochs": 10, **changes}), used, steps_per_epoch), build_optimizer(net, used, 0)


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [g["lr"] for g in optimizer.param_groups]


def test_warm_up() -> None:
    plan, optimizer = schedule()
    assert plan.warmup == 150
    assert plan.apply(optimizer, 0) == 1
    assert rates(optimizer) == pytest.approx([0.1, 0, 0]) and {g["momentum"] for g in optimizer.param_groups} == {0.8}
    assert plan.apply(optimizer, 75) == round((1 + 4) / 2)
    target = 0.01 * plan.factor(1)
    assert rates(optimizer) == pytest.approx([(0.1 + target) / 2, target / 2, target / 2])
    assert [g["momentum"] for g in optimizer.param_groups] == pytest.approx([(0.8 + 0.937) / 2] * 3)
    assert plan.apply(optimizer, 150) == 4
    assert rates(optimizer) == pytest.approx([0.01 * plan.factor(3)] * 3) and {g["momentum"] for g in optimizer.param_groups} == {0.937}


@pytest.mark.parametrize(
    ("per_epoch", "epochs", "expected"), [(10, 3.0, 100), (50, 3.0, 150), (33, 3.1, 102), (1000, 0.5, 500), (1000, 0.0, 0)]
)
def test_warm_up_lasts_at_least_a_hundred_steps_unless_off(per_epoch: int, epochs: float, expected: int) -> None:
    plan, optimizer = schedule(per_epoch, warmup_epochs=epochs)
    assert plan.warmup == expected
    if not expected:
        assert plan.apply(optimizer, 0) == plan.accumulate and rates(optimizer) == [0.01] * 3


def test_adam_gets_its_momentum_as_beta() -> None:
    plan, optimizer = schedule(used=recipe(optimizer="AdamW", momentum=0.9))
    plan.apply(optimizer, 0)
    assert {g["betas"] for g in optimizer.param_groups} == {(0.8, 0.999)}
    plan.apply(optimizer, 1000)
    assert {g["betas"] for g in optimizer.param_groups} == {(0.9, 0.999)}


@pytest.mark.parametrize(("batch", "accumulate"), [(16, 4), (64, 1), (128, 1), (24, 3), (1, 64), (100, 1)])
def test_accumulation_and_effective_decay(batch: int, accumulate: int) -> None:
    plan, _ = schedule(batch=batch)
    assert plan.accumulate == accumulate
    effective = 5e-4 * batch * accumulate / 64
    if batch in (16, 64, 1):
        assert effective == pytest.approx(5e-4)


def test_rate_falls_from_lr0_to_lrf() -> None:
    linear, _ = schedule(epochs=10, lrf=0.1)
    assert [linear.factor(e) for e in (0, 5, 9, 10)] == pytest.approx([1, 0.55, 0.19, 0.1])
    cosine, _ = schedule(epochs=10, lrf=0.1, cos_lr=True)
    assert [cosine.factor(e) for e in (0, 5, 10)] == pytest.approx([1, 0.55, 0.1])
    assert cosine.factor(9) == pytest.approx((1 + math.cos(0.9 * math.pi)) / 2 * 0.9 + 0.1)
    plan, optimizer = schedule(steps_per_epoch=200, epochs=10, lrf=0.1)
    plan.apply(optimizer, 9 * 200 + 199)
    assert rates(optimizer) == pytest.approx([0.01 * 0.19] * 3)


def test_a_schedule_depends_on_the_step_only() -> None:
    (first, a), (second, b) = schedule(), schedule()
    for step in range(0, 400, 7):
        first.apply(a, step)
    first.apply(a, 120)
    second.apply(b, 120)
    assert rates(a) == rates(b)


def test_decay_of_the_average() -> None:
    average = Average(YOLOv8Seg(1, "n"))
    assert average.decay(1) == pytest.approx(0.00049983, abs=1e-8)
    assert average.decay(2000) == pytest.approx(0.9999 * (1 - 1 / math.e)) and average.decay(10**6) == pytest.approx(0.9999)


def test_average_equals_one_made_by_hand() -> None:
    torch.manual_seed(0)
    net = YOLOv8Seg(1, "n")
    average = Average(net)
    average.updates = 3000  # where old and new both count
    expected = {k: v.double().clone() for k, v in net.state_dict().items()}
    for update in range(3001, 3004):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
            for module in net.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.add_(1)
                    module.num_batches_tracked.add_(1)
        average.update(net)
        keep = 0.9999 * (1 - math.exp(-update / 2000))
        for k, v in net.state_dict().items():
            expected[k] = expected[k] * keep + v.double() * (1 - keep) if v.is_floating_point() else v.double()
    assert average.updates == 3003
    for k, v in average.net.state_dict().items():
        assert torch.allclose(v.double(), expected[k], atol=1e-5), k
    assert not average.net.training and not any(p.requires_grad for p in average.net.parameters())
    key = next(k for k in expected if k.endswith("running_mean"))
    assert (net.state_dict()[key] - average.net.state_dict()[key]).abs().max() > 0.1, "it is an average, and of the statistics too"


def test_short_auto_runs_follow_their_statistics_faster() -> None:
    assert resolve(TrainSettings(epochs=10), 100, 3).bn_momentum == 0.1
    assert resolve(TrainSettings(epochs=1000), 100_000, 3).bn_momentum == 0.03
    assert resolve(TrainSettings(epochs=10, optimizer="SGD"), 100, 3).bn_momentum == 0.03
