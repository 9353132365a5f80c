"""A trial's settings and circumstances as MLflow takes them: flat parameters, and tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow.entities import RunTag

from study.trials import Result


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names, as params have them."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def tags_of(result: Result) -> list[RunTag]:
    """Return what a trial was made with, as tags."""
    return [
        *(RunTag(f"version.{name}", value) for name, value in result.made_with.items()),
        RunTag("data_digest", result.digest),
        RunTag("seconds", f"{result.seconds:.2f}"),
    ]
