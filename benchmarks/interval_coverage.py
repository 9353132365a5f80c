"""How often 95% intervals hold the truth: shares and effects, on simulated tables with known causes and chance.

Tables have 3 queries x 2 x 2 settings x 2 epoch levels with chance at every level of the stage tree. ``--quick``
takes under a minute; ``--json`` ends with one JSON object on the last line.
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
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tables are those of the tests
from study.attribution.effects import compare, contrasts_of, weights_of
from study.attribution.intervals import share_bounds
from study.attribution.layout import Floats
from study.attribution.moderation import piece_ratios
from study.attribution.tables import MIN_SUPPORT
from tests.simulated_tables import (
    GROUPS,
    Planted,
    chance_for,
    draw,
    family_of,
    layout_for,
    plant_effects,
    small_design,
    true_points,
    true_shares,
)

PATTERNS: dict[str, dict[str, float]] = {
    "nothing": {},
    "data": {"data": 0.15},
    "parameter": {"parameter": 0.15},
    "data x parameter": {"data x parameter": 0.10},
    "all three": {"data": 0.10, "parameter": 0.10, "data x parameter": 0.05},
}
DRAWS = 512
CLASSES = 5  # of one study: tables are judged together


@dataclass(frozen=True)
class Scenario:
    """One kind of table: what is planted, how many replicates, how strongly runs differ, how many cells are counted."""

    pattern: str
    replicates: int
    ratio: int
    recall: float = 0.85
    cells: int | None = None


@dataclass(frozen=True)
class Measured:
    """Coverage and mean width of the four shares, and coverage of effects in points, of one scenario."""

    scenario: Scenario
    shares: tuple[float, ...]
    truth: tuple[float, ...]
    width: tuple[float, ...]
    marginal: float
    simple: float


def scenarios(quick: bool) -> Iterator[Scenario]:
    """Yield the scenarios: without counting noise, then counted from classes of different size and recall."""
    for replicates in (3,) if quick else (3, 5, 10):
        for ratio in (8,) if quick else (1, 4, 8):
            for pattern in PATTERNS:
                yield Scenario(pattern, replicates, ratio)
    for cells in (50, 1000) if quick else (20, 50, 100, 1000, 5000):
        for recall in (0.75, 0.99) if quick else (0.75, 0.90, 0.99):
            for replicates in (3,) if quick else (3, 10):
                for pattern in ("all three",) if quick else ("nothing", "all three"):
                    yield Scenario(pattern, replicates, 4, recall, cells)


def measure(scenario: Scenario, tables: int, rng: np.random.Generator) -> Measured:
    """Simulate tables of one scenario, a new pattern of effects for every tenth of them, and count."""
    layout = layout_for(small_design())
    planted = Planted(
        chance_for(scenario.ratio, layout), PATTERNS[scenario.pattern], recall=scenario.recall, cells=scenario.cells
    )
    contrasts = contrasts_of(layout)
    kinds = np.array([contrast.kind for contrast in contrasts])
    weights = weights_of(contrasts, layout)
    hits, widths, truths, points = [], [], [], []
    for _ in range(10):
        effects = plant_effects(planted, layout, rng)
        truth = true_shares(planted, effects, layout, rng)
        drawn = draw(planted, effects, layout, scenario.replicates, tables // 10, rng)
        real = true_points(planted, effects, drawn.block) @ weights.T
        truths.append(truth)
        for start in range(0, len(drawn.correct), CLASSES):
            mine = slice(start, start + CLASSES)
            family = family_of(drawn.correct[mine], drawn.total[mine], layout)
            ratios = piece_ratios(family.eta, family.squares, layout)
            bounds = share_bounds(family.squares, layout, ratios, draws=DRAWS)
            hits.append(_inside(bounds.lower, truth, bounds.upper))
            widths.append(bounds.upper - bounds.lower)
            compared = compare(weights, family, layout)
            points.append(_inside(compared.lower, real[mine], compared.upper))
    by_contrast = np.concatenate(points).mean(axis=0)
    return Measured(
        scenario,
        tuple(np.concatenate(hits).mean(axis=0)),
        tuple(np.mean(truths, axis=0)),
        tuple(np.nanmean(np.concatenate(widths), axis=0)),
        float(by_contrast[kinds == "marginal"].mean()),
        float(by_contrast[kinds == "simple"].mean()),
    )


def _inside(lower: Floats, truth: Floats, upper: Floats) -> Floats:
    """Return 1 where the interval holds the truth, or where nothing varies and none is given."""
    return np.where(np.isnan(lower), 1.0, (lower <= truth + 1e-9) & (truth <= upper + 1e-9))


def show(found: Sequence[Measured], console: Console) -> None:
    """Print coverage by scenario."""
    table = Table(title="Coverage of 95% intervals (true share in brackets)")
    for name in ("planted", "K", "ratio", "recall", "cells", *GROUPS, "effects", "simple effects"):
        table.add_column(name, justify="right")
    for one in found:
        s = one.scenario
        shares = [f"{c:.3f} ({t:.2f})" for c, t in zip(one.shares, one.truth, strict=True)]
        cells = str(s.cells) if s.cells else "exact"
        table.add_row(
            s.pattern,
            str(s.replicates),
            str(s.ratio),
            str(s.recall),
            cells,
            *shares,
            f"{one.marginal:.3f}",
            f"{one.simple:.3f}",
        )
    console.print(table)


def summary(found: Sequence[Measured], tables: int, seconds: float) -> dict[str, object]:
    """Return the figures that the goals are about. Classes below the documented support are left out of the bounds."""
    exact = [one for one in found if one.scenario.cells is None]
    counted = [one for one in found if one.scenario.cells and one.scenario.cells >= MIN_SUPPORT]
    below = [one for one in found if one.scenario.cells and one.scenario.cells < MIN_SUPPORT]
    stated = [*exact, *counted]
    lowest = min(min(one.shares) for one in stated)
    return {
        "min_coverage": lowest,
        "max_coverage": max(max(one.shares) for one in stated),
        "mean_width": float(np.mean([one.width for one in stated])),
        "monte_carlo_error": float(np.sqrt(lowest * (1 - lowest) / tables)),
        "min_coverage_gaussian": min(min(one.shares) for one in exact),
        "min_coverage_counts": min(min(one.shares) for one in counted),
        "min_coverage_below_support": min((min(one.shares) for one in below), default=None),
        "min_support": MIN_SUPPORT,
        "min_coverage_effects": min(one.marginal for one in stated),
        "min_coverage_effects_below_support": min((one.marginal for one in below), default=None),
        "min_coverage_simple_effects": min(one.simple for one in stated),
        "tables_per_scenario": tables,
        "scenarios": len(found),
        "seconds": round(seconds, 1),
        "details": [asdict(one) for one in found],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer scenarios and tables, under a minute")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--tables", type=int, help="simulated tables per scenario")
    options = parser.parse_args()
    tables = options.tables or (300 if options.quick else 500)
    console = Console(width=200)
    start = time.perf_counter()
    rng = np.random.default_rng(1)
    found = [measure(scenario, tables, rng) for scenario in scenarios(options.quick)]
    result = summary(found, tables, time.perf_counter() - start)
    show(found, console)
    for key in ("min_coverage_gaussian", "min_coverage_counts", "min_coverage_effects", "min_coverage_simple_effects"):
        print(f"{key}: {result[key]:.3f}")
    print(f"Monte Carlo error of a coverage: {result['monte_carlo_error']:.3f}; {tables} tables per scenario")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
