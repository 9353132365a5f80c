"""Count how often `compare` takes training again for a difference, and how often it finds one of 3 points.

Null pairs are two studies in which nothing differs but chance: simulated, with chance at each level of the stage tree
and counts of cells; and really trained, the same design with other seeds on the same held-out cells. Then one class of
500 held-out cells loses 3 points in the second study.

    python benchmarks/compare.py                 # 200 pairs of each kind, an hour on one core
    python benchmarks/compare.py --quick         # simulated ones, a minute
    python benchmarks/compare.py --no-training   # all simulated ones
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy.special import expit, logit

from study.attribution.layout import Floats, layout_of
from study.attribution.tables import ClassTable
from study.config.composition import compose, validate
from study.config.values import dump
from study.plan.condition import Conditions
from study.plan.factors import Factor, factors_of, strata
from study.plan.tree import merge
from study.plan.trials import Replicate, trials_at, trials_of
from study.studies.study import open_study
from study.training.hardware import Hardware
from study.trials.perform import perform
from study.trials.record import Result
from study.trials.store import read_all
from study.verdict.drift import STUDY, A, B, ClassDrift, drift_of, find_drift, overall

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.simulated_tables import (
    Planted,
    chance_by_stratum,
    chance_for,
    default_design,
    forum_design,
    layout_for,
    plant_effects,
    small_design,
)

# Recall and held-out cells of the simulated classes; the one of 500 cells at 85% is what 3 points are planted in.
CLASSES = ((0.85, 500), (0.95, 500), (0.70, 200), (0.98, 100), (0.90, 40))
DESIGNS = {"default": default_design(), "small": small_design(), "forum": forum_design()}
POINTS = 3.0


@dataclass(frozen=True)
class World:
    """How two simulated studies are made.

    Attributes
    ----------
    ratio
        Mean square between fine-tuning runs over that within.
    chance
        Variance of a trial by chance, beside counting, on the logit scale.
    shared
        Part of chance that both have: the same seed, and versions that differ in rounding.
    """

    design: str
    ratio: int
    chance: float
    replicates: int
    shared: float = 0.0


@dataclass(frozen=True)
class Measured:
    """What was found in the pairs of one kind: parts of all pairs.

    Attributes
    ----------
    flagged
        Something that does not differ is said to differ.
    found
        The class that differs is said to.
    open
        The verdict is "cannot tell".
    """

    kind: str
    replicates: int
    planted: float
    pairs: int
    flagged: float
    found: float
    open: float


def simulated(world: World, planted: float, pairs: int, rng: np.random.Generator) -> Measured:
    """Simulate pairs of studies and compare them."""
    factors = DESIGNS[world.design]
    every = (Factor(STUDY, (A, B), "parameter"), *factors)
    layout, index = layout_of(every, strata(every)), np.arange(world.replicates)
    said = []
    for _ in range(pairs):
        tables = {}
        for number, (recall, cells) in enumerate(CLASSES):
            lost = planted if number == 0 else 0.0
            correct = _draw(world, recall, cells, lost, factors, rng)
            tables[str(number)] = ClassTable(correct, np.full(correct.shape, float(cells)), index, index)
        said.append(drift_of(tables, layout))
    kind = f"{world.design}, ratio {world.ratio}, {_points(world.chance):.1f} points"
    return _measured(
        kind + (f", {world.shared:.0%} shared" if world.shared else ""), world.replicates, planted, said, "0"
    )


def _points(chance: float) -> float:
    """Standard deviation of a trial at 85% recall, in points."""
    return float(100 * 0.85 * 0.15 * np.sqrt(chance))


def _draw(
    world: World, recall: float, cells: int, lost: float, factors: Sequence[Factor], rng: np.random.Generator
) -> Floats:
    """Return cells right ``[replicate, study x cell]``."""
    layout = layout_for(factors)
    chance = chance_for(world.ratio, layout, world.chance)
    effects = plant_effects(Planted(chance, {"data": 0.05, "parameter": 0.05}), layout, rng)
    middle = logit(recall) + effects + rng.normal(scale=0.5, size=(world.replicates, 1))

    def drawn() -> Floats:
        """Return what chance adds to each trial ``[replicate, cell]``."""
        return np.sum(list(chance_by_stratum(chance, layout, (1, world.replicates), rng)), axis=0)[0]

    both = drawn()
    parts = []
    for points in (0.0, lost):
        own = np.sqrt(1 - world.shared) * drawn() + np.sqrt(world.shared) * both
        share = expit(middle + own) - points / 100
        parts.append(rng.binomial(cells, share.clip(0, 1)).astype(float))
    return np.concatenate(parts, axis=1)


def _measured(
    kind: str, replicates: int, planted: float, said: Sequence[Sequence[ClassDrift]], changed: str
) -> Measured:
    real = [{one.class_name for one in classes if one.finding == "more"} for classes in said]
    # The mean of all classes changes with one of them.
    false = [bool(names - {changed, "(macro)"} if planted else names) for names in real]
    unsure = [overall(classes) == "cannot tell" for classes in said]
    found = float(np.mean([changed in names for names in real])) if planted else float("nan")
    return Measured(kind, replicates, planted, len(said), float(np.mean(false)), found, float(np.mean(unsure)))


BUNDLED = ("data=pbmc68k", "scvi.max_epochs=30", "scvi.n_hidden=64")
LARGE = ("data=simulated", "query=same", "data.simulate.reference_cells=3000", "data.simulate.separation=[0.3,0.3,0.4]",
         "scvi.max_epochs=10", "scvi.n_hidden=64", "scvi.n_latent=5")  # fmt: skip
FEW = {"scanvi.n_samples_per_label": {"levels": [20, "all"]}, "scanvi.max_epochs": {"levels": [10, 20]}}
# As many design points and pretrainings as the default study has.
MANY = {
    "query": {"levels": ["same", "shallow"]},
    "query_cells": {"levels": [60, "all"]},
    "scanvi.linear_classifier": {"levels": [True, False]},
    **FEW,
}
# Of each: how many trainings of each replicate there are to draw pairs from, and the classes that lose 3 points.
POOLS = (
    ("bundled", BUNDLED, FEW, 6, ()),
    ("500 cells, 4 points", (*LARGE, "query_cells=200"), FEW, 3, (0, 1, 2)),
    ("500 cells, 32 points", LARGE, MANY, 3, (0, 1, 2)),
)
FOLDS, REPLICATES = 2, 5


@dataclass(frozen=True)
class Pool:
    """Real trainings of one design: the results of each replicate's held-out cells, with several seeds."""

    factors: tuple[Factor, ...]
    results: Mapping[tuple[int, int], Sequence[tuple[Mapping[str, object], Result]]]


