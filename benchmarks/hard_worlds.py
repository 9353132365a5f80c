"""How often a whole report names something that is not so, in worlds that are harder than the method assumes.

    python benchmarks/hard_worlds.py            # 200 reports a world: an hour on 2 cores
    python benchmarks/hard_worlds.py --quick    # 20

A report has three outcomes (held-out recall, recall and precision on training cells) of 12 classes and their mean, in
the default study's design. Worlds: as assumed; 60 classes; fine-tunings that collapse by 30 points in 2% and 5% of
trials; effects that are nothing on average and vary between replicates as they were measured to do in real trainings;
chance that is twice as large at one level of a setting; classes that share 70% of their chance; 20 held-out cells a
class; a class of one cell beside the others; two causes that are exactly alike; classes of few cells, while nothing
acts and while one setting does.

Of each: the share of reports that name something falsely (a dominant cause, or an effect called real, anywhere on the
page), how often 95% intervals of marginal effects hold the truth, and how often a query effect that is planted in one
class beside it is called real: by the method, and by one error per stratum, which it had before. Where two causes are
exactly alike, how many verdicts call one of them the largest; of few cells, how often what acts is called real.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import expit
from scipy.special import logit as to_logit

sys.path.insert(0, str(Path(__file__).parents[1]))  # the designs are those of the tests
from study.attribution.attribute import attribute_tables
from study.attribution.correction import adjust_effects
from study.attribution.effects import contrasts_of, most_df, possible, stratum_variances, t_tests, weights_of
from study.attribution.findings import SIGNIFICANT, Attribution
from study.attribution.layout import CAUSES, Floats, Layout, squares
from study.attribution.tables import ClassTable
from study.trials.metrics import MACRO
from study.verdict.sentences import dominant_group
from tests.simulated_tables import chance_by_stratum, chance_for, default_design, depths, layout_for

OUTCOMES = ("heldout/recall", "train/recall", "train/precision")
SETTING, QUERY = "scanvi.linear_classifier", "query"
# Variance between replicates of real effects over that of the product's error, measured on training recall.
MEASURED = {"query_cells": 5.4, SETTING: 5.1, "scanvi.max_epochs": 4.1, "scanvi.n_samples_per_label": 3.2}
PLANTED = "planted"  # the class in which a query acts
POINTS = 12.0  # by so much


@dataclass(frozen=True)
class World:
    """What is harder than assumed."""

    name: str
    classes: int = 12
    recalls: tuple[float, float] = (0.75, 0.98)
    cells: int = 300
    collapses: float = 0.0
    varying: bool = False
    uneven: bool = False
    shared: float = 0.0
    one_cell: bool = False
    alike: float = 0.0
    acts: float = 0.0
    replicates: tuple[int, ...] = (3, 5)
    outcomes: tuple[str, ...] = field(default=OUTCOMES, repr=False)

    @property
    def acting(self) -> set[str]:
        """Factors that do act."""
        return {SETTING} if self.acts else {SETTING, QUERY} if self.alike else set()


def worlds() -> Iterator[World]:
    """Yield all of them; of few cells with as many replicates as their effects need."""
    yield World("as assumed")
    yield World("60 classes", classes=60)
    yield World("2% of trials collapse by 30 points", collapses=0.02)
    yield World("5% of trials collapse by 30 points", collapses=0.05)
    yield World("effects vary between replicates as measured", varying=True)
    yield World("a setting doubles chance", uneven=True)
    yield World("classes share 70% of their chance", shared=0.7)
    yield World("20 held-out cells a class", cells=20)
    yield World("a class of one held-out cell", one_cell=True)
    yield World("query and setting exactly alike", alike=1.2)
    for cells, replicates in ((5, 8), (8, 5), (12, 4), (19, 4)):
        for recall in (0.5, 0.75, 0.9, 0.98):
            for acts in (0.0, 1.7):
                name = f"{cells} held-out cells, recall {recall}" + (", a setting acts" if acts else "")
                few = {"cells": cells, "recalls": (recall, recall), "acts": acts, "replicates": (replicates,)}
                yield World(name, outcomes=OUTCOMES[:1], **few)  # type: ignore[arg-type]


def of_few(world: World) -> bool:
    """Whether its classes have effects alone."""
    return len(world.outcomes) == 1


def effects_of(world: World, layout: Layout) -> Floats:
    """Return what acts on the logit scale in every class, ``[cell]``."""
    at = {factor.name: np.indices(layout.levels)[f].ravel() - 0.5 for f, factor in enumerate(layout.factors)}
    effects = -world.acts * (at[SETTING] + 0.5)
    return np.asarray(effects + world.alike * (at[SETTING] + at[QUERY]))


def draw(world: World, layout: Layout, replicates: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return cells right of one outcome, ``[class, replicate, cell]``, and the logits without chance."""
    recalls = np.linspace(*world.recalls, world.classes)
    shape = (world.classes, replicates, *layout.levels)
    block = rng.normal(scale=0.5, size=(1, replicates, 1))
    middle = np.broadcast_to(
        to_logit(recalls)[:, None, None] + effects_of(world, layout) + block, (*shape[:2], layout.cells)
    )
    depth = depths(layout)
    noise = np.zeros(middle.shape)
    for one in chance_by_stratum(chance_for(4, layout), layout, shape[:2], rng, world.shared):
        noise += one
    for f, factor in enumerate(layout.factors):
        at = np.indices(layout.levels)[f].ravel()
        if world.uneven and factor.name == SETTING:
            noise *= np.where(at == 1, np.sqrt(2.0), 1.0)
        if world.varying and factor.name in MEASURED:
            # A two-level contrast's own error, from the chance of its stratum and what lies below it.
            scaled = np.array(chance_for(4, layout)) * np.array(layout.sharing)
            own_error = 4 * scaled[depth[f] :].sum() / layout.cells
            size = rng.normal(scale=np.sqrt((MEASURED[factor.name] - 1) * own_error), size=(*shape[:2], 1))
            noise += size * (at - 0.5)
    right = expit(middle + noise) - 0.3 * (rng.random((1, replicates, layout.cells)) < world.collapses)
    return rng.binomial(world.cells, right.clip(0, 1)).astype(float), middle


