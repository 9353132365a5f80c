"""A saved scANVI, loaded with its cells and asked what it calls them."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import pandas as pd
from anndata import AnnData

from study.cells import CountMatrix, open_h5ad
from study.diagnosis.beside import RunCells
from study.diagnosis.saved import SavedModel
from study.errors import InputError


def ask(model: SavedModel, cells: RunCells) -> pd.DataFrame:
    """Return the probability of each class for each cell, shape (n_cells, n_classes).

    The model's file was read before, so that it holds nothing that loading would run, or is trusted.

    Raises
    ------
    InputError
        If it is no scANVI, or the counts in the file are none: what it says of other values is another answer.
    """
    import scipy.sparse as sp
    from scvi.model import SCANVI

    if model.kind != "SCANVI":
        raise InputError(f"{model.folder}: is an {model.kind}, which calls no cell anything. Name the SCANVI's folder.")
    sheet = open_h5ad(cells.path, model.layer)
    if sheet.matrix is None:
        raise InputError(f"{cells.path}: has no layer {model.layer!r}, which the model took counts from.")
    counts = sp.vstack(list(CountMatrix(sheet.matrix)), format="csr")
    adata = AnnData(counts, obs=sheet.obs.copy(), var=pd.DataFrame(index=sheet.genes.astype(str)))
    adata = adata[:, list(model.genes)].copy()
    if model.layer:
        adata.layers[model.layer] = adata.X
    label_key, batch_key = model.key("labels"), model.key("batch")
    if label_key and label_key not in adata.obs:
        known = set(model.labels)
        adata.obs[label_key] = [name if name in known else model.unlabelled for name in cells.label]
    if batch_key and batch_key not in adata.obs:
        adata.obs[batch_key] = cells.batch
    with redirect_stdout(sys.stderr):  # scvi-tools says there which file it opens, and what it transfers
        loaded = SCANVI.load(str(model.folder), adata, accelerator="cpu")
        found: pd.DataFrame = loaded.predict(soft=True)
    return found