def train(overrides: Sequence[str], design: Mapping[str, object], seeds: int) -> Pool:
    """Train a small design once per set of held-out cells and seed."""
    with tempfile.TemporaryDirectory() as folder:
        values = dump(compose([*overrides, f"root={folder}"]))
        space = {"factors": dict(design), "replicates": REPLICATES, "folds": FOLDS, "controls": []}
        config = validate({**values, "space": values["space"] | space})
        study = open_study(config)
        points = list(dict.fromkeys(trial.levels for trial in trials_of(config, study.queries)))
        replicates = [Replicate(fold, 100 * fold + seed, fold) for fold in range(REPLICATES) for seed in range(seeds)]
        trials = trials_at(config, study.queries, points, replicates)
        factors = factors_of(config.space, study.queries)
        plan = merge(factors, trials, Conditions(config, study.cells, trials))
        for stage in plan.stages:
            perform(stage, study.cells[stage.condition.query], config.directory, Hardware.of(config.resources))
        found = read_all(config.directory, plan.by_key)
        results: dict[tuple[int, int], list[tuple[Mapping[str, object], Result]]] = {}
        for trial in plan.trials:
            where = (trial.replicate.fold, trial.replicate.seed % 100)
            results.setdefault(where, []).append((trial.levels, found[trial.key]))
        return Pool(factors, results)


def real(pool: Pool, kind: str, pairs: int, rng: np.random.Generator, which: int | None = None) -> Measured:
    """Compare pairs of studies that are drawn from a pool: in each replicate one training against another.

    Parameters
    ----------
    which
        Number of the class that loses `POINTS` in the second study; none if absent.
    """
    seeds = len({seed for _, seed in pool.results})
    names = next(iter(pool.results.values()))[0][1].classes
    said = []
    for _ in range(pairs):
        rows = []
        for fold in range(REPLICATES):
            for study, seed in zip((A, B), rng.choice(seeds, 2, replace=False), strict=True):
                for levels, result in pool.results[fold, int(seed)]:
                    matrix = np.asarray(result.confusion["heldout"])
                    for number, name in enumerate(names):
                        right, total = int(matrix[number, number]), float(matrix[number].sum())
                        if number == which and study == B:
                            right -= int(rng.binomial(right, min(1.0, POINTS / 100 * total / max(right, 1))))
                        where = {**levels, STUDY: study, "replicate": fold, "seed": fold, "fold": fold}
                        rows.append({**where, "class_name": name, "correct": float(right), "total": total})
        said.append(find_drift(pd.DataFrame(rows), pool.factors))
    planted, changed = (0.0, "") if which is None else (POINTS, names[which])
    return _measured(f"{kind} {changed}".strip(), REPLICATES, planted, said, changed)


