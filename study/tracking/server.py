"""MLflow's pages of the local store, on this machine alone."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

from study.config import Tracking
from study.errors import InputError
from study.tracking.database import database_of
from study.tracking.store import open_store, refusals, uri_of


def serve(tracking: Tracking) -> int:
    """Serve MLflow's pages of the local store on 127.0.0.1 until interrupted.

    Returns
    -------
    The exit code that MLflow ended with by itself; 0 once it was interrupted.

    Raises
    ------
    InputError
        If a tracking server is configured, nothing was run yet, the store cannot be used, or the port is taken.
    """
    database = database_of(tracking)
    if tracking.uri is not None:
        raise InputError(f"tracking: open {tracking.uri} in a browser; 'ui' serves only the local store.")
    if not (database.exists() or database.is_symlink() or database.parent.is_file()):
        raise InputError(f"tracking: there is no {database} yet. Run a study first: scanvi-study run")
    with refusals(tracking):
        open_store(tracking)
    _refuse_taken(tracking.port)
    port, uri = str(tracking.port), uri_of(tracking)
    store = ["--backend-store-uri", uri, "--registry-store-uri", uri]
    store += ["--artifacts-destination", str(database.parent / "artifacts")]
    print(f"MLflow: http://127.0.0.1:{port}  (Ctrl-C ends it)", file=sys.stderr)
    # One person looks: four workers would take four times as long to start.
    where = ["--host", "127.0.0.1", "--port", port, "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", *where, *store]
    ended: list[int] = []
    with subprocess.Popen(command, env=_environment(), start_new_session=True) as server:

        def end(number: int, _: object) -> None:
            ended.append(number)
            # MLflow would leave its own processes behind.
            os.killpg(server.pid, signal.SIGTERM)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, end)
        code = server.wait()
    return 0 if ended else code


def _environment() -> dict[str, str]:
    """Return the environment of the server, without what would show another store, or a part of one."""
    kept = {name: value for name, value in os.environ.items() if not re.match("MLFLOW_.*(_URI|ARTIFACT)", name)}
    # Nobody asks this server to run jobs, and a dozen processes would wait for some.
    return {**kept, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def _refuse_taken(port: int) -> None:
    with socket.socket() as here:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
        try:
            here.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"tracking.port={port}: cannot be used ({error.strerror}). Another program, or another 'ui', may have "
                f"it: choose another, as in 'tracking.port={port + 1 if port < 65535 else 5001}'."
            ) from None
