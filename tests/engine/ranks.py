"""What the processes of the tests of distributed training do. A module of its own, because they import it."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fiftyone_yoloseg.engine.distributed import World
from fiftyone_yoloseg.engine.launch import Link


def differs(a: dict[str, Any], b: dict[str, Any]) -> float:
    """The largest difference of two gradients, as a share of the largest entry of the tensor."""
    assert a.keys() == b.keys() and len(a) > 100
    return max(float(np.abs(a[k] - b[k]).max() / max(np.abs(a[k]).max(), 1e-3)) for k in a)


def examine(world: World, link: Link | None, given: dict[str, Any]) -> dict[str, Any]:
    """Steps, validation and common decisions, as numbers that must not depend on the number of processes."""
    from fiftyone_yoloseg.config import ValSettings
    from fiftyone_yoloseg.engine.checkpoint import load_checkpoint
    from fiftyone_yoloseg.engine.prepare import image_cache
    from fiftyone_yoloseg.engine.state import Position, capture
    from fiftyone_yoloseg.engine.torch_backend import TorchBackend
    from fiftyone_yoloseg.engine.trainer import Trainer
    from fiftyone_yoloseg.engine.validator import validate

    checkpoint, settings, folder = load_checkpoint(given["checkpoint"]), given["settings"], Path(given["folder"])
    records, validation = given["training"], given["validation"]
    result: dict[str, Any] = {"steps": [], "images": []}
    trainer = Trainer(checkpoint, checkpoint.names, records, validation, settings, folder, "", None, world)
    trainer.net.eval()  # batch norms in training use the images of one process only

    def gradients() -> dict[str, Any]:
        found = {k: p.grad.numpy().copy() for k, p in trainer.net.named_parameters() if p.grad is not None}
        trainer.optimizer.zero_grad()
        return found

    batches = list(trainer.loader)
    for batch in batches:
        with world.step(trainer.forward, True):
            losses = world.sum(trainer._backward(batch))
        result["steps"].append((losses.numpy(), gradients()))
        result["images"].append(world.gather(len(batch.images)))

    # two batches to an update, interrupted and saved in between, taken up by one of the processes
    with world.step(trainer.forward, False):
        trainer._backward(batches[0])
    trainer.at = Position(0, 1, 1)
    pending = capture(trainer)["gradients"]
    trainer.optimizer.zero_grad()
    if world.main:
        for name, parameter in trainer.net.named_parameters():
            parameter.grad = pending.get(name)
    with world.step(trainer.forward, True):
        trainer._backward(batches[1])
    result["accumulated"] = gradients()

    trainer.net.train()
    if world.size > 1:
        with world.step(trainer.forward, True):
            trainer._backward(batches[2])
        norms = torch.cat([b.flatten() for b in trainer.net.buffers() if b.is_floating_point()])
        result["statistics"] = [t.tolist() for t in world.gather(norms)]

    backend = TorchBackend(checkpoint.net, checkpoint.info, world.device)
    metrics = validate(backend, validation, checkpoint.names, ValSettings(batch=2, workers=0, conf=0.2), world=world)
    result["metrics"] = metrics.results_dict
    result["maps"] = metrics.seg.maps.tolist(), metrics.box.maps.tolist()
    result["counts"] = metrics.images, metrics.objects
    result["metrics elsewhere"] = [m["fitness"] for m in world.gather(metrics.results_dict)]
    result["decisions"] = world.any(world.rank == world.size - 1), world.any(False), world.count(2), world.smallest(7 - world.rank)
    result["budget"] = world.gather(image_cache(settings, records, world.local_size).bytes)
    result["from main"] = world.gather(world.from_main(lambda: world.rank))
    return result


def normalise_together(world: World, given: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Two steps in training mode with sync_bn: losses, gradients, running statistics. In the second a process may have no image."""
    from fiftyone_yoloseg.engine.checkpoint import load_checkpoint
    from fiftyone_yoloseg.engine.trainer import Trainer

    checkpoint, settings = load_checkpoint(given["checkpoint"]), given["settings"].model_copy(update={"sync_bn": True})
    trainer = Trainer(checkpoint, checkpoint.names, given["training"], [], settings, Path(given["folder"]), "", None, world)
    trainer.net.train()
    found = []
    for batch in list(trainer.loader)[1:]:
        with world.step(trainer.forward, True):
            losses = world.sum(trainer._backward(batch))
        gradients = {k: p.grad.numpy().copy() for k, p in trainer.net.named_parameters() if p.grad is not None}
        trainer.optimizer.zero_grad()
        found.append((losses.numpy(), gradients, {k: v.numpy().copy() for k, v in trainer.net.named_buffers()}))
    return found


