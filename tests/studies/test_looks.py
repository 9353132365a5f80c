"""The record of looks: what it counts, and how a study that goes on until nothing is open follows it."""

from dataclasses import replace
from pathlib import Path

import pytest

from study.attribution.looks import Look
from study.errors import InputError
from study.plan.factors import Factor
from study.studies.looks import NAME, at_look, keep_look, taken_looks
from tests.scenes import scene

FACTORS = (Factor("query", ("first", "second"), "data"),)


def test_a_record_replaces_a_look_and_keeps_other_designs(tmp_path: Path) -> None:
    other = (replace(FACTORS[0], levels=("first", "third")),)
    keep_look(tmp_path, FACTORS, Look(3, 0.04))
    keep_look(tmp_path, other, Look(5, 0.04))
    keep_look(tmp_path, FACTORS, Look(3, 0.04, open=("something",)))
    assert taken_looks(tmp_path, FACTORS) == (Look(3, 0.04, open=("something",)),)
    assert taken_looks(tmp_path, other) == (Look(5, 0.04),), "no look at the first design"


@pytest.mark.parametrize("text", ["{", "[]", '{"a": [{"replicates": 3}]}', '{"a": 5}', "null"])
def test_a_record_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(InputError, match=r"looks\.json does not record looks"):
        taken_looks(tmp_path, FACTORS)


def test_a_study_goes_from_look_to_look_until_nothing_is_open(tmp_path: Path) -> None:
    made = scene(replicates="auto", looks=[3, 4, 6])
    config = made.config.model_copy(update={"root": tmp_path})
    assert made.plan.replicates == 6, "all that there may be"

    def now() -> int:
        found = at_look(config, ["first", "second"]).space.replicates
        assert isinstance(found, int)
        return found

    assert now() == 3
    keep_look(config.directory, made.plan.factors, Look(3, 0.02))  # a report alone does not say whether it goes on
    assert now() == 3
    keep_look(config.directory, made.plan.factors, Look(3, 0.02, open=("what runs differ by",)))
    assert now() == 4
    keep_look(config.directory, made.plan.factors, Look(4, 0.01, open=()))
    assert now() == 4, "it ended there"
