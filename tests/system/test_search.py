"""A search from its first candidate to its confirmation, on the real Ray, the real Optuna and the real MLflow."""

import json
import os

import pytest

from study.commands.notebook import load_results
from study.config.composition import load
from study.errors import InputError
from study.studies.export import write_choice
from study.studies.study import Study, most_of, open_study
from study.training.hardware import Hardware
from study.trials.perform import perform
from study.trials.store import kept_states, read_all
from study.trials.timing import read_timings
from tests.system.conftest import SMALL, Workplace

SPACE = """
name: tiny
design: search
factors:
  query: {levels: [asis, shallow]}
  scanvi.n_samples_per_label: {levels: [5, 20, all]}
  scanvi.max_epochs: {type: randint, low: 1, high: 4}
candidates: 3
replicates: 1
confirm: 3
folds: 3
"""
OVERRIDES = [*SMALL, "scanvi.max_epochs=1"]
TRIALS = 3 * 2 + 2 * 3 * 2  # candidates x conditions, then winner and default x fresh replicates x conditions


def test_a_search_resumes_shares_and_confirms(workplace: Workplace) -> None:
    (workplace.folder / "search_spaces" / "tiny.yaml").write_text(SPACE)
    facts = json.loads(workplace.call("run", *OVERRIDES, "--json").stdout)
    found = facts["search"]
    lower, upper = found["interval"]
    assert lower <= found["difference"] <= upper
    folder = workplace.folder / "studies" / "pbmc68k-tiny"
    config = load(folder / "config.yaml").model_copy(update={"root": workplace.folder / "studies"})
    study = open_study(config)
    assert study.search is not None
    assert study.search.winner is not None
    assert len(most_of(study).plan.trials) == TRIALS
    assert facts["trained"] == TRIALS
    assert len(workplace.runs()) == facts["trained"]
    assert {status for _, status in workplace.runs()} == {"FINISHED"}
    workers = {one.worker for one in read_timings(folder)}
    assert len(workers) <= (os.cpu_count() or 1), "workers are kept from round to round"
    tables = {path.name: path.read_bytes() for path in (folder / "tables").glob("c*.csv")}
    assert tables.keys() == {"candidates.csv", "confirmation.csv"}
    page = (folder / "report.html").read_text()
    assert "not a designed experiment" in page
    assert "fresh replicates" in page

    _lose_the_last_candidate_and_resume(study)
    again = json.loads(workplace.call("run", *OVERRIDES, "--json").stdout)
    assert (again["already"], again["trained"], again["waiting"]) == (facts["trained"], 0, 0)
    assert again["search"] == found
    assert {name: (folder / "tables" / name).read_bytes() for name in tables} == tables
    assert len(workplace.runs()) == facts["trained"]

    choice, path = write_choice(study, {})
    assert choice.table.chosen.sum() == 1
    read = load_results("pbmc68k-tiny", config.root)
    assert read.best().settings == found["winner"]
    with pytest.raises(InputError, match="not a designed experiment"):
        read.attribute()
    best = load(path)
    assert best.settings({}) == config.settings(dict(study.search.winner.levels))


def _lose_the_last_candidate_and_resume(before: Study) -> None:
    """Train again what is missing, without a cluster: pretrainings are on disk, and the search ends as before."""
    config, folder = before.config, before.config.directory
    assert before.search is not None
    last = dict(before.search.candidates[-1].levels)
    lost = [
        trial.key
        for trial in before.plan.trials
        if trial.replicate.index == 0 and last.items() <= dict(trial.levels).items()
    ]
    for key in lost:
        (folder / "trials" / f"{key}.json").unlink()
    study = open_study(config)
    assert study.search is not None
    assert study.search.winner is None, "it is not over"
    assert [one.levels for one in study.search.candidates] == [one.levels for one in before.search.candidates]
    done = read_all(folder, study.plan.all_by_key)
    missing = study.plan.missing(done.keys(), kept_states(folder, study.plan))
    assert {stage.kind for stage in missing} == {"fine-tuning"}, "its pretrainings are those of the other candidates"
    assert sorted(key for stage in missing for key in stage.trials.values()) == sorted(lost)
    for stage in missing:
        perform(stage, study.cells[stage.condition.query], folder, Hardware.of(config.resources))
    after = open_study(config)
    assert after.search == before.search
