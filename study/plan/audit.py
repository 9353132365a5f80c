"""The schedule audit before launch: what is confounded in a design, what it cannot tell, and what changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from study.config import Level, dump, written
from study.errors import few
from study.plan.condition import Condition, Conditions
from study.plan.factors import Factor
from study.plan.split import labelled_per_epoch
from study.plan.trials import Trial

KL_WARMUP = 400
# With fewer held-out cells than this, one cell is more than 5 points of a class's recall.
FEW_CELLS = 20


def audit_plan(factors: Sequence[Factor], trials: Sequence[Trial], conditions: Conditions) -> tuple[str, ...]:
    """Say in sentences what a reader of the study should know before anything is trained.

    Parameters
    ----------
    factors
        Factors of the design.
    trials
        Every trial of the table.
    conditions
        Its conditions.
    """
    notes = [*_sizes(conditions), *_steps(trials, conditions), *_kl_weights(trials, conditions)]
    notes += [*_samplings(factors, trials, conditions), *_draws(factors), *_few_cells(trials, conditions)]
    return (*notes, *_class_sets(conditions), *_left_out(trials, conditions))


def _sizes(conditions: Conditions) -> Iterator[str]:
    sizes: dict[str, set[int]] = {}
    for one in conditions.designed:
        sizes.setdefault(one.query, set()).add(one.n_cells)
    largest = {query: max(found) for query, found in sizes.items()}
    if len(set(largest.values())) == 1:
        return
    common = set.intersection(*sizes.values())
    remedy = (
        f"Compare the queries at {max(common):,} cells, which all of them have here."
        if common
        else "To separate them, make query_cells a factor with a size that all queries reach, or add match_size twins."
    )
    yield (
        f"Query size is nested in the query ({_listed(largest)} cells): which query it is includes its size and the "
        f"number of optimiser steps. {remedy}"
    )


def _steps(trials: Sequence[Trial], conditions: Conditions) -> Iterator[str]:
    steps = sorted(
        {conditions.steps(conditions.trained_on(t), t.replicate.fold, t.settings.scvi.batch_size) for t in trials}
    )
    if steps[-1] > steps[0] and any(trial.settings.budget == "epochs" for trial in trials):
        yield (
            f"An epoch has {steps[0]} to {steps[-1]} optimiser steps, depending on the condition: fewer query cells "
            "also means less training. With budget=steps the steps are matched."
        )


def _kl_weights(trials: Sequence[Trial], conditions: Conditions) -> Iterator[str]:
    """Say where the KL weight moves with something else; it warms up over 400 epochs, anew in each stage."""
    epochs = [(trial, conditions.epochs(trial)) for trial in trials]
    for at, name in enumerate(("scVI", "scANVI")):
        found = sorted({pair[at] for _, pair in epochs})
        if len(found) == 1:
            continue
        ends = " to ".join(f"{min(1, one / KL_WARMUP):.2f}" for one in (found[0], found[-1]))
        by_settings: dict[str, set[int]] = {}
        for trial, pair in epochs:
            settings = str(dump(trial.settings) | {"query": None, "query_cells": None, "query_draw": None})
            by_settings.setdefault(f"{trial.replicate} {settings}", set()).add(pair[at])
        between = any(len(group) > 1 for group in by_settings.values())
        yield (
            f"Epochs of {name} range from {found[0]} to {found[-1]}: the KL weight warms up over {KL_WARMUP}, so it "
            f"ends at {ends}, and epochs and KL weight move together"
            f"{', also between conditions (matched steps mean other epochs)' if between else ''}."
        )


def _samplings(factors: Sequence[Factor], trials: Sequence[Trial], conditions: Conditions) -> Iterator[str]:
    """Say which levels of `n_samples_per_label` draw the same cells."""
    levels = next((factor.levels for factor in factors if factor.name == "scanvi.n_samples_per_label"), ())
    cells, parts = conditions.prepared[trials[0].query], conditions.split_of(trials[0])
    drawn: dict[tuple[int, ...], list[Level]] = {}
    for level in levels:
        if isinstance(level, int) or level == "all":
            counts = labelled_per_epoch(cells, parts, "all" if level == "all" else int(level))
            drawn.setdefault(tuple(counts.values()), []).append(level)
    for same in drawn.values():
        if len(same) > 1:
            yield f"Levels {', '.join(map(written, same))} draw the same cells (scanvi.n_samples_per_label): no change."


def _draws(factors: Sequence[Factor]) -> Iterator[str]:
    if any(factor.name == "query_draw" for factor in factors):
        yield (
            "The factor query_draw is the luck of the draw, not a cause: what it explains is what other cells of the "
            "same query would change."
        )


def _few_cells(trials: Sequence[Trial], conditions: Conditions) -> Iterator[str]:
    fewest: dict[str, int] = {}
    folds = {trial.replicate.fold: trial for trial in trials}
    for trial in folds.values():
        cells = conditions.prepared[trial.query]
        sizes = np.bincount(cells.labels[conditions.split_of(trial).held_out], minlength=len(cells.classes))
        for name, size in zip(cells.classes, sizes, strict=True):
            fewest[name] = min(int(size), fewest.get(name, int(size)))
    scarce = {name: size for name, size in fewest.items() if size < FEW_CELLS}
    if scarce:
        yield (
            f"Few held-out cells per replicate ({_listed(scarce)}): in these classes one cell is more than "
            f"{100 // FEW_CELLS} points of recall."
        )


def _class_sets(conditions: Conditions) -> Iterator[str]:
    """Say which classes a query lacks, and which it has beyond the reference, where its true labels are known."""
    for name in dict.fromkeys(one.query for one in conditions.designed):
        cells = conditions.prepared[name]
        known = np.unique(cells.truth[cells.truth >= 0])
        if not known.size or name == "self":
            continue
        lacking = [word for code, word in enumerate(cells.classes) if code not in known]
        new = [cells.truth_classes[code] for code in known if code >= len(cells.classes)]
        if lacking:
            yield f"Query {name} lacks {len(lacking)} of {len(cells.classes)} classes ({few(lacking)})."
        if new:
            yield f"Query {name} has classes that the reference lacks ({few(new)}): they can only be called wrong."


def _left_out(trials: Sequence[Trial], conditions: Conditions) -> Iterator[str]:
    left: list[Condition] = [conditions.of(one) for one in trials if conditions.split_of(one).left_out.size == 1]
    if left:
        listed = ", ".join(f"{one.query} with {one.n_cells} cells" for one in dict.fromkeys(left))
        yield f"One training cell is left out, or it would be a minibatch of its own ({listed})."


def _listed(sizes: dict[str, int], most: int = 8) -> str:
    shown = ", ".join(f"{name}: {size:,}" for name, size in list(sizes.items())[:most])
    return shown + (f" and {len(sizes) - most} more" if len(sizes) > most else "")
