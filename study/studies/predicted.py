"""What models say of cells, as files: a table that joins to one's own object, and the cells with all of their genes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import anndata
import numpy as np
import numpy.typing as npt
import pandas as pd

from study import files
from study.cells import UNLABELLED, Cells, Places, Sheet, cells_at

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Predicted:
    """Cells, and what the models say of them.

    Attributes
    ----------
    places
        Where they are in their files.
    told
        What the model was told of them: `scanvi_batch` and `scanvi_label`, shape (n_cells, 2).
    classes
        Names of the classes.
    probabilities
        Of each class, shape (n_cells, n_classes).
    embeddings
        Latent spaces by name, each of shape (n_cells, n_latent).
    agreed
        What all trainings of the study say of them together, shape (n_cells, n_columns); no columns where there is no
        study, and for the reference.
    """

    places: Places
    told: pd.DataFrame
    classes: tuple[str, ...]
    probabilities: Array
    embeddings: Mapping[str, Array]
    agreed: pd.DataFrame

    def take(self, cells: npt.NDArray[np.int64]) -> Predicted:
        """Return what is said of some cells."""
        embeddings = {name: values[cells] for name, values in self.embeddings.items()}
        return Predicted(
            self.places.take(cells),
            self.told.iloc[cells],
            self.classes,
            self.probabilities[cells],
            embeddings,
            self.agreed.iloc[cells],
        )

    @property
    def columns(self) -> pd.DataFrame:
        """What `obs` gets: the most probable class, its probability, and what all trainings say together."""
        called = np.asarray(self.classes, dtype=object)[self.probabilities.argmax(axis=1)]
        own = pd.DataFrame({"scanvi_predicted": called, "scanvi_confidence": self.probabilities.max(axis=1)})
        return pd.concat([own, in_obs(self.agreed)], axis=1)

    @property
    def table(self) -> pd.DataFrame:
        """One row per cell: its place, each class's probability, the largest, whose it is, and what is agreed on."""
        soft = pd.DataFrame(self.probabilities, columns=list(self.classes))
        best = self.columns.rename(columns={"scanvi_confidence": "max_value", "scanvi_predicted": "max_column"})
        parts = [self.places.table, soft, best[["max_value", "max_column"]], in_obs(self.agreed)]
        return pd.concat(parts, axis=1)


def in_obs(agreed: pd.DataFrame) -> pd.DataFrame:
    """Return what all trainings say together, by the names that it has in `obs`."""
    return agreed.reset_index(drop=True).add_prefix("consensus_")


def predicted_of(
    cells: Cells, places: Places, probabilities: Array, embeddings: Mapping[str, Array], agreed: pd.DataFrame | None
) -> tuple[Predicted, Predicted]:
    """Return what is said of the reference and of the query, each in the order of its files."""
    batch = np.asarray(cells.batches, dtype=object)[cells.batch]
    known = np.asarray([*cells.classes, UNLABELLED], dtype=object)[cells.labels]
    label = np.concatenate([known, np.repeat(UNLABELLED, cells.n_query)])
    told = pd.DataFrame({"scanvi_batch": batch, "scanvi_label": label})
    every = Predicted(places, told, cells.classes, probabilities, embeddings, pd.DataFrame(index=told.index))
    parts = np.split(np.arange(len(label)), [cells.n_reference])
    reference, query = (rows[places.take(rows).order] for rows in parts)
    found = every.take(query)
    if agreed is not None:
        found = replace(found, agreed=agreed.iloc[query - cells.n_reference])
    return every.take(reference), found


def write_predicted(
    table: Path, cells: Path, sheets: Sequence[Sheet], predicted: Predicted, say: Callable[[str], None]
) -> None:
    """Write the table as CSV, and the cells as h5ad.

    Parameters
    ----------
    table, cells
        Where to write.
    sheets
        The sources of the cells.
    predicted
        The cells, in the order of their files.
    say
        Called with a sentence where the h5ad cannot have all that its reader would expect.
    """
    files.write(table, predicted.table.to_csv(index=False).encode())
    adata = cells_at(sheets, predicted.places)
    used = [sheets[number] for number in np.unique(predicted.places.sheet)]
    if (most := max(len(sheet.genes) for sheet in used)) > adata.n_vars:
        say(f"{cells.name} has the {adata.n_vars:,} genes that its {len(used)} files share, of {most:,} at most")
    added = pd.concat([predicted.told.reset_index(drop=True), predicted.columns], axis=1)
    names = free_names(added.columns, adata.obs.columns)
    say_renamed(names, "obs", cells.name, say)
    for name, column in added.items():
        adata.obs[names[str(name)]] = column.set_axis(adata.obs_names)
    adata.obsm.update(predicted.embeddings)
    # Text with gaps is written as such where a file has it; else anndata refuses, for the sake of older versions.
    with files.writing(cells) as aside, anndata.settings.override(allow_write_nullable_strings=True):
        adata.write_h5ad(aside, compression="gzip")


def free_names(wanted: Collection[str], taken: Collection[str]) -> dict[str, str]:
    """Return what new columns are called beside others: as they would be, or with a number where that is taken."""
    found: dict[str, str] = {}
    for name in wanted:
        numbered = (f"{name}_{number}" for number in count(2))
        found[name] = next(one for one in chain([name], numbered) if one not in {*taken, *found.values()})
    return found


def say_renamed(names: Mapping[str, str], where: str, file: str, say: Callable[[str], None]) -> None:
    """Say which columns are called otherwise, because a file has some of these names."""
    for name, new in names.items():
        if new != name:
            say(f"{file}: {where}[{name!r}] is there already and stays; the new one is {where}[{new!r}]")
