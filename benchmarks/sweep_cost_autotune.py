"""The scANVI part of the sweep with `scvi.autotune.run_autotune`: the call for one query and seed of several.

What it cannot do: pretrain with scVI, hold out chosen cells, vary the data or the seed within a call, draw labelled
cells anew each epoch (its callbacks replace scANVI's own), or report recall per class. Run by `sweep_cost.py`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import anndata
import ray
import torch
from ray import tune
from scvi.autotune import run_autotune
from scvi.model import SCANVI


def main(job_path: str, found_path: str) -> None:
    job = json.loads(Path(job_path).read_text())
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    torch.set_num_threads(1)
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    factors, query, seed = job["factors"], job["factors"]["query"][0], job["factors"]["seed"][0]
    adata = anndata.read_h5ad(Path(job["data"]) / f"{query}.h5ad")
    SCANVI.setup_anndata(adata, labels_key="train_label", unlabeled_category="Unknown", batch_key="batch")
    start = time.perf_counter()
    experiment = run_autotune(
        SCANVI,
        adata,
        metrics="train_loss",
        mode="min",
        search_space={
            "model_params": {"linear_classifier": tune.grid_search(factors["linear_classifier"])},
            "train_params": {
                "max_epochs": tune.grid_search(factors["max_epochs"]),
                "n_samples_per_label": tune.grid_search(factors["n_samples_per_label"]),
                "accelerator": "cpu",
            },
        },
        num_samples=1,
        scheduler="fifo",
        searcher="random",
        seed=seed,
        resources={"cpu": 1},
        experiment_name=f"{query}-{seed}",
        logging_dir=job["scratch"],
        ignore_reinit_error=True,
    )
    seconds = time.perf_counter() - start
    if experiment.result_grid.errors:
        raise experiment.result_grid.errors[0]
    ray.shutdown()
    Path(found_path).write_text(json.dumps({"trained": len(experiment.result_grid), "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
