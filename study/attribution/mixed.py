"""Tables with missing trials: a mixed model that keeps the trainings that trials share.

Pretraining and fine-tuning runs are random terms (REML), replicates are blocks. What it finds is put as the sums of
squares of an equivalent balanced table, so that shares, intervals and tests are the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from statsmodels.regression.linear_model import GLS
from threadpoolctl import threadpool_limits

from study.attribution.layout import Floats, Layout, Squares


@dataclass(frozen=True, eq=False)
class Unbalanced:
    """A mixed model's fit of one table.

    Attributes
    ----------
    squares
        Sums of squares of the balanced table with the same tests.
    covariance
        Covariance of the columns of effects, ``[column, column]``.
    fitted
        What each trial is expected to give, missing ones too, ``[replicate, cell]``.
    """

    squares: Squares
    covariance: Floats
    fitted: Floats


def fit_unbalanced(table: Floats, layout: Layout) -> Unbalanced:
    """Fit a table with missing trials.

    Parameters
    ----------
    table
        Values ``[replicate, cell]``, NaN where missing. Each cell must be there in some replicate.
    layout
        The design.

    Notes
    -----
    eta = block + all effects + one random term per stratum but the last, by REML. Degrees of freedom are those of
    containment: units of a stratum, less the units above, less the effects that it holds.

    Raises
    ------
    ValueError
        If too few trials are left for some stratum's error, or the model does not converge.
    """
    replicate, cell = np.nonzero(np.isfinite(table))
    units = [_units(replicate, cell, layout, s) for s in range(len(layout.strata))]
    counts = np.array([len(np.unique(replicate)), *(len(np.unique(unit)) for unit in units)])
    df = np.diff(counts) - layout.stratum_df
    if (df < 1).any():
        short = ", ".join(layout.strata[s].name for s in np.flatnonzero(df < 1))
        raise ValueError(f"too few trials are left to tell chance from causes ({short})")
    blocks = (replicate[:, None] == np.unique(replicate)).astype(float)
    exog = np.column_stack([blocks, layout.rotation[cell, 1:]])
    if np.linalg.matrix_rank(exog) < exog.shape[1]:
        raise ValueError("too few trials are left: some effects cannot be told apart")

    values = table[replicate, cell]
    variances = reml(values, exog, units[:-1])
    same = sum(v * (unit[:, None] == unit) for v, unit in zip(variances, units, strict=True))
    found = GLS(values, exog, sigma=same).fit()
    return _as_balanced(np.asarray(found.params), np.asarray(found.normalized_cov_params), df, int(counts[0]), layout)


def _units(replicate: NDArray[np.intp], cell: NDArray[np.intp], layout: Layout, stratum: int) -> NDArray[np.intp]:
    """Return the unit of a stratum (a training, or a snapshot of one) that each trial belongs to."""
    above = {name for s in layout.strata[: stratum + 1] for name in s.factors}
    codes = np.unravel_index(cell, layout.levels)
    kept = [code for code, factor in zip(codes, layout.factors, strict=True) if factor.name in above]
    return np.unique(np.column_stack([replicate, *kept]), axis=0, return_inverse=True)[1].ravel()


def reml(values: Floats, exog: Floats, units: Sequence[NDArray[np.intp]]) -> Floats:
    """Return the variance of each random term and, last, of what is left, by restricted maximum likelihood.

    Written out (Patterson & Thompson 1971) because the search of statsmodels' MixedLM stops at its start on some
    tables and reports that as converged; its likelihood is the same, and a test compares the two.

    Parameters
    ----------
    values
        Values, ``[trial]``.
    exog
        Fixed effects, ``[trial, column]``, of full rank.
    units
        For each random term the unit that each trial belongs to.

    Raises
    ------
    ValueError
        If it does not converge.
    """
    free = len(values) - exog.shape[1]
    shared = [(unit[:, None] == unit).astype(float) for unit in units]

    def solve(ratios: Floats) -> tuple[float, float]:
        """Return the log likelihood (times -2) and the variance of what is left, given the others in its units."""
        same = np.eye(len(values)) + sum(ratio * matrix for ratio, matrix in zip(ratios, shared, strict=True))
        root = np.linalg.cholesky(same)
        white = solve_triangular(root, np.column_stack([exog, values]), lower=True)
        triangle = np.linalg.qr(white).R
        left = triangle[-1, -1] ** 2 / free
        logs = 2 * np.log(np.diag(root)).sum() + 2 * np.log(np.abs(np.diag(triangle)[:-1])).sum()
        return float(logs + free * np.log(left)), float(left)

    if not units:
        return np.array([solve(np.empty(0))[1]])

    def cost(ratios: Floats) -> float:
        return solve(ratios)[0]

    starts = [np.full(len(units), start) for start in (0.1, 2.0)]
    # Matrices this small take several times as long when the threads of BLAS share them.
    with threadpool_limits(1, "blas"):
        found = [minimize(cost, start, bounds=[(0, 1e4)] * len(units)) for start in starts]
    best = min(found, key=lambda one: float(one.fun))
    if not (best.success and np.isfinite(best.fun)):
        raise ValueError("the mixed model did not converge on the trials that are left")
    left = solve(best.x)[1]
    return np.array([*best.x * left, left])


def _as_balanced(params: Floats, covariance: Floats, df: NDArray[np.intp], blocks: int, layout: Layout) -> Unbalanced:
    """Return the sums of squares of the balanced table that would give the same Wald tests."""
    block, effects = params[:blocks], params[blocks:]
    mean = np.array([np.sqrt(layout.cells) * block.mean(), *effects])
    columns = np.zeros((layout.cells, layout.cells))
    columns[1:, 1:] = covariance[blocks:, blocks:]
    mean_squares = np.array(
        [blocks * np.diag(columns)[layout.column_stratum == s].mean() for s in range(len(layout.strata))]
    )
    effect = []
    for t, term in enumerate(layout.terms):
        mine = np.flatnonzero(layout.column_term == t)
        wald = mean[mine] @ np.linalg.solve(columns[np.ix_(mine, mine)], mean[mine])
        effect.append(wald * mean_squares[term.stratum])
    between = layout.cells * ((block - block.mean()) ** 2).sum()
    squares = Squares(mean, np.array(effect), mean_squares * df, df, np.asarray(between), blocks)
    return Unbalanced(squares, columns, block[:, None] + layout.rotation[:, 1:] @ effects)


def exact_variances(weights: Floats, slopes: Floats, fit: Unbalanced, layout: Layout) -> Floats:
    """Return variances of contrasts by the model's own covariance over those of a balanced table, ``[contrast]``.

    Parameters
    ----------
    weights
        Weights on the cells, ``[contrast, cell]``.
    slopes
        Points per logit ``[replicate, cell]``, as fitted where a trial is missing.
    fit
        The fitted logits.
    layout
        The design.
    """
    parts = (weights * slopes.mean(axis=0)) @ layout.rotation
    exact = np.einsum("ci,ij,cj->c", parts, fit.covariance, parts)
    balanced = (parts[:, 1:] ** 2 @ fit.squares.error_mean_squares[layout.column_stratum[1:]]) / fit.squares.replicates
    ratio: Floats = np.divide(exact, balanced, out=np.ones_like(exact), where=balanced > 0)
    return ratio
