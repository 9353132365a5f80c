"""Compare the recall that the engines fast and gpu reach with that of the exact one, on real cells.

All train the same stages from the same seeds, on the bundled cells with the same held-out ones. `fast` draws the same
random numbers as `exact` and rounds otherwise, so a pair differs only by how far rounding carries it. `gpu` starts from
the same weights and draws other numbers, so a pair differs as two seeds do; a bias of either would show in the mean.

    python benchmarks/fast_recall.py            # 10 seeds, 60 trainings
    python benchmarks/fast_recall.py --quick    # 3 seeds, few epochs
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy import stats
from sklearn.metrics import confusion_matrix

from study.cells.prepared import Cells
from study.cells.twins import prepare
from study.config.composition import compose
from study.plan.split import split_cells
from study.training.building import predict_probabilities, state_of
from study.training.hardware import Hardware
from study.training.models import finetune, pretrain
from study.training.snapshot import Snapshot
from study.trials.metrics import MACRO_RECALL, RECALL, class_metrics, metric

ENGINES = ("exact", "fast", "gpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="three seeds, few epochs")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seeds, epochs = (3, (4, 3)) if arguments.quick else (arguments.seeds, (40, 15))
    with ProcessPoolExecutor(2) as pool:
        recalls = np.stack(list(pool.map(partial(recall_of_engines, epochs=epochs), range(seeds))))
    names = (*bundled().classes, "mean of classes")
    found = {
        engine: compared(100 * recalls[:, 0], 100 * recalls[:, number], engine, names, arguments.json)
        for number, engine in enumerate(ENGINES)
        if number
    }
    if arguments.json:
        print(json.dumps({"seeds": seeds, **found}))


def compared(
    exact: npt.NDArray[np.float64], other: npt.NDArray[np.float64], engine: str, names: Sequence[str], aside: bool
) -> dict[str, Any]:
    """Print a table of the differences between two engines, paired by seed; return the largest of a class."""
    seeds = len(exact)
    difference, sd = (other - exact).mean(axis=0), exact.std(axis=0, ddof=1)
    half = stats.t.ppf(0.975, seeds - 1) * (other - exact).std(axis=0, ddof=1) / np.sqrt(seeds)
    table = Table(
        title=f"held-out recall in points, {seeds} seeds; difference = {engine} - exact, paired, with 95% interval"
    )
    for column in ("class", "exact", engine, "difference", "sd between seeds"):
        table.add_column(column)
    for k, name in enumerate(names):
        interval = f"{difference[k]:+.1f} [{difference[k] - half[k]:.1f}, {difference[k] + half[k]:.1f}]"
        table.add_row(name, f"{exact[:, k].mean():.1f}", f"{other[:, k].mean():.1f}", interval, f"{sd[k]:.1f}")
    Console(stderr=aside, width=120).print(table)
    most = int(np.abs(difference[:-1]).argmax())
    largest = {"class": names[most], "difference": difference[most], "half_width": half[most], "seed_sd": sd[most]}
    outside = [name for name, d, h in zip(names, difference, half, strict=True) if abs(d) > h]
    mean = {"difference": difference[-1], "half_width": half[-1], "seed_sd": sd[-1]}
    return {"largest": largest, "mean of classes": mean, "intervals_without_0": outside}


def recall_of_engines(seed: int, epochs: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Train with each engine; return recall by class and its mean, shape (n_engines, n_classes + 1)."""
    cells = bundled()
    parts = split_cells(cells, 0, 3, 128)
    rows, classes = parts.held_out, np.arange(len(cells.classes))
    found = []
    for engine in ENGINES:
        on, states, called = Hardware(engine=engine), [], []
        config = compose(["data=pbmc68k-fine"])
        pretrain(cells, parts, config, seed, [epochs[0]], lambda s, a=states: a.append(state_of(s.model)), on)

        def read(snapshot: Snapshot, a: list[npt.NDArray[np.int64]] = called) -> None:
            a.append(predict_probabilities(snapshot.model, cells).argmax(axis=1)[rows])

        finetune(cells, parts, config, seed, [epochs[1]], read, on, states[0])
        metrics = class_metrics(confusion_matrix(cells.labels[rows], called[0], labels=classes), cells.classes)
        found.append([*(metrics[metric(RECALL, name)] for name in cells.classes), metrics[MACRO_RECALL]])
    return np.array(found)


def bundled() -> Cells:
    """The bundled cells and their query."""
    with tempfile.TemporaryDirectory() as folder:
        return prepare(compose(["data=pbmc68k-fine"]).data, ["asis"], Path(folder))["asis"]


if __name__ == "__main__":
    main()
