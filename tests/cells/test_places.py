"""Where prepared cells are in their files, however much of these was read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

from study.cells.counts import CountMatrix
from study.cells.h5ad import open_h5ad
from study.cells.places import cells_at, places_of
from study.cells.sheet import Sheet
from study.config.composition import compose
from study.errors import InputError
from tests.made import cells_of

DATA = compose(["data=forum", "data.path=a.h5ad", "data.dataset_key=ds", "data.layer=null"]).data


@pytest.fixture
def joint(toy: AnnData, tmp_path: Path) -> list[Sheet]:
    """Two files with the same reference and a query each, shuffled; the queries have the same names."""
    sheets = []
    for at, query in enumerate(("q1", "q2")):
        cells = toy[toy.obs["ds"].isin(["ref", query])].copy()
        cells.obs_names = [*cells.obs_names[:30], *(f"AAAC{i}" for i in range(cells.n_obs - 30))]
        cells[np.random.default_rng(at).permutation(cells.n_obs)].copy().write_h5ad(tmp_path / f"{query}.h5ad")
        sheet = open_h5ad(tmp_path / f"{query}.h5ad", None)
        sheets.append(replace(sheet, matrix=CountMatrix(sheet.matrix)))
    return sheets


def without_reference(sheet: Sheet) -> Sheet:
    query = (sheet.obs["ds"] != "ref").to_numpy()
    matrix = next(iter(sheet.matrix))[query]
    return replace(sheet, obs=sheet.obs[query], matrix=[matrix])


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("query", ["q1", "q2"])
def test_the_row_is_that_of_the_file(joint: list[Sheet], toy: AnnData, whole: bool, query: str) -> None:
    files = [sheet.file for sheet in joint]
    sheets = joint if whole else [joint[0], without_reference(joint[1])]
    size = 20 if query == "q1" else 10
    wanted = np.array([*(f"cell{i}" for i in range(30)), *(f"{query}:AAAC{i}" for i in range(size))])
    found = places_of(DATA, sheets, replace(cells_of([0, 1] * 15, size), names=wanted))
    assert list(found.cell) == [name.partition(":")[2] or name for name in wanted]
    assert list(found.dataset) == ["ref"] * 30 + [query] * size
    assert set(found.sheet[:30]) == {0}
    assert set(found.sheet[30:]) == {["q1", "q2"].index(query)}
    for name, sheet, row in zip(found.cell, found.sheet, found.row, strict=True):
        file = files[sheet]
        assert file is not None
        assert file.obs.index[row] == name
    mine = found.take(np.arange(30, 30 + size))
    made = cells_at(sheets, mine.take(mine.order))
    assert list(mine.take(mine.order).row) == sorted(mine.row)
    truth = toy[toy.obs["ds"] == query].X[[int(name[4:]) for name in made.obs_names]]
    assert (truth != made.X).nnz == 0


def test_a_cell_that_is_gone_is_named(joint: list[Sheet]) -> None:
    names = np.array([f"cell{i}" for i in range(30)] + ["AAAC0", "gone"])
    with pytest.raises(InputError, match=r"2 cells \(such as 'AAAC0'\) are no longer"):
        places_of(DATA, joint, replace(cells_of([0, 1] * 15, 2), names=names))
