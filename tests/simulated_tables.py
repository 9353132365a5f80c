"""Simulated tables: known effects, known chance at each level of the stage tree, exact or counted from few cells."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from study.attribution.effects import Family
from study.attribution.layout import CAUSES, CHANCE, Floats, Layout, chance_variances, layout_of, squares
from study.attribution.tables import logit as empirical_logit
from study.attribution.tables import percent, slope
from study.plan.factors import Factor, strata

GROUPS = (*CAUSES, CHANCE)
QUERIES, CELLS = ("A", "B", "C"), (30, 300)
CLASSIFIER, LABELS = (True, False), (10, 100, "all")


def default_design() -> tuple[Factor, ...]:
    """Return the factors of the default study: 2 x 2 x 2 x 2 x 2."""
    return (
        Factor("query", QUERIES[:2], "data"),
        Factor("query_cells", CELLS, "data"),
        Factor("scanvi.linear_classifier", CLASSIFIER, "parameter"),
        Factor("scanvi.n_samples_per_label", LABELS[:2], "parameter"),
        Factor("scanvi.max_epochs", (15, 30), "parameter"),
    )


def forum_design() -> tuple[Factor, ...]:
    """Return the factors of a study shaped like the forum's: 3 queries x 6 settings x 4 epoch levels."""
    return (
        Factor("query", QUERIES, "data"),
        Factor("scanvi.linear_classifier", CLASSIFIER, "parameter"),
        Factor("scanvi.n_samples_per_label", LABELS, "parameter"),
        Factor("scanvi.max_epochs", (25, 50, 100, 200), "parameter"),
    )


def small_design() -> tuple[Factor, ...]:
    """Return the factors of a small study: 3 queries x 2 x 2 settings x 2 epoch levels."""
    return (
        Factor("query", QUERIES, "data"),
        Factor("scanvi.linear_classifier", CLASSIFIER, "parameter"),
        Factor("scanvi.n_samples_per_label", LABELS[:2], "parameter"),
        Factor("scanvi.max_epochs", (15, 30), "parameter"),
    )


SMALL = small_design()


def layout_for(factors: Sequence[Factor]) -> Layout:
    """Return the layout of a design with the strata of the stage tree."""
    return layout_of(factors, strata(factors))


@dataclass(frozen=True)
class Planted:
    """What is planted, on the logit scale.

    Attributes
    ----------
    chance
        Variance at each stratum of the design, root first.
    causes
        Variance that each group of causes explains.
    block
        Variance between replicates.
    recall
        Recall in the middle of the table.
    cells
        Held-out cells of the class, from which counts are drawn; None for no counting noise.
    """

    chance: tuple[float, ...]
    causes: Mapping[str, float]
    block: float = 0.3
    recall: float = 0.85
    cells: int | None = None


def chance_for(ratio: float, layout: Layout, total: float = 0.2) -> tuple[float, ...]:
    """Return chance by stratum with the given ratio of mean squares between fine-tuning runs and within them.

    Pretraining adds none of its own, so that the mean square between pretrainings has the same ratio.
    """
    parts = np.zeros(len(layout.strata))
    parts[-1] = 1.0
    parts[-2] = (ratio - 1) / layout.sharing[-2]
    return tuple(float(part) for part in parts * total / parts.sum())


def plant_effects(planted: Planted, layout: Layout, rng: np.random.Generator) -> Floats:
    """Return effects on the cells, ``[cell]``: a random pattern in each group with exactly the planted variance."""
    groups = np.array(["", *(layout.terms[t].group for t in layout.column_term[1:])])
    columns = np.zeros(layout.cells)
    for group, variance in planted.causes.items():
        mine = groups == group
        pattern = rng.normal(size=int(mine.sum()))
        columns[mine] = pattern / np.linalg.norm(pattern) * np.sqrt(layout.cells * variance)
    effects: Floats = layout.rotation @ columns
    return effects


@dataclass(frozen=True, eq=False)
class Drawn:
    """Simulated tables: cells right and counted ``[table, replicate, cell]``, and the blocks ``[table, replicate]``."""

    correct: Floats
    total: Floats
    block: Floats


def depths(layout: Layout) -> list[int]:
    """Return the stratum in which each factor acts."""
    return [next(s for s, one in enumerate(layout.strata) if f.name in one.factors) for f in layout.factors]


