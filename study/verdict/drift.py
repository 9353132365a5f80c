"""Two studies of one design, made with other versions: does a class differ by more than training again would give.

The study is one more factor of the attribution, at the root of the stage tree; its errors are those of the differences
between paired trials alone, by strata and by replicates (`compare_paired`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from study.attribution import (
    CONFIDENCE,
    MIN_SUPPORT,
    SIGNIFICANT,
    ClassTable,
    Compared,
    Contrast,
    Layout,
    class_table,
    compare_paired,
    holm,
    layout_of,
    weights_of,
)
from study.plan import Factor, strata
from study.trials import MACRO
from study.verdict.assurance import MOST_REPLICATES
from study.verdict.words import class_words

# The factor that tells the two studies apart. By its name it acts where the settings of scVI do: at the root.
STUDY = "scvi.study"
A, B = "A", "B"
MARGIN = 3.0  # points: a class that may differ by more is not known to be the same

Finding = Literal["more", "chance", "cannot tell", "not tested"]


@dataclass(frozen=True)
class ClassDrift:
    """How one class differs between two studies.

    Attributes
    ----------
    support
        Held-out cells of the class in a trial, on average.
    a, b
        Mean recall in either, in percent.
    points, lower, upper
        B less A in points, with its 95% interval; NaN where it was not tested.
    p, p_adjusted
        By itself, and corrected over all classes (Holm).
    finding
        ``more`` than training again gives; ``chance``: no more than that, and within the margin; ``cannot tell``; or
        ``not tested``, for too few cells.
    needed
        How many replicates would tell, if the estimates stay; None if the number is beyond `MOST_REPLICATES`, or none
        is needed.
    """

    class_name: str
    support: float
    a: float
    b: float
    points: float
    lower: float
    upper: float
    p: float
    p_adjusted: float
    finding: Finding
    needed: int | None = None


def find_drift(
    counts: pd.DataFrame, factors: Sequence[Factor], protocol: str = "joint", margin: float = MARGIN
) -> tuple[ClassDrift, ...]:
    """Compare two studies class by class.

    Parameters
    ----------
    counts
        One row per trial and class: `STUDY` (`A` or `B`), a column per factor, `replicate`, `seed`, `fold`,
        `class_name`, `correct`, `total`. Every design point of every replicate is there in both.
    factors
        The factors of the design.
    protocol
        As for `study.plan.strata`.
    margin
        In points. A class that is not found to differ is only called the same if its interval lies within.

    Returns
    -------
    One finding per class, in order of appearance.

    Raises
    ------
    ValueError
        If there is one replicate only.
    """
    every = (Factor(STUDY, (A, B), "parameter"), *factors)
    layout = layout_of(every, strata(every, protocol))
    tables = {str(name): class_table(rows, layout) for name, rows in counts.groupby("class_name", sort=False)}
    return drift_of(tables, layout, margin)


def drift_of(tables: Mapping[str, ClassTable], layout: Layout, margin: float = MARGIN) -> tuple[ClassDrift, ...]:
    """Compare tables that are already arranged, by class, `STUDY` the first factor: the inside of `find_drift`."""
    enough = [name for name, table in tables.items() if table.support >= MIN_SUPPORT and table.total.min() > 0]
    tested = dict(zip(enough, _tested([tables[name] for name in enough], enough, layout, margin), strict=True))
    return tuple(tested.get(name) or _untested(name, table) for name, table in tables.items())


def _tested(tables: Sequence[ClassTable], names: Sequence[str], layout: Layout, margin: float) -> list[ClassDrift]:
    """Test the classes with enough cells, all together."""
    if not tables:
        return []
    found = _compared(tables, np.array([name != MACRO for name in names]), layout)
    adjusted = holm(found.p)
    replicates = len(tables[0].correct)
    findings = []
    for i, (name, table) in enumerate(zip(names, tables, strict=True)):
        a, b = _means(table)
        # What rounding alone leaves of no difference is none.
        points, lower, upper = (round(float(array[i]), 9) + 0.0 for array in (found.estimate, found.lower, found.upper))
        p = float(found.p[i])
        one = ClassDrift(name, table.support, a, b, points, lower, upper, p, float(adjusted[i]), "chance")
        if one.p_adjusted <= SIGNIFICANT:
            one = replace(one, finding="more")
        elif max(-one.lower, one.upper) > margin:
            needed = _needed(found, i, replicates, len(tables), margin)
            one = replace(one, finding="cannot tell", needed=needed)
        findings.append(one)
    return findings


def _compared(tables: Sequence[ClassTable], proper: np.ndarray, layout: Layout) -> Compared:
    """Estimate B less A in every table, each array ``[table]``."""
    eta, points, slopes = (np.stack([getattr(one, name) for one in tables]) for name in ("eta", "points", "slopes"))
    weights = weights_of([Contrast("marginal", STUDY, B, A)], layout)[0]
    return compare_paired(weights, eta, points, slopes, proper, layout)


def _means(table: ClassTable) -> tuple[float, float]:
    half = table.points.shape[1] // 2
    return float(table.points[:, :half].mean()), float(table.points[:, half:].mean())


def _untested(name: str, table: ClassTable) -> ClassDrift:
    nan = float("nan")
    half = table.points.shape[1] // 2
    a, b = (float(np.nanmean(part)) if np.isfinite(part).any() else nan for part in np.split(table.points, [half], 1))
    return ClassDrift(name, table.support, a, b, nan, nan, nan, nan, nan, "not tested")


def _needed(found: Compared, i: int, replicates: int, tests: int, margin: float) -> int | None:
    """Return how many replicates would settle a class, if its estimate and its error stay as they are."""
    size, df = abs(float(found.estimate[i])), float(found.df[i])
    for count in range(replicates + 1, MOST_REPLICATES + 1):
        se = float(found.se[i]) * np.sqrt(replicates / count)
        then = df * (count - 1) / (replicates - 1)
        within = size + stats.t.ppf((1 + CONFIDENCE) / 2, then) * se <= margin
        if within or 2 * tests * stats.t.sf(size / se, then) <= SIGNIFICANT:
            return count
    return None


def drift_sentence(classes: Sequence[ClassDrift], replicates: int, margin: float) -> str:
    """Say what the classes say together.

    Parameters
    ----------
    classes
        What was found of each.
    replicates
        How many pair.
    margin
        In points.
    """
    more = [one for one in classes if one.finding == "more"]
    open_ = [one for one in classes if one.finding == "cannot tell"]
    if more:
        listed = "; ".join(f"{_named(one)} (p {one.p_adjusted:.2g} after correction)" for one in more)
        return f"More than training again would give: {listed}."
    if open_:
        count = needed_of(classes)
        enough = f"About {count} replicates of both would" if count else f"{MOST_REPLICATES} would not be enough"
        stays = "if the differences stay as they are"
        else_ = "" if count else "; a wider margin or more held-out cells would help"
        return (
            f"Cannot tell with {replicates} replicates: no difference is certain after correction for all classes, but "
            f"{'; '.join(map(_named, open_))} may differ by more than {margin:g} points. {enough}, {stays}{else_}."
        )
    if not any(one.finding == "chance" for one in classes):
        return f"Cannot tell: no class has {MIN_SUPPORT} held-out cells in a trial."
    return (
        "No more than training again would give: no class differs for certain, and by all intervals none by more than "
        f"{margin:g} points."
    )


def needed_of(classes: Sequence[ClassDrift]) -> int | None:
    """Return how many replicates of both would settle all classes; None if that is beyond `MOST_REPLICATES`."""
    counts = [one.needed for one in classes if one.finding == "cannot tell"]
    known = [count for count in counts if count is not None]
    return max(known) if known and len(known) == len(counts) else None


def overall(classes: Sequence[ClassDrift]) -> Finding:
    """Return what all classes are together: the worst that is known of any; of none that is tested nothing is."""
    found = {one.finding for one in classes}
    order: tuple[Finding, ...] = ("more", "cannot tell", "chance")
    return next((finding for finding in order if finding in found), "cannot tell")


def difference_words(one: ClassDrift) -> str:
    """Return a difference with its interval: "-3.1 [-5.2, -1.0]"; what is nearly nothing has no sign."""
    points, lower, upper = (round(value, 1) + 0.0 for value in (one.points, one.lower, one.upper))
    return f"{points:+.1f} [{lower:.1f}, {upper:.1f}]" if points else f"0.0 [{lower:.1f}, {upper:.1f}]"


def _named(one: ClassDrift) -> str:
    return f"{class_words(one.class_name)} {difference_words(one)}"
