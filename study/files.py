"""Files that are whole or not there: written aside, flushed, renamed; known by their checksum; named safely."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from errno import EACCES, EEXIST, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EROFS
from pathlib import Path

from study.errors import WritingError

ASIDE = ".tmp"
# What has nothing to do with room on the disk.
NO_PLACE = (EACCES, EEXIST, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EROFS)
PLAIN = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,78}[A-Za-z0-9_-])?")  # as a name of a file, on every system
HASHED = re.compile(r".*-[0-9a-f]{12}")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what goes wrong in writing `path` inside into a `WritingError`."""
    try:
        yield
    except WritingError:
        raise
    except OSError as error:
        there = next(folder for folder in path.absolute().parents if folder.is_dir())
        free = f"{shutil.disk_usage(there).free / 2**20:,.1f} MiB are free there. "
        advice = "Make room or choose another disk; the same command then goes on from there."
        if error.errno in NO_PLACE:
            free, advice = "", "Name another place, or mend this one; the same command then goes on from there."
        raise WritingError(
            f"{path} cannot be written ({error.strerror or error}). {free}Whatever was written before is whole. "
            f"{advice}"
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


def file_names(names: Iterable[str]) -> dict[str, str]:
    """Return what files of some things are called by the names of these: no path, and no two alike.

    It is the name itself where that is plain, else what is plain of it and a hash of all of it. Names that differ in
    case alone get a hash too: some file systems take them for one.
    """
    known = list(dict.fromkeys(names))
    alike = Counter(name.casefold() for name in known)
    found = {}
    for name in known:
        # One that looks as if it had a hash gets one, or it could be what another name becomes.
        plain = PLAIN.fullmatch(name) and not HASHED.fullmatch(name) and alike[name.casefold()] == 1
        part = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._-")[:60]
        found[name] = name if plain else f"{part or 'name'}-{sha256(name.encode())[:12]}"
    return found


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
