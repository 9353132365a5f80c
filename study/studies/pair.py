"""Two finished studies of one design: which of their trials pair, and what they were made with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study.config import dump, role_of, written
from study.errors import InputError, few
from study.plan import Factor
from study.studies.recorded import Key, Recorded, read_recorded, refuse_other_design
from study.trials import (
    HELD_OUT,
    MACRO,
    RECALL,
    Predictions,
    Result,
    fixed_classes,
    mean_over,
    metric,
    read_predictions,
)
from study.verdict import STUDY, A, B

POINT = "design point"  # what the points of a random design are together, whatever was drawn for each
NUMERICS = ("engine", "accelerator", "cpus", "resident")  # of the resources, what can change a result's digits
OUTCOME = metric(HELD_OUT, RECALL)


@dataclass(frozen=True)
class Differing:
    """What two studies were made with that is not the same: a package, a setting of the machine, the cells."""

    what: str
    a: str
    b: str


@dataclass(frozen=True)
class Called:
    """How alike the predictions of paired trials are.

    Attributes
    ----------
    equal
        Whether all of reference and query are the same, to the last bit.
    otherwise, cells
        Held-out cells that got another label in the second study, and all that could be compared, one by one; summed
        over trials.
    """

    equal: bool
    otherwise: int
    cells: int


@dataclass(frozen=True)
class Pair:
    """The paired trials of two studies.

    Attributes
    ----------
    counts
        One row per study, trial and class (and `MACRO`, over the classes that both have): `STUDY` (`A` or `B`), a
        column per factor, `replicate`, `seed`, `fold`, `class_name`, `correct`, `total`, of held-out recall.
    factors
        Those of the design; of a random one its points, as one factor.
    protocol
        Joint training or surgery.
    replicates, trials
        How many pair; trials are counted in one of the two.
    called
        How alike their predictions are.
    differing
        What they were made with that is not the same.
    notes
        What was left out, and what does not pair.
    """

    counts: pd.DataFrame
    factors: tuple[Factor, ...]
    protocol: str
    replicates: int
    trials: int
    called: Called
    differing: tuple[Differing, ...]
    notes: tuple[str, ...]


def read_pair(a: Path, b: Path) -> Pair:
    """Read two studies and pair their trials: the same design point, training seed and held-out fold.

    Parameters
    ----------
    a, b
        Their folders.

    Raises
    ------
    InputError
        If a folder is no study or has no results, the designs are not the same, or nothing pairs.
    """
    if a.resolve() == b.resolve():
        raise InputError(f"{a} and {b} are one folder. Name two studies of the same design.")
    sides = (read_recorded(a), read_recorded(b))
    refuse_other_design(*sides)
    points = list(dict.fromkeys(point for side in sides for point in side.points))
    _refuse_missing_points(sides, points)
    whole = [side.whole(points) for side in sides]
    common = [one for one in whole[0] if one in whole[1]]
    if not common:
        raise InputError(_nothing_pairs(sides, whole, len(points)))
    keys = [(point, *one) for one in common for point in points]
    pairs = [(sides[0].trials[key], sides[1].trials[key]) for key in keys]
    _refuse_other_settings(sides, pairs)
    names, levels = _factors(sides[0], points)
    counts = _counts(keys, pairs, names, dict(zip(points, levels, strict=True)))
    if counts.empty:
        classes = [few(pairs[0][side].classes) for side in (0, 1)]
        raise InputError(f"{a} and {b} have no class in common: {classes[0]}; and {classes[1]}.")
    factors = tuple(
        Factor(
            name, tuple(dict.fromkeys(level[f] for level in levels)), "parameter" if name == POINT else role_of(name)
        )
        for f, name in enumerate(names)
    )
    called = _called(sides, pairs)
    protocol = sides[0].config.scanvi.protocol
    notes = tuple(_notes(sides, whole, common, pairs))
    return Pair(counts, factors, protocol, len(common), len(pairs), called, _differing(sides, pairs), notes)


def _refuse_missing_points(sides: Sequence[Recorded], points: Sequence[tuple[str, ...]]) -> None:
    """Refuse a crossed design of which a point was finished in no replicate of either."""
    space = sides[0].config.space
    if space.design == "random":
        return
    levels = [dict.fromkeys(point[f] for point in points) for f in range(len(points[0]))]
    known = set(points)
    if missing := [point for point in itertools.product(*levels) if point not in known]:
        where = ", ".join(f"{name}={level}" for name, level in zip(space.factors, missing[0], strict=True))
        raise InputError(
            f"{sides[0].folder} and {sides[1].folder} have no finished trial of {where}"
            f"{f' and {len(missing) - 1} more design points' if len(missing) > 1 else ''}: the design is not whole in "
            "either. Run both to their end, or leave out a level that fails."
        )


def _refuse_other_settings(sides: Sequence[Recorded], pairs: Sequence[tuple[Result, Result]]) -> None:
    """Refuse trials of one design point whose settings are not the same; what only one version knows is passed over."""
    for one, other in pairs:
        known = _flat(one.settings), _flat(other.settings)
        for name in sorted(known[0].keys() & known[1].keys()):
            if known[0][name] != known[1][name]:
                raise InputError(
                    f"{sides[0].folder} and {sides[1].folder} are not of the same design: {name} is "
                    f"{written(known[0][name])} in the first and {written(known[1][name])} in the second. What differs "
                    "beside the versions could be the cause: run both with the same settings, or make it a factor."
                )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        found |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


def _nothing_pairs(sides: Sequence[Recorded], whole: Sequence[Sequence[tuple[int, int]]], points: int) -> str:
    def has(replicates: Sequence[tuple[int, int]]) -> str:
        return ", ".join(f"seed {seed} with fold {fold}" for seed, fold in replicates) or "none"

    return (
        f"{sides[0].folder} and {sides[1].folder} have no whole replicate in common, {points} trials with one training "
        f"seed and one held-out fold. Whole are: {has(whole[0])}; and {has(whole[1])}. Other seeds or folds are other "
        "trainings or other held-out cells, and do not pair: run both with the same space.replicates, to their end."
    )


def _factors(side: Recorded, points: Sequence[tuple[str, ...]]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the names of the factors, and the levels of each point; of a random design its points are one factor."""
    if side.config.space.design == "random":
        return [POINT], [(str(number),) for number in range(len(points))]
    return list(side.config.space.factors), list(points)


