"""What a study remembers in its folder about itself: small files of JSON, checked as they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from study import files
from study.config import Settings, StudyConfig
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
    try:
        return kind.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Mend or remove it: then {without}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{path} does not record {what} ({'.'.join(map(str, first['loc'])) or 'as a whole'}: {first['msg']}). "
            f"Restore or remove it: then {without}."
        ) from None


def digest_of_fixed(config: StudyConfig) -> str:
    """Return what tells studies in one folder apart whose factors are alike: all that is fixed, in a few characters."""
    fixed = config.model_dump(mode="json", include=set(Settings.model_fields) - {"budget"})
    fixed |= {"data": config.data.name, "folds": config.space.n_folds, "engine": config.resources.engine}
    return files.sha256(json.dumps(fixed, sort_keys=True).encode())[:12]
