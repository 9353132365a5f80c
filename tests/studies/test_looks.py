"""The record of looks: what it counts, and how a study that goes on until nothing is open follows it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from study.attribution.looks import Look
from study.errors import InputError
from study.studies.looks import NAME, at_look, keep_look, taken_looks
from tests.scenes import scene


def test_a_record_replaces_a_look_and_keeps_other_designs(tmp_path: Path) -> None:
    made = scene()
    config, factors = made.config.model_copy(update={"root": tmp_path}), made.plan.factors
    other = (replace(factors[0], levels=("first", "third")), *factors[1:])
    keep_look(config, factors, Look(3, 0.04, 0.04))
    keep_look(config, other, Look(5, 0.04, 0.04))
    keep_look(config, factors, Look(3, 0.04, 0.04, open=("something",)))
    assert taken_looks(config, factors) == (Look(3, 0.04, 0.04, open=("something",)),)
    assert taken_looks(config, other) == (Look(5, 0.04, 0.04),), "no look at the first design"
    wider = config.model_copy(update={"scvi": config.scvi.model_copy(update={"n_latent": 5})})
    assert taken_looks(wider, factors) == (), "other settings are another study"


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "null", '{"a": 5}', "[" * 100_000, '{"a": [{"replicates": 3}]}'),
        *(
            '{"a": [{"replicates": "3", "level": 0.04, "open": null}]}',
            '{"a": [{"replicates": 3, "level": NaN, "open": []}]}',
        ),
        *(
            '{"a": [{"replicates": 3, "level": 2.0, "open": []}]}',
            '{"a": [{"replicates": 3, "level": 0.04, "open": "x"}]}',
        ),
        '{"a": [{"replicates": 3, "level": 0.01, "open": []}, {"replicates": 3, "level": 0.01, "open": []}]}',
        '{"a": [{"replicates": 3, "level": 0.01, "spent": 0.02, "open": []}]}',
        '{"a": [{"replicates": 3, "level": 0.03, "open": []}, {"replicates": 5, "level": 0.03, "open": []}]}',
    ],
)
def test_a_record_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    made = scene()
    config = made.config.model_copy(update={"root": tmp_path})
    config.directory.mkdir(parents=True)
    (config.directory / NAME).write_text(text)
    with pytest.raises(InputError, match=r"looks\.json does not record looks"):
        taken_looks(config, made.plan.factors)


def test_a_record_that_cannot_be_read_is_told_as_that(tmp_path: Path) -> None:
    made = scene()
    config = made.config.model_copy(update={"root": tmp_path})
    (config.directory / NAME).mkdir(parents=True)
    with pytest.raises(InputError, match=r"looks\.json cannot be read: Is a directory"):
        taken_looks(config, made.plan.factors)


def test_looks_that_were_recorded_by_their_levels_alone_are_added_up(tmp_path: Path) -> None:
    made = scene()
    config, factors = made.config.model_copy(update={"root": tmp_path}), made.plan.factors
    keep_look(config, factors, Look(3, 0.02, 0.02))
    record = config.directory / NAME
    old = {
        design: [{k: one[k] for k in ("replicates", "level", "open")} for one in looks]
        for design, looks in json.loads(record.read_text()).items()
    }
    record.write_text(json.dumps(old))
    assert taken_looks(config, factors) == (Look(3, 0.02, 0.02),)


@pytest.mark.parametrize("change", [{"settle": ["A"]}, {"looks": [3, 4, 6, 9]}])
def test_what_was_open_of_another_question_is_not_known(change: dict[str, object], tmp_path: Path) -> None:
    made = scene(replicates="auto", looks=[3, 4, 6])
    config = made.config.model_copy(update={"root": tmp_path})
    other = scene(**{"replicates": "auto", "looks": [3, 4, 6]} | change).config.model_copy(update={"root": tmp_path})
    for left in ((), ("something",)):
        keep_look(config, made.plan.factors, Look(3, 0.02, 0.02, open=left))
        assert taken_looks(config, made.plan.factors)[0].open == left
        assert taken_looks(other, made.plan.factors) == (Look(3, 0.02, 0.02),), "what it spent is spent"


def test_a_study_goes_from_look_to_look_until_nothing_is_open(tmp_path: Path) -> None:
    made = scene(replicates="auto", looks=[3, 4, 6])
    config = made.config.model_copy(update={"root": tmp_path})
    assert made.plan.replicates == 6, "all that there may be"

    def now() -> int:
        found = at_look(config, ["first", "second"]).space.replicates
        assert isinstance(found, int)
        return found

    assert now() == 3
    keep_look(config, made.plan.factors, Look(3, 0.02, 0.02))  # a report alone does not say whether it goes on
    assert now() == 3
    keep_look(config, made.plan.factors, Look(3, 0.02, 0.02, open=("what runs differ by",)))
    assert now() == 4
    keep_look(config, made.plan.factors, Look(4, 0.01, 0.01, open=()))
    assert now() == 4, "it ended there"
