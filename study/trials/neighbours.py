"""The second yardstick: each cell gets the labels of its nearest known cells in the latent space of scVI."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from study.plan import Split
from study.trials.evidence import MOST_KNOWN, Floats, some_of_each

NEIGHBOURS = 15


def neighbour_probabilities(latent: Floats, labels: npt.NDArray[np.int32], classes: int, parts: Split) -> Floats:
    """Return the share of each class among the 15 nearest known cells, shape (n_cells, n_classes).

    Known are labelled training cells, 5,000 at most, of each class as many at most as if all were equally large. One
    of them is a neighbour of itself, so that only held-out cells and the query tell anything.

    Parameters
    ----------
    latent
        Latent means of all cells, shape (n_cells, n_latent).
    labels
        Class codes of the reference, shape (n_reference,).
    classes
        Number of classes.
    parts
        Its training and held-out rows.
    """
    from sklearn.neighbors import KNeighborsClassifier  # slow to import, and only stages need it

    known = some_of_each(labels, parts.labelled, MOST_KNOWN)
    nearest = KNeighborsClassifier(n_neighbors=min(NEIGHBOURS, known.size)).fit(latent[known], labels[known])
    found = np.zeros((len(latent), classes), dtype=np.float32)
    found[:, nearest.classes_] = nearest.predict_proba(latent)
    return found
