"""The confusion matrices of one trial as a small page, which MLflow shows beside its metrics.

A study has thousands of trials, so a page must cost next to nothing: drawing a picture of each took longer than all
else that MLflow is told. Class names are other people's words; the template escapes them.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import numpy as np
from jinja2 import Environment, StrictUndefined, Template

from study.trials import HELD_OUT, QUERY, TRAIN, Result

PARTS = {HELD_OUT: "Held-out cells", TRAIN: "Training cells", QUERY: "Query cells (true labels)"}


def matrices_page(result: Result) -> str:
    """Return the page: per part of the cells a matrix of recall in percent, rows = true, each adding up to 100."""
    matrices = []
    for part, title in PARTS.items():
        if part in result.confusion:
            counts = np.asarray(result.confusion[part])
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            names = result.truth_classes if part == QUERY else result.classes
            rows = [
                (name, int(row.sum()), list(zip(row.tolist(), share.tolist(), strict=True)))
                for name, row, share in zip(names, counts, shares, strict=True)
            ]
            matrices.append((title, rows))
    return _template().render(matrices=matrices, classes=result.classes)


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(
        resources.files("study.tracking").joinpath("matrices.html.j2").read_text(encoding="utf-8")
    )
