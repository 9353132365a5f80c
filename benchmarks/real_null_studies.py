"""Count how often a study names a cause in real trainings in which nothing differs.

Each study takes the query of the bundled cells (wells 4-8), deals its cells at random to three "queries", and crosses
them with two epoch levels in three replicates. Whatever the card then blames on the query is a false alarm.

    python benchmarks/real_null_studies.py            # 10 studies, 180 trials
    python benchmarks/real_null_studies.py --quick    # 2 studies
"""

from __future__ import annotations

import argparse
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from small_studies import train_and_judge

OVERRIDES = ("data=forum", "data.dataset_key=part", "data.reference_value=reference", "data.labels_key=bulk_labels",
             "data.truth_key=bulk_labels", "data.batch_key=well", "data.layer=null", "space=queries")  # fmt: skip
FACTORS = {"query": {"levels": "all"}, "scanvi.max_epochs": {"levels": [15, 30]}}


@dataclass(frozen=True)
class Found:
    """What one study says.

    Attributes
    ----------
    blamed
        Outcome and class for which the data was named: dominant, or with a real effect.
    ratios
        Mean square of error between runs over that within runs (between epoch levels of one run), by outcome and class.
    """

    blamed: list[str]
    ratios: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="two studies")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    number = 2 if arguments.quick else arguments.studies
    with ProcessPoolExecutor(2) as pool:
        found = list(pool.map(one_study, range(number)))
    blamed = sum(bool(one.blamed) for one in found)
    ratios = pd.DataFrame([one.ratios for one in found])
    table = Table(title="error between runs over error within runs, over the studies")
    for column in ("outcome / class", "median ratio", "smallest", "largest"):
        table.add_column(column)
    for name in ratios:
        values = ratios[name].dropna()
        table.add_row(str(name), *(f"{value:.1f}" for value in (values.median(), values.min(), values.max())))
    console = Console(stderr=arguments.json, width=120)
    console.print(table)
    console.print(f"{blamed} of {number} studies named the query as a cause: {[one.blamed for one in found]}")
    if arguments.json:
        print(json.dumps({"studies": number, "false_causes": blamed, "median_ratio": float(ratios.stack().median())}))


def one_study(number: int) -> Found:
    """Make, train and judge one study in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "thirds.h5ad"
        write_thirds(path, number)
        analysis = train_and_judge([*OVERRIDES, f"data.path={path}", f"root={folder}"], FACTORS)
    assert analysis.attribution is not None
    blamed = [
        f"{verdict.outcome} {one.class_name}"
        for verdict in analysis.verdicts
        for one in verdict.classes
        if one.dominant in ("data", "data x parameter") or any(effect.factor == "query" for effect in one.real)
    ]
    return Found(blamed, mean_square_ratios(analysis.attribution.to_frames()["anova"]))


def write_thirds(path: Path, number: int) -> None:
    """Write the bundled cells, the query dealt to three parts by chance."""
    from study.cells.sources import pbmc68k

    cells = pbmc68k()
    well = cells.obs["well"].astype(str).to_numpy()
    part = np.where(np.isin(well, ["1", "2", "3"]), "reference", "")
    query = np.flatnonzero(part == "")
    dealt = np.random.default_rng(number).permutation(query)
    for third in range(3):
        part[dealt[third::3]] = f"third{third + 1}"
    obs = pd.DataFrame({"part": part, "well": well, "bulk_labels": cells.obs["bulk_labels"].astype(str).to_numpy()})
    adata = anndata.AnnData(cells.matrix.copy(), obs=obs.set_index(obs.index.astype(str)))
    adata.var_names = cells.genes
    adata.write_h5ad(path)


def mean_square_ratios(anova: pd.DataFrame) -> dict[str, float]:
    """Return, by outcome and class, the first stratum's error mean square over the last one's."""
    errors = anova[anova["f"].isna() & anova["group"].str.contains("chance")]
    return {
        f"{outcome} {name}": float(rows["ms"].iloc[0] / rows["ms"].iloc[-1])
        for (outcome, name), rows in errors.groupby(["outcome", "class_name"])
        if len(rows) > 1 and rows["ms"].iloc[-1] > 0
    }


if __name__ == "__main__":
    main()
