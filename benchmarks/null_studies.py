"""How often a study in which nothing differs blames something: the card as a whole, and each group of causes.

Studies have six classes and their macro mean, independent of each other (the worst case for a family), in the default
design and in one shaped like the forum's. Beside the card stands what a single pooled residual would do, to show that
the check can fail. Last come studies in which one factor does act, strongly: how often is another one blamed?
``--quick`` takes under a minute; ``--json`` ends with one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tables are those of the tests
from study.attribution.attribute import attribute_tables
from study.attribution.correction import adjust_effects, holm
from study.attribution.effects import compare, contrasts_of, weights_of
from study.attribution.findings import SIGNIFICANT
from study.attribution.intervals import group_p_values, piece_squares
from study.attribution.layout import CAUSES, Floats, Layout, Squares, f_test, squares
from study.attribution.moderation import piece_ratios
from study.attribution.tables import ClassTable, logit
from study.trials.metrics import MACRO
from study.verdict.sentences import dominant_group
from tests.simulated_tables import Planted, chance_for, default_design, draw, family_of, forum_design, layout_for

CLASSES = 6
CELLS = (50, 100, 200, 500, 1000, 2000)
RECALLS = (0.75, 0.80, 0.85, 0.90, 0.95, 0.98)
REPLICATES = 3


@dataclass(frozen=True)
class Condition:
    """One kind of study: null, or with one factor whose first level costs 1.7 on the logit scale in every class."""

    design: str
    ratio: int
    counted: bool
    acting: str | None = None


@dataclass(frozen=True)
class Measured:
    """Rates over the studies of one condition.

    `card` blames something falsely in any class, by a dominant cause or a real effect; `dominant` and `effect` are its
    two answers, `groups` says what was blamed. `gate` is the rate, per class, at which a group's test passes 5%, and
    `pooled` the same for the query tested against one pooled residual.
    """

    condition: Condition
    studies: int
    card: float
    dominant: float
    effect: float
    groups: tuple[float, ...]
    gate: tuple[float, ...]
    pooled: float


def conditions(quick: bool) -> Iterator[Condition]:
    """Yield the designs, ratios of mean squares between and within runs, with and without counting noise."""
    for design in ("default", "forum"):
        for ratio in (8,) if quick else (1, 4, 8):
            for counted in (False, True):
                yield Condition(design, ratio, counted)
    for design, acting in (("default", "query_cells"), ("forum", "query"), ("forum", "scanvi.max_epochs")):
        yield Condition(design, 4, True, acting)


def measure(condition: Condition, studies: int, rng: np.random.Generator) -> Measured:
    """Simulate null studies and put their cards together."""
    layout = layout_for(default_design() if condition.design == "default" else forum_design())
    correct, total = _draw(condition, studies, layout, rng)
    found = squares(logit(correct, total), layout)
    p_groups = group_p_values(*piece_squares(found, layout), found, layout)
    blamed = np.zeros((studies, 2, len(CAUSES)), dtype=bool)
    for study in range(studies):
        if _suspect(correct[study], total[study], condition, layout):
            blamed[study] = _card(correct[study], total[study], condition, layout)
    return Measured(
        condition,
        studies,
        float(blamed.any(axis=(1, 2)).mean()),
        float(blamed[:, 0].any(axis=1).mean()),
        float(blamed[:, 1].any(axis=1).mean()),
        tuple(blamed.any(axis=1).mean(axis=0)),
        tuple((p_groups <= SIGNIFICANT).mean(axis=(0, 1))),
        float((_pooled_query(found, layout) <= SIGNIFICANT).mean()),
    )


def _draw(condition: Condition, studies: int, layout: Layout, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return counts ``[study, class, replicate, cell]``; the last class is the macro mean of the others."""
    names = [factor.name for factor in layout.factors]
    effects = np.zeros(layout.cells)
    if condition.acting:
        effects[np.indices(layout.levels)[names.index(condition.acting)].ravel() == 0] = -1.7
    correct, total = [], []
    for recall, cells in zip(RECALLS, CELLS, strict=True):
        planted = Planted(
            chance_for(condition.ratio, layout), {}, recall=recall, cells=cells if condition.counted else None
        )
        drawn = draw(planted, effects, layout, REPLICATES, studies, rng)
        correct.append(drawn.correct)
        total.append(drawn.total)
    macro = np.mean([k / n for k, n in zip(correct, total, strict=True)], axis=0)
    everything = np.sum(total, axis=0)
    return np.stack([*correct, macro * everything], axis=1), np.stack([*total, everything], axis=1)