def _counts(
    keys: Sequence[Key],
    pairs: Sequence[tuple[Result, Result]],
    names: Sequence[str],
    levels: Mapping[tuple[str, ...], tuple[str, ...]],
) -> pd.DataFrame:
    """Return the counts of all paired trials, class by class."""
    common = [name for name in pairs[0][0].classes if all(name in result.classes for pair in pairs for result in pair)]
    fixed = [name for name in fixed_classes([one for pair in pairs for one in pair], OUTCOME) if name in common]
    replicates = {one: number for number, one in enumerate(dict.fromkeys((seed, fold) for _, seed, fold in keys))}
    rows: list[dict[str, Any]] = []
    for (point, seed, fold), pair in zip(keys, pairs, strict=True):
        which = {"replicate": replicates[seed, fold], "seed": seed, "fold": fold}
        where = {**dict(zip(names, levels[point], strict=True)), **which}
        for study, result in zip((A, B), pair, strict=True):
            matrix = np.asarray(result.confusion[HELD_OUT])
            line = {**where, STUDY: study}
            for name in common:
                row = matrix[result.classes.index(name)]
                right = float(row[result.classes.index(name)])
                rows.append({**line, "class_name": name, "correct": right, "total": float(row.sum())})
            if len(fixed) > 1:
                total = float(sum(matrix[result.classes.index(name)].sum() for name in fixed))
                mean = mean_over(result, OUTCOME, fixed)
                rows.append({**line, "class_name": MACRO, "correct": mean * total, "total": total})
    return pd.DataFrame(rows if common else [])


def _called(sides: Sequence[Recorded], pairs: Sequence[tuple[Result, Result]]) -> Called:
    """Compare what the trials predicted: their checksums first, for those of equal trials mostly are."""
    equal, otherwise, cells = True, 0, 0
    for one, other in pairs:
        if one.predictions == other.predictions:
            cells += int(np.sum(one.confusion[HELD_OUT]))
            continue
        a, b = (read_predictions(side.folder, result.key) for side, result in zip(sides, (one, other), strict=True))
        equal &= all(np.array_equal(getattr(a, name), getattr(b, name)) for name in Predictions.__annotations__)
        if one.digest != other.digest:
            continue  # a row is another cell
        labels = [found.probabilities[found.held_out].argmax(axis=1) for found in (a, b)]
        otherwise, cells = otherwise + int(np.count_nonzero(labels[0] != labels[1])), cells + len(a.held_out)
    return Called(equal, otherwise, cells)


def _differing(sides: Sequence[Recorded], pairs: Sequence[tuple[Result, Result]]) -> tuple[Differing, ...]:
    """Return what the two were made with that is not the same."""
    found = []
    for name in dict.fromkeys(name for pair in pairs for result in pair for name in result.made_with):
        made = [
            ", ".join(dict.fromkeys(pair[side].made_with.get(name, "not recorded") for pair in pairs))
            for side in (0, 1)
        ]
        found.append(Differing("git revision of study/" if name == "git" else name, *(one[:40] for one in made)))
    for name in NUMERICS:
        found.append(Differing(name, *(str(dump(side.config.resources)[name]) for side in sides)))
    found.append(Differing("cells (digest)", *(_digest([pair[side] for pair in pairs]) for side in (0, 1))))
    return tuple(one for one in found if one.a != one.b)


def _digest(results: Sequence[Result]) -> str:
    return ", ".join(sorted({result.digest[:12] for result in results}))


def _notes(
    sides: Sequence[Recorded],
    whole: Sequence[Sequence[tuple[int, int]]],
    common: Sequence[tuple[int, int]],
    pairs: Sequence[tuple[Result, Result]],
) -> list[str]:
    """Say what was left out, and what does not pair."""
    found = []
    for side, finished in zip(sides, whole, strict=True):
        begun = {(seed, fold) for _, seed, fold in side.trials}
        if left := len(begun) - len(common):
            found.append(
                f"{left} of {len(begun)} replicates of {side.folder} are left out: {len(begun) - len(finished)} not "
                f"whole, {len(finished) - len(common)} without a whole one of their seed and fold in the other study."
            )
    if any(one.digest != other.digest for one, other in pairs):
        found.append(
            "The cells are not the same, so the held-out cells need not be either: what other held-out cells give is "
            "in the difference, and in its interval."
        )
    for mine, other in ((0, 1), (1, 0)):
        if only := [name for name in pairs[0][mine].classes if name not in pairs[0][other].classes]:
            found.append(f"Only {sides[mine].folder} has {few(only)}: not compared.")
    return found
