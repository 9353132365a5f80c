"""Reference and query as points, for the page: where the cells are whose labels cannot be trusted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from study.cells import Cells, components
from study.report.charts import Json
from study.trust import TRUST, Labels

MOST_POINTS = 20_000  # on a page, so that it stays one that a browser opens


def embedding_chart(cells: Mapping[str, Cells], trust: Mapping[str, Labels]) -> list[Json]:
    """Return of each query with labels the points of it and of the reference, as whole numbers.

    Parameters
    ----------
    cells
        Prepared cells by query.
    trust
        Labels by query.
    """
    return [_points(name, cells[name], labels, MOST_POINTS // len(trust)) for name, labels in trust.items()]


def _points(name: str, cells: Cells, labels: Labels, most: int) -> Json:
    rows, at = components(cells, most)
    asked = rows[rows >= cells.n_reference] - cells.n_reference
    known = rows[rows < cells.n_reference]
    mine = labels.cells.iloc[asked]
    code = {label: number for number, label in enumerate(cells.classes)}
    return {
        "query": name,
        "classes": list(cells.classes),
        "shown": len(rows),
        "of": cells.n_reference + cells.n_query,
        "at": np.rint(100 * at.T).astype(int).tolist(),
        # Reference cells first; -1 is a reference cell without a label.
        "label": [*cells.labels[known].tolist(), *mine["label"].map(code).tolist()],
        "reference": len(known),
        "agreement": np.rint(100 * mine["agreement"]).astype(int).tolist(),
        "novelty": np.rint(100 * mine["novelty"]).astype(int).tolist(),
        "trust": mine["trust"].map(TRUST.index).tolist(),
    }
