"""How probable each class is by all replicates together: what they agree on is surer than what each of them says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from study.trust.consensus import Floats

# No probability that is learned from some cells is nearer to 0 and 1 than these tell.
NEAREST = 0.0005
Rows = npt.NDArray[np.int64]


def together(said: Sequence[tuple[Rows, Floats]]) -> npt.NDArray[np.float64]:
    """Pool calibrated probabilities of replicates.

    Parameters
    ----------
    said
        Of each replicate the rows of the cells that it was asked about, and the probability of each class, shape
        (n_rows, n_classes).

    Returns
    -------
    Shape (n_cells, n_classes), the cells that any replicate was asked about, by row.

    Notes
    -----
    Replicates scatter about what very many of them would say. What one says, calibrated, is that, shrunk by their
    intraclass correlation r; the mean of k of them is shrunk by ``k r / (1 + (k - 1) r)`` only (Spearman 1910; Brown
    1910), so their mean log-odds are multiplied by ``k / (1 + (k - 1) r)``: 1 where they all say the same, more where
    each saw something of its own. To recalibrate pooled log-odds so is usual (Satopaa et al. 2014, *Combining multiple
    probability predictions using a simple logit model*). r is taken from what they say of these very cells, over all
    classes, so it needs no labels.
    """
    n = 1 + max(int(rows.max()) for rows, _ in said)
    shape = (n, said[0][1].shape[1])
    count, odds, sums, squares = np.zeros(n), np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for rows, probabilities in said:
        kept = np.clip(probabilities.astype(float), NEAREST, 1 - NEAREST)
        kept /= kept.sum(axis=1, keepdims=True)
        logs = np.log(kept)
        centred = logs - logs.mean(axis=1, keepdims=True)
        count[rows] += 1
        odds[rows] += logs - np.log1p(-kept)
        sums[rows] += centred
        squares[rows] += centred**2
    seen = count > 0
    each = count[seen][:, None]
    alike = _correlation(sums[seen], squares[seen], each)
    factor = each / (1 + (each - 1) * alike)
    found = 1 / (1 + np.exp(-factor * odds[seen] / each))
    shares: npt.NDArray[np.float64] = found / found.sum(axis=1, keepdims=True)
    return shares


def _correlation(
    sums: npt.NDArray[np.float64], squares: npt.NDArray[np.float64], each: npt.NDArray[np.float64]
) -> float:
    """Intraclass correlation from sums over replicates of values and of their squares (Donner 1986), from 0 to 1.

    Parameters
    ----------
    sums, squares
        Shape (n_cells, n_classes).
    each
        How many replicates they are of, shape (n_cells, 1).
    """
    groups, total = sums.size, float(each.sum()) * sums.shape[1]
    if total == groups:  # one replicate a cell: how alike two are is not known, and does not matter
        return 1.0
    within = float((squares - sums**2 / each).sum()) / (total - groups)
    between = (float((sums**2 / each).sum()) - float(sums.sum()) ** 2 / total) / (groups - 1)
    size = (total - float((each**2).sum()) * sums.shape[1] / total) / (groups - 1)
    spread = between + (size - 1) * within
    return float(np.clip((between - within) / spread, 0, 1)) if spread > 0 else 1.0
