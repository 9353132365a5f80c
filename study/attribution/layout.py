"""The balanced table: every effect, its mean square, and the stratum of chance that it is tested against.

Trials that share a training share its chance (a split plot), so each effect has the error of its own level of the
stage tree. All arrays may carry leading table axes: ``[..., replicate, cell]``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import helmert

from study.plan import Factor, Stratum

Floats = NDArray[np.float64]

DATA, PARAMETER, MIXED, CHANCE = "data", "parameter", "data x parameter", "chance"
CAUSES = (DATA, PARAMETER, MIXED)
# Interactions of more factors than this are pooled: nobody can read them, and their sum is what matters.
MAX_ORDER = 3


@dataclass(frozen=True)
class Term:
    """One effect of the fixed factors: a main effect, an interaction, or a pool of high interactions."""

    name: str
    order: int
    group: str
    stratum: int
    df: int


@dataclass(frozen=True, eq=False)
class Layout:
    """What a balanced table looks like: its factors, strata and effects, and the rotation that separates them.

    Attributes
    ----------
    factors
        The factors that vary, in the order of the cells (the last one fastest).
    strata
        The levels of the stage tree that have a factor, from the root to the leaves.
    terms
        All effects; those of more than three factors pooled by group and stratum.
    rotation
        Orthonormal matrix ``[cell, column]``. Column 0 is the mean; every other column belongs to one effect.
    column_term, column_stratum
        The term and the stratum of each column, ``[column]``; -1 for the mean.
    column_factors
        Which factors a column involves, ``[column, factor]``.
    sharing
        How many trials of one replicate share one unit of each stratum.
    """

    factors: tuple[Factor, ...]
    strata: tuple[Stratum, ...]
    terms: tuple[Term, ...]
    rotation: Floats
    column_term: NDArray[np.intp]
    column_stratum: NDArray[np.intp]
    column_factors: NDArray[np.bool_]
    sharing: tuple[int, ...]

    @property
    def cells(self) -> int:
        """Number of cells of the table."""
        return len(self.rotation)

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of levels of each factor."""
        return tuple(len(factor.levels) for factor in self.factors)

    @property
    def stratum_df(self) -> NDArray[np.int_]:
        """Degrees of freedom of all effects of each stratum, ``[stratum]``."""
        return np.bincount(self.column_stratum[1:], minlength=len(self.strata))

    @property
    def pieces(self) -> tuple[tuple[str, int], ...]:
        """Every pair of a group of causes and a stratum in which it has effects."""
        found = {(term.group, term.stratum) for term in self.terms}
        return tuple(sorted(found, key=lambda piece: (CAUSES.index(piece[0]), piece[1])))

    def piece_of(self, term: int) -> int:
        """Number of the piece that a term belongs to."""
        return self.pieces.index((self.terms[term].group, self.terms[term].stratum))

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of causes that this design has."""
        return tuple(group for group in CAUSES if any(term.group == group for term in self.terms))


@dataclass(frozen=True, eq=False)
class Squares:
    """The sums of squares of one or many balanced tables.

    Attributes
    ----------
    mean
        The table's mean over replicates, rotated, ``[..., column]``.
    effect
        Sum of squares of each term, ``[..., term]``.
    error
        Sum of squares of the error of each stratum, ``[..., stratum]``.
    error_df
        Degrees of freedom of each stratum's error, ``[stratum]``.
    block
        Sum of squares between replicates, ``[...]``.
    replicates
        Number of replicates.
    """

    mean: Floats
    effect: Floats
    error: Floats
    error_df: NDArray[np.int_]
    block: Floats
    replicates: int

    @property
    def error_mean_squares(self) -> Floats:
        """Error mean square of each stratum, ``[..., stratum]``."""
        return self.error / self.error_df

    def __getitem__(self, index: Any) -> Squares:
        """Return the sums of squares of some of the tables."""
        return replace(
            self,
            mean=self.mean[index],
            effect=self.effect[index],
            error=self.error[index],
            block=self.block[index],
        )


def stacked(tables: Sequence[Squares]) -> Squares:
    """Return the sums of squares of tables with the same replicates and errors as those of many, ``[table, ...]``."""
    mean, effect, error, block = (
        np.stack([getattr(one, name) for one in tables]) for name in ("mean", "effect", "error", "block")
    )
    return replace(tables[0], mean=mean, effect=effect, error=error, block=block)


def layout_of(factors: Sequence[Factor], strata: Sequence[Stratum]) -> Layout:
    """Return the layout of the balanced design that crosses the factors.

    Parameters
    ----------
    factors
        The factors; those with a single level are left out.
    strata
        The levels of the stage tree from the root to the leaves; those without a varying factor are left out.

    Raises
    ------
    ValueError
        If no factor varies, or if a factor belongs to no stratum or to several.
    """
    varying = tuple(factor for factor in factors if len(factor.levels) > 1)
    if not varying:
        raise ValueError("No factor has two levels: there is nothing to attribute differences to.")
    names = {factor.name for factor in varying}
    used = tuple(stratum for stratum in strata if names & set(stratum.factors))
    home = [[s for s, stratum in enumerate(used) if factor.name in stratum.factors] for factor in varying]
    for factor, found in zip(varying, home, strict=True):
        if len(found) != 1:
            raise ValueError(f"Factor {factor.name!r} belongs to {len(found)} strata; it must belong to one.")
    depth = np.array([found[0] for found in home])

    sizes = [len(factor.levels) for factor in varying]
    rotation: Floats = np.ones((1, 1))
    for size in sizes:
        rotation = np.kron(rotation, _contrasts(size)).astype(float)
    involved = np.array(list(itertools.product(*(range(size) for size in sizes)))) > 0
    column_stratum = np.where(involved, depth, -1).max(axis=1)
    terms, column_term = _terms(varying, used, involved, column_stratum)
    sharing = tuple(int(np.prod(np.array(sizes)[depth > s])) for s in range(len(used)))
    return Layout(varying, used, terms, rotation, column_term, column_stratum, involved, sharing)


def _contrasts(size: int) -> Floats:
    """Return an orthonormal matrix whose first column is constant (Helmert contrasts)."""
    matrix: Floats = helmert(size, full=True).T
    matrix[:, 1:] *= -1  # a level less the mean of those before it
    return matrix


def _terms(
    factors: tuple[Factor, ...],
    strata: tuple[Stratum, ...],
    involved: NDArray[np.bool_],
    column_stratum: NDArray[np.intp],
) -> tuple[tuple[Term, ...], NDArray[np.intp]]:
    """Return the terms, low orders first, and the term of each column."""
    keys: list[tuple[int, tuple[int, ...], str, str, int]] = []
    for columns, stratum in zip(involved[1:], column_stratum[1:], strict=True):
        used = tuple(int(f) for f in np.flatnonzero(columns))
        roles = {factors[f].role for f in used}
        group = MIXED if len(roles) > 1 else roles.pop()
        order, name = len(used), " x ".join(factors[f].name for f in used)
        if order > MAX_ORDER:
            order, used = MAX_ORDER + 1, ()
            name = f"{group}, more than {MAX_ORDER} factors ({strata[stratum].name})"
        keys.append((order, used, name, group, int(stratum)))
    unique = sorted(set(keys))
    terms = tuple(Term(key[2], key[0], key[3], key[4], keys.count(key)) for key in unique)
    return terms, np.array([-1, *(unique.index(key) for key in keys)])


def squares(table: Floats, layout: Layout) -> Squares:
    """Decompose balanced tables into the sums of squares of effects, errors by stratum, and blocks.

    Parameters
    ----------
    table
        Values ``[..., replicate, cell]``, at least two replicates, cells in the order of `layout`.
    layout
        The design.

    Notes
    -----
    With e_T(b) the effect T within replicate b, SS_T = K sum of the squared mean effect, and the error of T is
    SS_(T x block) = sum over b of |e_T(b) - mean|^2, pooled over the effects of a stratum (Federer & King 2007,
    *Variations on split plot and split block experiment designs*).

    Raises
    ------
    ValueError
        If there is one replicate only: chance cannot then be told from effects.
    """
    replicates = table.shape[-2]
    if replicates < 2:
        raise ValueError("One replicate cannot tell chance from effects; at least 2 are needed.")
    rotated = table @ layout.rotation
    mean = rotated.mean(axis=-2)
    between = replicates * mean**2
    within = ((rotated - mean[..., None, :]) ** 2).sum(axis=-2)
    # What rounding alone leaves behind must not look like an effect with no error.
    dust = 1e-24 * replicates * layout.cells * np.maximum(1.0, (table**2).max(axis=(-1, -2)))[..., None]
    between, within = np.where(between > dust, between, 0.0), np.where(within > dust, within, 0.0)
    by_term = (layout.column_term[:, None] == np.arange(len(layout.terms))).astype(float)
    by_stratum = (layout.column_stratum[:, None] == np.arange(len(layout.strata))).astype(float)
    return Squares(
        mean, between @ by_term, within @ by_stratum, layout.stratum_df * (replicates - 1), within[..., 0], replicates
    )


def effect_variances(found: Squares, layout: Layout, ratios: Floats | None = None) -> Floats:
    """Return the unbiased variance of each column of effects over the cells, ``[..., column]``; the mean has 0.

    The sum over a term's columns is theta2_T = df_T (MS_T - MS_E,s) / (C K). Single values can be negative.

    Parameters
    ----------
    found
        Sums of squares.
    layout
        The design.
    ratios
        By how much the effects of each piece vary more than their stratum's error, ``[piece]``; 1 if None.
    """
    error = found.error_mean_squares[..., layout.column_stratum]
    if ratios is not None:
        error = error * np.array([1.0, *(ratios[layout.piece_of(t)] for t in layout.column_term[1:])])
    variances = (found.replicates * found.mean**2 - error) / (layout.cells * found.replicates)
    variances[..., 0] = 0.0
    return variances


def chance_variances(mean_squares: Floats, sharing: Sequence[int]) -> Floats:
    """Return sigma2 of each stratum from the error mean squares, ``[..., stratum]``, never negative.

    sigma2_s = (MS_E,s - MS_E,next) / n_s. Their unclipped sum is a positive combination of the mean squares, hence
    unbiased and never negative; where a single stratum falls below 0 the others are scaled to keep that sum.
    """
    following = np.concatenate([mean_squares[..., 1:], np.zeros_like(mean_squares[..., :1])], axis=-1)
    raw = (mean_squares - following) / np.asarray(sharing)
    clipped = np.maximum(raw, 0.0)
    total, kept = raw.sum(axis=-1, keepdims=True), clipped.sum(axis=-1, keepdims=True)
    scaled: Floats = clipped * np.divide(total, kept, out=np.ones_like(total), where=kept > 0)
    return scaled


def f_test(effect: Floats, df: Floats | int, error: Floats, error_df: NDArray[Any]) -> Floats:
    """Return the p value of effect against error sums of squares; 1 where there is no effect at all."""
    numerator_df, denominator_df = np.asarray(df, dtype=float), np.asarray(error_df, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num((effect / numerator_df) / (error / denominator_df), posinf=np.inf)
    p: Floats = np.where(effect > 0, stats.f.sf(ratio, numerator_df, denominator_df), 1.0)
    return p
