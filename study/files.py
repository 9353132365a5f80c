"""Files that are whole or not there: written aside, flushed, renamed; and known by their checksum."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from study.errors import WritingError

ASIDE = ".tmp"


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what goes wrong in writing `path` inside into a `WritingError`."""
    try:
        yield
    except WritingError:
        raise
    except OSError as error:
        there = next(folder for folder in path.absolute().parents if folder.is_dir())
        free = shutil.disk_usage(there).free / 2**20
        raise WritingError(
            f"{path} cannot be written ({error.strerror or error}); {free:,.1f} MiB are free there. Whatever was "
            "written before is whole. Make room or choose another disk; the same command then goes on from there."
        ) from error


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a path aside to write to; on leaving, it durably takes the place of `path`.

    Raises
    ------
    WritingError
        If it cannot be written (a full disk, say). Then no part of it is left.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{ASIDE}{path.suffix}")
        try:
            yield aside
            _flush(aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        _flush(path.parent)


def tidy(folder: Path, untouched: float = 0) -> None:
    """Remove what a process that was killed left half written in a folder and those below.

    Parameters
    ----------
    folder
        Where to look.
    untouched
        Seconds since it was written to; what is younger may be another process's, still at work.
    """
    for path in folder.rglob(f".*{ASIDE}*"):
        if time.time() - path.stat().st_mtime >= untouched:
            path.unlink(missing_ok=True)


def write(path: Path, content: bytes) -> str:
    """Write a file as `writing` does; return the sha256 of its content."""
    with writing(path) as aside:
        aside.write_bytes(content)
    return sha256(content)


def sha256(content: bytes) -> str:
    """Return the sha256 of some bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