def few_norms(world: World) -> dict[str, Any]:
    """Gradients and running statistics of three batch norms over four images, of which the processes have three and one."""
    import torch
    from torch import nn

    from fiftyone_yoloseg.engine.shared_norm import share_norms

    torch.manual_seed(0)
    net = nn.Sequential(*(layer for i in (3, 8, 8) for layer in (nn.Conv2d(i, 8, 3, bias=False), nn.BatchNorm2d(8, 1e-3, 0.03), nn.SiLU())))
    images, wanted = torch.randn(4, 3, 16, 16), torch.randn(4, 8, 10, 10)
    mine = slice(None)
    if world.size > 1:
        share_norms(net, None)
        mine = slice(0, 3) if world.main else slice(3, 4)
    ((net(images[mine]) - wanted[mine]) ** 2).sum().backward()
    gradients = {name: world.sum(p.grad).numpy() for name, p in net.named_parameters() if p.grad is not None}
    return gradients | {name: b.double().numpy() for name, b in net.named_buffers()}


def decide(world: World, given: dict[str, Any]) -> dict[str, Any]:
    """What all processes have to decide alike, though they see different things."""
    from fiftyone_yoloseg.engine.checkpoint import load_checkpoint
    from fiftyone_yoloseg.engine.trainer import Trainer
    from fiftyone_yoloseg.errors import UserError

    checkpoint, settings = load_checkpoint(given["checkpoint"]), given["settings"].model_copy(update={"epochs": 3, "val": False})
    last = world.rank == world.size - 1
    (Path(given["folder"]) / "weights").mkdir(exist_ok=True)

    def trainer(**changes: Any) -> Trainer:
        wanted, records, folder = settings.model_copy(update=changes), given["training"][:4], Path(given["folder"])
        return Trainer(checkpoint, checkpoint.names, records, [], wanted, folder, "", None, world)

    result: dict[str, Any] = {}
    limited = trainer(time=1.0)
    if not last:
        limited.started -= 3000  # room for one epoch; the clock of the last process says that there is room for all
    result["epochs"] = world.gather(limited.run(lambda share, label: None, lambda: False).epochs)

    broken = trainer()
    if last:
        sound = broken._backward
        broken._backward = lambda batch: sound(batch) * math.nan  # type: ignore[method-assign]
    try:
        broken.run(lambda share, label: None, lambda: False)
        said = "nothing"
    except UserError as error:
        said = str(error)
    result["said"] = world.gather(said)
    result["steps"] = world.gather(broken.at.step)
    return result


def all_of_it(world: World, link: Link | None, given: dict[str, Any]) -> dict[str, Any]:
    """In one start of the processes."""
    return {
        "examined": examine(world, link, given),
        "few norms": few_norms(world),
        "normalised": normalise_together(world, given),
        "decided": decide(world, given) if world.size > 1 else None,
    }


def fail(world: World, link: Link, how: str) -> None:
    """The last process fails; the others wait for it."""
    from fiftyone_yoloseg.errors import DataError

    link.tell("started", subprocess.Popen(["sleep", "1000"]).pid)
    if world.rank == world.size - 1:
        if how == "user error":
            raise DataError("a.png: cannot be read")
        raise ZeroDivisionError("one / nothing")
    world.any(False)


def wait_to_be_killed(world: World, link: Link, _: None) -> None:
    if world.rank == 1:
        link.tell("pid", os.getpid())
    world.any(False) if world.main else time.sleep(1000)


def wait(world: World, link: Link, _: None) -> None:
    loader = subprocess.Popen(["sleep", "1000"])
    link.tell("waiting")
    loader.wait()


def talk(world: World, link: Link, number: int) -> list[Any]:
    logging.getLogger("fiftyone_yoloseg.test").info("from process %d", world.rank)
    link.tell("hello", world.rank)
    return [number, link.ask("question", world.rank), torch.get_num_threads(), os.getpgid(0) == os.getpid(), "ranks" in sys.modules]
