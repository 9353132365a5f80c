"""What a GPU gives: stock scvi-tools, compiled, and this study's engines, with counts on the host or on the GPU.

Needs torch and the project alone, no Ray and no MLflow, so that it also runs on a machine without network:
`benchmarks/gpu_wheels.sh` collects what is missing there. Each section stands alone: one that fails is told and leaves
the others their figures, which are written to a file as they come.

    python benchmarks/gpu.py --out gpu.json        # a GPU; about eight minutes
    python benchmarks/gpu.py --quick --device cpu  # the same code, tiny, without one
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import gpu_fused
import numpy as np
import scvi
import torch
from anndata import AnnData
from lightning.pytorch import Callback
from scvi.model import SCANVI, SCVI
from scvi.train._callbacks import SubSampleLabels

from study.cells import prepare, query_names
from study.cells.simulation import REFERENCE, simulate
from study.config import compose
from study.config.data import SimulateConfig
from study.plan import next_ready, plan_study
from study.training.exact import equip, lean_likelihoods
from study.training.hardware import Hardware
from study.trials.perform import perform_group
from study.trials.store import read_all
from study.versions import versions

BATCH = 128
# Name, engine (None: scvi-tools' own), compiled, counts on the GPU.
VARIANTS: dict[str, tuple[str | None, bool, bool]] = {
    "stock": (None, False, False),
    "compiled": (None, True, False),
    "exact": ("exact", False, False),
    "fast": ("fast", False, False),
    "exact resident": ("exact", False, True),
    "fast resident": ("fast", False, True),
}
Figures = dict[str, Any]


class Clock(Callback):
    """Wall seconds of each epoch; on a GPU its work is waited for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start."""
        wait()
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop."""
        wait()
        self.seconds.append(time.perf_counter() - self.start)


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine(device: str) -> Figures:
    """The card and the versions."""
    card = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    return {"card": card, "cuda": torch.version.cuda, "numpy": np.__version__, **versions()}


def small_study(device: str, quick: bool) -> Figures:
    """Stages of the default study on the GPU, each with its recalls beside those of the CPU."""
    config = compose(
        ["data=pbmc68k-fine", "space.replicates=1", *(["scvi.max_epochs=2", "scvi.n_hidden=16"] if quick else [])]
    )
    with tempfile.TemporaryDirectory() as folder:
        cells = prepare(config.data, ["asis", "shallow"], Path(folder) / "counts")
        plan = plan_study(config, cells, query_names(config.data))
        root = next(stage for stage in plan.stages if stage.condition.query == "asis" and stage.condition.n_cells > 100)
        stages = [root, *[stage for stage in plan.stages if stage.parent == root.key][: 1 if quick else 4]]
        found: Figures = {}
        kinds = {f"cpu {engine}": Hardware(engine=engine) for engine in ("exact", "fast", "gpu")}
        if device == "cuda":
            gpu = Hardware(accelerator="gpu", threads=4)
            kinds |= {f"gpu {engine}": replace(gpu, engine=engine) for engine in ("exact", "fast", "gpu")}
            kinds |= {
                f"gpu {engine} resident": replace(gpu, engine=engine, resident=True) for engine in ("exact", "fast")
            }
        for name, on in kinds.items():
            directory, start = Path(folder) / name, time.perf_counter()
            alike = {stage.key: stage.likeness for stage in stages} if on.engine == "gpu" else {}
            state = {stage.key: "waiting" for stage in stages}
            while group := next_ready(stages, state, alike):
                failed = perform_group(group, cells["asis"], directory, on)
                assert not failed, failed
                state.update({stage.key: "done" for stage in group})
            results = read_all(directory, [key for stage in stages for key in stage.trials.values()])
            found[name] = {
                "seconds": time.perf_counter() - start,
                "macro recall": [one.metrics["heldout/macro_recall"] for one in results.values()],
                "train macro recall": [one.metrics["train/macro_recall"] for one in results.values()],
                "loss": [one.curves["train_loss"][-1] for one in results.values()],
                "recall": [
                    {label: one.metrics.get(f"heldout/recall/{label}") for label in one.classes}
                    for one in results.values()
                ],
            }
        return found


