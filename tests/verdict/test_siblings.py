"""Which labels could be put together."""

from __future__ import annotations

import numpy as np
import pandas as pd

from study.verdict.siblings import common_name, labels_of, siblings


def counts(names: list[str], wrong: dict[tuple[str, str], int], cells: int = 100) -> pd.DataFrame:
    table = pd.DataFrame(np.zeros((len(names), len(names)), dtype=int), names, names)
    for (true, called), number in wrong.items():
        table.loc[true, called] = number
    for name in names:
        table.loc[name, name] = cells - table.loc[name].sum()
    return table


NAMES = ["B", "CD4 T", "CD8 T", "NK", "Monocyte"]


def test_classes_confused_with_each_other_are_put_together_and_others_stay() -> None:
    found = siblings(counts(NAMES, {("CD4 T", "CD8 T"): 20, ("CD8 T", "CD4 T"): 30, ("CD8 T", "NK"): 5}))
    assert found == {"CD4 / CD8 T": ("CD4 T", "CD8 T")}


def test_what_is_put_together_may_be_put_together_again() -> None:
    wrong = {("CD4 T", "CD8 T"): 25, ("CD8 T", "CD4 T"): 25, ("NK", "CD8 T"): 30, ("CD8 T", "NK"): 10}
    assert siblings(counts(NAMES, wrong)) == {"CD4 T / CD8 T / NK": ("CD4 T", "CD8 T", "NK")}


def test_nothing_is_proposed_without_reason() -> None:
    assert siblings(counts(NAMES, {})) == {}
    assert siblings(counts(NAMES, {("B", "NK"): 3})) == {}, "few confusions"
    spread = {("B", name): 10 for name in NAMES[1:]} | {(name, "B"): 5 for name in NAMES[1:]}
    assert siblings(counts(NAMES, spread)) == {}, "confused with all others alike"
    assert siblings(counts(["A", "B"], {("A", "B"): 50})) == {}, "one class would be left"
    empty = counts(NAMES, {("CD4 T", "CD8 T"): 30})
    empty.loc["B"] = 0
    assert siblings(empty) == {"CD4 / CD8 T": ("CD4 T", "CD8 T")}


def test_names_say_once_what_they_share() -> None:
    assert common_name(["T CD4", "T CD8"]) == "T CD4 / CD8"
    assert common_name(["alpha", "beta"]) == "alpha / beta"
    assert common_name(["naive CD4 T cell", "memory CD4 T cell"]) == "naive / memory CD4 T cell"
    assert common_name(["T cell", "T"]) == "T cell"


def test_a_proposal_names_the_labels_of_the_data_and_keeps_what_was_put_together() -> None:
    merged = {"T": ("CD4", "CD8"), "Myeloid": ("Mono", "DC")}
    assert labels_of({"T / NK": ("T", "NK")}, merged) == {"Myeloid": ["Mono", "DC"], "T / NK": ["CD4", "CD8", "NK"]}
