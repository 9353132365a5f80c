"""The cells of `trust.py`: small studies of real cells whose queries have known labels."""

from __future__ import annotations

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
SMALL = ("scvi.n_hidden=64", "scvi.max_epochs=30", "scanvi.max_epochs=15", "data.batch_key=batch")
COMBINED = ("data=forum", "data.dataset_key=part", "data.reference_value=reference", "data.labels_key=label",
            "data.truth_key=label", "data.layer=null", "data.genes=600")  # fmt: skip
MOST_OF_A_CLASS = 300


def studies(folder: Path, quick: bool) -> list[StudyConfig]:
    """Write the cells to a folder and return the studies of them; those of absent files are left out."""
    found = [_study("pbmc68k", folder, quick, (), {"query": {"levels": ["asis", "shallow"]}})]
    for name, cells in _real(quick).items():
        path = folder / f"{name}.h5ad"
        cells.write_h5ad(path)
        found.append(_study(name, folder, quick, (*COMBINED, f"data.path={path}")))
    return found


def _study(
    name: str, folder: Path, quick: bool, words: Sequence[str], more: dict[str, Any] | None = None
) -> StudyConfig:
    few = ("scvi.max_epochs=6", "scanvi.max_epochs=4") if quick else ()
    small = [word for word in SMALL if words or "batch_key" not in word]
    values = dump(compose([*words, *small, *few, f"name={name}", f"root={folder}"]))
    factors = FACTORS | (more or {})
    values["space"] |= {"design": "factorial", "factors": factors, "replicates": 3, "folds": 3, "controls": ["novel"]}
    return validate(values)


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
