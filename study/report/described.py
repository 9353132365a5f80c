"""What the data are like, for a page: depth, make-up and genes, and reference and queries as points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from study.cells import DataReport
from study.report.charts import Json, number


def data_chart(checks: DataReport) -> Json:
    """Return depth of reference and queries, make-up of what is labelled in percent (a row per class), and genes.

    Genes are, for each file where there are several, and for the reference and each query: those that are in the
    reference too, those that are here alone, those that no cell here has counts of.
    """
    if checks.cells.empty:
        return {"parts": [], "depth": {}, "labelled": [], "classes": [], "shares": [], "genes": []}
    parts = checks.cells["name"].tolist()
    depth = {
        what: [
            [number(value, 1) for value in row]
            for row in checks.cells[[f"{what} {share}%" for share in (25, 50, 75)]].to_numpy(dtype=float)
        ]
        for what in ("counts", "genes")
    }
    shares = 100 * checks.makeup[[f"{name} share" for name in checks.labelled]].to_numpy(dtype=float)
    return {
        "parts": parts,
        "depth": depth,
        "labelled": checks.labelled,
        "classes": checks.makeup["class"].tolist(),
        "shares": [[number(value, 1) for value in row] for row in shares],
        "genes": _genes(checks),
    }


def shift_chart(checks: DataReport) -> list[Json]:
    """Return of each query the points of it and of the reference, as whole numbers, before anything is trained."""
    if "reference" not in checks.points:
        return []
    classes = sorted(set(np.concatenate(list(checks.labels.values()))) - {""})
    code = {label: number for number, label in enumerate(classes)}

    def of(name: str) -> Json:
        both = [checks.points[part] for part in ("reference", name)]
        labels = [code.get(label, -1) for part in ("reference", name) for label in checks.labels[part]]
        return {
            "query": name,
            "classes": classes,
            "shown": sum(len(one.rows) for one in both),
            "of": sum(one.of for one in both),
            "at": np.rint(100 * np.concatenate([one.at for one in both]).T).astype(int).tolist(),
            "label": labels,
            "reference": len(both[0].rows),
            "counts": np.rint(np.concatenate([one.totals for one in both])).astype(int).tolist(),
        }

    return [of(name) for name in checks.points if name != "reference"]


def _genes(checks: DataReport) -> list[list[Any]]:
    rows = [
        [f"file {Path(str(source)).name}", shared, genes - shared, 0]
        for source, genes, shared in checks.files.iloc[:, :3].itertuples(index=False)
        if len(checks.files) > 1
    ]
    columns = ["name", "genes", "genes without counts", "genes shared"]
    for name, genes, silent, shared in checks.cells[columns].itertuples(index=False):
        rows.append([name, shared, genes - silent - shared, silent])
    return rows
