"""A random design from its draws to the report."""

from pathlib import Path

import pytest

from study import config as configuration
from study import export
from study.analysis import analyse
from study.config import InputError
from study.outline import open_study
from study.stage import perform
from study.train import Hardware

TINY = ["scvi.max_epochs=4", "scvi.n_hidden=16", "scvi.n_latent=4", "scanvi.max_epochs=8", "query_cells=60"]
FACTORS = {
    "query": {"levels": ["asis", "shallow"]},
    "scvi.dropout_rate": {"type": "uniform", "low": 0.0, "high": 0.5},
}


def test_a_random_design_is_trained_attributed_and_reported(tmp_path: Path) -> None:
    values = configuration.dump(configuration.compose([*TINY, f"root={tmp_path}"]))
    values["space"] |= {"design": "random", "points": 12, "replicates": 2, "factors": FACTORS}
    study = open_study(configuration.validate(values))
    assert len(study.plan.trials) == 24
    for stage in study.plan.stages:
        perform(stage, study.cells[stage.condition.query], study.config.directory, Hardware())
    analysis = analyse(study)
    assert analysis.attribution is not None
    overall = analysis.attribution.of("heldout/recall", "(overall)")
    assert overall.method == "mixed model", overall.reason
    assert analysis.report.stat().st_size > 10_000
    with pytest.raises(InputError, match="not tried in the same data conditions"):
        export.write(study.config, study.plan, analysis.results)
    assert not (study.config.directory / "best.yaml").exists()
