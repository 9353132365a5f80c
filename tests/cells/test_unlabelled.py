"""Reference cells without a label: named by the user, trained on, and of no class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from anndata import AnnData

from study.cells.check import check_data
from study.cells.twins import prepare
from study.config.data import DataConfig
from study.plan.condition import Condition
from study.plan.split import split_cells

Combined = Callable[..., DataConfig]


def test_they_are_of_no_class_and_never_held_out(toy: AnnData, combined: Combined, tmp_path: Path) -> None:
    toy.obs["label"] = toy.obs["label"].astype(str)
    toy.obs.iloc[:4, 1] = "doublet"
    toy.obs.iloc[40:43, 1] = "doublet"
    config = combined(toy, unlabelled=["doublet"])
    report = check_data(config)
    assert not report.problems
    assert not any("no label" in warning for warning in report.warnings)
    cells = prepare(config, ["q1"], tmp_path)["q1"]
    assert cells.classes == ("A", "B", "C")
    assert cells.unlabelled.tolist() == [0, 1, 2, 3]
    assert cells.n_reference == 30
    assert (cells.truth == -1).sum() == 3
    held = [split_cells(cells, fold, 3, 128).held_out for fold in range(3)]
    assert sorted(np.concatenate(held)) == list(range(4, 30))
    for fold in range(3):
        parts = split_cells(cells, fold, 3, 128)
        assert {0, 1, 2, 3} <= set(parts.train)
        assert not {0, 1, 2, 3} & set(parts.labelled)
    shuffled = Condition("q1", 5, shuffled=1).take(cells)
    assert shuffled.unlabelled.tolist() == [0, 1, 2, 3]


def test_gaps_are_unlabelled_where_that_is_said(toy: AnnData, combined: Combined, tmp_path: Path) -> None:
    toy.obs["label"] = toy.obs["label"].astype(str)
    toy.obs.iloc[:2, 1] = ""
    (refused,) = check_data(combined(toy)).problems
    assert "missing or empty for 2 of 30 cells" in refused
    assert "'data.unlabelled=[missing]'" in refused
    cells = prepare(combined(toy, unlabelled=["missing"]), ["q1"], tmp_path)["q1"]
    assert cells.unlabelled.tolist() == [0, 1]


def test_what_is_named_must_be_there_and_leave_two_classes(toy: AnnData, combined: Combined) -> None:
    assert "data.unlabelled: no cell has the label 'D'." in check_data(combined(toy, unlabelled=["D"])).problems[0]
    (few,) = check_data(combined(toy, unlabelled=["A", "B"])).problems
    assert "all cells are 'C'" in few
    toy.obs["label"] = toy.obs["label"].astype(str).replace("A", "Unknown")
    assert "Say 'data.unlabelled=[Unknown]'" in check_data(combined(toy)).problems[0]
    assert not check_data(combined(toy, unlabelled=["Unknown"])).problems
