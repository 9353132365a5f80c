"""MLflow's pages of the local store, on this machine alone."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable
from threading import Thread
from urllib.request import urlopen

from study.config import StudyConfig
from study.errors import InputError
from study.tracking.database import database_of
from study.tracking.store import open_store, refusals, uri_of
from study.tracking.views import share_trials

WAIT = 60  # seconds for a server to start


def serve(config: StudyConfig, show: bool = False) -> int:
    """Serve MLflow's pages of the local store on 127.0.0.1 until interrupted; say where a study's trials are in it.

    Parameters
    ----------
    config
        The study.
    show
        Open its trials in a browser.

    Returns
    -------
    The exit code that MLflow ended with by itself; 0 once it was interrupted.

    Raises
    ------
    InputError
        If a tracking server is configured, nothing was run yet, the store cannot be used, or the port is taken.
    """
    tracking = config.tracking
    database = database_of(tracking)
    if tracking.uri is not None:
        raise InputError(f"tracking: open {tracking.uri} in a browser; 'ui' serves only the local store.")
    if not (database.exists() or database.is_symlink() or database.parent.is_file()):
        raise InputError(f"tracking: there is no {database} yet. Run a study first: scanvi-study run")
    with refusals(tracking):
        trials = share_trials(open_store(tracking), config.name, config.space.factors)
    _refuse_taken(tracking.port)
    port, uri = str(tracking.port), uri_of(tracking)
    store = ["--backend-store-uri", uri, "--registry-store-uri", uri]
    store += ["--artifacts-destination", str(database.parent / "artifacts")]
    address = f"http://127.0.0.1:{port}"
    _tell(config, address, trials)
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
        if show:
            Thread(target=_open, args=(address, trials, server.poll), daemon=True).start()
        code = server.wait()
    return 0 if ended else code


def _tell(config: StudyConfig, address: str, trials: str) -> None:
    """Print where everything is."""
    report = config.directory / "report.html"
    print(f"MLflow: {address}  (Ctrl-C ends it)", file=sys.stderr)
    where = address + trials if trials else "none in it yet; run the study, or sync it"
    print(f"Trials of {config.name}: {where}", file=sys.stderr)
    if report.exists():
        print(f"Report: {report.absolute().as_uri()}", file=sys.stderr)


def _open(address: str, trials: str, ended: Callable[[], int | None]) -> None:
    """Open a page once the server answers."""
    until = time.monotonic() + WAIT
    while ended() is None and time.monotonic() < until:
        try:
            urlopen(f"{address}/health", timeout=5).close()
        except OSError:
            time.sleep(0.2)
            continue
        if not webbrowser.open(address + trials):
            print("No browser could be opened from here: follow the link.", file=sys.stderr)
        return


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
