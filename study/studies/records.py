"""What a study remembers in its folder about itself: small files of JSON, checked as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from study.errors import InputError

T = TypeVar("T")


def read_record(path: Path, kind: TypeAdapter[T], what: str, without: str) -> T | None:
    """Read a record; None where there is none.

    Parameters
    ----------
    path
        The file.
    kind
        What it must hold.
    what, without
        What it records, and what follows if it is removed, in words.

    Raises
    ------
    InputError
        If it holds something else.
    """
    if not path.is_file():
        return None
    try:
        return kind.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{path} does not record {what} ({'.'.join(map(str, first['loc'])) or 'as a whole'}: {first['msg']}). "
            f"Restore or remove it: then {without}."
        ) from None
