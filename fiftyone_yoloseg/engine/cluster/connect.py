"""How we come to a Ray cluster, and how much room it has for us."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...config.settings import ClusterSettings
from ...errors import MissingDependencyError, SettingsError

ADDRESS = "RAY_ADDRESS"
_PATIENCE = 5.0
"""Seconds for a machine to answer; Ray itself would try for minutes, and then end this process (seen)."""
_MOMENT = 5.0
"""Seconds in which a work that has ended gives back what it had."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a cluster gives us: so many processes, each with as many CPUs, and with a GPU of its own or without."""

    workers: int
    cpus: int
    gpu: bool

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"


@contextlib.contextmanager
def connected() -> Iterator[Any]:
    """The module `ray`, connected: as the caller has connected it already, else to the cluster of RAY_ADDRESS, else to the one that runs on this machine.

    RAY_ADDRESS=local starts one on this machine, for this work alone. What is opened here is closed again.
    Raises MissingDependencyError, SettingsError if there is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # whatever we start reports to nobody
    try:
        import ray
        import ray.data
        import ray.train.torch
    except ImportError:
        raise MissingDependencyError("ray[data,train]", "engine=ray", "ray") from None
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get(ADDRESS) or "auto"
    _check(address)
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **options)
    except ConnectionError:
        raise SettingsError(
            "engine=ray: no Ray cluster runs on this machine: start one with `ray start --head`, "
            f"name one with {ADDRESS}=host:6379, or let {ADDRESS}=local start one here for this run"
        ) from None
    except RuntimeError as error:  # of another version of Ray or Python
        raise SettingsError(f"engine=ray: cannot join the cluster: {error}; install the same Ray and Python on all its machines") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _check(address: str) -> None:
    """Raises SettingsError for an address that cannot work."""
    if "://" in address:
        raise SettingsError(
            f"{ADDRESS}={address}: give host:port, and run this on a machine of the cluster, for instance with `ray job submit -- yoloseg train ...`"
        )
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{ADDRESS}={address}: no Ray cluster answers there ({error}); `ray status` on its machines says whether it runs"
        ) from None


def room(ray: Any, settings: ClusterSettings) -> Room:
    """Share out the machines that are up. Without settings.ray_workers: a process for each GPU, or for each machine if there are none.

    Raises SettingsError if they do not fit, or a device is named that Ray does not choose itself.
    """
    if settings.device not in (None, "cpu", "cuda"):
        raise SettingsError(f"device={settings.device}: Ray gives each process its device: leave it out, or give device=cpu")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    machines = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    gpus = sum(n for _, n in machines)
    if settings.device == "cuda" and not gpus:
        raise SettingsError("device=cuda: this Ray cluster has no GPU: give device=cpu")
    gpu = gpus > 0 and settings.device != "cpu"
    workers = settings.ray_workers or (gpus if gpu else sum(cpus > 0 for cpus, _ in machines))
    return Room(workers, share_of_cpus(machines, workers, gpu), gpu)


def await_room(ray: Any, space: Room, say: Callable[[str], None]) -> bool:
    """Give those who are just leaving a moment; then say what has to be waited for, which Ray does when the work is handed to it. Returns whether."""
    deadline = time.monotonic() + _MOMENT
    while lacks := lacking(space, ray.available_resources(), ray.cluster_resources()):
        if time.monotonic() >= deadline:
            say(f"waiting for the Ray cluster: {lacks}; `ray status` says what is in use")
            return True
        time.sleep(0.25)
    return False


def lacking(space: Room, free: Mapping[str, float], there: Mapping[str, float]) -> str:
    """What is not free of what the processes need, "" if all is. free, there: what nobody uses, and all that the cluster has: {"CPU": 2.0, ...}."""
    need = {"CPU": space.workers * space.cpus, **({"GPU": space.workers} if space.gpu else {})}
    short = [
        f"{n} {kind}s, and {free.get(kind, 0):g} of {there.get(kind, 0):g} are free" for kind, n in need.items() if free.get(kind, 0) < n
    ]
    return f"{space.workers} process{'es' * (space.workers > 1)} need{'s' * (space.workers == 1)} {'; '.join(short)}" if short else ""


def share_of_cpus(machines: Sequence[tuple[int, int]], workers: int, gpu: bool) -> int:
    """The most CPUs that each of so many processes can have, none on two machines. machines: (CPUs, GPUs). Raises SettingsError if one is too many."""
    for cpus in range(max((n for n, _ in machines), default=0), 0, -1):
        if sum(min(n // cpus, gpus) if gpu else n // cpus for n, gpus in machines) >= workers > 0:
            return cpus
    kind = "GPUs, with a CPU each" if gpu else "CPUs"
    has = sum(min(n, gpus) if gpu else n for n, gpus in machines)
    raise SettingsError(
        f"ray_workers={workers}: the machines of this Ray cluster have {has} {kind}: ask for fewer processes, or add machines"
    )
