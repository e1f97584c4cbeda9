"""Jobs in FiftyOne's database: who runs what, how far it is, and requests to end it. It outlives pages, panels and the App's server.

Each job has a record in an execution store of its dataset, written through FiftyOne's `TransientJobCoordinator`: the process that does the job
holds a lease, renews it each second with its progress, and hears from the same record that it shall end.
"""

from __future__ import annotations

import getpass
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone.core.odm as foo
from bson import ObjectId
from fiftyone.factory.repos.execution_store import MongoExecutionStoreRepo
from fiftyone.operators.store import ExecutionStore
from fiftyone.operators.store.transient_jobs import TransientJobConflict, TransientJobCoordinator
from pymongo.errors import PyMongoError

log = logging.getLogger("fiftyone_yoloseg")
STORE = "yoloseg_jobs"
BEAT = 1.0  # seconds between two signs of life
_LEASE, _KEPT = 15, 30 * 24 * 3600  # seconds without a sign of life after which a job counts as lost; seconds that an ended one is kept
Record = dict[str, Any]


def coordinator(dataset: ObjectId | None) -> TransientJobCoordinator:
    """dataset: the id of the one that the jobs work on; None for jobs that make one."""
    return TransientJobCoordinator(ExecutionStore.create(STORE, dataset), ttl_seconds=_KEPT, lease_seconds=_LEASE)


def dataset_id(params: dict[str, Any]) -> ObjectId | None:
    """The id of the dataset that a job works on; None for a job that makes one, or if there is none of the name in old params, which have no id.

    A dataset may be renamed while its job runs, and another one get its name.
    """
    if given := params.get("dataset_id"):
        return ObjectId(given)
    if (name := params.get("dataset")) is None:
        return None
    found = foo.get_db_conn().datasets.find_one({"name": name}, {"_id": 1})
    return found and found["_id"]


def dataset_name(params: dict[str, Any]) -> str | None:
    """What the dataset that a job works on is called now; None if there is none any more."""
    found = foo.get_db_conn().datasets.find_one({"_id": dataset_id(params)}, {"name": 1})
    return found and found["name"]


def enter(job: str, folder: Path, params: dict[str, Any]) -> None:
    """Register a job that is about to start, under the name of its folder."""
    coordinator(dataset_id(params)).create(
        owner={"host": socket.gethostname(), "user": _user()},
        scope={"job": job, "dataset": params.get("dataset")},
        payload={"folder": str(folder)},
        job_id=folder.name,
    )


def records(dataset: Any | None, kinds: tuple[str, ...] = ()) -> list[Record]:
    """The registered jobs of a dataset, newest first; all kinds if none is given."""
    query = {"store_name": STORE, "dataset_id": None if dataset is None else dataset._doc.id}  # in one request: the store has one a key
    collection = foo.get_db_conn()[MongoExecutionStoreRepo.COLLECTION_NAME]
    found = [doc["value"] for doc in collection.find(query, {"value": 1}) if isinstance(doc.get("value"), dict)]
    return sorted((r for r in found if not kinds or r["scope"]["job"] in kinds), key=lambda r: str(r["created_at"]), reverse=True)


class Heartbeat(threading.Thread):
    """In the process of a job: tells each second that it lives, and where it stands.

    dataset: the id of the one that it works on. state: what to tell, JSON-able. ended: called once when somebody asks in the database to end the job.
    """

    def __init__(self, name: str, dataset: ObjectId | None, state: Callable[[], dict[str, Any]], ended: Callable[[], None]) -> None:
        super().__init__(name="job heartbeat", daemon=True)
        self._job, self._state, self._ended = name, state, ended
        self._coordinator = coordinator(dataset)
        self._over = threading.Event()
        claimed = self._coordinator.claim(name)
        self._token = claimed["fencing_token"] if claimed else 0
        if claimed is None and (known := self._coordinator.get(name)) is not None and known["cancel_requested"]:
            ended()

    def run(self) -> None:
        asked = False
        while not self._over.wait(BEAT):
            try:
                record = self._coordinator.set_progress(self._job, self._token, self._state())
                if record is None and (claimed := self._coordinator.claim(self._job)):  # the machine slept: take the lease again
                    self._token = claimed["fencing_token"]
                    record = claimed
                if record is None:
                    record = self._coordinator.get(self._job) or {}
                if record.get("cancel_requested") and not asked:
                    asked = True
                    self._ended()
            except (PyMongoError, TransientJobConflict):  # the job goes on without its database, and tells again when that is back
                log.exception("job %s could not tell the database where it stands", self._job)

    def finish(self, state: str, message: str = "") -> None:
        """Say how it ended. state: "done", "failed" or "cancelled"."""
        self._over.set()
        self.join(2 * BEAT)
        try:
            if close(self._coordinator, self._job, self._token, state, message) is None and (claimed := self._coordinator.claim(self._job)):
                close(self._coordinator, self._job, claimed["fencing_token"], state, message)  # the lease had lapsed meanwhile
        except (PyMongoError, TransientJobConflict):  # its result is in its folder all the same
            log.exception("job %s could not tell the database how it ended", self._job)


def close(jobs: TransientJobCoordinator, name: str, token: int, state: str, message: str) -> Record | None:
    """The record as it is then, None if the token's lease has lapsed."""
    closed: Record | None
    if state == "done":
        closed = jobs.complete(name, token, {"summary": message})
    elif state == "cancelled":
        closed = jobs.cancel(name, token)
    else:
        closed = jobs.fail(name, token, message)
    return closed


def close_lost(name: str, dataset: ObjectId | None, state: str, message: str) -> None:
    """Say how a job ended whose process cannot say so any more. dataset: its id."""
    jobs = coordinator(dataset)
    record = jobs.get(name)
    if record is not None and record["state"] == "requested":  # it died before it could say that it lives
        record = jobs.claim(name)
    if record is None or record["state"] != "running":
        return
    close(jobs, name, record["fencing_token"], state, message)
    jobs.fail_expired(name, message)  # which the first cannot do once the lease has ended; after it, this does nothing


def request_end(name: str, dataset: ObjectId | None) -> None:
    coordinator(dataset).request_cancel(name)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return "?"