def planted(layout: Layout, replicates: int, rng: np.random.Generator) -> ClassTable:
    """Return a class of 500 cells in which the second query is `POINTS` lower, and nothing else acts."""
    middle = to_logit(0.9)
    fall = middle - to_logit(0.9 - POINTS / 100)
    at = np.indices(layout.levels)[[f.name for f in layout.factors].index(QUERY)].ravel()
    drawn, _ = draw(World(PLANTED, classes=1, recalls=(0.9, 0.9)), layout, replicates, rng)
    logits = to_logit((drawn[0] + 0.5) / 301) - fall * at
    index = np.arange(replicates)
    return ClassTable(rng.binomial(500, expit(logits)).astype(float), np.full(logits.shape, 500.0), index, index)


def tables_of(
    world: World, layout: Layout, replicates: int, rng: np.random.Generator
) -> tuple[dict[tuple[str, str], ClassTable], dict[str, Floats]]:
    """Return the tables of a report, and the true percentages of each class of the first outcome, ``[cell]``."""
    index, tables, truth = np.arange(replicates), {}, {}
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    spread = np.sqrt(sum(chance_for(4, layout)))
    for outcome in world.outcomes:
        correct, middle = draw(world, layout, replicates, rng)
        total = np.full(correct.shape, float(world.cells))
        for c in range(world.classes):
            tables[outcome, f"c{c}"] = ClassTable(correct[c], total[c], index, index)
        mean = (correct / total).mean(axis=0) * total.sum(axis=0)
        tables[outcome, MACRO] = ClassTable(mean, total.sum(axis=0), index, index)
        if world.one_cell:
            one = (rng.random(correct[0].shape) < 0.5).astype(float)
            tables[outcome, "one cell"] = ClassTable(one, np.ones(one.shape), index, index)
        if outcome == OUTCOMES[0]:
            expected = [w * expit(middle + spread * x) for x, w in zip(nodes, weights / weights.sum(), strict=True)]
            each = 100 * np.sum(expected, axis=0).mean(axis=1)
            truth = {f"c{c}": one for c, one in enumerate(each)} | {MACRO: each.mean(axis=0)}
    if not of_few(world):
        tables[OUTCOMES[0], PLANTED] = planted(layout, replicates, rng)
    return tables, truth


def true_effect(factor: str, points: Floats, layout: Layout) -> float:
    """Return the second level of a factor less the first, from the true percentages of the cells."""
    at = np.indices(layout.levels)[[one.name for one in layout.factors].index(factor)].ravel()
    return float(points[at == 1].mean() - points[at == 0].mean())


