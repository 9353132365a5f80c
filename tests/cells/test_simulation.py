"""Simulated counts: what is planted is there, and nothing else changes."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from pydantic import ValidationError

from study.cells.simulation import NOVEL, simulate
from study.cells.twins import prepare
from study.config.composition import compose
from study.config.data import SimulateConfig
from study.errors import InputError


def config(**changes: Any) -> SimulateConfig:
    plain = {"genes": 100, "reference_cells": 600, "classes": 3, "separation": 0.5, "depth": 1000.0, "batches": 1}
    return SimulateConfig.model_validate({**plain, "queries": {"q": {"cells": 600}}, **changes})


def query(changes: dict[str, Any], seed: int = 0, **more: Any) -> AnnData:
    cells = simulate(config(queries={"q": {"cells": 600, **changes}}, **more), seed)
    return cells[cells.obs["dataset"] == "q"]


def profile(cells: AnnData) -> np.ndarray:
    counts = np.asarray(cells.X.sum(axis=0)).ravel() + 0.5
    return np.log(counts / counts.sum())


def test_shape_and_columns():
    cells = simulate(config(), 0)
    assert cells.shape == (1200, 100)
    assert isinstance(cells.X, sp.csr_matrix)
    assert cells.X.dtype == np.int32
    assert cells.X.data.min() > 0
    assert cells.obs["dataset"].tolist() == ["reference"] * 600 + ["q"] * 600
    assert cells.obs_names.is_unique
    assert sorted(set(cells.obs["cell_type"])) == ["type 1", "type 2", "type 3"]
    assert pd.crosstab(cells.obs["dataset"], cells.obs["cell_type"]).to_numpy().tolist() == [[200] * 3] * 2


def test_same_seed_same_cells_other_seed_others():
    first, again, other = simulate(config(), 0), simulate(config(), 0), simulate(config(), 1)
    assert (first.X != again.X).nnz == 0
    assert first.obs.equals(again.obs)
    assert (first.X != other.X).nnz > 0


def test_one_query_leaves_reference_and_other_queries_as_they_are():
    one = simulate(config(), 0)
    two = simulate(config(queries={"new": {"cells": 50, "depth": 0.1}, "q": {"cells": 600}}), 0)
    assert (one.X != two[one.obs_names].X).nnz == 0


def test_depth_is_planted_and_counts_are_overdispersed():
    reference = simulate(config(), 0)[:600]
    totals = np.asarray(reference.X.sum(axis=1)).ravel()
    assert totals.mean() == pytest.approx(1000, rel=0.06)
    shallow = np.asarray(query({"depth": 0.2}).X.sum(axis=1)).ravel()
    assert shallow.mean() == pytest.approx(200, rel=0.06)
    one = reference[reference.obs["cell_type"] == "type 1"].X.toarray()
    gene = one.mean(axis=0).argmax()
    assert one[:, gene].var() > 3 * one[:, gene].mean(), "more than Poisson"


def test_composition_is_met_exactly():
    found = query({"composition": [1, 2, 0]}).obs["cell_type"].value_counts()
    assert found.to_dict() == {"type 1": 200, "type 2": 400}


def test_novel_cells_have_a_label_and_a_profile_of_their_own():
    cells = query({"novel": 0.25}, separation=1.0)
    assert (cells.obs["cell_type"] == NOVEL).sum() == 150
    reference = simulate(config(separation=1.0), 0)[:600]
    assert NOVEL not in set(reference.obs["cell_type"])
    novel = profile(cells[cells.obs["cell_type"] == NOVEL])
    for label in ("type 1", "type 2", "type 3"):
        known = profile(reference[reference.obs["cell_type"] == label])
        assert np.std(novel - known) > 0.8
        assert np.std(profile(cells[cells.obs["cell_type"] == label]) - known) < 0.4


def test_shift_moves_all_cells_of_a_query():
    reference = simulate(config(), 0)[:600]
    assert np.std(profile(query({"shift": 0.7})) - profile(reference)) == pytest.approx(0.7, abs=0.2)
    assert np.std(profile(query({})) - profile(reference)) < 0.2


def test_separation_sets_how_far_classes_are_apart():
    distances = []
    for separation in (0.1, 1.0):
        cells = simulate(config(separation=separation, depth=20_000.0), 0)[:600]
        first, second = (profile(cells[cells.obs["cell_type"] == label]) for label in ("type 1", "type 2"))
        distances.append(np.std(first - second))
    assert distances[0] == pytest.approx(0.1 * np.sqrt(2), abs=0.08)
    assert distances[1] == pytest.approx(1.0 * np.sqrt(2), abs=0.35)


def test_batches_of_the_reference():
    cells = simulate(config(batches=3), 0)
    assert set(cells.obs["batch"][:600]) == {"reference 1", "reference 2", "reference 3"}
    assert set(cells.obs["batch"][600:]) == {"q"}


@pytest.mark.parametrize("composition", [[1, 1], [1, 1, 1, 1]])
def test_a_composition_that_does_not_fit_the_classes(composition):
    with pytest.raises(ValidationError, match=r"queries.q.composition has . values, one for each of 3 classes"):
        query({"composition": composition})


def test_a_composition_of_nothing():
    with pytest.raises(InputError, match=r"queries.q.composition: found .* at least one of them above 0"):
        query({"composition": [0, 0, 0]})


def test_a_query_called_reference_is_refused():
    with pytest.raises(InputError, match="name of the reference"):
        simulate(config(queries={"reference": {"cells": 10}}), 0)


def test_the_configuration_that_comes_along_can_be_prepared(tmp_path):
    data = compose(["data=simulated"]).data
    cells = prepare(data, ["same", "shallow", "large", "self"], tmp_path)
    assert {name: found.n_query for name, found in cells.items()} == {
        "same": 300,
        "shallow": 300,
        "large": 900,
        "self": 900,
    }
    assert all(found.classes == ("type 1", "type 2", "type 3") for found in cells.values())
    assert (cells["large"].truth >= 0).all()
