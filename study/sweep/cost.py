"""How long a study will take: seconds of its stages, from records of earlier ones, on the workers there are.

Training takes seconds per epoch and per optimiser step, by kind of stage; evaluating a trial, and what is around the
training of a stage (tables, weights, files), a constant and seconds per cell. All are fitted to what stages like these
took before, never below 0, and `simulate_schedule` hands the stages out as the sweep will.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from study.cells import Cells
from study.config import Resources
from study.plan import TOGETHER, Plan, PlannedTrial, Stage, query_rows, simulate_schedule, split_cells
from study.sweep.capacity import fits
from study.training import Hardware
from study.trials import Timing, read_timings

# Starting Ray and the workers, which import scvi-tools, and the report at the end; seconds, on two cores.
AROUND_A_RUN = 14.0
CALIBRATION_STEPS = 40
# Records of other studies count if their genes are as many within this factor.
SIMILAR_GENES = 1.5
# Sizes that differ by this factor tell a constant from a rate.
TELLING = 2.0
Cost = tuple[float, float]


@dataclass(frozen=True)
class Rates:
    """Seconds of what a study is made of.

    Attributes
    ----------
    training
        Per epoch and per optimiser step, by kind of stage.
    evaluation
        Of a trial: a constant, and per cell.
    around
        Of a stage, but for training and evaluation: a constant, and per cell.
    """

    training: Mapping[str, Cost]
    evaluation: Cost
    around: Cost

    def of(self, kind: str, cells: int, epochs: int, steps: int, trials: int) -> float:
        """Return the seconds of a stage of so many cells, epochs and steps, from which so many trials are read."""
        per_epoch, per_step = self.training[kind]
        around, evaluation = (cost[0] + cost[1] * cells for cost in (self.around, self.evaluation))
        return around + epochs * per_epoch + steps * per_step + trials * evaluation


@dataclass(frozen=True)
class Prediction:
    """What a study will take.

    Attributes
    ----------
    seconds
        From now to the end of `run`: of what is missing, with start and report.
    shared, separate
        Seconds of workers for the whole study, as it is planned and if every trial trained everything for itself.
    workers
        How many at once.
    source
        Where the seconds come from.
    """

    seconds: float
    shared: float
    separate: float
    workers: int
    source: str


def predict_cost(
    directory: Path,
    resources: Resources,
    plan: Plan,
    cells: Mapping[str, Cells],
    missing: Sequence[Stage],
    calibrating: bool = False,
) -> Prediction | None:
    """Return what a study will take on this machine; None if there is nothing to tell it from.

    Parameters
    ----------
    directory
        Folder of the study, absolute; other studies lie beside it.
    cells
        Prepared cells by query name.
    missing
        Stages still to train.
    calibrating
        Train a few dozen steps of this study now, instead of looking for records of earlier stages.
    """
    if calibrating:
        records, source = calibrate(Hardware.of(resources), plan, cells), "some steps of this study, trained just now"
    else:
        records, source = earlier(directory, Hardware.of(resources), plan, cells)
    if not records:
        return None
    rates = fit_rates(records)

    def seconds(stage: Stage, epochs: int, trials: int) -> float:
        return rates.of(stage.kind, _size(stage, cells), epochs, epochs * stage.steps_per_epoch, trials)

    workers = max(1, fits(resources, [this_machine()]))
    rest = simulate_schedule(
        missing,
        {one.key: seconds(one, one.training, len(one.trials)) for one in missing},
        workers,
        {one.key: one.likeness for one in missing} if resources.engine == "gpu" else {},
    )
    shared = sum(seconds(one, one.epochs[-1], len(one.trials)) for one in plan.stages)
    separate = sum(
        seconds(plan.stage_by_key[key], epochs, int(key == trial.chain[-1][0]))
        for trial in plan.all_by_key.values()
        for key, epochs in trial.chain
    )
    return Prediction(rest.makespan + (AROUND_A_RUN if missing else 0), shared, separate, workers, source)


def fit_rates(records: Sequence[Timing]) -> Rates:
    """Fit rates to records; none is below 0."""
    training = {}
    for kind in dict.fromkeys(one.kind for one in records):
        reached = [
            (epochs, epochs * one.steps_per_epoch, seconds)
            for one in records
            for epochs, seconds in one.reached
            if one.kind == kind
        ]
        training[kind] = _fit(reached, alone=1)
    read = [(1, one.cells, one.evaluation / one.trials) for one in records if one.trials]
    around = [(1, one.cells, one.seconds - one.training - one.evaluation) for one in records]
    return Rates(training, _fit(read, alone=0), _fit(around, alone=0))


def _fit(rows: Sequence[tuple[float, float, float]], alone: int) -> Cost:
    """Least squares, both coefficients at least 0: the third column from the first two.

    Parameters
    ----------
    alone
        Column that explains all where sizes differ too little to tell the two apart.
    """
    table = np.array(rows, dtype=float)
    size = table[:, 1] / table[:, 0]
    columns = [0, 1] if size.max() >= TELLING * size.min() else [alone]
    # Not of relative errors: those would be least for a total that is too small.
    unit = table[:, columns].max(axis=0)
    found = np.zeros(2)
    found[columns] = nnls(table[:, columns] / unit, table[:, 2])[0] / unit
    return float(found[0]), float(found[1])


def earlier(directory: Path, hardware: Hardware, plan: Plan, cells: Mapping[str, Cells]) -> tuple[list[Timing], str]:
    """Return the records of stages like those of a study, and whose they are.

    This study's own, or else those of the last trained study beside it that has any on the same hardware, with the same
    networks and similar genes.
    """
    own = _alike(read_timings(directory), hardware, plan, cells)
    if own:
        return own, "stages of this study"
    found: dict[str, list[Timing]] = {}
    for folder in sorted(directory.parent.glob("*/stages")):
        alike = _alike(read_timings(folder.parent), hardware, plan, cells)
        if alike:
            found[folder.parent.name] = alike
    if not found:
        return [], ""
    last = max(found, key=lambda name: found[name][-1].ended)
    return found[last], f"stages of study {last!r}"


def _alike(records: Sequence[Timing], hardware: Hardware, plan: Plan, cells: Mapping[str, Cells]) -> list[Timing]:
    """The records that tell something of a plan; none if a kind of stage is not among them."""
    genes = next(iter(cells.values())).counts.shape[1]
    networks = {_network(stage) for stage in plan.stages}
    found = [
        one
        for one in records
        if one.hardware == hardware
        and one.network in networks
        and 1 / SIMILAR_GENES <= one.genes / genes <= SIMILAR_GENES
    ]
    return found if {one.kind for one in found} >= {stage.kind for stage in plan.stages} else []


def calibrate(on: Hardware, plan: Plan, cells: Mapping[str, Cells]) -> list[Timing]:
    """Train a few dozen steps of the trials with the fewest and the most steps per epoch; return their records only.

    Where that is less than an epoch, some of their cells are taken: rates are per step and per cell. With the engine
    `gpu` as many stages train as one as there are replicates.
    """
    # Imported here, because scvi-tools takes seconds and no other plan needs it.
    from study.trials import perform_group

    def last(trial: PlannedTrial) -> Stage:
        return plan.stage_by_key[trial.chain[-1][0]]

    trials = sorted((trial for trial in plan.trials if trial.chain), key=lambda trial: last(trial).steps_per_epoch)
    alike = min(TOGETHER, plan.replicates) if on.engine == "gpu" else 1
    records = []
    with tempfile.TemporaryDirectory() as folder:
        # The first one pays for what is imported late: it is trained twice, and counts the second time.
        # Two sizes, also where both are cut: one alone does not tell what grows with the cells.
        for number, (trial, steps) in enumerate(
            ((trials[0], CALIBRATION_STEPS // 4), (trials[0], CALIBRATION_STEPS // 4), (trials[-1], CALIBRATION_STEPS))
        ):
            condition = last(trial).condition
            some = _some(condition.take(cells[condition.query]), steps * _network(last(trial))[2])
            directory = Path(folder) / str(number)
            before: tuple[int, ...] = ()
            for key, _ in trial.chain:
                short = _short(plan.stage_by_key[key], some, before, leaf=key == last(trial).key)
                for error in perform_group(_copies(short, alike), some, directory, on).values():
                    raise error
                before = (*before, short.epochs[-1])
            records += read_timings(directory) if number else []
    return records


def _short(stage: Stage, some: Cells, before: tuple[int, ...], leaf: bool) -> Stage:
    """Return a stage of a few dozen steps on some cells, read at two epochs."""
    # Before surgery a model meets the reference alone.
    condition = replace(stage.condition, n_cells=some.n_query if stage.condition.n_cells else 0, draw=0, shuffled=None)
    size = stage.settings.scvi.batch_size
    parts = split_cells(condition.take(some), stage.replicate.fold, stage.folds, size)
    trained = query_rows(parts, size) if stage.kind == "surgery" else parts.train
    steps = math.ceil(trained.size / size)
    levels = (1, 1 + math.ceil(CALIBRATION_STEPS / steps))
    return replace(
        stage,
        before=before,
        condition=condition,
        trials={epoch: f"{stage.key}-{epoch}" for epoch in levels} if leaf else {},
        keep=frozenset() if leaf else frozenset(levels),
        steps_per_epoch=steps,
    )


def _copies(stage: Stage, n: int) -> list[Stage]:
    """Return a stage so many times, each under a key of its own."""
    return [
        replace(
            stage,
            key=f"{stage.key}-{copy}",
            parent=stage.parent and f"{stage.parent}-{copy}",
            trials={epoch: f"{key}-{copy}" for epoch, key in stage.trials.items()},
        )
        for copy in range(n)
    ]


def _some(cells: Cells, n: int) -> Cells:
    """Return at most about n of these cells, evenly from each label and from the query."""
    total = cells.counts.shape[0]
    if total <= n:
        return cells
    step = -(-total // n)
    by_label = np.argsort(cells.labels, kind="stable")
    # A few of each label at least, so that none is without a training cell.
    few = [np.flatnonzero(cells.labels == code)[:10] for code in range(len(cells.classes))]
    reference = np.unique(np.concatenate([by_label[::step], *few]))
    return cells.picked(reference, np.arange(0, cells.n_query, step))


def this_machine() -> dict[str, float]:
    """Return what this machine has, as Ray would count it."""
    import torch  # slow to import, and rarely asked

    # Ray keeps 30% of the memory for its object store.
    memory = 0.7 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count(), "memory": memory}


def _size(stage: Stage, cells: Mapping[str, Cells]) -> int:
    """Cells of a stage's condition."""
    return cells[stage.condition.query].n_reference + stage.condition.n_cells


def _network(stage: Stage) -> tuple[int, int, int]:
    scvi = stage.settings.scvi
    return (scvi.n_layers, scvi.n_hidden, scvi.batch_size)
