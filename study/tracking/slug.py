"""Names of classes as MLflow allows them in names of metrics: reversible, and no two alike."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from study.errors import InputError

SLUG_LIMIT = 150  # characters


def slug(name: str) -> str:
    """Return a class name as MLflow allows it in a metric name; it can be turned back.

    MLflow allows letters, digits, `_`, `-`, `.`, space, `:` and `/`. Every other character, `:` and `/` themselves, and
    dots and spaces that would not survive as part of a path become ``:HEX:``. Names that get too long are cut and end
    in a hash; those alone cannot be turned back (the parent run's classes.json lists them).
    """
    safe = re.sub(r"[^\w\- .]|^[. ]|[. ]$|\.(?=\.)", lambda found: f":{ord(found[0]):X}:", name)
    if len(safe) <= SLUG_LIMIT:
        return safe
    return f"{safe[: SLUG_LIMIT - 20]}:h{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def metric_name(name: str) -> str:
    """Return a metric such as ``heldout/recall/CD4+ T`` with its class as a slug."""
    part, metric, *label = name.split("/", 2)
    return "/".join([part, metric, *map(slug, label)])


def refuse_collisions(classes: Iterable[str]) -> None:
    """Raise `InputError` if two classes get the same name."""
    names: dict[str, str] = {}
    for name in classes:
        other = names.setdefault(slug(name), name)
        if other != name:
            raise InputError(f"labels: {name!r} and {other!r} get the same name in MLflow. Rename one of them.")
