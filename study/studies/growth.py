"""Epochs that grow: of declared levels, those that a study has trained so far, and whether more of them matter."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from study import files
from study.config import GROWING, StudyConfig, dump, written
from study.studies.records import digest_of_fixed, read_record

NAME = "epochs.json"
FIRST = 2  # levels: with one there is nothing to compare
# Epochs that change the mean of all classes by less than so many points, for certain, matter no more.
MOVES = 1.0


@dataclass(frozen=True, config=ConfigDict(strict=True, allow_inf_nan=False, extra="forbid"))
class Growth:
    """How far epochs have grown.

    Attributes
    ----------
    levels
        All that are declared.
    grown
        How many of them are trained.
    ended
        Whether it stays at that.
    points, lower, upper
        What the last of them changed, in points of the mean of all classes, with its interval; None if not known.
    replicates
        In how many replicates that was found.
    design
        What else varies and what is fixed, as text: what another design grew to says nothing of this one.
    """

    levels: tuple[int, ...]
    grown: Annotated[int, Field(ge=FIRST)] = FIRST
    ended: bool = False
    points: float | None = None
    lower: float | None = None
    upper: float | None = None
    replicates: int = 0
    design: str = ""

    def words(self, spent: float) -> str:
        """Say how far epochs grew, and why no further; `spent` is the share of steps beyond the last but one level."""
        here, left = self.levels[: self.grown], self.levels[self.grown :]
        text = f"Epochs grew to {written(here[-1])} of {', '.join(map(written, self.levels))}."
        if self.points is None or self.lower is None or self.upper is None:
            return text
        text += (
            f" From {written(here[-2])} to {written(here[-1])} the mean of all classes changed by {self.points:+.1f} "
            f"points [{self.lower:.1f}, {self.upper:.1f}] in {self.replicates} replicates"
        )
        if not left and max(abs(self.lower), abs(self.upper)) >= MOVES:
            return f"{text}: more of them may still change it."
        why = f", so it was not trained to {', '.join(map(written, left))}" if left else ""
        return f"{text}{why}; what was trained beyond {written(here[-2])} is {spent:.0%} of all optimiser steps."


RECORD = TypeAdapter(Growth)


def growth_of(config: StudyConfig) -> Growth | None:
    """Return how far the epochs of a study have grown; None of a study whose epochs do not.

    Raises
    ------
    InputError
        If the record cannot be read.
    """
    declared = config.space.factors[GROWING].levels if config.budget == "grow" else None
    if not isinstance(declared, tuple):
        return None
    levels = tuple(level for level in declared if isinstance(level, int))  # as its factor has been found to be
    without = "they are judged anew, and nothing is trained again"
    kept = read_record(config.directory / NAME, RECORD, "epochs that grow", without)
    design = _design(config)
    here = kept is not None and (kept.levels, kept.design) == (levels, design) and kept.grown <= len(levels)
    return kept if here else Growth(levels, design=design)


def _design(config: StudyConfig) -> str:
    others = {name: dump(factor) for name, factor in config.space.factors.items() if name != GROWING}
    return f"{json.dumps(others, sort_keys=True)}, else {digest_of_fixed(config)}"


def keep_growth(directory: Path, growth: Growth) -> None:
    """Record how far epochs have grown."""
    files.write(directory / NAME, json.dumps(asdict(growth), indent=1).encode())


def at_epochs(config: StudyConfig, growth: Growth | None) -> StudyConfig:
    """Return a study with as many levels of epochs as are called for."""
    if growth is None:
        return config
    factor = config.space.factors[GROWING].model_copy(update={"levels": growth.levels[: growth.grown]})
    space = config.space.model_copy(update={"factors": {**config.space.factors, GROWING: factor}})
    return config.model_copy(update={"space": space})
