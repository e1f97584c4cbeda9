"""batch=-1: the rule of the CPU, and the search on a GPU with a made-up one."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import fresh, options

from fiftyone_yoloseg.engine.checkpoint import load_checkpoint
from fiftyone_yoloseg.engine.memory import Need, check_norms, cpu_batch, estimate, fitting_batch
from fiftyone_yoloseg.engine.train import train
from fiftyone_yoloseg.errors import SettingsError
from fiftyone_yoloseg.nn.model import YOLOv8Seg
from fiftyone_yoloseg.types import SegmentationData

SMALL = Need(fixed=0, image=1)


@pytest.mark.parametrize(
    ("need", "images", "free", "batch"),
    [(SMALL, 1000, 10**6, 16), (SMALL, 64, 10**6, 16), (SMALL, 63, 10**6, 8), (SMALL, 8, 10**6, 2), (SMALL, 1, 10**6, 2),
     (Need(100, 10), 1000, 520, 16), (Need(100, 10), 1000, 519, 8), (Need(100, 10), 1000, 100, 2)],
)  # fmt: skip
def test_the_rule_of_the_cpu(need: Need, images: int, free: int, batch: int) -> None:
    assert cpu_batch(need, images, free) == batch


@pytest.mark.parametrize("most", [1, 3, 37, 512])
@pytest.mark.parametrize("fixed", [0, 300, 900])
@pytest.mark.parametrize("image", [1, 7, 60])
def test_the_search_finds_the_largest_batch_that_fits(fixed: int, image: int, most: int) -> None:
    asked: list[int] = []

    def measure(batch: int) -> int | None:
        asked.append(batch)
        return fixed + image * batch if fixed + image * batch <= 1200 else None

    assert fitting_batch(measure, 1000, most) == min((1000 - fixed) // image, most)
    assert len(asked) <= 20 and max(asked) <= most


def test_not_even_one_image() -> None:
    with pytest.raises(SettingsError, match="batch=-1: not even one image fits"):
        fitting_batch(lambda batch: None, 1000, 512)


@pytest.mark.parametrize(
    ("images", "processes", "changes", "which"),
    [(9, 1, {}, "the last batch of each epoch would be one image,"), (8, 1, {}, None), (10, 1, {}, None), (9, 1, {"imgsz": 64}, None), (1, 1, {}, "a batch would"),
     (8, 1, {"batch": 1}, "a batch would"), (8, 1, {"batch": 1, "imgsz": 64}, None), (9, 1, {"imgsz": 64, "multi_scale": 0.5}, None),
     (8, 4, {}, "a batch would be one image on one of the devices"), (8, 2, {}, None), (10, 2, {}, "the last batch of each epoch would be one image on one"),
     (11, 2, {}, "the last batch"), (12, 2, {}, None), (10, 2, {"sync_bn": True}, None), (9, 1, {"sync_bn": True}, "the last batch")],
)  # fmt: skip
def test_a_single_value_is_no_batch_to_normalise(
    tmp_path: Path, images: int, processes: int, changes: dict[str, Any], which: str | None
) -> None:
    settings = options(tmp_path, **changes)
    if which is None:
        check_norms(settings, images, processes)
    else:
        with pytest.raises(SettingsError, match=which):
            check_norms(settings, images, processes)


def test_a_single_value_is_refused_before_the_first_step(shapes_data: SegmentationData, tmp_path: Path) -> None:
    data = replace(shapes_data, splits={**shapes_data.splits, "train": shapes_data.splits["train"][:5]})
    with pytest.raises(SettingsError, match="5 training images: the last batch .* Train with imgsz=64, or with another batch"):
        train(fresh(data), data, options(tmp_path / "runs"), progress=lambda share, label: pytest.fail("a step was made"))
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_estimate_is_what_autograd_keeps() -> None:
    """Counted anew at full size, with every storage once."""
    net = YOLOv8Seg(3, "n").train()
    kept: dict[int, int] = {}

    def keep(t: torch.Tensor) -> torch.Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = net.heads(torch.rand(2, 3, 160, 160))
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    counted = sum(v for k, v in kept.items() if k not in parameters) / 2
    before = {k: v.clone() for k, v in net.state_dict().items()}
    need = estimate(net, 160, half=False)
    assert out.protos.requires_grad and need.image == pytest.approx(counted, rel=0.05)
    assert need.fixed == 5 * 4 * sum(p.numel() for p in net.parameters())
    assert estimate(net, 160, half=True).image == pytest.approx(need.image / 2, abs=1)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()), "its batch norms have learnt nothing from this"


def test_an_automatic_batch_is_used_said_and_on_record(shapes_data: SegmentationData, tmp_path: Path) -> None:
    result = train(fresh(shapes_data), shapes_data, options(tmp_path, epochs=1, batch=-1))
    (note,) = result.notes
    assert note.startswith("batch=2: the CPU's rule") and load_checkpoint(result.best).train_args["batch"] == 2
    by_hand = train(fresh(shapes_data), shapes_data, options(tmp_path, epochs=1, batch=2))
    one, other = (load_checkpoint(r.best).net.state_dict() for r in (result, by_hand))
    assert by_hand.notes == () and all(torch.equal(v, other[k]) for k, v in one.items())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told to keep memory")
def test_memory_of_a_step_is_kept_for_the_next_and_given_back() -> None:
    """In a process of its own: pages that are mapped anew show as faults, and what is given back as a smaller resident set.

    Many steps are counted: once or twice, at no certain step, the heap grows by a tensor that finds no gap of its size.
    """
    code = (
        "import resource, torch, psutil\n"
        "from fiftyone_yoloseg.engine.devices import kept_memory\n"
        "net = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.SiLU(), torch.nn.Conv2d(32, 32, 3), torch.nn.SiLU())\n"
        "images = torch.rand(4, 3, 256, 256)\n"
        "def step():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    net(images).sum().backward()\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "step(); plain = sum(step() for _ in range(3)) / 3\n"
        "with kept_memory(torch.device('cpu')):\n"
        "    step(); kept = sum(step() for _ in range(24)) / 24; inside = psutil.Process().memory_info().rss\n"
        "print(plain, kept, inside - psutil.Process().memory_info().rss, step())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    plain, kept, given_back, after = map(float, done.stdout.split())
    assert plain > 3_300 and kept < plain / 10 and given_back > 60e6 and after > 10_000
