"""What a study costs beside its trainings: seconds before its first stage and after its last, now and at a revision.

    python benchmarks/start_end.py --before REVISION   # five pairs of whole processes, two minutes and a half
    python benchmarks/start_end.py                     # of this tree alone

A study of 16 trials that train for a second in all, in a fresh folder. Pairs run in turn, the order turns as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from study.trials.timing import read_timings

HERE = Path(__file__).parents[1]
SPACE = {
    "name": "tiny",
    "design": "factorial",
    "factors": {
        "query": {"levels": ["asis", "shallow"]},
        "query_cells": {"levels": [30, "all"]},
        "scanvi.linear_classifier": {"levels": [True, False]},
    },
    "replicates": 2,
    "folds": 2,
    "controls": [],
}
SMALL = ("space=tiny", "scvi.max_epochs=2", "scanvi.max_epochs=2", "scvi.n_hidden=16", "scvi.n_latent=4")


@dataclass(frozen=True)
class Seconds:
    """What one run took: until its first stage, after its last, and both together."""

    before: float
    after: float

    @property
    def both(self) -> float:
        """What does not grow with a study."""
        return self.before + self.after


@contextmanager
def revision(name: str) -> Iterator[Path]:
    """Check a revision out beside this tree."""
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(scratch) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", where, name], cwd=HERE, check=True)
        try:
            yield where
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", where], cwd=HERE, check=True)


def measure(tree: Path) -> Seconds:
    """Run the study with the code of a tree, in a fresh folder."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "RAY_worker_niceness": "0"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "study"]
        subprocess.run([*command, "init", folder], env=environment, check=True, capture_output=True)
        (Path(folder) / "search_spaces" / "tiny.yaml").write_text(yaml.safe_dump(SPACE))
        start = time.time()
        subprocess.run([*command, "run", *SMALL], cwd=folder, env=environment, check=True, capture_output=True)
        end = time.time()
        (directory,) = Path(folder).glob("studies/*")
        stages = read_timings(directory)
    return Seconds(stages[0].started - start, end - max(one.ended for one in stages))


def show(before: Sequence[Seconds], now: Sequence[Seconds], console: Console) -> None:
    """Print medians, and the ratios of pairs."""
    table = Table("seconds", "before", "now", "ratio of pairs (least to most)")
    for name in ("before", "after", "both"):
        mine = [getattr(one, name) for one in now]
        others = [getattr(one, name) for one in before]
        ratios = [b / a for a, b in zip(others, mine, strict=True)] if others else []
        words = f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
        table.add_row(
            {"before": "before the first stage", "after": "after the last"}.get(name, name),
            f"{np.median(others):.1f}" if others else "",
            f"{np.median(mine):.1f}",
            words,
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="the revision to compare with")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one pair")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    before: list[Seconds] = []
    now: list[Seconds] = []
    with revision(options.before) if options.before else tempfile.TemporaryDirectory() as other:
        for pair in range(1 if options.quick else options.pairs):
            ways = [(HERE, now), (Path(other), before)] if options.before else [(HERE, now)]
            for tree, found in ways[:: 1 if pair % 2 else -1]:
                found.append(measure(tree))
    show(before, now, Console(stderr=options.json))
    if options.json:
        print(json.dumps({"before": [asdict(one) for one in before], "now": [asdict(one) for one in now]}))


if __name__ == "__main__":
    main()
