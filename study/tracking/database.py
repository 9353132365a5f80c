"""The files of the local store: told by what is wrong with them, and what was moved is found where it is now."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from study.config import Tracking
from study.errors import InputError

# Seconds to wait for a locked database, as MLflow itself does, and before a refused store is tried again.
PATIENCE = 20.0
# Where MLflow writes down, whole, in which folder artifacts are.
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
ANEW = "Move it aside; 'scanvi-study sync', with the same overrides, then makes it anew from the results."


def database_of(tracking: Tracking) -> Path:
    """Return where the database of the local store is, absolute."""
    return tracking.directory.absolute() / "mlflow.db"


def refuse_unusable(database: Path) -> None:
    """Raise `InputError` if no database can be there, or the one that is there is damaged; make the file if none is.

    What the system and sqlite raise besides is passed on, and at once: MLflow would try for minutes.
    """
    folder = database.parent
    for place in (folder, folder / "artifacts"):
        if place.exists() and not place.is_dir():
            raise InputError(
                f"{place}: is a file, where MLflow needs a folder. Move it aside, or name another folder with "
                "'tracking.directory=...'."
            )
    if "?" in str(database) or unquote(str(database)) != str(database):
        raise InputError(
            f"{folder}: MLflow opens no database in a folder with '?' or with '%' and two digits in its name. Rename "
            "it, or name another with 'tracking.directory=...'."
        )
    if database.is_dir():
        raise InputError(f"{database}: is a folder, where MLflow's database belongs. {ANEW}")
    if database.is_symlink() and not database.exists():
        raise InputError(
            f"{database}: is a link to {database.readlink()}, which is not there. Bring that back, or remove the link; "
            "'scanvi-study sync', with the same overrides, then makes the database anew from the results."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with database.open("ab"):
        pass
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise InputError(f"{database}: is damaged ({' '.join(found.split())}). {ANEW}")


def follow(database: Path) -> None:
    """Let a database that was moved, or is a copy, name the folder of artifacts that lies beside it now."""
    now = database.parent.as_uri()
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection, connection:
        for root in set(_roots(connection)) - {now}:
            before = Path(unquote(urlsplit(root).path))
            # Another path to the same folder, through a link say, is left as it is.
            if before.exists() and before.samefile(database.parent):
                continue
            for table, column in PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (now, len(root) + 1, len(root) + 1, f"{root}/"),
                )


def write_ahead(database: Path) -> None:
    """Let a database be read while it is written to."""
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _roots(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield the folder that each study's experiment was made in, as MLflow writes it."""
    for name, location in connection.execute("SELECT name, artifact_location FROM experiments"):
        root, found, rest = str(location).rpartition("/artifacts/")
        if found and unquote(rest) == name and root.startswith("file:///"):
            yield root