def facts_of(pool: Pool) -> str:
    """Say what a pool's classes are: held-out cells, recall, and the deviation of a trial between seeds."""
    results = list(pool.results.values())
    words = []
    for number, name in enumerate(results[0][0][1].classes):
        grid = {key: [_recall(result, number) for _, result in trials] for key, trials in pool.results.items()}
        cells = int(np.sum(results[0][0][1].confusion["heldout"][number]))
        folds = {fold for fold, _ in grid}
        within = [np.array([v for (f, _), v in grid.items() if f == fold]).var(axis=0, ddof=1) for fold in folds]
        mean, deviation = np.mean(list(grid.values())), np.sqrt(np.mean(within))
        words.append(f"{name}: {cells} cells, {mean:.1f}%, {deviation:.1f} points")
    return "; ".join(words)


def _recall(result: Result, number: int) -> float:
    row = result.confusion["heldout"][number]
    return 100 * row[number] / sum(row)


def worlds(quick: bool) -> list[World]:
    """Return the simulated kinds of null pairs."""
    ratios, counts = ((4,), (3, 5)) if quick else ((1, 8), (2, 3, 5))
    found = [World(*one) for one in itertools.product(DESIGNS, ratios, (0.05,) if quick else (0.05, 0.2), counts)]
    return found + [replace(World("default", 4, 0.05, count), shared=0.95) for count in counts]


def show(title: str, found: Sequence[Measured], console: Console) -> None:
    """Print what was measured."""
    table = Table(title=title)
    for name in ("pairs", "replicates", "number", "flagged falsely", "found", "cannot tell"):
        table.add_column(name, justify="left" if name == "pairs" else "right")
    for one in found:
        rates = [f"{one.flagged:.3f}", "" if np.isnan(one.found) else f"{one.found:.2f}", f"{one.open:.2f}"]
        table.add_row(one.kind, str(one.replicates), str(one.pairs), *rates)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer simulated pairs, no training")
    parser.add_argument("--no-training", action="store_true", help="simulated pairs alone")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--pairs", type=int, help="pairs of each kind")
    options = parser.parse_args()
    pairs = options.pairs or (100 if options.quick else 200)
    start, rng, console = time.perf_counter(), np.random.default_rng(4), Console(width=150, stderr=options.json)
    null = [simulated(world, 0.0, pairs, rng) for world in worlds(options.quick)]
    show("simulated, nothing differs", null, console)
    power = [
        simulated(World(design, 4, chance, count), POINTS, pairs, rng)
        for design in (("default",) if options.quick else DESIGNS)
        for chance in (0.05, 0.1, 0.2)
        for count in (3, 5, 10)
    ]
    show(f"simulated, a class of 500 cells loses {POINTS:g} points", power, console)
    trained: list[Measured] = []
    pools: dict[str, str] = {}
    for kind, overrides, design, seeds, classes in () if options.quick or options.no_training else POOLS:
        pool = train(overrides, design, seeds)
        pools[kind] = facts_of(pool)
        console.print(f"{kind}: {pools[kind]}")
        trained += [real(pool, f"trained, {kind}", pairs, rng, which) for which in (None, *classes)]
    if trained:
        show("really trained", trained, console)
    every = [one for one in (*null, *trained) if not one.planted]
    five = [one for one in power if one.replicates == 5 and one.kind.startswith("default")]
    result = {
        "null_pairs": sum(one.pairs for one in every),
        "flagged": float(np.average([one.flagged for one in every], weights=[one.pairs for one in every])),
        "flagged_worst": max(one.flagged for one in every),
        "found_default_5_replicates": {one.kind: one.found for one in five},
        "pools": pools,
        "seconds": round(time.perf_counter() - start, 1),
        "details": [asdict(one) for one in (*null, *power, *trained)],
    }
    console.print(
        f"{result['null_pairs']} null pairs: {result['flagged']:.4f} flagged, {result['flagged_worst']:.3f} at worst"
    )
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
