"""What it costs to stop when it is known, and how often a study that looks again errs.

    python benchmarks/looks.py            # 200 studies a world: some minutes on 2 cores
    python benchmarks/looks.py --quick    # 8

Simulated studies in the default design, five classes and their mean, whose truth is known: nothing acts; a query or a
setting acts, strongly, somewhat, or a little; both alike; a setting that acts otherwise in each query.
A study looks after each declared number of replicates and ends when nothing is open of the mean of all classes, or at
the last look (`replicates: auto`). Beside it the same studies with 3 to 12 replicates, decided beforehand, and studies
to which replicates are added by hand, with a look each time. Of each: replicates used; how often the verdict names
what is there (the group with the largest share where it is clearly that, and marginal effects); how often it names
something that is not. The fixed design of equal power is the smallest that names as much as `auto`, over all worlds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import expit
from scipy.special import logit as to_logit

sys.path.insert(0, str(Path(__file__).parents[1]))  # the designs are those of the tests
from study.attribution.attribute import attribute_tables
from study.attribution.findings import Attribution, StudyAttribution
from study.attribution.layout import Floats, Layout
from study.attribution.looks import Look, last_look, look_after
from study.attribution.tables import ClassTable
from study.config.space import LOOKS
from study.trials.metrics import MACRO
from study.verdict.sentences import dominant_group
from study.verdict.settled import open_questions
from tests.simulated_tables import chance_by_stratum, chance_for, default_design, layout_for

RECALLS, CELLS = (0.75, 0.80, 0.88, 0.93, 0.97), 400
FIXED = (3, 4, 5, 6, 7, 8, 9, 10, 12)
BY_HAND = (3, 6, 9, 12)


@dataclass(frozen=True)
class World:
    """What acts, as its size on the logit scale by factor, and the ratio of chance between and within runs."""

    name: str
    acts: tuple[tuple[tuple[str, ...], float], ...] = ()
    ratio: int = 4
    chance: float = 0.2

    @property
    def truth(self) -> str | None:
        """The group with the largest share, where one clearly is."""
        known = {
            "nothing acts": "chance",
            f"the query acts, {SIZES[0]}": "data",
            f"a setting acts, {SIZES[0]}": "parameter",
            f"the query acts, {SIZES[-1]}": "chance",
            f"a setting acts, {SIZES[-1]}": "chance",
        }
        return known.get(self.name)


QUERY, CLASSIFIER, LABELS = "query", "scanvi.linear_classifier", "scanvi.n_samples_per_label"
SIZES = (1.6, 0.8, 0.4)
WORLDS = (
    World("nothing acts"),
    World("nothing acts", ratio=8),
    *(World(f"the query acts, {size}", (((QUERY,), size),)) for size in SIZES),
    *(World(f"a setting acts, {size}", (((CLASSIFIER,), size),)) for size in SIZES),
    World("query and settings alike", (((QUERY,), 1.2), ((CLASSIFIER,), 1.2))),
    World("settings by query", (((QUERY, CLASSIFIER), 1.2), ((LABELS,), 0.6))),
)
# Classes share so much of their chance: else their mean would be known much better than any of them.
SHARED = 0.7


def effects_of(world: World, layout: Layout) -> Floats:
    """Return effects on the cells, ``[cell]``: half of the size up, half of it down."""
    at = {factor.name: np.indices(layout.levels)[f].ravel() - 0.5 for f, factor in enumerate(layout.factors)}
    effects = np.zeros(layout.cells)
    for names, size in world.acts:
        effects += size * np.prod([2 * at[name] for name in names], axis=0) / 2
    return effects


def draw(world: World, layout: Layout, replicates: int, rng: np.random.Generator) -> Floats:
    """Return cells right of each class, ``[class, replicate, cell]``."""
    shape = (len(RECALLS), replicates, *layout.levels)
    eta = to_logit(RECALLS)[:, None, None] + effects_of(world, layout) + rng.normal(scale=0.4, size=(*shape[:2], 1))
    for noise in chance_by_stratum(chance_for(world.ratio, layout, world.chance), layout, shape[:2], rng, SHARED):
        eta = eta + noise
    return rng.binomial(CELLS, expit(eta)).astype(float)


def attributed(correct: Floats, layout: Layout, look: Look) -> StudyAttribution:
    """Attribute the first replicates of a study, at the level of a look."""
    here, index = correct[:, : look.replicates], np.arange(look.replicates)
    total = np.full(here[0].shape, float(CELLS))
    tables = {("heldout/recall", MACRO): ClassTable(here.mean(axis=0) * len(here), total * len(here), index, index)}
    tables |= {("heldout/recall", f"c{c}"): ClassTable(one, total, index, index) for c, one in enumerate(here)}
    return StudyAttribution(layout.factors, layout.strata, attribute_tables(tables, layout, level=look.level))


@dataclass
class Told:
    """What a study told: replicates used, whether it named the largest share, effects named of those there, errors."""

    replicates: int
    why: float
    effects: float
    wrong: bool


def judged(found: StudyAttribution, world: World, replicates: int) -> Told:
    """Compare what a study names with the truth."""
    mean = found.of("heldout/recall", MACRO)
    there = {names[0] for names, _ in world.acts if len(names) == 1}
    named = {e.factor for e in mean.effects if e.real and e.kind == "marginal"}
    why = float("nan") if world.truth is None else float(dominant_group(mean) == world.truth)
    effects = len(named & there) / len(there) if there else float("nan")
    return Told(replicates, why, effects, any(_wrong(one, world, there) for one in found.attributions))


def _wrong(found: Attribution, world: World, there: set[str]) -> bool:
    """Whether anything is named that is not there: a marginal effect, or a group that nothing belongs to."""
    groups = {"chance"} | ({"data"} if QUERY in there else set()) | ({"parameter"} if there - {QUERY} else set())
    groups |= {"data x parameter"} if any(len(names) > 1 for names, _ in world.acts) else set()
    false = [e for e in found.effects if e.real and e.kind == "marginal" and e.factor not in there]
    return bool(false) or dominant_group(found) not in {None, *groups}


def simulate(world: World, studies: int, declared: Sequence[int]) -> dict[str, list[Told]]:
    """Return what studies told: `auto`, `by hand`, and with each number of replicates."""
    layout = layout_for(default_design())
    rng = np.random.default_rng([len(world.name), world.ratio, len(declared)])
    found: dict[str, list[Told]] = {"auto": [], "by hand": [], **{f"{k} replicates": [] for k in FIXED}}
    for _ in range(studies):
        correct = draw(world, layout, FIXED[-1], rng)
        found["auto"].append(_auto(correct, layout, world, declared))
        found["by hand"].append(_by_hand(correct, layout, world))
        for k in FIXED:
            found[f"{k} replicates"].append(judged(attributed(correct, layout, look_after(k, ())), world, k))
    return found


def _auto(correct: Floats, layout: Layout, world: World, declared: Sequence[int]) -> Told:
    taken: list[Look] = []
    wrong, last = False, last_look(declared)
    for k in declared:
        look = look_after(k, taken, declared[-1])
        taken.append(look)
        found = attributed(correct, layout, look)
        told = judged(found, world, k)
        wrong |= told.wrong
        if k == declared[-1] or not open_questions(found, [MACRO], last):
            return replace(told, wrong=wrong)
    raise AssertionError("the last look ends it")


def _by_hand(correct: Floats, layout: Layout, world: World) -> Told:
    """Replicates are added whatever was seen: the page errs if any of its looks does."""
    taken: list[Look] = []
    wrong = False
    for k in BY_HAND:
        taken.append(look_after(k, taken))
        told = judged(attributed(correct, layout, taken[-1]), world, k)
        wrong |= told.wrong
    return replace(told, wrong=wrong)


def summary(found: dict[str, list[Told]]) -> dict[str, dict[str, float]]:
    """Return means over studies."""
    return {
        name: {
            key: float(np.mean(values))
            if not np.isnan(values := [float(getattr(t, key)) for t in told]).all()
            else np.nan
            for key in ("replicates", "why", "effects", "wrong")
        }
        for name, told in found.items()
    }


def power(rows: Sequence[dict[str, dict[str, float]]], name: str) -> float:
    """Return how much of what is there is named, over all worlds: largest shares and effects alike."""
    return float(np.nanmean([[row[name]["why"], row[name]["effects"]] for row in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--studies", type=int, default=200, help="a world")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--looks", type=int, nargs="+", default=LOOKS, help="declared looks")
    options = parser.parse_args()
    studies = 8 if options.quick else options.studies
    with ProcessPoolExecutor(2) as pool:
        jobs = [pool.submit(simulate, world, studies, options.looks) for world in WORLDS]
        rows = [summary(job.result()) for job in jobs]
    show(rows, Console(stderr=options.json, width=150))
    result = conclude(rows, studies)
    for key, value in result.items():
        if key != "worlds":
            print(f"{key}: {value:.3f}", file=sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(result))


def show(rows: Sequence[dict[str, dict[str, float]]], console: Console) -> None:
    """Print a line per world and way."""
    table = Table("world", "ratio", "way", "replicates", "largest share named", "effects named", "something wrong")
    for world, row in zip(WORLDS, rows, strict=True):
        for way in ("auto", "by hand", "3 replicates", "6 replicates", "12 replicates"):
            numbers = [f"{row[way][key]:.2f}" for key in ("why", "effects")]
            table.add_row(
                world.name, str(world.ratio), way, f"{row[way]['replicates']:.1f}", *numbers, f"{row[way]['wrong']:.3f}"
            )
    console.print(table)


def conclude(rows: Sequence[dict[str, dict[str, float]]], studies: int) -> dict[str, Any]:
    """Return the figures that the goals are about."""
    used = float(np.mean([row["auto"]["replicates"] for row in rows]))
    mine = power(rows, "auto")
    equal = next((k for k in FIXED if power(rows, f"{k} replicates") >= mine), FIXED[-1])
    wrong = {way: float(np.mean([row[way]["wrong"] for row in rows])) for way in ("auto", "by hand")}
    return {
        "replicates_auto": used,
        "power_auto": mine,
        "power_of_most": power(rows, f"{FIXED[-1]} replicates"),
        "fixed_of_equal_power": float(equal),
        "share_of_trainings": used / equal,
        "wrong_auto": wrong["auto"],
        "wrong_by_hand": wrong["by hand"],
        "wrong_worst": max(row["auto"]["wrong"] for row in rows),
        "monte_carlo_error": float(np.sqrt(0.05 * 0.95 / studies)),
        "worlds": [{**asdict(world), **row} for world, row in zip(WORLDS, rows, strict=True)],
    }


if __name__ == "__main__":
    main()
