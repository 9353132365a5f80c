"""The tracking store: how it is opened, what it raises when it refuses, and what that means."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from alembic.util.exc import CommandError
from mlflow import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from study.config import Tracking
from study.errors import InputError
from study.tracking.database import ANEW, database_of, follow, refuse_unusable, write_ahead

log = logging.getLogger(__name__)

# What MLflow and its stores raise: a gone server, a locked, full or damaged database, another version's, a driver that
# is not installed, artifacts that cannot be written.
REFUSED = (mlflow.exceptions.MlflowException, SQLAlchemyError, CommandError, sqlite3.Error, OSError, ImportError)
# MLflow would try for four minutes to reach a server, and wait two for each answer.
BOUNDS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
# With these MLflow would keep some of a study elsewhere than its configuration says.
ELSEWHERE = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
PARAM_LIMIT = 6000  # characters
LONGEST = 300  # characters of a reason


def uri_of(tracking: Tracking) -> str:
    """Return the address of the tracking store, with absolute paths."""
    return tracking.uri or f"sqlite:///{database_of(tracking)}"


def import_store(tracking: Tracking) -> None:
    """Import what MLflow imports itself when it first opens a local store, for half a second."""
    if tracking.uri is None:
        import mlflow.store.model_registry.sqlalchemy_store
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


@contextmanager
def refusals(tracking: Tracking) -> Iterator[None]:
    """Turn what a store that cannot be used raises inside into an `InputError` that says why, and what to do."""
    try:
        yield
    except REFUSED as error:
        raise InputError(f"{cause_of(error, tracking)} Results are not touched.") from error


def open_store(tracking: Tracking) -> MlflowClient:
    """Return a client of the store; a local one is made if it is not there, and found where it was moved to.

    What `MLFLOW_TRACKING_URI` and `MLFLOW_REGISTRY_URI` say is set aside, which a warning tells.

    Raises
    ------
    InputError
        If the files of a local store are of the wrong kind, or damaged.
    Exception
        Of `REFUSED`, if the store refuses otherwise.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It logs tracebacks of what it raises as well.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    for name, value in BOUNDS.items():
        os.environ.setdefault(name, value)
    uri = uri_of(tracking)
    # Not what they say: it may hold a password.
    if named := [name for name in ELSEWHERE if os.environ.get(name, "") not in ("", uri)]:
        log.warning(
            "%s of the environment set aside: MLflow is at %s. Name another place with 'tracking=server "
            "tracking.uri=...'.",
            " and ".join(named),
            uri,
        )
    if tracking.uri is not None:
        return MlflowClient(uri, registry_uri=uri)
    database = database_of(tracking)
    refuse_unusable(database)
    client = MlflowClient(uri, registry_uri=uri)
    client.search_experiments(max_results=1)  # makes its tables, and looks at its version
    follow(database)
    write_ahead(database)
    return client


def cause_of(error: BaseException, tracking: Tracking) -> str:
    """Say why a store refuses, and what to do about it."""
    if tracking.uri is not None:
        return (
            f"tracking.uri={tracking.uri}: MLflow cannot be used there ({reason(error)}). Start the server, correct "
            "the address, or track on this machine with 'tracking=local'."
        )
    database, kind = database_of(tracking), _sqlite_kind(error)
    if isinstance(error, CommandError) or "database schema" in str(error):
        return (
            f"{database}: was written by another version of MLflow than {mlflow.__version__}, which is installed. "
            f"{ANEW} If an older one wrote it, 'mlflow db upgrade {uri_of(tracking)}' keeps what else is in it."
        )
    if kind in ("BUSY", "LOCKED"):
        return f"{database}: is locked by another program. Wait for it, or end it."
    if kind == "FULL":
        return f"{database}: cannot be written, the disk is full. Make room."
    if kind in ("READONLY", "CANTOPEN", "PERM") or isinstance(error, PermissionError):
        return (
            f"{database}: cannot be opened and written to ({reason(error)}). Give yourself the right to, or name "
            "another folder with 'tracking.directory=...'."
        )
    if kind in ("CORRUPT", "NOTADB", "ERROR", "IOERR"):
        return f"{database}: is damaged, or not MLflow's ({reason(error)}). {ANEW}"
    return f"{database}: MLflow cannot be used ({reason(error)})."


def reason(error: BaseException) -> str:
    """Return, in a line, what an error says; of one that sqlite or the system is behind, what those say."""
    text = str(error)
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            return f"{cause.strerror}: {cause.filename}" if cause.filename else cause.strerror
        if isinstance(cause, sqlite3.Error):
            text = str(cause)
    told = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text)
    line = told[1] if told else next(iter(text.splitlines()), type(error).__name__)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def _sqlite_kind(error: BaseException) -> str:
    """Return sqlite's name for what is wrong, such as BUSY; empty where sqlite is not behind it."""
    found = (getattr(cause, "sqlite_errorname", "") for cause in _causes(error) if isinstance(cause, sqlite3.Error))
    return next(found, "").removeprefix("SQLITE_").partition("_")[0]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what was behind it, the last first."""
    at: BaseException | None = error
    while at is not None:
        yield at
        at = getattr(at, "orig", None) or at.__cause__ or at.__context__
