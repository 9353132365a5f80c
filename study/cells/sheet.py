"""One source as it was read, before reference and queries are told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    """One source as it was read.

    Attributes
    ----------
    obs, genes, matrix
        Annotation of cells, names of genes, and a matrix to slice by rows; None if the file lacks the wanted one.
    others
        The other matrices of the file, by the `data.layer` that names them (X: 'null'), each read when it is asked for.
    var
        Annotation of genes, where there is any; its index has their names as they are in the file.
    unread
        Columns that cannot be read, such as "obs['label']", and why.
    """

    where: str
    obs: pd.DataFrame
    genes: pd.Index
    matrix: Any
    others: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    var: pd.DataFrame = field(default_factory=pd.DataFrame)
    unread: Mapping[str, str] = field(default_factory=dict)
    file: File | None = None

    def column(self, key: str, option: str) -> pd.Series:
        """Return a column of obs; raise `InputError` naming its nearest neighbour if there is none."""
        if (why := self.unread.get(f"obs[{key!r}]")) is not None:
            raise InputError(
                f"{self.where}: obs[{key!r}] (data.{option}) cannot be read: {why} Write it again, or choose another "
                f"column with data.{option}=..."
            )
        if key not in self.obs.columns:
            names = [str(name) for name in self.obs.columns]
            raise InputError(
                f"{self.where}: obs has no column {key!r} (data.{option}).{nearest(key, names)} "
                f"It has: {few(names)}. Choose one with data.{option}=..."
            )
        return self.obs[key]


def named(layer: str | None) -> str:
    """Name a layer, X or raw in a message."""
    return {None: "X", "raw": ".raw"}.get(layer, f"layer {layer!r}")