def chance_by_stratum(
    variances: Sequence[float],
    layout: Layout,
    shape: tuple[int, int],
    rng: np.random.Generator,
    shared: float | None = None,
) -> Iterator[Floats]:
    """Yield the chance of each stratum, root first, ``[table, replicate, cell]``; trials of a unit have the same.

    With `shared` tables have so large a part of it in common.
    """
    for s, variance in enumerate(variances):
        units = [size if depth <= s else 1 for depth, size in zip(depths(layout), layout.levels, strict=True)]
        noise = rng.normal(size=(*shape, *units))
        if shared is not None:
            common = rng.normal(size=(1, shape[1], *units))
            noise = np.sqrt(1 - shared) * noise + np.sqrt(shared) * common
        whole = np.broadcast_to(np.sqrt(variance) * noise, (*shape, *layout.levels))
        yield whole.reshape(*shape, layout.cells)


def draw(
    planted: Planted, effects: Floats, layout: Layout, replicates: int, tables: int, rng: np.random.Generator
) -> Drawn:
    """Return simulated tables.

    Without counting noise a class has a million cells and the exact, not whole, number of them right.
    """
    block = rng.normal(scale=np.sqrt(planted.block), size=(tables, replicates))
    eta = logit(planted.recall) + effects + block[..., None]
    for noise in chance_by_stratum(planted.chance, layout, (tables, replicates), rng):
        eta = eta + noise
    total = np.full(eta.shape, float(planted.cells or 1_000_000))
    correct = rng.binomial(total.astype(int), expit(eta)).astype(float) if planted.cells else total * expit(eta)
    return Drawn(correct, total, block)


def family_of(correct: Floats, total: Floats, layout: Layout, summaries: int = 0) -> Family:
    """Return tables ``[table, replicate, cell]`` as those of one outcome; the last ones summarize the others."""
    eta = empirical_logit(correct, total)
    proper = np.arange(len(eta)) < len(eta) - summaries
    return Family(eta, percent(correct, total), slope(expit(eta)), squares(eta, layout), proper)


def true_points(planted: Planted, effects: Floats, block: Floats) -> Floats:
    """Return the expected percentages of the cells in the given replicates, chance averaged out, ``[table, cell]``."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    eta = logit(planted.recall) + effects + block[..., None]
    spread = np.sqrt(sum(planted.chance))
    expected = sum(w * expit(eta + spread * node) for node, w in zip(nodes, weights / weights.sum(), strict=True))
    points: Floats = 100 * np.asarray(expected).mean(axis=-2)
    return points


def true_shares(planted: Planted, effects: Floats, layout: Layout, rng: np.random.Generator) -> Floats:
    """Return the true shares of data, parameter, data x parameter and chance, ``[4]``.

    With counts, chance has the counting noise too, and the logits of counts are what is decomposed; their shares
    are those of a table with very many replicates.
    """
    if planted.cells is None:
        parts = np.array([*(planted.causes.get(group, 0.0) for group in CAUSES), sum(planted.chance)])
        shares: Floats = parts / parts.sum()
        return shares
    replicates = 4000
    drawn = draw(planted, effects, layout, replicates, 1, rng)
    found = squares(empirical_logit(drawn.correct, drawn.total), layout)
    by_group = np.array([[term.group == group for group in CAUSES] for term in layout.terms], dtype=float)
    stratum = [term.stratum for term in layout.terms]
    df = np.array([term.df for term in layout.terms])
    effect = (found.effect - df * found.error_mean_squares[..., stratum])[0] / (layout.cells * replicates)
    present = np.array([planted.causes.get(group, 0.0) > 0 for group in CAUSES])
    causes = np.where(present, (effect @ by_group).clip(0.0), 0.0)
    chance = chance_variances(found.error_mean_squares, layout.sharing)[0].sum()
    return np.array([*causes, chance]) / (causes.sum() + chance)


def frame_of(correct: Floats, total: Floats, factors: Sequence[Factor]) -> pd.DataFrame:
    """Return one class's table in long form; `correct` and `total` are ``[replicate, cell]``."""
    cells = list(itertools.product(*(factor.levels for factor in factors)))
    rows = [
        {f.name: level for f, level in zip(factors, cell, strict=True)}
        | {"replicate": r, "seed": r, "fold": r, "correct": correct[r, c], "total": total[r, c]}
        for r in range(len(correct))
        for c, cell in enumerate(cells)
    ]
    return pd.DataFrame(rows)


def simulated(planted: Planted, layout: Layout, replicates: int = 3, seed: int = 0) -> tuple[pd.DataFrame, Floats]:
    """Return one simulated class in long form, and the planted effects on its cells."""
    rng = np.random.default_rng(seed)
    effects = plant_effects(planted, layout, rng)
    drawn = draw(planted, effects, layout, replicates, 1, rng)
    return frame_of(drawn.correct[0], drawn.total[0], layout.factors), effects
