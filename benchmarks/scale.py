"""Large data in little memory: preparing an h5ad, and training by one and by two workers over the same counts.

Makes an h5ad of a labelled reference and one query, prepares it in a process of its own, and trains one epoch of scVI
and one of scANVI, with predictions of all cells, first with one worker, then with two at once.

    python benchmarks/scale.py            # 200,000 + 800,000 cells x 2,000 genes, 5% of them above 0: about an hour
    python benchmarks/scale.py --quick    # 4,000 + 16,000 cells

Memory is what processes hold for themselves (RssAnon + RssShmem when preparing, RssAnon of a worker): pages of
mapped files are the system's to take back. `prepare_resident_gib` counts these too. `added_worker_gib` is what a worker
holds beyond one that trains a few cells.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import sparse_dataset, write_elem
from rich.console import Console

TINY = (200, 800)
CLASSES = 5
CHUNK = 10_000
GIB = 2**30


def write_h5ad(path: Path, reference: int, query: int, genes: int, density: float) -> int:
    """Write simulated counts, some rows at a time; return the bytes of their CSR arrays."""
    random = np.random.default_rng(0)
    # Every class has genes that are more often on in it; the mean share of genes that are on is the density.
    weight = random.gamma(1, size=genes) * np.exp(random.normal(0, 0.5, size=(CLASSES, genes)))
    on = np.minimum(0.9, density * weight / weight.mean())
    label = random.integers(CLASSES, size=reference + query)
    dataset = np.repeat(["reference", "query"], [reference, query])
    obs = pd.DataFrame({"dataset": pd.Categorical(dataset), "cell_type": pd.Categorical(label.astype(str))})
    obs.index = pd.Index([f"cell{i}" for i in range(len(obs))])
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_elem(file, "obs", obs)
        write_elem(file, "var", pd.DataFrame(index=pd.Index([f"gene{i}" for i in range(genes)])))
        for start in range(0, len(obs), CHUNK):
            rates = on[label[start : start + CHUNK]]
            part = sp.csr_matrix(random.random(rates.shape, dtype=np.float32) < rates, dtype=np.float32)
            part.data = random.integers(1, 6, size=part.nnz).astype(np.float32)
            if start == 0:
                write_elem(file, "X", part)
            else:
                sparse_dataset(file["X"]).append(part)
        return sum(int(file["X"][name].size) * width for name, width in (("data", 4), ("indices", 4), ("indptr", 4)))


def status(pid: int | str) -> dict[str, int]:
    """Return the memory of a process in bytes by name, as the kernel counts it; nothing if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {
        name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest
    }


