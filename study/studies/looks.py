"""Looks at a study, as its folder records them: after how many replicates it was judged, and what that used of the 5%.

A study with `replicates: auto` goes from one declared look to the next until nothing is open; which one it is at
follows from the record alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from study import files
from study.attribution import Look
from study.config import SearchSpace, StudyConfig, written
from study.errors import InputError
from study.plan import Factor, factors_of
from study.studies.growth import at_epochs, growth_of

NAME = "looks.json"


def taken_looks(directory: Path, factors: Sequence[Factor]) -> tuple[Look, ...]:
    """Return the looks at a design that a study's folder records.

    Raises
    ------
    InputError
        If the record cannot be read.
    """
    found = _read(directory / NAME).get(_design(factors), [])
    return tuple(Look(one["replicates"], one["level"], _tuple(one["open"])) for one in found)


def keep_look(directory: Path, factors: Sequence[Factor], look: Look) -> None:
    """Record a look, in the place of an earlier one after as many replicates."""
    kept = [one for one in taken_looks(directory, factors) if one.replicates != look.replicates]
    every = _read(directory / NAME) | {_design(factors): [asdict(one) for one in (*kept, look)]}
    files.write(directory / NAME, json.dumps(every, indent=1).encode())


def at_look(config: StudyConfig, queries: Sequence[str]) -> StudyConfig:
    """Return a study as its record calls for it: with so many levels of epochs, and after its looks so many replicates.

    A study with a number of replicates, and of levels, is as it says. Epochs grow before the first look.
    """
    config, declared = at_epochs(config, growth_of(config)), config.space.declared
    if not declared:
        return config
    taken = taken_looks(config.directory, factors_of(config.space, queries))
    passed = {look.replicates for look in taken if look.open}
    return with_replicates(config, next((count for count in declared if count not in passed), declared[-1]))


def with_replicates(config: StudyConfig, replicates: int) -> StudyConfig:
    """Return a study with a number of replicates."""
    space: SearchSpace = config.space.model_copy(update={"replicates": replicates, "looks": None})
    return config.model_copy(update={"space": space})


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    if not path.is_file():
        return {}
    try:
        found: dict[str, list[dict[str, Any]]] = json.loads(path.read_text())
        for look in (look for looks in found.values() for look in looks):
            Look(int(look["replicates"]), float(look["level"]), _tuple(look["open"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} does not record looks at a study ({type(error).__name__}: {error}). Restore or remove it: then "
            "earlier looks are not counted."
        ) from None
    return found


def _tuple(open_ones: list[str] | None) -> tuple[str, ...] | None:
    return None if open_ones is None else tuple(open_ones)


def _design(factors: Sequence[Factor]) -> str:
    """What varies, as text: looks at another design in the same folder are none at this one."""
    return " x ".join(f"{one.name}({', '.join(map(written, one.levels)) or one.domain})" for one in factors)