def _suspect(correct: Floats, total: Floats, condition: Condition, layout: Layout) -> bool:
    """Return whether the card of a study could blame something falsely: only these need the whole, slower, card."""
    contrasts = contrasts_of(layout)
    idle = np.array([contrast.factor != condition.acting for contrast in contrasts])
    family = family_of(correct, total, layout, summaries=1)
    effects = adjust_effects(compare(weights_of(contrasts, layout), family, layout).p, contrasts)[:, idle]
    had = [group in layout.groups and group != _role(condition, layout) for group in CAUSES]
    found, judges = family.squares, family.judges
    ratios = piece_ratios(family.eta[judges], found[judges], layout)
    groups = holm(group_p_values(*piece_squares(found, layout), found, layout, ratios)[:, had])
    return bool(min(groups.min(), np.nanmin(effects)) <= SIGNIFICANT)


def _role(condition: Condition, layout: Layout) -> str | None:
    """Return the group of the factor that acts."""
    return next((factor.role for factor in layout.factors if factor.name == condition.acting), None)


def _card(correct: Floats, total: Floats, condition: Condition, layout: Layout) -> NDArray[np.bool_]:
    """Return what the card of one study blames falsely, ``[dominant or effect, group]``."""
    index = np.arange(correct.shape[1])
    names = [*map(str, range(CLASSES)), MACRO]
    tables = {("recall", name): ClassTable(correct[k], total[k], index, index) for k, name in enumerate(names)}
    blamed = np.zeros((2, len(CAUSES)), dtype=bool)
    for found in attribute_tables(tables, layout):
        dominant = dominant_group(found)
        if dominant in CAUSES and dominant != _role(condition, layout):
            blamed[0, CAUSES.index(dominant)] = True
        for effect in found.effects:
            if effect.real and effect.factor != condition.acting:
                blamed[1, CAUSES.index(effect.role)] = True
    return blamed


def _pooled_query(found: Squares, layout: Layout) -> Floats:
    """Return p values of the query against one residual pooled over all strata, as if trials were independent."""
    query = next(t for t, term in enumerate(layout.terms) if term.name == "query")
    return f_test(found.effect[..., query], layout.terms[query].df, found.error.sum(axis=-1), found.error_df.sum())


def show(found: Sequence[Measured], console: Console) -> None:
    """Print rates by condition."""
    table = Table(title=f"{CLASSES} classes and macro, {REPLICATES} replicates: how often something is blamed falsely")
    head = ("design", "acts", "ratio", "counts", "card", "dominant", "effects", *CAUSES, "data, one test")
    for name in (*head, "query, pooled residual"):
        table.add_column(name, justify="right")
    for one in found:
        c, error = one.condition, np.sqrt(max(one.card * (1 - one.card), 1e-4) / one.studies)
        kind = (c.design, c.acting or "nothing", str(c.ratio), "binomial" if c.counted else "exact")
        single = ("", "") if c.acting else (f"{one.gate[0]:.3f}", f"{one.pooled:.3f}")
        rates = [f"{rate:.3f}" for rate in (one.dominant, one.effect, *one.groups)]
        table.add_row(*kind, f"{one.card:.3f} ± {error:.3f}", *rates, *single)
    console.print(table)


def summary(found: Sequence[Measured], seconds: float) -> dict[str, object]:
    """Return the figures that the goals are about."""
    null = [one for one in found if one.condition.acting is None]
    studies, rate = sum(one.studies for one in null), float(np.mean([one.card for one in null]))
    worst = max(null, key=lambda one: one.card)
    pooled = [one.pooled for one in null if one.condition.design == "forum" and one.condition.ratio == 8]
    return {
        "false_cause_rate": rate,
        "monte_carlo_error": float(np.sqrt(rate * (1 - rate) / studies)),
        "studies": studies,
        "false_cause_rate_worst": worst.card,
        "monte_carlo_error_worst": float(np.sqrt(worst.card * (1 - worst.card) / worst.studies)),
        "false_group_rate_worst": max(max(one.groups) for one in null),
        "pooled_residual_rate_forum_ratio_8": min(pooled),
        "false_other_cause_rate": max(one.card for one in found if one.condition.acting),
        "seconds": round(seconds, 1),
        "details": [asdict(one) for one in found],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer conditions and studies, under a minute")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--studies", type=int, help="simulated studies per condition")
    options = parser.parse_args()
    studies = options.studies or (300 if options.quick else 2000)
    start = time.perf_counter()
    rng = np.random.default_rng(2)
    found = [measure(condition, studies, rng) for condition in conditions(options.quick)]
    result = summary(found, time.perf_counter() - start)
    show(found, Console(width=200))
    for name, key in (("all null studies", ""), ("worst condition", "_worst")):
        print(
            f"{name}: {result['false_cause_rate' + key]:.4f} ± {result['monte_carlo_error' + key]:.4f} blame something"
        )
    print(
        f"{result['studies']} null studies; with one real cause another is blamed in at most "
        f"{result['false_other_cause_rate']:.3f}"
    )
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
