"""How p values of a whole report are corrected, so that it names something falsely in 5% of studies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from study.attribution.effects import Contrast
from study.attribution.layout import Floats

# Of the error of a whole report: the first outcome is what it is about, the others are looked at beside it.
FIRST = 0.8
# How often a study may name something falsely.
SIGNIFICANT = 0.05


def holm(p: Floats, weights: Floats | None = None, level: float = SIGNIFICANT) -> Floats:
    """Return p values adjusted by Holm's method, with weights by how much of the error each may use.

    Parameters
    ----------
    p
        p values of the whole family, ``[...]``.
    weights
        Positive weights of the same shape; equal if None (Holm 1979, section 5 has the weighted form).
    level
        Of the 5%, what may be used: p values are larger by as much, so that 5% stays their limit.
    """
    flat = p.ravel()
    weight = np.ones_like(flat) if weights is None else weights.ravel()
    order = np.argsort(flat / weight)
    left = np.cumsum(weight[order][::-1])[::-1]
    adjusted = np.empty_like(flat)
    left = left * (SIGNIFICANT / level)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(flat[order] / weight[order] * left))
    adjusted = np.maximum(adjusted, flat)  # else rounding makes it the smaller one
    return adjusted.reshape(p.shape)


def adjust_effects(
    p: Floats, contrasts: Sequence[Contrast], outcomes: Sequence[str] = (), level: float = SIGNIFICANT
) -> Floats:
    """Return p values adjusted by Holm over all differences of all tables, ``[table, contrast]``; NaN for means.

    The many simple effects together get half of the error and the few marginal differences the other half, so that
    looking at details does not hide what holds overall. Outcomes share the error as `outcome_weights` says.

    Parameters
    ----------
    p
        p values, ``[table, contrast]``.
    contrasts
        The contrasts.
    outcomes
        The outcome of each table; one for all if empty.
    level
        Of the 5%, what may be used.
    """
    kinds = np.array([contrast.kind for contrast in contrasts])
    weights = np.array([1 / max(1, int((kinds == kind).sum())) for kind in kinds])
    adjusted = np.full_like(p, np.nan)
    tested = kinds != "mean"
    by_table = outcome_weights(outcomes or [""] * len(p))
    adjusted[:, tested] = holm(p[:, tested], by_table[:, None] * weights[tested], level)
    return adjusted


def outcome_weights(outcomes: Sequence[str]) -> Floats:
    """Return how much of the error each table may use, ``[table]``.

    A whole page names something falsely in 5% of studies, not each outcome of it. The tables of the first outcome
    share `FIRST` of the error, those of all others what is left (weighted Holm).
    """
    names = list(dict.fromkeys(outcomes))
    share = {name: FIRST if i == 0 else (1 - FIRST) / (len(names) - 1) for i, name in enumerate(names)}
    return np.array([share[name] / outcomes.count(name) for name in outcomes])
