"""The difference between two paired studies: as its strata let it vary, and as it varied between replicates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from study.attribution.effects import Compared, most_df, possible, stratum_variances, t_tests
from study.attribution.layout import Floats, Layout, squares
from study.attribution.moderation import Moderated, moderate, moderated


def compare_paired(
    weights: Floats, eta: Floats, points: Floats, slopes: Floats, proper: NDArray[np.bool_], layout: Layout
) -> Compared:
    """Compare two studies in several tables, each array of what is returned ``[table]``.

    Parameters
    ----------
    weights
        What is compared: weights on the cells, ``[cell]``.
    eta, points, slopes
        Logits, percentages, and points per unit on the logit scale, ``[table, replicate, cell]``; the first half of the
        cells are one study's.
    proper
        Which tables are classes and not summaries of classes, ``[table]``.
    layout
        The design of both together, the study its first factor.

    Notes
    -----
    Two tests that know different things, of which the less certain counts. By the strata: all units that a replicate
    has tell how much differences vary, so there are many degrees of freedom; but units of a replicate have a training
    seed in common, and may differ in the same way. By the replicates: a t test of the mean difference of each, in
    points, which knows that, and has few. Both draw errors towards what is usual among the classes (`moderate`). The
    interval is the wider of the two, the p value the larger.
    """
    replicates = eta.shape[-2]
    half = _half_differences(eta)
    found = squares(half, layout)
    # Only what differs between the two is left in these tables, so only its degrees of freedom count.
    mine = layout.column_stratum[layout.column_factors[:, 0]]
    own = replace(found, error_df=np.bincount(mine, minlength=len(layout.strata)) * (replicates - 1))
    errors, contrast = moderate(own, proper), weights[None]
    estimate, within = points.mean(axis=-2) @ contrast.T, possible(contrast)
    variances = stratum_variances(contrast, slopes, errors.mean_squares, layout)
    by_strata = t_tests(estimate, variances, errors.df, most_df(contrast, errors.df, layout), within)
    differences = points @ contrast.T
    plain = Moderated(differences.var(axis=-2, ddof=1), np.full((len(eta), 1), replicates - 1.0))
    errors = moderated(plain, proper)
    variances = errors.mean_squares[..., None] / replicates
    by_replicates = t_tests(estimate, variances, errors.df, np.full(1, np.inf), within)
    return _less_certain(by_strata[:, 0], by_replicates[:, 0])


def _half_differences(eta: Floats) -> Floats:
    """Return tables ``[table, replicate, cell]`` without what both studies share: half the difference down and up."""
    half = eta.shape[-1] // 2
    difference = (eta[..., half:] - eta[..., :half]) / 2
    return np.concatenate([-difference, difference], axis=-1)


def _less_certain(one: Compared, other: Compared) -> Compared:
    """Return the wider interval and the larger p value of two tests of the same differences."""
    wider = other.upper - other.lower > one.upper - one.lower
    chosen = {name: np.where(wider, getattr(other, name), getattr(one, name)) for name in vars(one)}
    return Compared(**chosen | {"p": np.maximum(one.p, other.p)})
