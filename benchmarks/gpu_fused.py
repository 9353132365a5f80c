"""Sections of `gpu.py`: the step as a CUDA graph, and several members trained as one network."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from scvi.model import SCANVI, SCVI

from study.cells import Cells, prepare
from study.config import compose
from study.plan import split_cells
from study.training import dense
from study.training.building import predict_probabilities, state_of
from study.training.counts import OnDevice, hold
from study.training.fused import train_together
from study.training.group import Group, Member
from study.training.hardware import Hardware
from study.training.members import Asked, assemble
from study.training.snapshot import Snapshot

BATCH = 128
SIZES = [(2000, 30), (765, 3)]
Figures = dict[str, Any]
NewModel = Callable[[AnnData, str], SCVI | SCANVI]


@cache
def cells_held(model: SCVI | SCANVI, device: str) -> OnDevice:
    """The cells of a model on a device."""
    manager = model.adata_manager
    codes = [torch.from_numpy(manager.get_from_registry(key).astype(np.int64)).view(-1) for key in ("batch", "labels")]
    return OnDevice(hold(model.adata.X, torch.device(device), 2**34), *(one.to(device) for one in codes))


def group_of(model: SCVI | SCANVI, members: int, steps: int, device: str) -> tuple[list[Member], OnDevice]:
    """Members with epochs of so many steps; the cells of a model come as often as that takes."""
    adata, held = model.adata, cells_held(model, device)
    rows = np.resize(np.arange(adata.n_obs), steps * BATCH)
    labelled: dict[str, Any] = {}
    if isinstance(model, SCANVI):
        labels = adata.obs["label"].to_numpy()
        labelled = {name: np.flatnonzero(labels == name) for name in np.unique(labels) if name != "Unknown"}
    return [Member(model.module, rows, seed, labelled, 100) for seed in range(members)], held


@contextmanager
def compiled() -> Iterator[None]:
    """Compile the likelihood of counts."""
    before, dense.negative_binomial = dense.negative_binomial, torch.compile(dense.negative_binomial, dynamic=False)
    try:
        yield
    finally:
        dense.negative_binomial = before


WAYS = {
    "likelihood compiled": compiled,
}


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure(model: SCVI | SCANVI, members: int, steps: int, device: str, graph: bool, epochs: int = 3) -> Figures:
    """Rates of a group: of its steps alone, and of whole epochs with what the host draws and reads for them."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start, found, parts = time.perf_counter(), {}, group_of(model, members, steps, device)
    group = Group(*parts, BATCH)
    group.begin(1, group.draw())
    if graph and device == "cuda":
        try:
            group.record()
        except Exception:
            # The rates are worth having all the same: all members draw from the one generator that graphs always know.
            found["own generators failed"] = traceback.format_exc()[-2000:]
            group = Group(*parts, BATCH)
            group.begin(1, group.draw())
            group.noise.generators = [torch.cuda.default_generators[0]] * members
            group.record()
    wait(device)
    found["seconds to begin"] = time.perf_counter() - start
    alone, launched, whole = [], [], []
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        group.begin(epoch, group.draw())
        wait(device)
        first = time.perf_counter()
        for _ in range(steps):
            group.step()
        launched.append(time.perf_counter() - first)
        wait(device)
        alone.append(time.perf_counter() - first)
        metrics = [group.metrics(member) for member in range(members)]
        whole.append(time.perf_counter() - start)
    step = float(np.median(alone[1:])) / steps
    return found | {
        "milliseconds a step": 1000 * step,
        "of which launching": 1000 * float(np.median(launched[1:])) / steps,
        "steps a second": 1 / step,
        "cells a second": members * BATCH / step,
        "cells a second, whole epochs": members * BATCH * steps / float(np.median(whole[1:])),
        "peak MiB": torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None,
        "finite": bool(np.isfinite([one["train_loss"] for one in metrics]).all()),
        "recorded": group.recorded is not None,
    }


def guarded(found: Figures, name: str, keep: Callable[[], None], work: Callable[[], Any]) -> None:
    """Keep what some work finds, or how it failed."""
    try:
        found[name] = work()
    except Exception:
        found[name] = {"failed": traceback.format_exc()[-3000:]}
    print(name, found[name], flush=True)
    keep()


def models(cells_of: Callable[..., AnnData], new_model: NewModel, quick: bool) -> Iterator[tuple[str, SCVI | SCANVI]]:
    """Models of each size and stage."""
    for genes, labels in [(200, 3)] if quick else SIZES:
        adata = cells_of(512 if quick else 64 * BATCH, genes, labels)
        for stage in ("scanvi", "scvi"):
            model = new_model(adata, stage)
            yield f"{stage} {genes} genes {labels} labels", model


