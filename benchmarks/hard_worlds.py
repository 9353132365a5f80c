"""How often a whole report names something where nothing acts, in worlds that are harder than the method assumes.

    python benchmarks/hard_worlds.py            # 200 reports a world: some minutes
    python benchmarks/hard_worlds.py --quick    # 40

A report has three outcomes (held-out recall, recall and precision on training cells) of 12 classes and their mean,
in the default study's design. Worlds: as assumed; fine-tunings that collapse by 30 points in 2% and 5% of trials;
effects that are nothing on average and vary between replicates as they were measured to do in real trainings; classes
that share 70% of their chance; classes of 8 and of 20 held-out cells. Of each: the share of reports that name something
falsely (a dominant cause, or an effect called real, anywhere on the page) with its Monte Carlo error, and how often 95%
intervals of marginal effects hold 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import expit
from scipy.special import logit as to_logit

sys.path.insert(0, str(Path(__file__).parents[1]))  # the designs are those of the tests
from study.attribution.attribute import attribute_tables
from study.attribution.layout import CAUSES, Floats, Layout
from study.attribution.tables import ClassTable
from study.trials.metrics import MACRO
from study.verdict.sentences import dominant_group
from tests.simulated_tables import chance_for, default_design, layout_for

OUTCOMES = ("heldout/recall", "train/recall", "train/precision")
CLASSES = 12
RECALLS = np.linspace(0.75, 0.98, CLASSES)
# Variance between replicates of real effects over that of the product's error, measured on training recall.
MEASURED = {
    "query_cells": 5.4, "scanvi.linear_classifier": 5.1, "scanvi.max_epochs": 4.1, "scanvi.n_samples_per_label": 3.2,
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """What is harder than assumed."""

    name: str
    collapses: float = 0.0
    varying: bool = False
    shared: float = 0.0
    cells: int = 300


WORLDS = (
    World("as assumed"),
    World("2% of trials collapse", collapses=0.02),
    World("5% of trials collapse", collapses=0.05),
    World("effects vary between replicates as measured", varying=True),
    World("classes share 70% of their chance", shared=0.7),
    World("20 held-out cells a class", cells=20),
    World("8 held-out cells a class", cells=8),
)


def draw(world: World, layout: Layout, replicates: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return cells right and in all of one outcome, ``[class, replicate, cell]``: nothing acts on average."""
    shape = (replicates, *layout.levels)
    eta = to_logit(RECALLS)[:, None, None] + rng.normal(scale=0.5, size=(1, replicates, 1))
    eta = np.broadcast_to(eta, (CLASSES, replicates, layout.cells)).copy()
    depth = [next(s for s, one in enumerate(layout.strata) if f.name in one.factors) for f in layout.factors]
    for s, variance in enumerate(chance_for(4, layout)):
        units = [size if depth[f] <= s else 1 for f, size in enumerate(layout.levels)]
        own = rng.normal(size=(CLASSES, replicates, *units))
        common = rng.normal(size=(1, replicates, *units))
        noise = np.sqrt(variance) * (np.sqrt(1 - world.shared) * own + np.sqrt(world.shared) * common)
        eta += np.broadcast_to(noise, (CLASSES, *shape)).reshape(eta.shape)
    if world.varying:
        for f, factor in enumerate(layout.factors):
            if factor.name in MEASURED:
                # A two-level contrast's own error, from the chance of its stratum and what lies below it.
                scale = np.sqrt((MEASURED[factor.name] - 1) * _contrast_variance(layout, depth[f]))
                size = rng.normal(scale=scale, size=(CLASSES, replicates, 1))
                eta += size * (np.indices(layout.levels)[f].ravel() - 0.5)
    right = expit(eta) - 0.3 * (rng.random((1, replicates, layout.cells)) < world.collapses)
    total = np.full(eta.shape, float(world.cells))
    return rng.binomial(world.cells, right.clip(0, 1)).astype(float), total


def _contrast_variance(layout: Layout, depth: int) -> float:
    """Variance of a difference between two levels in one replicate, on the logit scale."""
    scaled = np.array(chance_for(4, layout)) * np.array(layout.sharing)
    return float(4 * scaled[depth:].sum() / layout.cells)


def measure(world: World, layout: Layout, replicates: int, reports: int) -> dict[str, Any]:
    """Simulate reports, and count those that name something."""
    rng = np.random.default_rng([len(world.name), replicates])
    index, named, held = np.arange(replicates), [], []
    for _ in range(reports):
        tables = {}
        for outcome in OUTCOMES:
            correct, total = draw(world, layout, replicates, rng)
            for code in range(CLASSES):
                tables[outcome, f"c{code}"] = ClassTable(correct[code], total[code], index, index)
            mean = (correct / total).mean(axis=0) * total.sum(axis=0)
            tables[outcome, MACRO] = ClassTable(mean, total.sum(axis=0), index, index)
        found = attribute_tables(tables, layout)
        effects = [effect for one in found for effect in one.effects]
        blamed = any(dominant_group(one) in CAUSES for one in found if one.method != "none")
        named.append(blamed or any(effect.real for effect in effects))
        held += [effect.lower <= 0 <= effect.upper for effect in effects if effect.kind == "marginal"]
    rate = float(np.mean(named))
    return {
        **asdict(world),
        "replicates": replicates,
        "named": rate,
        "error": float(np.sqrt(max(rate * (1 - rate), 1 / reports) / reports)),
        "coverage": float(np.mean(held)) if held else float("nan"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    layout = layout_for(default_design())
    console = Console(stderr=arguments.json, width=140)
    rows = []
    table = Table("world", "replicates", "reports that name something", "coverage of marginal effects")
    for world in WORLDS:
        for replicates in (3, 5):
            row = measure(world, layout, replicates, 40 if arguments.quick else 200)
            rows.append(row)
            rate = f"{row['named']:.3f} ± {row['error']:.3f}"
            table.add_row(world.name, str(replicates), rate, f"{row['coverage']:.3f}")
    console.print(table)
    if arguments.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
