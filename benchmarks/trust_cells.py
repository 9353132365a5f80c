"""The cells of `trust.py`: small studies of real cells whose queries have known labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from study.config.composition import compose, validate
from study.config.study import StudyConfig
from study.config.values import dump

SHARED = Path(__file__).parents[2] / "shared" / "data"
# Two settings of each stage: four that all differ, in three replicates, are twelve trainings.
FACTORS = {"scvi.norm": {"levels": ["batch", "layer"]}, "scanvi.linear_classifier": {"levels": [True, False]}}
SMALL = ("scvi.n_hidden=64", "resources.engine=fast")
COMBINED = ("data=forum", "data.dataset_key=part", "data.reference_value=reference", "data.labels_key=label",
            "data.truth_key=label", "data.batch_key=batch", "data.layer=null", "data.genes=600")  # fmt: skip
# Optimiser steps of both stages, whatever the number of cells.
STEPS, QUICK = (400, 300), (40, 40)
BATCH = 128
MOST_OF_A_CLASS = 300


def studies(folder: Path, quick: bool) -> list[StudyConfig]:
    """Write the cells to a folder and return the studies of them; those of absent files are left out."""
    steps = QUICK if quick else STEPS
    twin = {"query": {"levels": ["asis", "shallow"]}}
    found = [_study("pbmc68k", folder, ("data=pbmc68k-fine",), (269, 431), steps, twin)]
    for name, cells in _real(quick).items():
        path = folder / f"{name}.h5ad"
        cells.write_h5ad(path)
        sizes = cells.obs["part"].value_counts()
        words = (*COMBINED, f"data.path={path}")
        found.append(_study(name, folder, words, (sizes["reference"], sizes["query"]), steps, {}))
    return found


def _study(
    name: str,
    folder: Path,
    words: Sequence[str],
    sizes: tuple[int, int],
    steps: tuple[int, int],
    twin: dict[str, Any],
) -> StudyConfig:
    """A study of cells of which so many are reference and query, trained for about so many steps."""
    each = math.ceil((sizes[0] * 2 / 3 + sizes[1]) / BATCH)
    epochs = [f"{stage}.max_epochs={round(n / each)}" for stage, n in zip(("scvi", "scanvi"), steps, strict=True)]
    values = dump(compose([*words, *SMALL, *epochs, f"name={name}", f"root={folder}"]))
    space = {"design": "factorial", "factors": twin | FACTORS, "replicates": 3, "folds": 3, "controls": []}
    return validate({**values, "space": {**values["space"], **space}})


def _real(quick: bool) -> dict[str, anndata.AnnData]:
    """Reference and query of each study from `../shared/data`, few cells of each."""
    if quick or not SHARED.is_dir():
        return {}
    donors = anndata.read_h5ad(SHARED / "kang_ctrl_8donors.h5ad")
    donor = donors.obs["donor"].astype(str)
    stimulated = anndata.read_h5ad(SHARED / "kang_ctrl_stim_2donors.h5ad")
    human = anndata.read_h5ad(SHARED / "baron_human1.h5ad")
    few = human[_some(human.obs["cell_type"], MOST_OF_A_CLASS)].copy()
    return {
        "kang-donors": _joint(
            _drawn(donors[donor.isin(["1015", "1256", "1488"]).to_numpy()], 1200),
            _drawn(donors[donor.isin(["1244", "1016"]).to_numpy()], 800),
        ),
        "kang-stim": _joint(
            stimulated[(stimulated.obs["batch"] == "ctrl").to_numpy()],
            stimulated[(stimulated.obs["batch"] == "stim").to_numpy()],
        ),
        "baron-human": _joint(few, anndata.read_h5ad(SHARED / "baron_human2to4.h5ad")),
        "baron-mouse": _joint(few, anndata.read_h5ad(SHARED / "baron_mouse.h5ad")),
    }


def _drawn(cells: anndata.AnnData, n: int) -> anndata.AnnData:
    return cells[np.sort(np.random.default_rng(0).permutation(cells.n_obs)[:n])].copy()


def _some(labels: pd.Series[str], most: int) -> np.ndarray:
    """Rows of at most so many cells of each label."""
    order = np.random.default_rng(0).permutation(len(labels))
    codes = labels.astype(str).to_numpy()
    return np.sort(np.concatenate([order[codes[order] == name][:most] for name in np.unique(codes)]))


def _joint(reference: anndata.AnnData, query: anndata.AnnData) -> anndata.AnnData:
    """Both as one file, over the genes that both have."""
    genes = reference.var_names.intersection(query.var_names)
    joined = anndata.concat([part[:, genes] for part in (reference, query)], index_unique="-")
    obs = pd.DataFrame(
        {
            "part": np.repeat(["reference", "query"], [reference.n_obs, query.n_obs]),
            "label": joined.obs["cell_type"].astype(str).to_numpy(),
            "batch": joined.obs["batch"].astype(str).to_numpy(),
        },
        index=joined.obs_names,
    )
    return anndata.AnnData(joined.X, obs=obs, var=pd.DataFrame(index=genes))
