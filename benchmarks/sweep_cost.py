"""What a sweep costs: a plain Ray Tune trainable, scvi.autotune on the scANVI part, and scanvi-study, side by side.

A forum-shaped design, scaled down: 2 classifiers x 3 n_samples_per_label x 4 epoch levels x 2 queries x 2 seeds = 96
trials on real blood cells. The plain sweep and scanvi-study must give identical recalls, or the benchmark fails. A
second study has the engine `fast`; how many of its recalls differ is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import yaml
from anndata import AnnData
from rich.console import Console
from rich.table import Table

from study.config.composition import compose
from study.plan.split import split_cells
from study.studies.study import Study, open_study
from study.trials.store import read_all
from study.trials.timing import Timing, read_timings

HERE = Path(__file__).parent
FOLDS = 3


@dataclass(frozen=True)
class Size:
    """How large the design is."""

    scvi_epochs: int
    max_epochs: tuple[int, ...]
    linear_classifier: tuple[bool, ...] = (True, False)
    n_samples_per_label: tuple[int | None, ...] = (5, 15, None)
    query: tuple[str, ...] = ("asis", "shallow")
    seed: tuple[int, ...] = (0, 1)


# The thread's 400 + 200 epochs, as they are, divided by 4 and by 40.
THREAD = Size(400, (20, 50, 100, 200))
FULL = Size(100, (5, 12, 25, 50))
QUICK = Size(10, (1, 2, 3, 5), n_samples_per_label=(5, None), seed=(0,))


@dataclass(frozen=True)
class Usage:
    """What one way took: seconds of wall and CPU time, peak of resident memory (shared pages counted once), GiB."""

    wall: float
    cpu: float
    memory: float


def measured(command: Sequence[str], cwd: Path) -> Usage:
    """Run a command to its end and measure it with all its descendants.

    Raises
    ------
    SystemExit
        If it fails, with the end of what it said.
    """
    start, peak = time.perf_counter(), 0.0
    cpu: dict[int, float] = {}
    log = cwd / "log.txt"
    with log.open("wb") as output:
        # Ray gives way to whatever else the machine does, unless told not to; that would be measured too.
        environment = {**os.environ, "RAY_worker_niceness": "0"}
        child = psutil.Popen(list(command), cwd=cwd, stdout=output, stderr=subprocess.STDOUT, env=environment)
        while child.poll() is None:
            peak = max(peak, sum(_sample(process, cpu) for process in (child, *child.children(recursive=True))))
            time.sleep(0.5)
    if child.returncode:
        sys.exit(f"{' '.join(command)} failed with {child.returncode}:\n{log.read_text()[-3000:]}")
    return Usage(time.perf_counter() - start, sum(cpu.values()), peak / 2**30)


def _sample(process: psutil.Process, cpu: dict[int, float]) -> float:
    """Note the CPU time of a process so far; return its proportional memory in bytes."""
    try:
        times = process.cpu_times()
        cpu[process.pid] = times.user + times.system
        return float(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return 0.0  # it ended while we looked


def make_project(size: Size, folder: Path) -> Study:
    """Make the folder of a study of this design, as a user would, and open it."""
    subprocess.run([sys.executable, "-m", "study", "init", str(folder)], check=True, capture_output=True)
    levels = {
        "query": size.query,
        "scanvi.linear_classifier": size.linear_classifier,
        "scanvi.n_samples_per_label": ["all" if n is None else n for n in size.n_samples_per_label],
        "scanvi.max_epochs": size.max_epochs,
    }
    space = {
        "name": "bench",
        "design": "factorial",
        "factors": {name: {"levels": list(level)} for name, level in levels.items()},
        "replicates": len(size.seed),
        "folds": FOLDS,
    }
    (folder / "search_spaces" / "bench.yaml").write_text(yaml.safe_dump(space))
    with contextlib.chdir(folder):  # where its own search space is
        return open_study(compose(overrides(size, folder)))


def overrides(size: Size, folder: Path) -> list[str]:
    """Return what the command line says."""
    return [f"root={folder}/studies", "data=pbmc68k-fine", "space=bench", f"scvi.max_epochs={size.scvi_epochs}"]


def write_cells(study: Study, size: Size, folder: Path) -> None:
    """Write the same cells as h5ad files, as a user of plain scvi-tools has them: labels, batches, parts by seed."""
    for query in size.query:
        cells = study.cells[query]
        labels = np.array([*(cells.classes[code] for code in cells.labels), *["Unknown"] * cells.n_query], dtype=object)
        obs = pd.DataFrame({"batch": [cells.batches[code] for code in cells.batch], "label": labels})
        for seed in size.seed:
            parts = split_cells(cells, seed % FOLDS, FOLDS, 128)
            assert not parts.left_out.size, "a user of plain scvi-tools would leave no cell out"
            part = np.array(["train"] * cells.n_reference + ["query"] * cells.n_query, dtype=object)
            part[parts.held_out] = "heldout"
            obs[f"part{seed}"] = part
        obs["train_label"] = np.where(obs["part0"] == "heldout", "Unknown", labels)
        AnnData(cells.counts.copy(), obs=obs.set_index(obs.index.astype(str))).write_h5ad(folder / f"{query}.h5ad")


def differing(plain: Sequence[Mapping[str, Any]], study: Study) -> int:
    """Return how many recalls of the plain sweep scanvi-study does not give exactly."""
    results = read_all(study.config.directory, study.plan.by_key)
    found = {_point(study, key): result.metrics for key, result in results.items()}
    wrong = 0
    for row in plain:
        samples = "all" if row["n_samples_per_label"] is None else row["n_samples_per_label"]
        point = (row["query"], row["linear_classifier"], samples, row["max_epochs"], row["seed"])
        metrics = found[point]
        for part, recalls in row["recalls"].items():
            wrong += sum(metrics.get(f"{part}/recall/{name}") != value for name, value in recalls.items())
    return wrong


def _point(study: Study, key: str) -> tuple[Any, ...]:
    trial = study.plan.by_key[key].trial
    scanvi = trial.settings.scanvi
    levels = (scanvi.linear_classifier, scanvi.n_samples_per_label, scanvi.max_epochs)
    return (trial.query, *levels, trial.replicate.seed)


def compare(size: Size, scratch: Path) -> dict[str, Any]:
    """Run all three ways and return the figures."""
    study = make_project(size, scratch / "study")
    for name in ("data", "plain", "autotune"):
        (scratch / name).mkdir()
    write_cells(study, size, scratch / "data")
    names = ("query", "linear_classifier", "n_samples_per_label", "max_epochs", "seed")
    job = {
        "data": str(scratch / "data"),
        "factors": {name: getattr(size, name) for name in names},
        "scvi_epochs": size.scvi_epochs,
    }
    usage: dict[str, Usage] = {}
    for way in ("autotune", "plain"):
        asked, found = scratch / way / "job.json", scratch / way / "found.json"
        asked.write_text(json.dumps(job | {"scratch": str(scratch / way)}))
        script = str(HERE / f"sweep_cost_{way}.py")
        usage[way] = measured([sys.executable, script, str(asked), str(found)], scratch / way)
    one_call = json.loads((scratch / "autotune" / "found.json").read_text())["seconds"]
    usage["autotune"] = every_call(usage["autotune"], one_call, size)
    usage["study"] = run(size, scratch / "study")
    usage["fast"], fast = run_fast(size, scratch)
    plain = json.loads((scratch / "plain" / "found.json").read_text())
    return {
        "trials": len(plain),
        "identical": differing(plain, study) == 0,
        "recalls_differing_fast": differing(plain, fast),
        "wall_ratio_fast_vs_plain": usage["plain"].wall / usage["fast"].wall,
        "wall_ratio_vs_plain": usage["plain"].wall / usage["study"].wall,
        "wall_ratio_vs_autotune": usage["autotune"].wall / usage["study"].wall,
        "epochs_ratio": study.plan.epochs_separate / study.plan.epochs_shared,
        **predicted(plain, study, usage),
        "usage": {way: asdict(one) for way, one in usage.items()},
    }


def run(size: Size, folder: Path, *more: str) -> Usage:
    """Run the study as a user would. Prepared cells are part of what it has to do, so those are moved away."""
    for made in (folder / "studies").glob("*/counts"):
        made.rename(folder / "prepared")
    return measured([sys.executable, "-m", "study", "run", *overrides(size, folder), *more], folder)


def run_fast(size: Size, scratch: Path) -> tuple[Usage, Study]:
    """Run the same study with the engine `fast`, in a folder of its own."""
    engine, folder = "resources.engine=fast", scratch / "fast"
    make_project(size, folder)
    usage = run(size, folder, engine)
    with contextlib.chdir(folder):
        return usage, open_study(compose([*overrides(size, folder), engine]))


def every_call(one: Usage, seconds: float, size: Size) -> Usage:
    """Return the usage of the calls for all queries and seeds, from that of one, whose process started Ray as well."""
    calls = len(size.query) * len(size.seed)
    return Usage(one.wall + (calls - 1) * seconds, one.cpu * calls, one.memory)


def predicted(plain: Sequence[Mapping[str, Any]], study: Study, usage: Mapping[str, Usage]) -> dict[str, float]:
    """Return the ratio that the plan's epochs and the two ways' seconds per epoch predict, and what was reached of it.

    Epochs of each kind if every trial trains alone, times the seconds of one in the plain sweep; over the epochs that
    the stages train, times the seconds of one in scanvi-study. Nothing else costs anything in this prediction.
    """
    epochs = {"scvi": 0, "scanvi": 0}
    for trial in study.plan.trials:
        for kind, (_, level) in zip(epochs, trial.chain, strict=True):
            epochs[kind] += level
    separate = sum(row["scvi_seconds"] + row["scanvi_seconds"] for row in plain)
    each = {kind: sum(row[f"{kind}_seconds"] for row in plain) / epochs[kind] for kind in epochs}
    records = read_timings(study.config.directory)
    shared = sum(one.training for one in records)
    trained: dict[str, list[float]] = {"scvi": [], "scanvi": []}
    for one in records:
        trained["scvi" if one.kind == "pretraining" else "scanvi"].append(one.training / one.epochs)
    ratio = separate / shared
    return {
        "predicted_ratio": ratio,
        "reached": usage["plain"].wall / usage["study"].wall / ratio,
        "scvi_step_ratio": each["scvi"] / float(np.mean(trained["scvi"])),
        "scanvi_step_ratio": each["scanvi"] / float(np.mean(trained["scanvi"])),
        "overhead_per_trial": overhead(records),
    }


def overhead(timings: Sequence[Timing]) -> float:
    """Return the seconds of workers per trial that are neither training nor evaluation.

    That is what a stage spends on setting up and writing, and what a worker waits between two stages.
    """
    spent = sum(one.seconds - one.training - one.evaluation for one in timings)
    by_worker = defaultdict[str, list[Timing]](list)
    for one in timings:
        by_worker[one.worker].append(one)
    for mine in by_worker.values():
        spent += sum(after.started - before.ended for before, after in itertools.pairwise(mine))
    return spent / max(1, sum(one.trials for one in timings))


def show(found: Mapping[str, Any]) -> None:
    """Print the table and the ratios."""
    table = Table(title=f"{found['trials']} trials", title_justify="left")
    for column in ("", "wall s", "CPU s", "peak GiB", "wall time / scanvi-study"):
        table.add_column(column, justify="left" if not column else "right")
    names = {
        "plain": "plain Ray Tune trainable",
        "autotune": "run_autotune, scANVI*",
        "study": "scanvi-study run",
        "fast": "the same, engine fast",
    }
    base = found["usage"]["study"]["wall"]
    for way, one in found["usage"].items():
        figures = (f"{one['wall']:.0f}", f"{one['cpu']:.0f}", f"{one['memory']:.2f}", f"{one['wall'] / base:.1f}")
        table.add_row(names[way], *figures)
    console = Console()
    console.print(table)
    console.print("* one call trains a query and a seed; one was made, and counts for all")
    console.print(
        f"recalls identical: {found['identical']}; of engine fast {found['recalls_differing_fast']} differ, and the "
        f"plain sweep takes {found['wall_ratio_fast_vs_plain']:.1f} times as long"
    )
    console.print(
        f"the plan saves {found['epochs_ratio']:.1f} times the epochs; an epoch of scVI costs "
        f"{found['scvi_step_ratio']:.2f} times less, one of scANVI {found['scanvi_step_ratio']:.2f} times: "
        f"{found['predicted_ratio']:.1f} times predicted, {found['wall_ratio_vs_plain']:.1f} measured "
        f"({found['reached']:.0%} of it). Overhead per trial: {found['overhead_per_trial']:.2f} s."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    length = parser.add_mutually_exclusive_group()
    fixed = {"dest": "size", "action": "store_const", "default": FULL}
    length.add_argument("--quick", const=QUICK, help="a third of the trials, of a few epochs", **fixed)
    length.add_argument("--thread", const=THREAD, help="the thread's own epochs: an hour and a half", **fixed)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = compare(arguments.size, Path(scratch))
    show(found)
    if arguments.json:
        print(json.dumps(found))
    if not found["identical"]:
        sys.exit("the plain sweep and scanvi-study differ")


if __name__ == "__main__":
    main()
