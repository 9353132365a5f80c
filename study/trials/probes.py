"""What a trained model shows of its mechanism, without changing it: statistics of BatchNorm, distance of the query.

Called while a stage is being read, so modes and random states are put back by `training.snapshot.undisturbed`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from anndata import AnnData
from scipy.spatial.distance import cdist, pdist
from scvi.model import SCANVI
from sklearn.metrics import confusion_matrix

from study.cells import Cells
from study.plan import Indices, Split
from study.training import portions, predict_probabilities
from study.trials.metrics import HELD_OUT, MACRO_RECALL, RECALL, TRAIN, class_metrics, metric, reestimated

BATCH = 1024
# Enough for a distance between two clouds of cells to within a few percent.
MOST_CELLS = 500


def probe(model: SCANVI, cells: Cells, parts: Split, adata: AnnData | None = None) -> dict[str, Any]:
    """Return the probes of one trial that need its model.

    Parameters
    ----------
    model
        In eval mode; it is left as it was.
    cells
        The condition.
    parts
        Its training and held-out rows.
    adata
        The cells as the model knows them, where they are not the ones it was trained on (surgery).

    Returns
    -------
    `unlabelled_share` (of the cells in the ELBO, reference cells without a label included); `latent_distance` (of the
    query, see `energy_distance`; absent without a query); under BatchNorm `reestimated_heldout_macro_recall` and
    `reestimated_train_macro_recall`, the recall after its statistics are taken again from the training cells of the
    reference alone, and the same per class in
    `reestimated_heldout_recall` and `reestimated_train_recall`.
    """
    query = parts.train[parts.train >= cells.n_reference]
    # Surgery trains on the query alone.
    unlabelled = parts.train.size - parts.labelled.size
    found: dict[str, Any] = {"unlabelled_share": unlabelled / parts.train.size if adata is None else 1.0}
    if query.size > 1:
        latent = {
            name: _latent(model, adata, rows) for name, rows in (("reference", parts.reference), ("query", query))
        }
        found["latent_distance"] = energy_distance(latent["reference"], latent["query"])
    if any(isinstance(part, torch.nn.BatchNorm1d) for part in model.module.modules()):
        with _reestimated(model, adata, parts.reference):
            called = predict_probabilities(model, cells, adata, first=cells.n_reference).argmax(axis=1)
        for part, rows in ((HELD_OUT, parts.held_out), (TRAIN, parts.labelled)):
            matrix = confusion_matrix(cells.labels[rows], called[rows], labels=np.arange(len(cells.classes)))
            metrics = class_metrics(matrix, cells.classes)
            of_class = {name: metrics.get(metric(RECALL, name)) for name in cells.classes}
            found[reestimated(part, MACRO_RECALL)] = metrics[MACRO_RECALL]
            found[reestimated(part, RECALL)] = {name: value for name, value in of_class.items() if value is not None}
    return found


def energy_distance(reference: npt.NDArray[np.float32], query: npt.NDArray[np.float32]) -> float:
    """Return how far two clouds of cells are apart, in units of the spread of the first.

    Parameters
    ----------
    reference, query
        Shapes (n_cells, n_latent) and (m_cells, n_latent), at least 2 cells each.

    Notes
    -----
    ``(2 E|X - Y| - E|X - X'| - E|Y - Y'|) / E|X - X'|`` with X, X' different reference cells and Y, Y' different query
    cells (energy distance, Szekely & Rizzo 2013, over the mean distance of two reference cells). 0 for the same
    distribution (estimated without bias, so it may come out slightly below), about 2 d where the query lies d times
    that distance away. It sees another make-up as well as a shift.
    """
    spread = float(pdist(reference).mean())
    return float((2 * cdist(reference, query).mean() - spread - pdist(query).mean()) / spread)


def latent_of(model: SCANVI, adata: AnnData | None = None) -> npt.NDArray[np.float32]:
    """Return the latent means of all cells of a model, or of `adata`, shape (n_cells, n_latent)."""
    n = (model.adata if adata is None else adata).n_obs
    found = [
        model.get_latent_representation(adata, indices=rows, batch_size=BATCH) for rows in portions(np.arange(n), BATCH)
    ]
    return np.concatenate(found)


def _latent(model: SCANVI, adata: AnnData | None, rows: Indices) -> npt.NDArray[np.float32]:
    """Return the latent means of some of these cells."""
    some = np.random.default_rng(0).choice(rows, min(rows.size, MOST_CELLS), replace=False)
    latent: npt.NDArray[np.float32] = model.get_latent_representation(adata, indices=some, batch_size=BATCH)
    return latent


@contextmanager
def _reestimated(model: SCANVI, adata: AnnData | None, rows: Indices) -> Iterator[None]:
    """Give a model, for a while, a copy of its module whose BatchNorm statistics come from these cells alone."""
    trained = model.module
    model.module = copy.deepcopy(trained)
    try:
        norms = [part for part in model.module.modules() if isinstance(part, torch.nn.BatchNorm1d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over minibatches
            norm.train()
        # In random order, for minibatches that are each like the whole; none of a single cell.
        order = np.random.default_rng(0).permutation(rows)
        size = BATCH - (order.size % BATCH == 1)
        with torch.no_grad():
            for some in portions(order, size):
                model.predict(adata, indices=some, batch_size=size)
        for norm in norms:
            norm.eval()
        yield
    finally:
        model.module = trained
