"""How long a full study takes on 1, 8 and 64 GPUs: each trial alone, shared stages, and what no order can beat.

The plan is the real one, of a study as large as the forum's: 200,000 reference cells, three queries of up to 800,000,
each at three sizes, 5 replicates, 2 classifiers x 3 samplings x 4 epoch levels, 400 + 200 epochs. Only the counts are
empty. Nothing is trained: seconds per optimiser step are given, and the ratios do not depend on them.

    python benchmarks/makespan.py            # seconds
    python benchmarks/makespan.py --quick    # 20,000 + 80,000 cells

With the engine `gpu` like stages train as one, at the rates that were measured on one card (docs/cost.md).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from study.cells.prepared import Cells
from study.config.composition import compose, validate
from study.config.values import dump
from study.plan.order import Work, in_order, simulate_schedule
from study.plan.stages import Plan, Stage
from study.plan.tree import plan_study

GPUS = (1, 8, 64)
QUERIES = ("query1", "query2", "query3")
CLASSES = 20
# A step of scANVI goes through two minibatches, and through the networks once per class or label besides.
STEP_OF_SCANVI = 2.0
# Cells a second of groups, by members, summed over these: one H200, 2,000 genes, 30 labels, minibatches of 128.
MEMBERS = (1, 2, 4, 8, 16)
RATES = {
    "pretraining": (250_000, 339_000, 577_000, 910_000, 1_274_000),
    "fine-tuning": (91_000, 125_000, 215_000, 361_000, 552_000),
}


@dataclass(frozen=True)
class Alone:
    """A trial that trains everything for itself."""

    key: str
    block: int
    length: float
    parent: None = None


def empty_cells(reference: int, query: int, number: int) -> Cells:
    """Cells of which only the numbers, labels and batches matter; queries differ in one count of their first cell."""
    n = reference + query
    counts = sp.csr_matrix((np.full(1, number + 1, np.float32), ([reference], [0])), shape=(n, 1))
    classes = tuple(f"type {i:02d}" for i in range(CLASSES))
    return Cells(
        counts=counts,
        genes=np.array(["gene"]),
        classes=classes,
        labels=np.arange(reference, dtype=np.int32) % CLASSES,
        truth=np.full(query, -1, dtype=np.int32),
        truth_classes=classes,
        batches=("query", "reference"),
        batch=np.repeat(np.array([1, 0], dtype=np.int32), [reference, query]),
        names=np.arange(n).astype(str),
        origin=np.full(query, -1, dtype=np.int64),
    )


def full_study(reference: int, query: int) -> Plan:
    """Plan the study as `scanvi-study plan` would."""
    values = dump(compose(["data=simulated", "space=forum", "scvi.max_epochs=400"]))
    values["space"]["factors"] |= {
        "query": {"levels": list(QUERIES)},
        "query_cells": {"levels": [query // 4, query // 2, "all"]},
    }
    values["space"]["replicates"] = 5
    config = validate(values)
    cells = {name: empty_cells(reference, query, number) for number, name in enumerate(QUERIES)}
    return plan_study(config, cells, QUERIES)


def measure(made: Plan, seconds_per_step: float) -> list[dict[str, float]]:
    """Return a row per number of GPUs."""

    def cost(stage: str, epochs: int) -> float:
        one = made.stage_by_key[stage]
        relative = 1.0 if one.kind == "pretraining" else STEP_OF_SCANVI
        return epochs * one.steps_per_epoch * relative * seconds_per_step

    alone = [Alone(t.key, t.replicate.index, float(t.steps)) for t in made.trials]
    separate = {t.key: sum(cost(stage, epochs) for stage, epochs in t.chain) for t in made.trials}
    shared = {stage.key: cost(stage.key, stage.epochs[-1]) for stage in made.stages}
    rows = []
    for gpus in GPUS:
        naive = simulate_schedule(alone, separate, gpus).makespan
        ours = simulate_schedule(made.stages, shared, gpus).makespan
        work = sum(shared.values()) / gpus
        bound = lower_bound(made.stages, shared, gpus)
        rows.append(
            {
                "gpus": gpus,
                "naive_hours": naive / 3600,
                "shared_hours": ours / 3600,
                "naive_over_shared": naive / ours,
                "work_per_gpu_hours": work / 3600,
                "shared_over_work": ours / work,
                "bound_hours": bound / 3600,
                "shared_over_bound": ours / bound,
            }
        )
    return rows


def grouped(made: Plan) -> list[dict[str, float]]:
    """Return a row per number of GPUs: hours where like stages train as one, and where each trains alone."""

    def seconds(group: Sequence[Stage]) -> float:
        rate = np.interp(len(group), MEMBERS, RATES[group[0].kind])
        return sum(one.length * one.settings.scvi.batch_size for one in group) / float(rate)

    alike = {one.key: one.likeness for one in made.stages}
    rows = []
    for gpus in GPUS:
        together = simulate_schedule(made.stages, seconds, gpus, alike)
        alone = simulate_schedule(made.stages, seconds, gpus)
        rows.append(
            {
                "gpus": gpus,
                "grouped_hours": together.makespan / 3600,
                "grouped_gpu_hours": sum(together.loads) / 3600,
                "alone_hours": alone.makespan / 3600,
            }
        )
    return rows


def lower_bound(work: Sequence[Work], seconds: Mapping[str, float], workers: int) -> float:
    """Return the seconds below which no schedule can end: all work spread evenly, or the longest chain."""
    done: dict[str, float] = {}
    for one in in_order(work):  # parents first
        done[one.key] = done.get(one.parent or "", 0.0) + seconds[one.key]
    return max(sum(seconds[one.key] for one in work) / workers, max(done.values(), default=0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds-per-step", type=float, default=0.01, help="of scVI; scANVI takes twice as long")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    size = (20_000, 80_000) if arguments.quick else (200_000, 800_000)
    made = full_study(*size)
    rows = measure(made, arguments.seconds_per_step)
    print(
        f"{len(made.trials)} trials in {len(made.stages)} stages, {size[0]:,} reference cells and up to {size[1]:,} of "
        f"a query, {arguments.seconds_per_step:g} s a step of scVI, {STEP_OF_SCANVI:g} times that of scANVI.\n"
    )
    print("| GPUs | naive h | shared h | naive / shared | work / GPUs, h | shared / that | bound h | shared / bound |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['gpus']} | {row['naive_hours']:,.0f} | {row['shared_hours']:,.0f} "
            f"| {row['naive_over_shared']:.2f} | {row['work_per_gpu_hours']:,.0f} | {row['shared_over_work']:.3f} "
            f"| {row['bound_hours']:,.0f} | {row['shared_over_bound']:.3f} |"
        )
    groups = grouped(made)
    print("\nWith the engine gpu, at the rates of one H200:\n")
    print("| GPUs | like stages as one, h | GPU-hours of that | each alone, h |\n|---|---|---|---|")
    for row in groups:
        print(
            f"| {row['gpus']} | {row['grouped_hours']:,.1f} | {row['grouped_gpu_hours']:,.1f} "
            f"| {row['alone_hours']:,.1f} |"
        )
    if arguments.json:
        print(json.dumps({"trials": len(made.trials), "stages": len(made.stages), "rows": rows, "groups": groups}))


if __name__ == "__main__":
    main()
