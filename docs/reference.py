"""The configuration reference: every key of the pydantic models in `study.config`, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from study.config.composition import compose, packaged_home
from study.config.study import StudyConfig
from study.config.values import dump

NAME = "<name>"
ANYTHING = "#/$defs/JsonValue"
# Sections of the page: the longest prefix that fits a key is its section. In the order of the page.
SECTIONS = {
    "": "The study",
    "data": "data: where the cells come from",
    "data.queries": "data.queries: queries and twins",
    "data.simulate": "data.simulate: counts with planted effects",
    "space": "space: what varies",
    "space.factors": "space.factors: each factor",
    "scvi": "scvi: the pretraining",
    "scanvi": "scanvi: the fine-tuning",
    "resources": "resources: what a stage may use",
    "tracking": "tracking: MLflow",
}
TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`"}
BOUNDS = {
    "minimum": "{} or more",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}


@dataclass(frozen=True)
class Key:
    """One key of the configuration: its dotted name, what it may be, its default and what it means."""

    name: str
    allowed: str
    default: str
    description: str

    @property
    def section(self) -> str:
        """The section that the key belongs to."""
        fits = (one for one in SECTIONS if not one or self.name.startswith(f"{one}."))
        return max(fits, key=len)


def every_key() -> list[Key]:
    """Return every key, in the order of the models."""
    schema = StudyConfig.model_json_schema()
    return list(_keys(schema, schema["$defs"], "", dump(compose())))


def choices() -> list[tuple[str, str]]:
    """Return the files that can be chosen on the command line, as `group=name`, each with its first comment."""
    house = packaged_home()
    groups = {group: house / "conf" / group for group in ("data", "model", "resources", "tracking")}
    found = []
    for group, folder in (groups | {"space": house / "search_spaces"}).items():
        for path in sorted(folder.glob("*.yaml")):
            comments = [line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("# ")]
            found.append(
                (f"{group}={path.stem}", next(line for line in comments if not line.startswith("@")).rstrip(":"))
            )
    return found


def render() -> str:
    """Return the choices and the tables of all sections, in Markdown."""
    found = every_key()
    rows = [f"| `{choice}` | {comment} |" for choice, comment in choices()]
    parts = ["\n".join(["## Files to choose", "", "| say | for |", "|---|---|", *rows])]
    for section, title in SECTIONS.items():
        rows = [key for key in found if key.section == section]
        table = [f"| `{key.name}` | {key.allowed} | {key.default} | {key.description} |" for key in rows]
        head = ["| key | may be | in the default study | what it is |", "|---|---|---|---|"]
        parts.append("\n".join([f"## {title}", "", *head, *table]))
    return "\n\n".join(parts) + "\n"


def _keys(model: Mapping[str, Any], models: Mapping[str, Any], prefix: str, composed: Any) -> Iterator[Key]:
    """Walk down the models: keys that hold other keys are not listed themselves, but those that may be absent are."""
    for name, field in model["properties"].items():
        inner, path = _model_in(field), f"{prefix}{name}"
        value = composed.get(name) if isinstance(composed, Mapping) else None
        if inner is None or "anyOf" in field:
            default = field.get("default")
            there = isinstance(composed, Mapping) and name in composed
            yield Key(path, _allowed(field), _shown(value if there else default, name), field.get("description", ""))
        if inner is not None:
            path += f".{NAME}" if "additionalProperties" in field else ""
            value = None if "additionalProperties" in field else value
            yield from _keys(models[inner], models, f"{path}.", value)


def _model_in(field: Mapping[str, Any]) -> str | None:
    """Name of the model that a field holds: itself, under names, or as one of several things."""
    for one in (field, field.get("additionalProperties"), *field.get("anyOf", ())):
        if isinstance(one, Mapping) and one.get("$ref", ANYTHING) != ANYTHING:
            return str(one["$ref"]).rpartition("/")[2]
    return None


def _allowed(field: Mapping[str, Any]) -> str:
    """Say in plain words what a value may be."""
    if "anyOf" in field:
        words = list(dict.fromkeys(_allowed(one) for one in field["anyOf"]))
        if {"whole number", "number", "text"} <= {*words}:
            return "any plain value"
        return ", or ".join(words)
    if field.get("$ref", ANYTHING) != ANYTHING:
        return "the keys below"
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kind = field.get("type")
    if kind == "array":
        return f"list of: {_allowed(field['items'])}"
    if kind == "object":
        return f"`{{name: …}}`, each: {_allowed(field['additionalProperties'])}"
    if field.get("format") == "path":
        return "path"
    if kind == "null":
        return "`null`"
    bounds = [words.format(field[bound]) for bound, words in BOUNDS.items() if bound in field]
    return ", ".join([TYPES.get(str(kind), "any plain value"), *bounds])


def _shown(value: Any, name: str) -> str:
    """Show a default as it would be written; nothing where there is none."""
    if value is None or value in ({}, []):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Mapping):
        return ", ".join(f"`{one}`" for one in value)
    if isinstance(value, list):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{value}`"
