"""Can the labels be trusted that a study calls so? On real cells whose query labels are known, and not told.

    python benchmarks/trust.py            # five studies of 12 trainings each: five minutes
    python benchmarks/trust.py --quick    # the bundled cells alone, few steps
    python benchmarks/trust.py --novel    # instead: each class removed from the reference in turn, 4 trainings each

Of each query: accuracy of single trainings (mean, least and most) and of their consensus; AUROC for "this label is
right" of one training's confidence and of the consensus' probability; calibration error (15 bins) of both, and what
probabilities that are all true would have on as many cells; how often
sets of labels hold the true one, on held-out reference cells and on the query; how many cells are of high trust, and
how many of these are right. Cells of classes that the reference lacks count as wrong, and are in no set.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score
from trust_cells import studies

from study.cells.prepared import Cells
from study.config.composition import validate
from study.config.study import StudyConfig
from study.config.values import dump
from study.studies.agreed import agreed_labels
from study.studies.study import Study, open_study
from study.training.hardware import Hardware
from study.trials.metrics import calibration_error
from study.trials.perform import perform
from study.trials.record import Result
from study.trials.store import read_all, read_predictions

MOST_CLASSES, FEWEST_KNOWN, FEWEST_NEW = 4, 50, 20


def trained(config: StudyConfig) -> tuple[Study, dict[str, Result]]:
    """Train a study in this process, one stage after the other, and read what it gave."""
    study = open_study(config)
    for stage in study.plan.stages:
        perform(stage, study.cells[stage.condition.query], config.directory, Hardware(engine=config.resources.engine))
    return study, read_all(config.directory, study.plan.all_by_key)


def truth_of(cells: Cells) -> np.ndarray:
    """Return the true labels of query cells; '' where none is known."""
    return np.array([*cells.truth_classes, ""], dtype=object)[cells.truth]


def least_error(probability: np.ndarray) -> float:
    """Return the calibration error that these probabilities would have if they were all true, on so few cells."""
    random = np.random.default_rng(0)
    return float(
        np.mean([calibration_error(probability, random.random(len(probability)) < probability) for _ in range(50)])
    )


def covered(truth: Iterable[str], sets: Iterable[str]) -> np.ndarray:
    """Return whether each set of labels holds the true one."""
    return np.array([one in named.split(" | ") for one, named in zip(truth, sets, strict=True)])


def measure(config: StudyConfig) -> list[dict[str, Any]]:
    """Train a study, and compare its labels with the truth, for each query."""
    study, results = trained(config)
    rows = []
    for query, cells in study.cells.items():
        labels = agreed_labels(study, results, query)
        truth = truth_of(cells)
        known = truth != ""
        single: dict[str, list[float]] = {"accuracy": [], "auroc": [], "ece": []}
        for trial in study.plan.trials:
            if trial.condition.query == query:
                found = read_predictions(config.directory, trial.key)
                right = (np.array(cells.classes)[found.query_label] == truth)[known]
                confidence = found.query_confidence[known].astype(float)
                single["accuracy"].append(float(right.mean()))
                single["auroc"].append(float(roc_auc_score(right, confidence)))
                single["ece"].append(calibration_error(confidence, right))
        mine, held = labels.cells[known], labels.held_out
        right = (mine["label"] == truth[known]).to_numpy()
        high = (mine["trust"] == "high").to_numpy()
        sizes = held["truth"].value_counts()
        covers = pd.Series(covered(held["truth"], held["set"])).groupby(held["truth"].to_numpy())
        by_class = covers.mean()[sizes.index[sizes >= FEWEST_KNOWN]]
        rows.append(
            {
                "query": f"{config.name} {query}",
                "single": [float(np.mean(single["accuracy"])), min(single["accuracy"]), max(single["accuracy"])],
                "consensus": float(right.mean()),
                "auroc_single": float(np.mean(single["auroc"])),
                "auroc": float(roc_auc_score(right, mine["probability"])),
                "ece_single": float(np.mean(single["ece"])),
                "ece": calibration_error(mine["probability"].to_numpy(float), right),
                "ece_heldout": calibration_error(
                    held["probability"].to_numpy(float), (held["label"] == held["truth"]).to_numpy()
                ),
                "ece_least": least_error(mine["probability"].to_numpy(float)),
                "ece_heldout_least": least_error(held["probability"].to_numpy(float)),
                "covered": float(covered(truth[known], mine["set"]).mean()),
                "covered_heldout": [float(by_class.min()), float(by_class.max())],
                "high": float(high.mean()),
                "high_right": float(right[high].mean()) if high.any() else float("nan"),
                "unanimous_right": float(right[(mine["agreement"] == 1).to_numpy()].mean()),
            }
        )
    return rows


def removed(config: StudyConfig) -> list[dict[str, Any]]:
    """Take each large class out of the reference in turn, and see whether its cells are found to be new."""
    if config.data.path is None:
        return []
    cells = anndata.read_h5ad(str(config.data.path))
    known = cells.obs["part"] == "reference"
    sizes = pd.crosstab(cells.obs["label"], cells.obs["part"])
    large = sizes[(sizes["reference"] >= FEWEST_KNOWN) & (sizes["query"] >= FEWEST_NEW)]
    rows = []
    for name in large.sort_values("query").index[-MOST_CLASSES:]:
        path = config.root / f"{config.name}-without.h5ad"
        cells[~(known & (cells.obs["label"] == name)).to_numpy()].copy().write_h5ad(path)
        values = dump(config) | {"name": f"{config.name}-without-{len(rows)}"}
        values["data"] |= {"path": str(path)}
        values["space"] |= {
            "factors": {"scanvi.linear_classifier": {"levels": [True, False]}},
            "replicates": 2,
            "folds": 2,
        }
        study, results = trained(validate(values))
        (query,) = study.cells
        labels = agreed_labels(study, results, query)
        new = truth_of(study.cells[query]) == name
        single = [1 - read_predictions(study.config.directory, key).query_confidence.astype(float) for key in results]
        strange = (labels.cells["trust"] == "none").to_numpy()
        rows.append(
            {
                "removed": f"{config.name}: {name}",
                "cells": int(new.sum()),
                "auroc_single": float(np.mean([roc_auc_score(new, one) for one in single])),
                "auroc": float(roc_auc_score(new, labels.cells["novelty"])),
                "of it, trust none": float(strange[new].mean()),
                "of it, trust high": float((labels.cells["trust"] == "high").to_numpy()[new].mean()),
                "of others, trust none": float(strange[~new].mean()),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--novel", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json, width=170)
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for config in studies(Path(folder), arguments.quick):
            rows += removed(config) if arguments.novel else measure(config)
            console.print(rows[-1:])
    table = Table(*rows[0])
    for row in rows:
        shown = [[value] if not isinstance(value, list) else value for value in row.values()]
        table.add_row(*(" ".join(one if isinstance(one, str) else f"{one:.3f}" for one in part) for part in shown))
    console.print(table)
    if arguments.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
