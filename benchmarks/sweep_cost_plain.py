"""The sweep as a competent user writes it: a Ray Tune trainable that trains scVI and scANVI from nothing.

It knows nothing of scanvi-study. Run by `sweep_cost.py`: a JSON file says what to train, another gets what came out.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import ray
import scvi
import torch
from ray import tune


def recalls(truth: np.ndarray, called: np.ndarray) -> dict[str, float]:
    """Return the recall of each class that has cells."""
    return {str(name): float((called[truth == name] == name).mean()) for name in np.unique(truth)}


def train_alone(config: dict[str, Any], job: dict[str, Any]) -> None:
    """One trial: read the cells, train both models, predict, evaluate."""
    torch.set_num_threads(1)
    adata = anndata.read_h5ad(Path(job["data"]) / f"{config['query']}.h5ad")
    truth = adata.obs["label"].to_numpy(dtype=str)
    part = adata.obs[f"part{config['seed']}"].to_numpy(dtype=str)
    adata.obs["train_label"] = np.where(part == "heldout", "Unknown", truth)
    training = np.flatnonzero((part == "train") | (part == "query"))
    rest = np.setdiff1d(np.arange(adata.n_obs), training)
    common: dict[str, Any] = {
        "batch_size": 128,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "datasplitter_kwargs": {"external_indexing": [training, np.array([], dtype=int), rest]},
    }
    start = time.perf_counter()
    scvi.settings.seed = config["seed"]
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    pretrained = scvi.model.SCVI(adata)
    pretrained.train(max_epochs=job["scvi_epochs"], **common)
    middle = time.perf_counter()
    scvi.settings.seed = config["seed"]
    model = scvi.model.SCANVI.from_scvi_model(
        pretrained,
        unlabeled_category="Unknown",
        labels_key="train_label",
        linear_classifier=config["linear_classifier"],
    )
    model.train(max_epochs=config["max_epochs"], n_samples_per_label=config["n_samples_per_label"], **common)
    end = time.perf_counter()
    called = model.predict().astype(str)
    found = {name: recalls(truth[part == name], called[part == name]) for name in ("heldout", "train")}
    tune.report({"recalls": found, "scvi_seconds": middle - start, "scanvi_seconds": end - middle})


def main(job_path: str, found_path: str) -> None:
    job = json.loads(Path(job_path).read_text())
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    space = {name: tune.grid_search(levels) for name, levels in job["factors"].items()}
    results = tune.Tuner(
        tune.with_resources(tune.with_parameters(train_alone, job=job), {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=job["scratch"], verbose=0),
    ).fit()
    ray.shutdown()
    if results.errors:
        raise results.errors[0]
    wanted = ("recalls", "scvi_seconds", "scanvi_seconds")
    rows = [{**(one.config or {}), **{name: (one.metrics or {})[name] for name in wanted}} for one in results]
    Path(found_path).write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
