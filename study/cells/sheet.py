"""One source as it was read, before reference and queries are told apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from study.errors import InputError, few, nearest


@dataclass(frozen=True)
class Sheet:
    """One source as it was read: annotation of cells, names of genes, a matrix to slice by rows, names of layers.

    `var` is the annotation of genes, where there is any; its index has their names as they are in the file.
    """

    where: str
    obs: pd.DataFrame
    genes: pd.Index
    matrix: Any
    layers: tuple[str, ...] = ()
    var: pd.DataFrame = field(default_factory=pd.DataFrame)

    def column(self, key: str, option: str) -> pd.Series:
        """Return a column of obs; raise `InputError` naming its nearest neighbour if there is none."""
        if key not in self.obs.columns:
            names = [str(name) for name in self.obs.columns]
            raise InputError(
                f"{self.where}: obs has no column {key!r} (data.{option}).{nearest(key, names)} "
                f"It has: {few(names)}. Choose one with data.{option}=..."
            )
        return self.obs[key]


def named(layer: str | None) -> str:
    """Name a layer, or X, in a message."""
    return "X" if layer is None else f"layer {layer!r}"
