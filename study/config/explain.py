"""Problems of validation as sentences: the key as it was written, what was found, and a neighbour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import (
    BaseModel,
)
from pydantic import ValidationError as PydanticError

from study.errors import nearest


def explain(error: PydanticError, where: str, root: type[BaseModel], values: Any) -> str:
    """Turn pydantic's problems into sentences with the dotted key, what was found and a neighbour."""
    expected: dict[tuple[str, str], dict[str, None]] = {}
    for problem in error.errors(include_url=False):
        keys = _keys(problem["loc"], values, problem["type"] == "missing")
        key = ".".join(keys) or "configuration"
        message, found = problem["msg"].removeprefix("Value error, "), ""
        if problem["type"] == "missing":
            message = f"is missing. Give it, as in '{key}=...'."
        elif problem["type"] == "extra_forbidden":
            message = f"is no known key.{_instead(root, keys)}"
            if keys[:2] == ["space", "factors"] and keys[2] in ("scvi", "scanvi"):
                message += " A factor with a dot in its name is changed in the file of the search space."
        elif problem["type"] != "value_error":
            message = message.partition(" or instance of ")[0].replace("dictionary", "mapping {key: value}")
            message = message.replace("a valid tuple", "a list [value, ...]")
            found = f", found {'a mapping' if isinstance(problem['input'], Mapping) else repr(problem['input'])}."
        expected.setdefault((key, found), {})[message] = None
    lines = []
    for (key, found), (first, *others) in expected.items():
        # What may be one of several things fails as each of them: one sentence.
        either = ", or ".join([first, *(other.removeprefix("Input should be ") for other in others)])
        lines.append(f"{where}{key}: {either}{found}")
    return "\n".join(lines)


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
    elsewhere = [place for place in _places(root) if place.rpartition(".")[2] == keys[-1]]
    if elsewhere:
        return f" Did you mean {' or '.join(map(repr, elsewhere[:3]))}?"
    beside = _fields_at(root, keys[:-1])
    return nearest(keys[-1], beside) or (f" Known there: {', '.join(beside)}." if beside else "")


def _places(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys that have a fixed place."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _places(field.annotation, f"{prefix}{name}.")


def _fields_at(model: type[BaseModel], loc: Sequence[str]) -> list[str]:
    """Names of the fields of the model found by walking down a location."""
    for part in loc:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)
