"""A random design from its draws to the report."""

from pathlib import Path

import pytest

from study.config.composition import compose, validate
from study.config.values import dump
from study.errors import InputError
from study.report.analysis import analyse
from study.report.finished import read_finished
from study.report.output import write_report
from study.studies.export import write_choice
from study.studies.study import open_study
from study.training.hardware import Hardware
from study.trials.perform import perform

TINY = ["scvi.max_epochs=4", "scvi.n_hidden=16", "scvi.n_latent=4", "scanvi.max_epochs=8", "query_cells=60"]
FACTORS = {
    "query": {"levels": ["asis", "shallow"]},
    "scvi.dropout_rate": {"type": "uniform", "low": 0.0, "high": 0.5},
}


def test_a_random_design_is_trained_attributed_and_reported(tmp_path: Path) -> None:
    values = dump(compose([*TINY, f"root={tmp_path}"]))
    values["space"] |= {"design": "random", "points": 12, "replicates": 2, "factors": FACTORS}
    study = open_study(validate(values))
    assert len(study.plan.trials) == 24
    for stage in study.plan.stages:
        perform(stage, study.cells[stage.condition.query], study.config.directory, Hardware())
    analysis = analyse(study, read_finished(study))
    assert analysis.attribution is not None
    overall = analysis.attribution.of("heldout/recall", "(overall)")
    assert overall.method == "mixed model", overall.reason
    assert write_report(study, analysis).stat().st_size > 10_000
    with pytest.raises(InputError, match="not tried in the same data conditions"):
        write_choice(study, analysis.results)
    assert not (study.config.directory / "best.yaml").exists()
