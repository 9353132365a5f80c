"""The choice of settings: the worst condition counts, and a tie goes to the cheaper."""

import numpy as np
import pandas as pd
import pytest

from study.studies.choice import Choice, _decide, choose
from study.studies.search import METRIC
from study.trials.record import Result
from tests.made import planned, some_result


def decided(values: dict[tuple[str, str], list[float]], steps: dict[str, int]) -> Choice:
    rows = [
        {"candidate": (("setting", s),), "condition": c, "replicate": r, "recall": v, "steps": steps[s]}
        for (s, c), recalls in values.items()
        for r, v in enumerate(recalls)
    ]
    members = {(("setting", s),): planned().trials[0] for s in steps}
    return _decide(pd.DataFrame(rows), members)


def decide(values: dict[tuple[str, str], list[float]], steps: dict[str, int]) -> tuple[str, pd.DataFrame]:
    table = decided(values, steps).table
    return table[table.chosen].setting.item(), table


def test_the_worst_condition_counts() -> None:
    chosen, table = decide(
        {
            ("bold", "a"): [0.99, 0.98, 0.99],
            ("bold", "b"): [0.60, 0.61, 0.60],
            ("steady", "a"): [0.81, 0.80, 0.81],
            ("steady", "b"): [0.80, 0.80, 0.80],
        },
        {"bold": 1, "steady": 9},
    )
    assert chosen == "steady"
    assert table.set_index("setting")["worst condition"].to_dict() == {"bold": "b", "steady": "b"}


def test_within_one_paired_standard_error_the_cheaper_wins() -> None:
    chosen, _ = decide({("dear", "a"): [0.80, 0.70, 0.90], ("cheap", "a"): [0.79, 0.72, 0.88]}, {"dear": 9, "cheap": 1})
    assert chosen == "cheap"


@pytest.mark.parametrize("recalls", [[0.8, 0.7, 0.9], [0.8]], ids=["no error", "one replicate"])
def test_equal_candidates_tie_and_the_sentence_says_so(recalls: list[float]) -> None:
    """The error of their difference is 0, or unknown; a third is behind by as much in every replicate."""
    same = {("dear", "a"): recalls, ("cheap", "a"): recalls, ("poor", "a"): [one - 0.1 for one in recalls]}
    choice = decided(same, {"dear": 9, "cheap": 1, "poor": 1})
    assert choice.levels == (("setting", "cheap"),)
    assert choice.table.set_index("setting")["tie"].to_dict() == {"dear": True, "cheap": True, "poor": False}
    assert "2 of 3 candidates are" in choice.reason
    assert ("standard error" in choice.reason) == (len(recalls) > 1)


def test_a_steady_difference_is_no_tie_however_much_replicates_differ() -> None:
    """Unpaired, a difference of .02 would drown in replicates that differ by .2; paired, it is certain."""
    chosen, table = decide(
        {("dear", "a"): [0.80, 0.60, 0.90], ("cheap", "a"): [0.78, 0.58, 0.88]}, {"dear": 9, "cheap": 1}
    )
    assert chosen == "dear"
    behind = table.set_index("setting").loc["cheap"]
    assert np.isclose(behind["behind best"], 0.02)
    assert behind["standard error"] < 1e-9


def test_candidates_are_the_parameters_of_the_design() -> None:
    made = planned()
    recall = {"asis": 0.9, "shallow": 0.8}
    results: dict[str, Result] = {}
    for trial in made.trials:
        bonus = 0.05 if trial.levels["scanvi.n_samples_per_label"] == "all" else 0
        bonus += 0.001 * trial.replicate.index
        value = recall[str(trial.levels["query"])] + bonus
        results[trial.key] = some_result(key=trial.key, metrics={METRIC: value})
    choice = choose(made, results)
    assert len(choice.table) == 1 + len(choice.others) == 8
    assert dict(choice.levels).items() <= dict(choice.table.iloc[choice.table.chosen.argmax()]).items()
    assert choice.settings.scanvi.n_samples_per_label == "all"
    assert choice.settings.scanvi.max_epochs == 15, "equal results: the shorter one"
