"""MLflow's pages of the local store, on this machine alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from study.config import Tracking
from study.errors import InputError
from study.tracking.store import uri_of


def serve(tracking: Tracking) -> None:
    """Serve MLflow's pages of the local store on 127.0.0.1 until interrupted.

    Raises
    ------
    InputError
        If a tracking server is configured, or nothing was run yet.
    """
    database = tracking.directory.absolute() / "mlflow.db"
    if tracking.uri is not None:
        raise InputError(f"tracking: open {tracking.uri} in a browser; 'ui' serves only the local store.")
    if not database.is_file():
        raise InputError(f"tracking: there is no {database} yet. Run a study first: scanvi-study run")
    port = str(tracking.port)
    store = ["--backend-store-uri", uri_of(tracking), "--artifacts-destination", str(database.parent / "artifacts")]
    print(f"MLflow: http://127.0.0.1:{port}  (Ctrl-C ends it)", file=sys.stderr)
    # Nobody asks this server to run jobs, and a dozen processes would wait for some.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # One person looks: four workers would take four times as long to start.
    where = ["--host", "127.0.0.1", "--port", port, "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", *where, *store]
    with subprocess.Popen(command, env=environment, start_new_session=True) as server:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # MLflow would leave its own processes behind.
            signal.signal(number, lambda *_: os.killpg(server.pid, signal.SIGTERM))
        server.wait()