@contextmanager
def repeatedly(do: Callable[[], None], seconds: float) -> Iterator[None]:
    """Do something again and again in a thread, while what is inside runs."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(seconds):
            do()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def configuration_of(path: Path, workers: int) -> Any:
    """Return the study of an h5ad: one replicate for each worker, one epoch of each stage."""
    from study.config.composition import compose, validate
    from study.config.values import dump

    overrides = ["data=forum", f"data.path={path}", "data.dataset_key=dataset", "data.reference_value=reference"]
    overrides += ["data.labels_key=cell_type", "data.batch_key=dataset", "data.layer=null", "scvi.max_epochs=1"]
    overrides += ["scanvi.max_epochs=1", f"root={path.parent / 'studies'}", f"resources.concurrent={workers}"]
    values = dump(compose([*overrides, f"name={path.stem}"]))
    values["space"] |= {"factors": {"query_cells": {"levels": [2, "all"]}}, "replicates": workers}
    return validate(values)


def timed(owner: Any, name: str, spent: list[float]) -> None:
    """Have a function note how many seconds each call of it takes."""
    function = getattr(owner, name)

    def noting(*arguments: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            spent.append(time.perf_counter() - start)

    setattr(owner, name, noting)


def prepare(path: Path) -> dict[str, float]:
    """Prepare and digest the cells; return peaks of this process in bytes, and seconds."""
    from study.cells import alignment
    from study.cells.fingerprint import Printer
    from study.cells.twins import prepare

    held = 0
    for_roles: list[float] = []
    for owner, name in ((Printer, "see"), (Printer, "prints"), (alignment, "one_role")):
        timed(owner, name, for_roles)

    def look() -> None:
        nonlocal held
        now = status("self")
        held = max(held, now["RssAnon"] + now["RssShmem"])

    config = configuration_of(path, 1)
    start = time.perf_counter()
    with repeatedly(look, 0.01):
        cells = prepare(config.data, ["query"], config.directory / "counts")
        cells["query"].digest()
    seconds = time.perf_counter() - start
    return {
        "held": held,
        "resident": status("self")["VmHWM"],
        "seconds": seconds,
        "for_roles": sum(for_roles),
        "cells": cells["query"].counts.shape[0],
    }


def train(path: Path, workers: int) -> dict[str, Any]:
    """Train one epoch of both stages in as many workers at once; return the peak of each in bytes, and speeds."""
    from study.studies.study import open_study
    from study.sweep.cluster import cluster
    from study.sweep.tune import train_stages
    from study.trials.timing import read_timings

    study = open_study(configuration_of(path, workers))
    everything = study.cells["query"].n_query
    stages = [stage for stage in study.plan.stages if stage.condition.n_cells == everything]
    peaks: dict[int, int] = defaultdict(int)

    def look() -> None:
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and descends(process.name):
                peaks[int(process.name)] = max(peaks[int(process.name)], status(process.name).get("RssAnon", 0))

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        directory = Path(folder)
        with cluster(study.config.resources), repeatedly(look, 0.2):
            tree = train_stages(
                stages, study.cells, directory, study.config.resources, lambda stage: None, lambda tree: None
            )
        if tree.reasons:
            raise RuntimeError(f"stages failed: {tree.reasons}")
        done = read_timings(directory)
    trained = {int(one.worker.rpartition(":")[2]) for one in done}
    assert len(trained) == workers, "the stages did not run at once"
    speeds = {
        kind: sum(one.cells * one.epochs / one.training for one in done if one.kind == kind) / workers
        for kind in ("pretraining", "fine-tuning")
    }
    return {"peaks": [peaks[pid] for pid in sorted(trained)], "speeds": speeds}


def descends(pid: str) -> bool:
    """Whether a process was started by this one, or by one that was."""
    while pid not in ("0", "1", ""):
        if int(pid) == os.getpid():
            return True
        try:
            pid = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1]
        except (OSError, IndexError):
            return False
    return False


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, with nothing loaded that it does not load."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--reference", type=int, help="cells")
    parser.add_argument("--query", type=int, help="cells")
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--density", type=float, default=0.05, help="share of counts above 0")
    parser.add_argument("--scratch", type=Path, help="folder for temporary files")
    arguments = parser.parse_args()
    usual = (4_000, 16_000) if arguments.quick else (200_000, 800_000)
    reference, query = arguments.reference or usual[0], arguments.query or usual[1]
    console = Console(stderr=arguments.json, width=150)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        os.environ["TMPDIR"] = folder
        large, tiny = Path(folder) / "large.h5ad", Path(folder) / "tiny.h5ad"
        size = write_h5ad(large, reference, query, arguments.genes, arguments.density)
        write_h5ad(tiny, *TINY, arguments.genes, arguments.density)
        console.print(f"{reference:,} + {query:,} cells x {arguments.genes:,} genes: {size / GIB:.2f} GiB as CSR")
        prepared = alone(prepare, large)
        console.print(
            f"preparing: holds at most {prepared['held'] / GIB:.2f} GiB "
            f"({prepared['resident'] / GIB:.2f} GiB with mapped files), {prepared['seconds']:.0f} s, of which "
            f"{prepared['for_roles'] / prepared['seconds']:.0%} to find cells in two roles"
        )
        base = alone(train, tiny, 1)["peaks"][0]
        trained, added = {}, {}
        for workers in (1, 2):
            trained[workers] = alone(train, large, workers)
            added[workers] = [peak - base for peak in trained[workers]["peaks"]]
            shown = ", ".join(f"{value / GIB:.2f} GiB ({value / size:.0%} of the matrix)" for value in added[workers])
            console.print(f"{workers} at once, each beyond the {base / GIB:.2f} GiB of training a few cells: {shown}")
            for kind, speed in trained[workers]["speeds"].items():
                console.print(f"  {kind}: {speed:,.0f} cells per second of each")
    if arguments.json:
        found = {
            "prepare_peak_gib": prepared["held"] / GIB,
            "prepare_resident_gib": prepared["resident"] / GIB,
            "prepare_seconds": prepared["seconds"],
            "roles_share": prepared["for_roles"] / prepared["seconds"],
            "csr_gib": size / GIB,
            "added_worker_gib": float(np.mean(added[2])) / GIB,
            "added_by_worker_gib": {workers: [value / GIB for value in extra] for workers, extra in added.items()},
            "cells_per_second": trained[1]["speeds"],
            "cells_per_second_of_two": trained[2]["speeds"],
        }
        print(json.dumps(found))


if __name__ == "__main__":
    main()
