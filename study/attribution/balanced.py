"""One decomposed table put into plain values: shares, chance, block, means, effects, the analysis of variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from study.attribution.effects import Compared, Contrast, weights_of
from study.attribution.findings import (
    AnovaRow,
    Attribution,
    Block,
    ChancePart,
    Effect,
    Mean,
    Method,
    Sensitivity,
    Share,
)
from study.attribution.intervals import ShareBounds
from study.attribution.layout import CAUSES, CHANCE, Floats, Layout, Squares, chance_variances, effect_variances, f_test
from study.attribution.moderation import Ratios
from study.attribution.tables import ClassTable

# A stratum whose error has fewer degrees of freedom says so: an interval then reaches 2.6 standard errors and more,
# and the standard error itself is known to a third of its value at best.
FEW_DF = 6


@dataclass(frozen=True, eq=False)
class Decomposition:
    """One decomposed table, before its p values are corrected over the study; of few cells without shares."""

    squares: Squares
    ratios: Ratios
    bounds: ShareBounds | None
    compared: Compared
    method: Method
    reason: str


@dataclass(frozen=True, eq=False)
class With:
    """What was compared in all tables of a study: contrasts, the strata of each in words, and the design."""

    contrasts: Sequence[Contrast]
    strata: Sequence[str]
    layout: Layout


def describe(
    shown: Attribution,
    fit: Decomposition,
    table: ClassTable,
    adjusted: tuple[Floats, Floats],
    compared: With,
) -> Attribution:
    """Return an attribution with all that the decomposition found.

    Parameters
    ----------
    shown
        What is known without it.
    fit, table
        The decomposition, and the table that it is of.
    adjusted
        p values corrected over the study, of groups ``[3]`` and of contrasts ``[contrast]``.
    compared
        The contrasts that were compared, and the design.
    """
    layout = compared.layout
    found = replace(
        shown,
        method=fit.method,
        reason=fit.reason,
        means=_means(fit.compared, compared.contrasts),
        effects=_effects(fit.compared, adjusted[1], compared),
    )
    if fit.bounds is None:
        return found
    top = int(fit.bounds.clear)
    return replace(
        found,
        clear=None if top < 0 else (*CAUSES, CHANCE)[top],
        shares=_shares(fit.bounds, adjusted[0], layout),
        chance=_chance(fit, fit.bounds, layout),
        block=_block(fit, fit.bounds, table, layout),
        anova=_anova(fit, layout),
        sensitivity=_sensitivity(fit, layout),
    )


def _shares(bounds: ShareBounds, p_adjusted: Floats, layout: Layout) -> tuple[Share, ...]:
    """Return the shares of the groups that the design has, and of chance."""
    found = []
    for g, group in enumerate((*CAUSES, CHANCE)):
        interval = (float(bounds.estimate[g]), float(bounds.lower[g]), float(bounds.upper[g]))
        if group == CHANCE:
            found.append(Share(group, *interval, None, None))
        elif group in layout.groups:
            found.append(Share(group, *interval, float(bounds.p[g]), float(p_adjusted[g])))
    return tuple(found)


def _chance(fit: Decomposition, bounds: ShareBounds, layout: Layout) -> tuple[ChancePart, ...]:
    """Return chance split by stratum, with a warning where its degrees of freedom are few."""
    variances = chance_variances(fit.squares.error_mean_squares, layout.sharing)
    found = []
    for s, stratum in enumerate(layout.strata):
        df = int(fit.squares.error_df[s])
        share, lower, upper = (
            float(bound[s]) for bound in (bounds.stratum_estimate, bounds.stratum_lower, bounds.stratum_upper)
        )
        note = _few_df_note(layout, s, fit.squares.replicates, df)
        found.append(ChancePart(stratum.name, stratum.label, share, lower, upper, float(variances[s]), df, note))
    return tuple(found)


def _few_df_note(layout: Layout, stratum: int, replicates: int, df: int) -> str:
    """Return a warning for a stratum with few degrees of freedom, such as "3 query x 3 replicates: 4 degrees ..."."""
    if df >= FEW_DF:
        return ""
    names = {name for above in layout.strata[: stratum + 1] for name in above.factors}
    sizes = [f"{len(factor.levels)} {factor.name}" for factor in layout.factors if factor.name in names]
    return (
        f"{' x '.join(sizes)} x {replicates} replicates: {df} degrees of freedom, too few for more than a rough "
        "statement; more replicates help"
    )


def _block(fit: Decomposition, bounds: ShareBounds, table: ClassTable, layout: Layout) -> Block:
    """Return what replicates differ in, split where seeds and folds are crossed."""
    means = np.nanmean(table.eta, axis=1)
    if fit.method == "mixed model":
        # Replicates that miss different trials are compared by their adjusted means: only the total is known then.
        error = float(fit.squares.error_mean_squares[0])
        total = float(fit.squares.block / (fit.squares.replicates - 1) - error) / layout.cells
        parts = {"block": total}
    else:
        parts = block_variances(means, float(fit.squares.error_mean_squares[0]), table.seeds, table.folds, layout)
    chance = float(chance_variances(fit.squares.error_mean_squares, layout.sharing).sum())
    whole = chance / float(bounds.estimate[-1]) if bounds.estimate[-1] > 0 else np.inf
    return Block(
        variance=parts["block"],
        relative=parts["block"] / whole,
        df=fit.squares.replicates - 1,
        seed=parts.get("seed"),
        fold=parts.get("fold"),
        both=parts.get("both"),
    )


def block_variances(
    means: Floats, root_error: float, seeds: NDArray[np.int_], folds: NDArray[np.int_], layout: Layout
) -> dict[str, float]:
    """Return the variance between replicates, split into seed, fold and both where the two are crossed.

    Parameters
    ----------
    means
        Mean of each replicate over the cells, ``[replicate]``.
    root_error
        Error mean square of the root stratum: divided by the number of cells, a replicate's mean carries it.
    seeds, folds
        Training seed and held-out fold of each replicate.
    layout
        The design.

    Returns
    -------
    ``{"block": v}``, or with each seed crossed with each fold also ``seed``, ``fold`` and ``both``. Estimates are
    unbiased and can be negative.
    """
    noise = root_error / layout.cells
    found = {"block": float(means.var(ddof=1)) - noise}
    seed, fold = (np.unique(names, return_inverse=True)[1] for names in (seeds, folds))
    n_seeds, n_folds = int(seed.max()) + 1, int(fold.max()) + 1
    crossed = len(means) == n_seeds * n_folds == len(np.unique(seed * n_folds + fold))
    if min(n_seeds, n_folds) < 2 or not crossed:
        return found
    grid = np.empty((n_seeds, n_folds))
    grid[seed, fold] = means
    by_seed, by_fold = grid.mean(axis=1), grid.mean(axis=0)
    rest = grid - by_seed[:, None] - by_fold[None, :] + grid.mean()
    both = float((rest**2).sum()) / ((n_seeds - 1) * (n_folds - 1))
    found["seed"] = float(by_seed.var(ddof=1)) - both / n_folds
    found["fold"] = float(by_fold.var(ddof=1)) - both / n_seeds
    found["both"] = both - noise
    return found


def _means(compared: Compared, contrasts: Sequence[Contrast]) -> tuple[Mean, ...]:
    """Return the marginal means, their intervals cut to what a percentage can be."""
    return tuple(
        Mean(
            contrast.factor,
            contrast.level,
            float(compared.estimate[c]),
            float(max(compared.lower[c], 0.0)),
            float(min(compared.upper[c], 100.0)),
        )
        for c, contrast in enumerate(contrasts)
        if contrast.kind == "mean"
    )


def strata_in_words(contrasts: Sequence[Contrast], layout: Layout) -> list[str]:
    """Return the strata whose error each contrast has, in words."""
    parts = weights_of(contrasts, layout) @ layout.rotation
    used = [np.unique(layout.column_stratum[np.abs(row) > 1e-9]) for row in parts]
    return [" + ".join(layout.strata[s].name for s in row if s >= 0) for row in used]


def _effects(compared: Compared, p_adjusted: Floats, what: With) -> tuple[Effect, ...]:
    """Return marginal and simple effects, largest first."""
    role = {factor.name: factor.role for factor in what.layout.factors}
    found = [
        Effect(
            kind=contrast.kind,
            factor=contrast.factor,
            level=contrast.level,
            baseline=contrast.baseline,
            at_factor=contrast.at[0] if contrast.at else None,
            at_level=contrast.at[1] if contrast.at else None,
            role=role[contrast.factor],
            strata=what.strata[c],
            points=float(compared.estimate[c]),
            lower=float(compared.lower[c]),
            upper=float(compared.upper[c]),
            se=float(compared.se[c]),
            df=float(compared.df[c]),
            p=float(compared.p[c]),
            p_adjusted=float(p_adjusted[c]),
        )
        for c, contrast in enumerate(what.contrasts)
        if contrast.kind != "mean" and contrast.baseline is not None
    ]
    return tuple(sorted(found, key=lambda effect: -abs(effect.points)))


def _anova(fit: Decomposition, layout: Layout) -> tuple[AnovaRow, ...]:
    """Return the table of the analysis of variance, each stratum's effects followed by its error."""
    found = fit.squares
    by_term = (layout.column_term[:, None] == np.arange(len(layout.terms))).astype(float)
    variances = effect_variances(found, layout, fit.ratios.of_pieces) @ by_term
    errors, chance = found.error_mean_squares, chance_variances(found.error_mean_squares, layout.sharing)
    rows = []
    for s, stratum in enumerate(layout.strata):
        for t, term in enumerate(layout.terms):
            if term.stratum != s:
                continue
            ss, ms = float(found.effect[t]), float(found.effect[t]) / term.df
            p = float(f_test(found.effect[t], term.df, found.error[s], found.error_df[s]))
            ratio = float(ms / errors[s]) if errors[s] > 0 else (np.inf if ss > 0 else 0.0)
            rows.append(
                AnovaRow(
                    term.name, term.order, term.group, stratum.name, term.df, ss, ms, ratio, p, float(variances[t])
                )
            )
        df, ss = int(found.error_df[s]), float(found.error[s])
        rows.append(
            AnovaRow(
                f"error ({stratum.name})",
                0,
                CHANCE,
                stratum.name,
                df,
                ss,
                float(errors[s]),
                None,
                None,
                float(chance[s]),
            )
        )
    return tuple(rows)


def _sensitivity(fit: Decomposition, layout: Layout) -> tuple[Sensitivity, ...]:
    """Return total-order Sobol indices and Shapley shares of the factors (Sobol 1993, Owen 2014).

    Of each effect's variance the total-order index counts all for each factor in it, the Shapley share an equal part.
    """
    found, columns = fit.squares, effect_variances(fit.squares, layout, fit.ratios.of_pieces)
    involved = layout.column_factors.astype(float)
    fair = involved / np.maximum(involved.sum(axis=1, keepdims=True), 1.0)
    total, shapley = np.maximum(columns @ involved, 0.0), np.maximum(columns @ fair, 0.0)
    group = np.array([layout.terms[t].group for t in layout.column_term[1:]])
    causes = sum(max(float(columns[1:][group == name].sum()), 0.0) for name in CAUSES)
    whole = causes + float(chance_variances(found.error_mean_squares, layout.sharing).sum())
    return tuple(
        Sensitivity(factor.name, factor.role, float(total[f] / whole), float(shapley[f] / whole))
        for f, factor in enumerate(layout.factors)
    )
