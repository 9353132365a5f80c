"""The audit before launch: what is confounded or missing is told in sentences."""

from dataclasses import replace

import numpy as np
import pytest

from study.cells.sources import query_names
from study.plan.tree import plan_study
from tests.made import pbmc, planned, study_of


@pytest.mark.parametrize(
    ("factors", "overrides", "words"),
    [
        ("{query: {levels: [asis, none]}, scvi.n_latent: {levels: [4, 5]}}", [], "in the query (asis: 431, none: 0"),
        ("{query_cells: {levels: [30, all]}, scvi.n_latent: {levels: [4, 5]}}", [], "An epoch has 2 to 5 optimiser"),
        ("{query_cells: {levels: [30, all]}, scvi.n_latent: {levels: [4, 5]}}", ["budget=steps"], "between conditions"),
        ("{scanvi.max_epochs: {levels: [10, 400]}}", [], "it ends at 0.03 to 1.00"),
        ("{scvi.n_latent: {levels: [4, 5]}}", [], "Few held-out cells per replicate (CD14+ Monocyte: 15,"),
    ],
)
def test_the_audit_warns_before_launch(factors: str, overrides: list[str], words: str) -> None:
    notes = planned(factors, *overrides).notes
    assert any(words in note for note in notes), notes
    for note in notes:
        assert "`" not in note and note.endswith(".") and note[0].isupper()


def test_the_audit_compares_classes() -> None:
    cells = pbmc()
    asis = cells["asis"]
    truth = np.where(asis.truth == 0, len(asis.classes), asis.truth).astype(np.int32)
    changed = replace(asis, truth=truth, truth_classes=(*asis.classes, "novel"))
    config = study_of("{scvi.n_latent: {levels: [4, 5]}}")
    notes = plan_study(config, {**cells, "asis": changed}, query_names(config.data)).notes
    assert any("lacks 1 of 10 classes ('CD14+ Monocyte')" in note for note in notes)
    assert any("'novel'): they can only be called wrong" in note for note in notes)
