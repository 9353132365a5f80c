"""Looks at a study, as its folder records them: after how many replicates it was judged, and what that used of the 5%.

A study with `replicates: auto` goes from one declared look to the next until nothing is open; which one it is at
follows from the record alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter

from study import files
from study.attribution import SIGNIFICANT, Look
from study.config import Model, SearchSpace, StudyConfig, dump, written
from study.plan import Factor, factors_of
from study.studies.records import digest_of_fixed, read_record
from study.trials import MACRO

NAME = "looks.json"


class _Kept(Model):
    """A look as it is recorded."""

    replicates: Annotated[int, Field(strict=True, ge=2, le=1_000_000)]
    level: Annotated[float, Field(strict=True, gt=0, le=SIGNIFICANT)]
    # Looks that were recorded without it were added up by their levels.
    spent: Annotated[float, Field(strict=True, gt=0, le=SIGNIFICANT)] = Field(
        default_factory=lambda kept: kept["level"]
    )
    open: tuple[str, ...] | None
    # What was asked of it, and up to how many replicates: of another question nothing is known to be open, or not.
    asked: tuple[str, ...] = ()
    most: Annotated[int, Field(strict=True, ge=0)] = 0


def _sound(looks: list[_Kept]) -> list[_Kept]:
    """Refuse what no looks are."""
    if len({look.replicates for look in looks}) < len(looks):
        raise ValueError("two looks after as many replicates")
    # What rounding leaves over is no fault.
    if (
        any(look.spent > look.level * (1 + 1e-9) for look in looks)
        or sum(look.spent for look in looks) > 1.001 * SIGNIFICANT
    ):
        raise ValueError(f"looks that spend more than their levels, or than {SIGNIFICANT:g} together")
    return looks


RECORD = TypeAdapter(dict[str, Annotated[list[_Kept], AfterValidator(_sound)]])


def taken_looks(config: StudyConfig, factors: Sequence[Factor]) -> tuple[Look, ...]:
    """Return the looks at a design that a study's folder records; what they left open only if that was asked as now.

    Raises
    ------
    InputError
        If the record cannot be read.
    """
    asked = _asked(config)
    return tuple(
        Look(one.replicates, one.level, one.spent, one.open if (one.asked, one.most) == asked else None)
        for one in _read(config).get(_design(config, factors), [])
    )


def keep_look(config: StudyConfig, factors: Sequence[Factor], look: Look) -> None:
    """Record a look, in the place of an earlier one after as many replicates."""
    every = {name: [dump(one) for one in looks] for name, looks in _read(config).items()}
    design, (asked, most) = _design(config, factors), _asked(config)
    kept = [one for one in every.get(design, []) if one["replicates"] != look.replicates]
    every[design] = [*kept, asdict(look) | {"asked": asked, "most": most}]
    files.write(config.directory / NAME, json.dumps(every, indent=1).encode())


def _asked(config: StudyConfig) -> tuple[tuple[str, ...], int]:
    """What a study that decides itself how far it goes wants told, and after how many replicates at the latest."""
    declared = config.space.declared
    return (config.outcomes[0], *asked_classes(config)), declared[-1] if declared else 0


def asked_classes(config: StudyConfig) -> tuple[str, ...]:
    """Return whose verdicts a study that decides itself how far it goes waits for."""
    return config.space.settle or (MACRO,)


def at_look(config: StudyConfig, queries: Sequence[str]) -> StudyConfig:
    """Return a study with as many replicates as its looks call for; one with a number of them as it is."""
    declared = config.space.declared
    if not declared:
        return config
    taken = taken_looks(config, factors_of(config.space, queries))
    passed = {look.replicates for look in taken if look.open}
    return with_replicates(config, next((count for count in declared if count not in passed), declared[-1]))


def with_replicates(config: StudyConfig, replicates: int) -> StudyConfig:
    """Return a study with a number of replicates."""
    space: SearchSpace = config.space.model_copy(update={"replicates": replicates, "looks": None})
    return config.model_copy(update={"space": space})


def _read(config: StudyConfig) -> dict[str, list[_Kept]]:
    return read_record(config.directory / NAME, RECORD, "looks at a study", "earlier looks are not counted") or {}


def _design(config: StudyConfig, factors: Sequence[Factor]) -> str:
    """What varies and what does not, as text: looks at another design in the same folder are none at this one."""
    varies = " x ".join(f"{one.name}({', '.join(map(written, one.levels)) or one.domain})" for one in factors)
    return f"{varies}, else {digest_of_fixed(config)}"