def cells_of(n: int, genes: int, labels: int) -> AnnData:
    config = SimulateConfig.model_validate(
        {
            "genes": genes,
            "classes": labels,
            "reference_cells": n * 3 // 4,
            "batches": 3,
            "depth": 0.06 * genes,
            "separation": 0.5,
            "queries": {"query": {"cells": n // 4}},
        }
    )
    made = simulate(config, 0)
    made.X = made.X.astype(np.float32)
    made.obs["label"] = np.where(made.obs["dataset"] == REFERENCE, made.obs["cell_type"], "Unknown")
    return made


def new_model(adata: AnnData, stage: str) -> SCVI | SCANVI:
    SCVI.setup_anndata(adata, batch_key="batch")
    scvi.settings.seed = 0
    model = SCVI(adata)
    if stage == "scvi":
        return model
    model.is_trained_ = True
    return SCANVI.from_scvi_model(model, unlabeled_category="Unknown", labels_key="label", linear_classifier=True)


def train(adata: AnnData, stage: str, variant: str, device: str, epochs: int) -> Figures:
    """Train one variant; return steps and cells a second over the epochs but the first, and the peak of memory."""
    engine, compiled, resident = VARIANTS[variant]
    model, clock = new_model(adata, stage), Clock()
    every, nothing = np.arange(adata.n_obs), np.array([], dtype=int)
    split: Figures = {"external_indexing": [every, nothing, nothing]}
    if engine is not None:
        equip(model, engine)
        split = {"rows": every, "device": device if resident else None}
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with nullcontext() if engine is None else lean_likelihoods():
        model.train(
            max_epochs=epochs,
            batch_size=BATCH,
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            enable_progress_bar=False,
            datasplitter_kwargs=split,
            plan_kwargs={"compile": True} if compiled else {},
            callbacks=[SubSampleLabels(), clock] if stage == "scanvi" else [clock],
            **({} if engine is None else {"logger": False}),
        )
    seconds = float(np.median(clock.seconds[1:]))
    steps = -(-adata.n_obs // BATCH)
    return {
        "steps a second": steps / seconds,
        "cells a second": adata.n_obs / seconds,
        "first epoch": clock.seconds[0],
        "peak MiB": torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None,
    }


def rates(device: str, quick: bool, keep: Callable[[], None], found: Figures) -> None:
    """Rates of both stages, by genes and labels; what is compiled only where it costs least of the time there is."""
    n = 512 if quick else 64 * BATCH
    for genes, labels in [(200, 3)] if quick else [(2000, 30), (2000, 3), (765, 30), (765, 3)]:
        adata = cells_of(n, genes, labels)
        for stage in ("scanvi", "scvi"):
            for variant, (_, compiled, resident) in VARIANTS.items():
                slow = compiled and (quick or (genes, labels) != (2000, 30))
                if slow or (resident and device == "cpu"):
                    continue
                name = f"{stage} {genes} genes {labels} labels {variant}"
                try:
                    found[name] = train(adata, stage, variant, device, 3 if quick else 4)
                except Exception:
                    found[name] = {"failed": traceback.format_exc()[-2000:]}
                print(name, found[name], flush=True)
                keep()


def busy(device: str, quick: bool) -> Figures:
    """The share of an epoch's time in which the GPU computes, and how many kernels a step launches."""
    if device != "cuda":
        return {}
    steps, found = 16, {}
    adata = cells_of(steps * BATCH, 2000, 30)
    for variant in ("stock", "exact", "fast"):
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            start = time.perf_counter()
            figures = train(adata, "scanvi", variant, device, 2)
            seconds = time.perf_counter() - start
        events = profile.key_averages()
        computed = sum(event.self_device_time_total for event in events) / 1e6
        launched = sum(event.count for event in events if event.self_device_time_total)
        found[variant] = {
            "share of training": computed / (2 * steps / figures["steps a second"]),
            "microseconds a step": 1e6 * computed / (2 * steps),
            "kernels a step": launched / (2 * steps),
            "seconds with profiler": seconds,
        }
    return found


class Captured:
    """scvi-tools' own training step, with counts on the device, as one CUDA graph; on the CPU it runs as it is.

    A measurement of what launching costs, not an engine: all minibatches are whole, and no metrics are kept.
    """

    def __init__(self, adata: AnnData, stage: str, device: str) -> None:
        model = new_model(adata, stage)
        self.module, self.device = model.module.to(device).train(), device
        manager = model.adata_manager
        self.counts = torch.from_numpy(adata.X.toarray().astype(np.int16)).to(device)
        self.columns = {
            key: torch.from_numpy(manager.get_from_registry(key).astype(np.int64)).to(device)
            for key in ("batch", "labels")
        }
        labelled = np.flatnonzero((adata.obs["label"] != "Unknown").to_numpy())
        self.labelled = torch.from_numpy(labelled).to(device) if stage == "scanvi" else None
        self.every = torch.arange(adata.n_obs, device=device)
        self.rows, self.marked = (torch.zeros(BATCH, dtype=torch.int64, device=device) for _ in range(2))
        self.weight = torch.zeros((), device=device)
        cuda = device == "cuda"
        self.optimizer = torch.optim.Adam(
            self.module.parameters(), lr=1e-3, eps=0.01, weight_decay=1e-6, fused=cuda, capturable=cuda
        )
        self.stream = torch.cuda.Stream() if cuda else None
        self.graph = self._capture() if cuda else None

    def _capture(self) -> torch.cuda.CUDAGraph:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph, stream=self.stream):
            self.step()
        return graph

    def cells(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the minibatch of some cells."""
        return {"X": self.counts[rows].float(), **{key: values[rows] for key, values in self.columns.items()}}

    def step(self) -> None:
        """One step on the cells whose numbers are in `rows` and `marked`."""
        self.optimizer.zero_grad(set_to_none=True)
        loss: Figures = {"kl_weight": self.weight}
        if self.labelled is not None:
            loss |= {"labelled_tensors": self.cells(self.marked), "classification_ratio": 50}
        self.module(self.cells(self.rows), loss_kwargs=loss)[2].loss.backward()
        self.optimizer.step()

    def begin_epoch(self) -> None:
        """Draw the order of the cells."""
        self.order = self.every[torch.randperm(len(self.every), device=self.device)]
        if self.labelled is not None:
            self.order_labelled = self.labelled[torch.randperm(len(self.labelled), device=self.device)]

    def run(self, at: int) -> None:
        """Take the step at a place of the epoch."""
        with torch.cuda.stream(self.stream) if self.stream else nullcontext():
            self.rows.copy_(self.order[at * BATCH : (at + 1) * BATCH])
            if self.labelled is not None:
                start = at * BATCH % (len(self.labelled) - BATCH)
                self.marked.copy_(self.order_labelled[start : start + BATCH])
            if self.graph is None:
                self.step()
            else:
                self.graph.replay()


def captured(device: str, quick: bool) -> Figures:
    """Rates of captured steps: one model, and several at once, each on a stream of its own."""
    found: Figures = {}
    n = 512 if quick else 64 * BATCH
    for genes, labels in [(200, 3)] if quick else [(2000, 30), (765, 3)]:
        adata = cells_of(n, genes, labels)
        for stage in ("scanvi", "scvi"):
            for members in (1, 2) if quick else (1, 2, 4, 8, 16):
                name = f"{stage} {genes} genes {labels} labels, {members} at once"
                try:
                    found[name] = together(adata, stage, members, device, 2 if quick else 4)
                except Exception:
                    found[name] = {"failed": traceback.format_exc()[-3000:]}
                print(name, found[name], flush=True)
    return found


def together(adata: AnnData, stage: str, members: int, device: str, epochs: int) -> Figures:
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with lean_likelihoods():
        models = [Captured(adata, stage, device) for _ in range(members)]
        steps, seconds = adata.n_obs // BATCH, []
        for _ in range(epochs):
            wait()
            start = time.perf_counter()
            for model in models:
                model.begin_epoch()
            for at in range(steps):
                for model in models:
                    model.run(at)
            wait()
            seconds.append(time.perf_counter() - start)
    rate = steps / float(np.median(seconds[1:]))
    finite = all(bool(torch.isfinite(one).all()) for model in models for one in model.module.parameters())
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
    return {"steps a second": rate, "cells a second": rate * BATCH * members, "peak MiB": peak, "finite": finite}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--sections",
        default="machine,small study,rates,busy,graph,fused,recalls,ways",
        help="which, with commas between",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object at the end")
    parser.add_argument("--out", type=Path, help="write the figures here as they come")
    arguments = parser.parse_args()
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    warnings.simplefilter("ignore")
    for chatty in ("lightning.pytorch", "lightning.fabric", "scvi"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    figures: Figures = {"rates": {}, "graph": {}, "fused": {}, "ways": {}}

    def keep() -> None:
        if arguments.out:
            arguments.out.write_text(json.dumps(figures, indent=1))

    @cache
    def made() -> list[tuple[str, Any]]:
        return list(gpu_fused.models(cells_of, new_model, arguments.quick))

    sections: dict[str, Callable[[], Figures | None]] = {
        "machine": lambda: machine(device),
        "small study": lambda: small_study(device, arguments.quick),
        "rates": lambda: rates(device, arguments.quick, keep, figures["rates"]),
        "busy": lambda: busy(device, arguments.quick),
        "graph": lambda: gpu_fused.graph(made(), device, arguments.quick, keep, figures["graph"]),
        "fused": lambda: gpu_fused.fused(made(), device, arguments.quick, keep, figures["fused"]),
        "ways": lambda: gpu_fused.ways(made(), device, arguments.quick, keep, figures["ways"]),
        "recalls": lambda: gpu_fused.recalls(device, arguments.quick),
        "captured": lambda: captured(device, arguments.quick),
    }
    for name in arguments.sections.split(","):
        section, start = sections[name], time.perf_counter()
        try:
            figures[name] = section() or figures.get(name)
        except Exception:
            figures[name] = {"failed": traceback.format_exc()[-4000:]}
        if name not in ("rates", "graph", "fused", "ways"):
            print(name, json.dumps(figures[name], indent=1), flush=True)
        print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
        keep()
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
