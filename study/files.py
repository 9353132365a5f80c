"""Files that are whole or not there: written aside, flushed, renamed; and known by their checksum."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path


def write(path: Path, content: bytes) -> str:
    """Write a file atomically and durably; return the sha256 of its content.

    Raises
    ------
    OSError
        If it cannot be written (a full disk, say). Then no part of it is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return sha256(content)


def sha256(content: bytes) -> str:
    """Return the sha256 of some bytes, in hex."""
    return hashlib.sha256(content).hexdigest()
