"""The forum's case with known causes: three classes, three queries, one thing planted at a time, real training.

Prints what the study concludes for each case beside what was planted; docs/forum-case.md holds a run of it.

    python benchmarks/forum_case.py            # 6 cases, 108 trials
    python benchmarks/forum_case.py --quick    # the cases 'size' and 'nothing'
"""

from __future__ import annotations

import argparse
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from rich.console import Console
from rich.table import Table
from small_studies import train_and_judge

SAME = {"cells": 300}
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "size": {"query1": {"cells": 60}, "query2": {"cells": 300}, "query3": {"cells": 900}},
    "depth": {"query1": SAME, "query2": {**SAME, "depth": 0.3}, "query3": {**SAME, "depth": 0.1}},
    "make-up": {
        "query1": SAME,
        "query2": {**SAME, "composition": [0.8, 0.1, 0.1]},
        "query3": {**SAME, "composition": [0.02, 0.08, 0.9]},
    },
    "novel state": {"query1": SAME, "query2": {**SAME, "novel": 0.3}, "query3": {**SAME, "novel": 0.6}},
    "all of it": {
        "query1": {"cells": 60},
        "query2": {"cells": 300, "depth": 0.3, "composition": [0.8, 0.1, 0.1]},
        "query3": {"cells": 900, "depth": 0.1, "novel": 0.4},
    },
    "nothing": {"query1": SAME, "query2": SAME, "query3": SAME},
}
FACTORS = {"query": {"levels": "all"}, "scanvi.max_epochs": {"levels": [4, 8]}}
OUTCOMES = ("heldout/recall", "train/recall", "train/precision")


def one_case(name: str) -> dict[str, Any]:
    """Train and judge one case; return what it shows as plain values."""
    # Hydra merges mappings, so the queries of the packaged configuration are removed one by one.
    overrides = [f"~data.simulate.queries.{query}" for query in ("same", "shallow", "large")]
    for query, planted in CASES[name].items():
        overrides += [f"data.simulate.queries.{query}.{key}={value}" for key, value in planted.items()]
    overrides += [
        "data=simulated",
        "data.simulate.separation=[0.15,0.2,0.17]",
        "data.simulate.genes=300",
        "scvi.max_epochs=20",
    ]
    with tempfile.TemporaryDirectory() as folder:
        analysis = train_and_judge([*overrides, f"root={folder}"], FACTORS)
    table = analysis.table[analysis.table["scanvi.max_epochs"] == 4]
    recall = [column for column in table if str(column).startswith("train/recall/")]
    points = {query: [round(float(v), 2) for v in rows[recall].mean()] for query, rows in table.groupby("query")}
    blamed, real = [], []
    for verdict in analysis.verdicts:
        for one in verdict.classes:
            if one.dominant in ("data", "data x parameter"):
                blamed.append(f"{verdict.outcome} {one.class_name}")
            real += [f"{verdict.outcome} {one.class_name} {e.level}" for e in one.real if e.factor == "query"]
    sentences = {verdict.outcome: verdict.sentence for verdict in analysis.verdicts}
    return {"case": name, "training recall": points, "dominant": blamed, "real": real, "sentences": sentences}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    names = ["size", "nothing"] if arguments.quick else list(CASES)
    with ProcessPoolExecutor(2) as pool:
        found = list(pool.map(one_case, names))
    console = Console(stderr=arguments.json, width=150)
    table = Table(title="three queries, 4 epochs: recall of three classes on training cells; what the card blames")
    for column in (
        "planted",
        "query1",
        "query2",
        "query3",
        "data is the dominant cause of",
        "certain effects of a query",
    ):
        table.add_column(column)
    for one in found:
        points = [" ".join(f"{v:.2f}" for v in one["training recall"][f"query{i}"]) for i in (1, 2, 3)]
        table.add_row(one["case"], *points, "\n".join(one["dominant"]) or "–", "\n".join(one["real"]) or "–")
    console.print(table)
    for one in found:
        for outcome, sentence in one["sentences"].items():
            console.print(f"{one['case']}, {outcome}: {sentence}", markup=False)
    if arguments.json:
        print(json.dumps({"cases": found}))


if __name__ == "__main__":
    main()
