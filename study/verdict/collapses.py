"""Trainings that collapsed: far worse than their design point and replicate lead to expect. Flagged, never dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from study.plan import Plan
from study.trials import ACCURACY, HELD_OUT, TRAIN, Result, metric

WATCHED = (metric(HELD_OUT, ACCURACY), metric(TRAIN, ACCURACY))
# A collapse is so many points, and so many robust standard deviations, below what is expected.
POINTS, SPREADS = 10.0, 6.0
FEWEST_REPLICATES = 3
COLUMNS = ["trial_key", "replicate", "metric", "found", "expected", "spreads"]


def find_collapses(plan: Plan, results: Mapping[str, Result]) -> pd.DataFrame:
    """Return the trainings that fell out of their siblings' range.

    Parameters
    ----------
    plan
        The study's plan.
    results
        Finished trials by key.

    Returns
    -------
    One row per trial and metric (accuracy on held-out and on training cells) that is both 10 points and 6 robust
    standard deviations below what its design point and its replicate lead to expect: `found` and `expected` in percent,
    and how many `spreads` that is. Empty with fewer than three replicates, where nothing tells which one fell out.

    Notes
    -----
    Expected is the additive fit by medians (median polish; Tukey 1977), which single trials do not move; the spread is
    1.4826 times the median absolute residual that is not 0, times the root of trials over degrees of freedom.
    """
    rows: list[tuple[object, ...]] = []
    trials = [trial for trial in plan.trials if trial.key in results]
    if len({trial.replicate.index for trial in trials}) < FEWEST_REPLICATES:
        return pd.DataFrame(columns=COLUMNS)
    for watched in WATCHED:
        known = [trial for trial in trials if watched in results[trial.key].metrics]
        values = pd.DataFrame(
            {
                "point": [str(trial.point) for trial in known],
                "replicate": [trial.replicate.index for trial in known],
                "value": [100 * results[trial.key].metrics[watched] for trial in known],
            }
        )
        if values.empty:
            continue
        wide = values.pivot(index="point", columns="replicate", values="value")
        left = _residuals(wide.to_numpy())
        # Medians leave many a residual at 0, which says nothing of the spread.
        some = np.abs(left)[np.abs(left) > 1e-9]
        taken_up = np.sqrt(left.size / max((left.shape[0] - 1) * (left.shape[1] - 1), 1))
        spread = float(taken_up * np.median(some) / stats.norm.ppf(0.75)) if some.size else 0.0
        for trial, value in zip(known, values["value"], strict=True):
            at = left[wide.index.get_loc(str(trial.point)), wide.columns.get_loc(trial.replicate.index)]
            if at < -POINTS and at < -SPREADS * spread:
                how = -at / spread if spread else np.inf
                rows.append((trial.key, trial.replicate.index, watched, value, value - at, how))
    return pd.DataFrame(rows, columns=COLUMNS)


def _residuals(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What medians of rows and of columns, taken off in turn, leave of a table; NaN where a trial is missing."""
    left = values.copy()
    for _ in range(10):
        left -= np.nanmedian(left, axis=1, keepdims=True)
        left -= np.nanmedian(left, axis=0, keepdims=True)
    return left


def collapse_words(collapses: pd.DataFrame, trials: int, without: Sequence[str]) -> list[str]:
    """Say how many trainings collapsed, and what the verdict is without them.

    Parameters
    ----------
    collapses
        As found.
    trials
        How many are finished.
    without
        The verdicts without them, a sentence each.
    """
    if collapses.empty:
        return []
    keys = collapses["trial_key"].nunique()
    worst = collapses.assign(fall=collapses["found"] - collapses["expected"]).nsmallest(1, "fall").iloc[0]
    said = (
        f"{keys} of {trials} trainings collapsed: {POINTS:g} points and {SPREADS:g} robust standard deviations or more "
        f"below what their design point and replicate lead to expect (the worst: {worst['found']:.0f}% instead of "
        f"{worst['expected']:.0f}%). They count in all that is said here, for they are what can happen. Table: "
        "collapses.csv."
    )
    return [said, *(f"Without them: {sentence}" for sentence in without)]
