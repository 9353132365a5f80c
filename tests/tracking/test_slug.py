"""Class names in MLflow: nothing merges, everything comes back, MLflow takes them."""

from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from study.tracking.slug import metric_name, slug
from tests.made import unslug

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
