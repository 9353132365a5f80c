"""Problems of validation as sentences: the key as it was written, what was found, and a neighbour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import (
    BaseModel,
)
from pydantic import ValidationError as PydanticError

from study.config.values import written
from study.errors import nearest

# What pydantic says in Python's words, in a user's.
WORDS = {
    "dictionary": "mapping {key: value}",
    "valid tuple": "list, as in [a, b]",
    "a valid boolean": "true or false",
    "valid integer": "whole number",
    "a valid string": "text",
    f" for {Path}": "",
    ", unable to parse string as a number": "",
}


def explain(error: PydanticError, where: str, root: type[BaseModel], values: Any) -> str:
    """Turn pydantic's problems into sentences with the dotted key, what was found and a neighbour."""
    expected: dict[tuple[str, str], dict[str, None]] = {}
    problems = [
        (_keys(problem["loc"], values, problem["type"] == "missing"), problem)
        for problem in error.errors(include_url=False)
    ]
    for keys, problem in problems:
        # Of a value that may be a list or something else, what is wrong inside the list was meant.
        if any(len(other) > len(keys) and other[: len(keys)] == keys for other, _ in problems):
            continue
        key = ".".join(keys) or "configuration"
        message, found = problem["msg"].removeprefix("Value error, "), ""
        if problem["type"] == "missing":
            message = f"is missing. Give it, as in '{key}=...'."
        elif problem["type"] == "extra_forbidden":
            message = f"is no known key.{_instead(root, keys)}"
            if keys[:2] == ["space", "factors"] and keys[2] in ("scvi", "scanvi"):
                message += " A factor with a dot in its name is changed in the file of the search space."
        elif problem["type"] != "value_error":
            message = message.partition(" or instance of ")[0]
            for theirs, ours in WORDS.items():
                message = message.replace(theirs, ours)
            found = f", found {_shown(problem['input'])}."
        expected.setdefault((key, found), {})[message] = None
    lines = []
    for (key, found), (first, *others) in expected.items():
        # What may be one of several things fails as each of them: one sentence.
        either = ", or ".join([first, *(other.removeprefix("Input should be ") for other in others)])
        lines.append(f"{where}{key}: {either}{found}")
    return "\n".join(lines)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return repr(value) if isinstance(value, str) else written(value)


def _keys(loc: Sequence[int | str], values: Any, missing: bool) -> list[str]:
    """Keys as they were written: without what pydantic adds for the kinds of value that it tried."""
    keys = []
    for part in loc:
        inside = part in values if isinstance(values, Mapping) else isinstance(part, int)
        if inside:
            values = values[part]
        if inside or (missing and part is loc[-1]):
            keys.append(str(part))
    return keys


def _instead(root: type[BaseModel], keys: Sequence[str]) -> str:
    """Say where a key of this name is, or which one is nearest, or which ones there are."""
    beside = _fields_at(root, keys[:-1])
    elsewhere = [place for place in _places(root) if place.rpartition(".")[2] == keys[-1]]
    misplaced = f" Did you mean {' or '.join(map(repr, elsewhere[:3]))}?" if elsewhere else ""
    known = f" Known there: {', '.join(beside)}." if beside else ""
    return nearest(keys[-1], beside, like=0.8) or misplaced or nearest(keys[-1], beside) or known


def _places(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys that have a fixed place."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _places(field.annotation, f"{prefix}{name}.")


def _fields_at(root: type[BaseModel], keys: Sequence[str]) -> list[str]:
    """Names of the keys of the mapping found by walking down some keys."""
    kind: Any = root
    for key in keys:
        field = getattr(kind, "model_fields", {}).get(key)
        # A key that is no field is a name of the user's, in a mapping of like things.
        kind = _model_in(field.annotation) if field else kind
    return list(getattr(kind, "model_fields", ()))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation is, or has among what it allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
