"""A study in Python: what is no study, no list and no part that was measured is refused in one message."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import study
from study.commands.notebook import StudyResults
from study.errors import InputError
from study.report.finished import Finished
from tests.scenes import scene


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: study.load(3), "study.load: expected the name of a study and a folder, found 3 and 'studies'"),
        (lambda: study.load("a", 3), "found 'a' and 3"),
        (lambda: study.load(Path("a")), "expected the name of a study"),
        (lambda: study.run(None), "expected a list of texts"),
        (lambda: study.run([1]), "found [1]"),
        (lambda: study.run("name=a"), "as in ['name=a'], found 'name=a'"),
        (lambda: study.compose("name=a"), "as in ['name=a'], found 'name=a'"),
    ],
)
def test_what_is_of_another_kind_is_refused(
    call: Callable[[], Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        call()
    assert words in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_what_only_some_trials_measured_is_summed_over_them_and_not_attributed() -> None:
    """Query cells whose labels are known for one query alone."""
    made = scene(replicates=2)
    first = {trial.key for trial in made.plan.trials if trial.query == "first"}
    found = {
        key: one if key in first else replace(one, confusion={k: m for k, m in one.confusion.items() if k != "query"})
        for key, one in made.results.items()
    }
    results = StudyResults(made.study, Finished(found, {}, {}))
    assert results.confusion("query").to_numpy().sum() == len(first) * 12
    (other, *_) = set(found) - first
    for call, words in (
        (lambda: results.attribute("query/recall"), "outcome 'query/recall': there is none such"),
        (lambda: results.confusion("query", [other]), "trial with query cells"),
        (lambda: results.confusion("query", other), "expected a list of keys"),
    ):
        with pytest.raises(InputError) as refused:
            call()
        assert words in str(refused.value)
    assert results.attribute("heldout/recall").verdict.classes
