"""How sharp a study will be before it runs: interval half-widths to expect with more replicates.

The same intervals as the attribution, put on the mean squares that a study is expected to find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from study.attribution import (
    CAUSES,
    CHANCE,
    DATA,
    MIXED,
    PARAMETER,
    Attribution,
    Floats,
    Layout,
    layout_of,
    share_bounds,
)
from study.plan import Factor, Stratum
from study.verdict.power import expected_squares, sharpness, stratum_of

REPLICATES = (3, 5, 10)
# Effects of so many points matter to most users.
MATTERS = 10


@dataclass(frozen=True)
class Assumptions:
    """What a study is expected to find in one class, all variances on the logit scale.

    Attributes
    ----------
    chance
        Variance that enters at each stratum, by its name.
    causes
        Variance that each group of causes explains, by its name; 0 where it is not named.
    percent
        Typical value of the outcome, which turns the logit scale into points.
    source
        Where the numbers come from, in words.
    """

    chance: Mapping[str, float]
    causes: Mapping[str, float]
    percent: float
    source: str


# For a first study. Half of the differences are chance, as in the small real trainings of docs/validation.md.
ASSUMED = Assumptions(
    chance={
        "pretraining": 0.08,
        "pretraining snapshots": 0.02,
        "fine-tuning": 0.06,
        "fine-tuning snapshots": 0.02,
        "surgery": 0.02,
    },
    causes={DATA: 0.08, PARAMETER: 0.08, MIXED: 0.04},
    percent=85.0,
    source="assumed: no earlier study given",
)


@dataclass(frozen=True)
class ExpectedShare:
    """The half-width to expect for the interval of a group's share."""

    replicates: int
    group: str
    share: float
    half_width: float


@dataclass(frozen=True)
class ExpectedEffect:
    """What to expect of a difference between two levels of a factor, in points.

    Attributes
    ----------
    df
        Degrees of freedom of its stratum's error in one class.
    half_width
        Of its interval.
    detectable
        How large it must be to be called real in four of five studies, after correction for all effects.
    """

    replicates: int
    factor: str
    stratum: str
    df: int
    half_width: float
    detectable: float


@dataclass(frozen=True)
class Precision:
    """What to expect of a design, by number of replicates; `statement` says in words what sharpens it.

    `ends_after` is after how many replicates a study that goes on until nothing is open ends on average.
    """

    source: str
    shares: tuple[ExpectedShare, ...]
    effects: tuple[ExpectedEffect, ...]
    statement: str
    ends_after: float | None = None


def assumptions_from(found: Attribution) -> Assumptions:
    """Return what an earlier study found in one class, to plan the next one.

    Raises
    ------
    ValueError
        If that class was not decomposed.
    """
    if not found.shares:
        raise ValueError(f"{found.outcome} of {found.class_name} was not decomposed: {found.reason}.")
    causes = {group: sum(row.variance for row in found.anova if row.group == group) for group in CAUSES}
    return Assumptions(
        chance={part.stratum: part.variance for part in found.chance},
        causes={group: max(variance, 0.0) for group, variance in causes.items()},
        percent=found.points,
        source=f"found earlier in {found.outcome} of {found.class_name}, {found.replicates} replicates",
    )


def expected_precision(
    factors: Sequence[Factor],
    strata: Sequence[Stratum],
    assumptions: Assumptions = ASSUMED,
    replicates: Sequence[int] = REPLICATES,
    classes: int = 1,
) -> Precision:
    """Return the half-widths of 95% intervals to expect of a design.

    Parameters
    ----------
    factors, strata
        The design, as for `study.attribution.attribute_study`.
    assumptions
        Variances to expect. A group's variance is put on its lowest effects, in equal parts.
    replicates
        Numbers of replicates to look at.
    classes
        Number of classes, which share what is known of errors and are corrected together.

    Raises
    ------
    ValueError
        If the design has a stratum for which no chance is given.
    """
    layout = layout_of(factors, strata)
    chance, causes = _chance(layout, assumptions), _terms(layout, assumptions)
    shares, effects = [], []
    for count in replicates:
        found = expected_squares(causes, chance, layout, count)
        bounds = share_bounds(found, layout)
        for g, group in enumerate((*CAUSES, CHANCE)):
            if group in (*layout.groups, CHANCE):
                half = float(bounds.upper[g] - bounds.lower[g]) / 2
                shares.append(ExpectedShare(count, group, float(bounds.estimate[g]), half))
        for factor in layout.factors:
            stratum = stratum_of(factor, layout)
            df = int(found.error_df[stratum])
            half, least = sharpness(factor, chance, layout, count, assumptions.percent, classes)
            effects.append(ExpectedEffect(count, factor.name, layout.strata[stratum].name, df, half, least))
    statement = f"{_statement(layout, assumptions, min(replicates), classes)} {_advice(effects)}"
    return Precision(assumptions.source, tuple(shares), tuple(effects), statement)


def _chance(layout: Layout, assumptions: Assumptions) -> Floats:
    """Return the chance of each stratum of the design."""
    absent = [stratum.name for stratum in layout.strata if stratum.name not in assumptions.chance]
    if absent:
        raise ValueError(f"No chance is given for {', '.join(absent)} ({assumptions.source}).")
    return np.array([assumptions.chance[stratum.name] for stratum in layout.strata])


def _terms(layout: Layout, assumptions: Assumptions) -> Floats:
    """Return each term's variance: a group's, in equal parts on its effects of lowest order."""
    causes = np.zeros(len(layout.terms))
    for group in layout.groups:
        order = min(term.order for term in layout.terms if term.group == group)
        lowest = [t for t, term in enumerate(layout.terms) if (term.group, term.order) == (group, order)]
        causes[lowest] = assumptions.causes.get(group, 0.0) / len(lowest)
    return causes


def _advice(effects: Sequence[ExpectedEffect]) -> str:
    """Say how many replicates find effects that matter."""
    worst = {
        count: max(e.detectable for e in effects if e.replicates == count) for count in {e.replicates for e in effects}
    }
    enough = [count for count in sorted(worst) if worst[count] <= MATTERS]
    if enough:
        return f"{enough[0]} replicates find effects of {MATTERS} points of every factor in four of five studies."
    most = max(worst)
    return (
        f"Even {most} replicates find only effects of {worst[most]:.0f} points and more of every factor in four of "
        "five studies."
    )


def _statement(layout: Layout, assumptions: Assumptions, replicates: int, classes: int) -> str:
    """Say what sharpens the statement about the factor nearest to the root: replicates, not epoch levels."""
    first = min(layout.factors, key=lambda factor: (factor.role != "data", stratum_of(factor, layout)))
    last = layout.factors[int(np.argmax([stratum_of(factor, layout) for factor in layout.factors]))]
    chance = _chance(layout, assumptions)

    def half(design: Layout, count: int) -> str:
        factor = next(factor for factor in design.factors if factor.name == first.name)
        return f"±{sharpness(factor, chance, design, count, assumptions.percent, classes)[0]:.1f}"

    now, twice = half(layout, replicates), half(layout, 2 * replicates)
    advice = f"Twice as many replicates would make the statement about {first.name} {twice} points instead of {now}"
    if stratum_of(last, layout) == stratum_of(first, layout):
        return f"{advice}."
    levels = tuple(range(2 * len(last.levels)))
    longer = [replace(factor, levels=levels) if factor.name == last.name else factor for factor in layout.factors]
    more = half(layout_of(longer, layout.strata), replicates)
    return (
        f"{advice}; twice as many levels of {last.name} would leave it at {more}. More levels inside a training do "
        "not sharpen the statement about what comes before it; more replicates do."
    )