def graph(made: list[tuple[str, Any]], device: str, quick: bool, keep: Callable[[], None], found: Figures) -> None:
    """One member: recorded, and as it is."""
    steps = 4 if quick else 256
    guarded(found, "proof", keep, lambda: proof(made[0][1], device))
    for name, model in made:
        guarded(found, f"{name}, recorded", keep, lambda model=model: measure(model, 1, steps, device, True))
        guarded(found, f"{name}, not recorded", keep, lambda model=model: measure(model, 1, steps // 4, device, False))
    if device == "cuda":
        for members in (1, 8):
            guarded(found, f"kernels, {members}", keep, lambda members=members: kernels(made[0][1], members, device))


def fused(made: list[tuple[str, Any]], device: str, quick: bool, keep: Callable[[], None], found: Figures) -> None:
    """Several members."""
    steps = 4 if quick else 256
    for name, model in made:
        for members in (2, 4) if quick else (2, 4, 8, 16):
            run = f"{name}, {members} members"
            guarded(found, run, keep, lambda m=members, model=model: measure(model, m, steps, device, True))
            if "failed" in found[run]:
                as_it_is = f"{run}, not recorded"
                guarded(
                    found, as_it_is, keep, lambda m=members, model=model: measure(model, m, steps // 8, device, False)
                )


def ways(made: list[tuple[str, Any]], device: str, quick: bool, keep: Callable[[], None], found: Figures) -> None:
    """Other ways to compute a step, each with one and with several members; what is compiled takes longest to begin."""
    steps = 4 if quick else 256
    for name, model in made[:1] + made[2:3]:
        for how, patch in WAYS.items():
            if patch is compiled and name != made[0][0]:
                continue
            for members in (1, 2) if quick else (1, 8):
                run = f"{name}, {members} members, {how}"
                with patch():
                    guarded(found, run, keep, lambda m=members, model=model: measure(model, m, steps, device, True))


def proof(model: SCVI | SCANVI, device: str) -> Figures:
    """What the tests prove on the CPU, on this device: largest differences of a weight after two epochs of 12 steps."""
    members, held = group_of(model, 3, 12, device)

    def states(of: list[Member], recorded: bool) -> list[dict[str, torch.Tensor]]:
        return [one.states[2] for one in train_together(of, held, [2], BATCH, graph=recorded)]

    def far(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
        return max(float((one[name] - other[name]).abs().max()) for name in one)

    found: Figures = {}
    plain = states(members, False)
    guarded(found, "between two seeds", lambda: None, lambda: far(plain[0], plain[1]))
    guarded(found, "the same again", lambda: None, lambda: max(map(far, plain, states(members, False))))
    guarded(found, "in another order", lambda: None, lambda: max(map(far, plain, states(members[::-1], False)[::-1])))
    guarded(found, "alone", lambda: None, lambda: far(plain[0], states(members[:1], False)[0]))
    guarded(found, "recorded", lambda: None, lambda: max(map(far, plain, states(members, True))))
    return found


def kernels(model: SCVI | SCANVI, members: int, device: str) -> Figures:
    """What a recorded step spends its time on, in microseconds: the dearest kernels, and all."""
    group = Group(*group_of(model, members, 24, device), BATCH)
    group.begin(1, group.draw())
    group.record()
    for _ in range(4):
        group.step()
    wait(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(10):
            group.step()
        wait(device)
    events = sorted(profile.key_averages(), key=lambda one: -one.self_device_time_total)
    return {
        "all": sum(one.self_device_time_total for one in events) / 10,
        "kernels": sum(one.count for one in events if one.self_device_time_total) / 10,
        "dearest": [[one.key[:90], one.count / 10, one.self_device_time_total / 10] for one in events[:25]],
    }


def recalls(device: str, quick: bool) -> Figures:
    """Held-out recall of each class of the bundled cells, of seeds that trained together."""
    cells, config = bundled(), compose(["data=pbmc68k-fine"])
    parts, (first, second) = split_cells(cells, 0, 3, BATCH), (2, 2) if quick else (40, 15)
    seeds, on = range(2 if quick else 10), Hardware("gpu" if device == "cuda" else "cpu", engine="gpu")
    truth, states, found = cells.labels[parts.held_out], {}, []

    def read(at: int, snapshot: Snapshot) -> None:
        called = predict_probabilities(snapshot.model, cells).argmax(axis=1)[parts.held_out]
        found.append([float((called[truth == code] == code).mean()) for code in np.unique(truth)])

    start = time.perf_counter()
    pretraining = [Asked(parts, config, seed, [first]) for seed in seeds]
    assemble(cells, pretraining, on).train(lambda at, snapshot: states.update({at: state_of(snapshot.model)}))
    finetuning = [Asked(parts, config, seed, [second], states[seed]) for seed in seeds]
    assemble(cells, finetuning, on).train(read)
    by_class = np.array(found)
    return {
        "seconds, with predictions": time.perf_counter() - start,
        "classes": [cells.classes[code] for code in np.unique(truth)],
        "mean": by_class.mean(axis=0).tolist(),
        "sd": by_class.std(axis=0, ddof=1).tolist(),
        "macro recall of seeds": by_class.mean(axis=1).tolist(),
    }


def bundled() -> Cells:
    """The bundled cells and their query."""
    with tempfile.TemporaryDirectory() as folder:
        return prepare(compose(["data=pbmc68k-fine"]).data, ["asis"], Path(folder))["asis"]
