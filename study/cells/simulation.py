"""Counts with planted effects of known size: what a study should find is known beforehand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from study.config import SimulateConfig, SimulatedQuery
from study.errors import InputError
from study.seeds import generator

REFERENCE = "reference"
NOVEL = "novel"  # label of cells in a state that the reference lacks
EXPRESSION_SD = 1.5  # of log expression between genes
BATCH_SD = 0.1  # of log-fold changes between reference batches
LIBRARY_SD = 0.3  # of log depth between cells
DISPERSION = 2.0  # inverse dispersion of the negative binomial
CHUNK = 10_000  # cells made at once, so that dense counts stay small


def simulate(config: SimulateConfig, seed: int) -> AnnData:
    """Draw negative binomial counts of a reference and its queries, with the effects planted that are asked for.

    A class is a profile of genes that lies `separation` away from a common one (standard deviation of log-fold
    changes). A query changes what it states: `cells`, `depth` (times that of the reference), `composition` (shares of
    the classes, met exactly), `novel` (share of cells in a state of their own), `shift` (log-fold change of all its
    cells). The reference and each query have random numbers of their own: changing one leaves the others as they are.

    Parameters
    ----------
    config
        Size, difficulty and effects.
    seed
        Of everything random.

    Returns
    -------
    Counts in X (CSR, int32), shape (n_cells, config.genes), reference first; columns `dataset`, `cell_type` and
    `batch` in obs.

    Raises
    ------
    InputError
        If a composition has no share above 0, or a query is called as the reference is.
    """
    width = len(str(config.classes))
    labels = [f"type {i + 1:0{width}d}" for i in range(config.classes)] + [NOVEL]
    random = generator(seed, "profiles")
    base = random.normal(0, EXPRESSION_SD, config.genes)
    spread = np.broadcast_to(config.separation, config.classes)
    spread = np.append(spread, spread.mean())  # the novel state is as far away as classes are
    profiles = base + spread[:, None] * random.normal(size=(len(spread), config.genes))
    parts, tables = [], []
    if REFERENCE in config.queries:
        raise InputError(
            f"data.simulate.queries: {REFERENCE!r} is the name of the reference; name the query otherwise."
        )
    plain = SimulatedQuery.model_validate({"cells": config.reference_cells})
    for name, wanted in {REFERENCE: plain, **config.queries}.items():
        random = generator(seed, f"cells of {name}")
        state = random.permutation(_states(name, wanted, config.classes))
        is_reference = name == REFERENCE
        batch = random.integers(config.batches if is_reference else 1, size=wanted.cells)
        sd = (BATCH_SD if config.batches > 1 else 0.0) if is_reference else wanted.shift
        shift = sd * random.normal(size=(batch.max() + 1, config.genes))
        depth = config.depth * wanted.depth * np.exp(random.normal(-(LIBRARY_SD**2) / 2, LIBRARY_SD, wanted.cells))
        parts.append(_draw(profiles, state, shift, batch, depth, random))
        batches = [f"{name} {i + 1}" for i in batch] if is_reference and config.batches > 1 else name
        table = pd.DataFrame({"dataset": name, "cell_type": [labels[i] for i in state], "batch": batches})
        tables.append(table.set_axis([f"{name}-{i}" for i in range(wanted.cells)]))
    genes = pd.DataFrame(index=[f"gene {i + 1}" for i in range(config.genes)])
    return AnnData(sp.vstack(parts, format="csr"), obs=pd.concat(tables), var=genes)


def _states(name: str, wanted: SimulatedQuery, classes: int) -> np.ndarray:
    """The state of each cell, sorted: shares are met as exactly as whole cells allow."""
    shares = np.ones(classes) if wanted.composition is None else np.array(wanted.composition, dtype=float)
    if shares.sum() <= 0:
        raise InputError(
            f"data.simulate.queries.{name}.composition: found {list(shares)}, expected at least one of them above 0."
        )
    novel = round(wanted.novel * wanted.cells)
    ends = np.rint(np.cumsum(shares) / shares.sum() * (wanted.cells - novel)).astype(int)
    return np.repeat(np.arange(classes + 1), [*np.diff(ends, prepend=0), novel])


def _draw(
    profiles: np.ndarray,
    state: np.ndarray,
    shift: np.ndarray,
    batch: np.ndarray,
    depth: np.ndarray,
    random: np.random.Generator,
) -> sp.csr_matrix:
    """Negative binomial counts of cells with some states, batches and depths."""
    parts = []
    for start in range(0, len(state), CHUNK):
        rows = slice(start, start + CHUNK)
        rate = np.exp(profiles[state[rows]] + shift[batch[rows]])
        rate *= (depth[rows] / rate.sum(axis=1))[:, None]
        rate *= random.gamma(DISPERSION, 1 / DISPERSION, size=rate.shape)
        parts.append(sp.csr_matrix(random.poisson(rate).astype(np.int32)))
    counts: sp.csr_matrix = sp.vstack(parts, format="csr")
    return counts
