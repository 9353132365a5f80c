"""The registry: chosen settings, with their files, as versions."""

from pathlib import Path

import pytest

from study.cells.prepared import class_names
from study.config.composition import validate
from study.config.values import dump
from study.errors import WritingError
from study.tracking.mirror import Projection
from study.tracking.registry import register
from tests.scenes import scene


def test_equal_files_are_one_registered_version_and_best_is_the_latest(folder: Path) -> None:
    study = scene(replicates=2)
    values = dump(study.config)
    values["tracking"]["directory"] = str(folder / "mlruns")
    projection = Projection(validate(values), study.plan, class_names(study.cells))
    best = folder / "best.yaml"
    said = []
    for text in ("one", "one", "two", "one"):
        best.write_text(text)
        kept = {"best.yaml": best, "models/first/best.yaml": best}
        said.append(register(projection, {"scvi": {"norm": "layer"}}, {"heldout/macro_recall": 0.5}, "Why.", kept))
    assert said == ["1", "1", "2", "1"]
    version = projection.client.get_model_version_by_alias(study.config.name, "best")
    assert str(version.version) == "1"
    assert version.description == "Why."
    run = projection.client.get_run(version.run_id)
    assert run.data.params == {"scvi.norm": "layer"}
    assert run.data.metrics == {"heldout/macro_recall": 0.5}
    assert run.data.tags["mlflow.parentRunId"] == projection.parent
    assert version.source == f"{run.info.artifact_uri}/model"
    kept = Path(projection.client.download_artifacts(version.run_id, "model", str(folder)))
    assert (kept / "models" / "first" / "best.yaml").read_text() == "one"
    (folder / "mlruns" / "mlflow.db").write_bytes(b"no database")
    with pytest.raises(WritingError, match=r"mlflow\.db: is damaged.*not registered"):
        register(projection, {}, {}, "", {"best.yaml": best})
