"""What a training step costs: stock scvi-tools against this study's two engines, exact and fast.

Simulated cells, about 5% of the counts above 0, minibatches of 128, one thread. The three are trained in turn, again
and again, and medians are compared, in CPU time: other work on the machine then counts little. Beside the rates stand
the largest differences of any weight from stock after training: for exact they must be 0.

    python benchmarks/step_cost.py            # 765, 2,000 and 4,000 genes, 3, 10 and 30 labels
    python benchmarks/step_cost.py --quick    # 765 genes with 10 labels, 2,000 genes with 30
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections import defaultdict
from contextlib import nullcontext
from typing import Any

import numpy as np
import scvi
import torch
from anndata import AnnData
from lightning.pytorch import Callback
from rich.console import Console
from rich.table import Table
from scvi.model import SCANVI, SCVI

from study.cells.simulation import REFERENCE, simulate
from study.config.data import SimulateConfig
from study.training.exact import equip, lean_likelihoods
from study.training.private import SubSampleLabels

VARIANTS = ("stock", "exact", "fast")
CELLS = 1024  # eight steps an epoch
EPOCHS = 3  # the first is not measured


class Clock(Callback):
    """CPU seconds of each epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start."""
        self.start = time.process_time()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop."""
        self.seconds.append(time.process_time() - self.start)


def cells(genes: int, labels: int) -> AnnData:
    config = SimulateConfig.model_validate(
        {
            "genes": genes,
            "classes": labels,
            "reference_cells": CELLS * 3 // 4,
            "batches": 3,
            "depth": 0.06 * genes,
            "separation": 0.5,
            "queries": {"query": {"cells": CELLS // 4}},
        }
    )
    made = simulate(config, 0)
    made.X = made.X.astype(np.float32)
    made.obs["label"] = np.where(made.obs["dataset"] == REFERENCE, made.obs["cell_type"], "Unknown")
    return made


def train(model: SCVI | SCANVI, variant: str) -> tuple[float, dict[str, torch.Tensor]]:
    """Train and return CPU seconds of a step and the weights."""
    scvi.settings.seed = 0
    every, nothing = np.arange(CELLS), np.array([], dtype=int)
    split: dict[str, Any] = {"external_indexing": [every, nothing, nothing]}
    if variant != "stock":
        equip(model, variant)
        split = {"rows": every}
    clock = Clock()
    with nullcontext() if variant == "stock" else lean_likelihoods():
        model.train(
            max_epochs=EPOCHS,
            batch_size=128,
            accelerator="cpu",
            enable_progress_bar=False,
            datasplitter_kwargs=split,
            callbacks=[SubSampleLabels(), clock] if isinstance(model, SCANVI) else [clock],
            **({} if variant == "stock" else {"logger": False}),
        )
    return float(np.median(clock.seconds[1:])) / (CELLS // 128), model.module.state_dict()


def one_size(genes: int, labels: int, rounds: int) -> list[dict[str, Any]]:
    """Measure both stages with some genes and labels."""
    adata = cells(genes, labels)
    SCVI.setup_anndata(adata, batch_key="batch")
    scvi.settings.seed = 0
    pretrained = SCVI(adata)
    pretrained.is_trained_ = True

    def new_scvi() -> SCVI:
        scvi.settings.seed = 0
        return SCVI(adata)

    def new_scanvi() -> SCANVI:
        scvi.settings.seed = 0
        return SCANVI.from_scvi_model(
            pretrained, unlabeled_category="Unknown", labels_key="label", linear_classifier=True
        )

    rows = []
    for stage, new in (("scvi", new_scvi), ("scanvi", new_scanvi)):
        seconds = defaultdict(list)
        weights = {}
        for _ in range(rounds):
            for variant in VARIANTS:
                one, weights[variant] = train(new(), variant)
                seconds[variant].append(one)
        rows.append(
            {
                "name": f"{stage} {genes} genes {labels} labels",
                "density": adata.X.nnz / np.prod(adata.shape),
                "rate": {variant: 1 / float(np.median(seconds[variant])) for variant in VARIANTS},
                # Ratios within a round: what slows the machine slows all three.
                "ratio": {v: float(np.median(np.array(seconds["stock"]) / np.array(seconds[v]))) for v in VARIANTS[1:]},
                "difference": {v: largest_difference(weights[v], weights["stock"]) for v in VARIANTS[1:]},
            }
        )
    return rows


def largest_difference(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    return max(float((weights[name].double() - others[name].double()).abs().max()) for name in others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for chatty in ("lightning.pytorch", "lightning.fabric", "scvi"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    sizes = [(765, 10), (2000, 30)] if arguments.quick else [(g, k) for g in (765, 2000, 4000) for k in (3, 10, 30)]
    rows = [row for genes, labels in sizes for row in one_size(genes, labels, 3 if arguments.quick else 7)]
    console = Console(stderr=arguments.json, width=150)
    table = Table(title="steps a second, one thread; times stock; largest difference of a weight from stock")
    for column in ("stage", "above 0", "stock", "exact", "fast", "exact / stock", "fast / stock", "exact", "fast"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['density']:.1%}",
            *(f"{row['rate'][variant]:.1f}" for variant in VARIANTS),
            *(f"{row['ratio'][variant]:.2f}" for variant in VARIANTS[1:]),
            *(f"{row['difference'][variant]:.2g}" for variant in VARIANTS[1:]),
        )
    console.print(table)
    if arguments.json:
        ratios = {f"{v}_ratio": {row["name"]: round(row["ratio"][v], 3) for row in rows} for v in VARIANTS[1:]}
        exact = max(row["difference"]["exact"] for row in rows)
        print(json.dumps({**ratios, "exact_difference": exact}))


if __name__ == "__main__":
    main()