def one_error(tables: dict[tuple[str, str], ClassTable], layout: Layout) -> bool:
    """Whether the planted effect is called real with one error per stratum, Holm over the classes of its outcome."""
    contrasts = contrasts_of(layout)
    weights = weights_of(contrasts, layout)
    mine = [t for (outcome, _), t in tables.items() if outcome == OUTCOMES[0] and not t.few]
    eta, slopes, points = (np.stack([getattr(t, name) for t in mine]) for name in ("eta", "slopes", "points"))
    found = squares(eta, layout)
    df = np.broadcast_to(found.error_df.astype(float), found.error.shape)
    variances = stratum_variances(weights, slopes, found.error_mean_squares, layout)
    most = most_df(weights, df, layout)
    p = t_tests(points.mean(axis=-2) @ weights.T, variances, df, most, possible(weights)).p
    at = next(i for i, c in enumerate(contrasts) if (c.kind, c.factor) == ("marginal", QUERY))
    return bool(adjust_effects(p, contrasts)[-1, at] <= SIGNIFICANT)


def is_false(found: Attribution, world: World) -> bool:
    """Whether anything is named that is not so; a wrong winner among two causes that are alike is counted apart."""
    acting = world.acting | ({QUERY} if found.class_name == PLANTED else set())
    wrong = any(e.real and e.factor not in acting for e in found.effects if e.kind == "marginal")
    wrong |= not acting and any(e.real for e in found.effects)
    dominant = dominant_group(found) if found.shares else None
    groups = {"data"} if QUERY in acting else set()
    groups |= {"parameter"} if SETTING in acting else set()
    return bool(wrong or (dominant in CAUSES and dominant not in groups))


def measure(world: World, replicates: int, reports: int) -> dict[str, Any]:
    """Simulate reports, and count those that name something falsely."""
    layout = layout_for(default_design())
    rng = np.random.default_rng([sum(map(ord, world.name)), replicates])
    named, held, power, before, winners = [], [], [], [], []
    for _ in range(reports):
        tables, truth = tables_of(world, layout, replicates, rng)
        found = attribute_tables(tables, layout)
        named.append(any(is_false(one, world) for one in found))
        before += [] if of_few(world) else [one_error(tables, layout)]
        winners += [dominant_group(one) in CAUSES for one in found if one.shares and one.class_name != PLANTED]
        for one in found:
            marginal = [e for e in one.effects if e.kind == "marginal"]
            if one.class_name == PLANTED:
                power.append(any(e.real and e.factor == QUERY for e in marginal))
            elif one.outcome == OUTCOMES[0]:
                held += [e.lower <= true_effect(e.factor, truth[one.class_name], layout) <= e.upper for e in marginal]
                power += [e.real for e in marginal if of_few(world) and e.factor in world.acting]
    rate = float(np.mean(named))
    return {
        **asdict(world),
        "replicates": replicates,
        "reports": reports,
        "named": rate,
        "error": float(np.sqrt(max(rate * (1 - rate), 1 / reports) / reports)),
        "coverage": float(np.mean(held)) if held else float("nan"),
        "power": float(np.mean(power)) if power else float("nan"),
        "power_before": float(np.mean(before)) if before else float("nan"),
        "wrong_winners": float(np.mean(winners)) if world.alike else float("nan"),
    }


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print a line per world and number of replicates."""
    head = ("world", "K", "reports", "name something falsely", "coverage", "found", "one error", "wrong winner")
    table = Table(*head)
    for row in rows:
        rates = [f"{row[name]:.3f}" for name in ("coverage", "power", "power_before", "wrong_winners")]
        rate = f"{row['named']:.3f} ± {row['error']:.3f}"
        table.add_row(row["name"], str(row["replicates"]), str(row["reports"]), rate, *rates)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--reports", type=int, default=200, help="a world")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    jobs = [(world, count) for world in worlds() for count in world.replicates]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        reports = 20 if arguments.quick else arguments.reports
        # Sixty classes take five times as long.
        made = [
            pool.submit(measure, world, count, reports // (5 if world.classes > 12 else 1)) for world, count in jobs
        ]
        rows = [one.result() for one in made]
    show(rows, Console(stderr=arguments.json, width=150))
    if arguments.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
