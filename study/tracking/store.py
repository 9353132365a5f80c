"""The tracking store: where it is, how it is opened, and what it raises when it refuses."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing

import mlflow
from mlflow import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from study.config import Tracking

# What MLflow and its stores raise: a gone server, a locked, full or damaged database, artifacts that cannot be written.
REFUSED = (mlflow.exceptions.MlflowException, SQLAlchemyError, sqlite3.Error, OSError)
# Seconds to wait for a locked database, as MLflow itself does, and before a refused store is tried again.
PATIENCE = 20.0
# MLflow would try for four minutes to reach a server, and wait two for each answer.
BOUNDS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
PARAM_LIMIT = 6000  # characters


def uri_of(tracking: Tracking) -> str:
    """Return the address of the tracking store, with absolute paths."""
    return tracking.uri or f"sqlite:///{tracking.directory.absolute() / 'mlflow.db'}"


def open_store(tracking: Tracking) -> MlflowClient:
    """Return a client of the store; the folder of a local one is made."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It logs tracebacks of what it raises as well.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    for name, value in BOUNDS.items():
        os.environ.setdefault(name, value)
    tracking.directory.absolute().mkdir(parents=True, exist_ok=True)
    return MlflowClient(uri_of(tracking))


def write_ahead(tracking: Tracking) -> None:
    """Let a local database be read while it is written to."""
    if tracking.uri is None:
        with closing(sqlite3.connect(tracking.directory.absolute() / "mlflow.db", timeout=PATIENCE)) as database:
            database.execute("PRAGMA journal_mode=WAL")


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return next(iter(str(error).splitlines()), type(error).__name__)
