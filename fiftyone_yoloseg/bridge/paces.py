"""How fast this machine has been: seconds an image of trainings, predictions and conversions, from which forms estimate the next one.

Each is one record of an execution store of FiftyOne's database that belongs to no dataset; the latest of a kind replaces the one before.
"""

from __future__ import annotations

import logging
import math
import shutil
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

import fiftyone.core.odm as foo
from fiftyone.factory.repos.execution_store import MongoExecutionStoreRepo
from fiftyone.operators.store import ExecutionStore
from pymongo.errors import PyMongoError

log = logging.getLogger("fiftyone_yoloseg")
STORE = "yoloseg_paces"
LEAST = 20
"""Images of which the pace is worth keeping: with fewer, it is that of starting up."""
What = Literal["train", "predict", "convert"]


@dataclass(frozen=True, slots=True)
class Pace:
    """seconds: for an image; of a training for a training or validation image of an epoch. model: n, s, m, l, x, or the path of an artifact; of a conversion its `media`. imgsz: pixels of the
    longer side, 0 where there is none. device: see `device_kind`. when: date. memory: bytes by "ram" and "gpu", where it was measured."""

    what: What
    seconds: float
    model: str = ""
    imgsz: int = 0
    device: str = ""
    when: str = ""
    memory: Mapping[str, int] = field(default_factory=dict)

    def at(self, imgsz: int) -> float:
        """Seconds an image at another size: they grow with the pixels."""
        return self.seconds * ((imgsz / self.imgsz) ** 2 if self.imgsz else 1)


def note(what: What, images: int, seconds: float, **facts: Any) -> None:
    """Keep how long so many images took. facts: of `Pace`. Whatever becomes of it, the work that it is about has succeeded."""
    if images < LEAST or seconds <= 0:
        return
    pace = Pace(what, seconds / images, when=datetime.now(timezone.utc).strftime("%Y-%m-%d"), **facts)
    key = "|".join((socket.gethostname(), what, pace.model, str(pace.imgsz), pace.device))
    try:
        ExecutionStore.create(STORE).set(key, asdict(pace))
    except PyMongoError:
        log.exception("how long this %s took could not be kept for estimates", what)


def known(what: What) -> list[Pace]:
    """What was kept on this machine."""
    start = f"{socket.gethostname()}|{what}|"
    collection = foo.get_db_conn()[MongoExecutionStoreRepo.COLLECTION_NAME]
    found = collection.find({"store_name": STORE, "dataset_id": None}, {"key": 1, "value": 1})
    return [Pace(**doc["value"]) for doc in found if doc["key"].startswith(start) and isinstance(doc.get("value"), dict)]


def nearest(what: What, model: str, device: str, imgsz: int) -> Pace | None:
    """Of the same model on the same kind of device, at the image size that is nearest; None if there was none."""
    same = [p for p in known(what) if (p.model, p.device) == (model, device)]
    return min(same, key=lambda p: abs(math.log(max(p.imgsz, 1) / max(imgsz, 1))), default=None)


def device_kind(device: str | None) -> str:
    """cpu or gpu, and how many, of a `device` setting. Found without torch, which a form has no time to load: a machine with NVIDIA's driver has a GPU."""
    names = [name for name in (device or "").strip("[]() ").split(",") if name.strip()]
    cpu = all(name.strip() == "cpu" for name in names) if names else shutil.which("nvidia-smi") is None
    return ("cpu" if cpu else "gpu") + (f" x {len(names)}" if len(names) > 1 else "")
