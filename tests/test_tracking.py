"""Class names in MLflow: nothing merges, everything comes back, MLflow takes them."""

from pathlib import Path

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from study.config import InputError, dump, validate
from study.tracking import Projection, metric_name, slug, unslug

from .test_report import scene

names = st.text(min_size=1, max_size=40)


@given(names)
def test_slugs_come_back_and_mlflow_takes_them(name: str) -> None:
    assert unslug(slug(name)) == name
    _validate_metric_name(metric_name(f"heldout/recall/{name}"))


@given(names, names)
def test_slugs_are_injective(one: str, other: str) -> None:
    assert (slug(one) == slug(other)) == (one == other)


def test_names_that_a_careless_cleaning_would_merge() -> None:
    close = ["CD4+ T", "CD4 T", "CD4- T", "CD4/T", "CD4:T", "CD4:2B: T", "cd4 t", "CD4  T", "CD4 T "]
    assert len({slug(name) for name in close}) == len(close)


def test_hostile_and_long_names() -> None:
    hostile = ["../../x", "..", ".", "/", "<script>", '"%s"', "T 🧬", "a\nb", "x" * 300, "x" * 301, "é" * 300]
    assert len({slug(name) for name in hostile}) == len(hostile)
    for name in hostile:
        _validate_metric_name(metric_name(f"train/precision/{name}"))
        assert len(metric_name(f"heldout/precision/{name}")) <= 250


def test_equal_files_are_one_registered_version_and_best_is_the_latest(tmp_path: Path) -> None:
    study = scene(replicates=2)
    values = dump(study.config)
    values["tracking"]["directory"] = str(tmp_path / "mlruns")
    projection = Projection(validate(values), study.plan, study.cells)
    best = tmp_path / "best.yaml"
    said = []
    for text in ("one", "one", "two", "one"):
        best.write_text(text)
        kept = {"best.yaml": best, "models/first/best.yaml": best}
        said.append(projection.register({"scvi": {"norm": "layer"}}, {"heldout/macro_recall": 0.5}, "Why.", kept))
    assert said == ["1", "1", "2", "1"]
    version = projection.client.get_model_version_by_alias(study.config.name, "best")
    assert str(version.version) == "1"
    assert version.description == "Why."
    run = projection.client.get_run(version.run_id)
    assert run.data.params == {"scvi.norm": "layer"}
    assert run.data.metrics == {"heldout/macro_recall": 0.5}
    assert run.data.tags["mlflow.parentRunId"] == projection.parent
    folder = Path(mlflow.artifacts.download_artifacts(version.source, dst_path=str(tmp_path / "here")))
    assert (folder / "models" / "first" / "best.yaml").read_text() == "one"
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(b"no database")
    with pytest.raises(InputError, match="did not register"):
        projection.register({}, {}, "", {"best.yaml": best})
