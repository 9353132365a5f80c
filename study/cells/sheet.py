"""One source as it was read, before reference and queries are told apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from study.errors import InputError, few, nearest


@dataclass(frozen=True)
class File:
    """The h5ad file of a sheet, as a user knows it: where it is, and what it says of all its cells and genes."""

    path: Path
    obs: pd.DataFrame
    var: pd.DataFrame


@dataclass(frozen=True)
class Sheet:
    """One source as it was read: annotation of cells, names of genes, a matrix to slice by rows, names of layers.

    What it was read from, if that is a file, stays as it is, whatever is done to the rest.
    """

    where: str
    obs: pd.DataFrame
    genes: pd.Index
    matrix: Any
    layers: tuple[str, ...] = ()
    file: File | None = None

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
