"""The configuration reference: every key is in it, and says what it is."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from study.config.study import StudyConfig

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def reference() -> Any:
    """`docs/reference.py`, which the pages are built with."""
    sys.path.insert(0, str(DOCS))
    try:
        import reference
    finally:
        sys.path.remove(str(DOCS))
    return reference


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models that an annotation names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated, dict, tuple):
        for part in get_args(annotation):
            yield from models_in(part)


def leaves(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Name and description of every key that holds a value, by the models themselves."""
    for name, field in model.model_fields.items():
        inner = list(models_in(field.annotation))
        yield from (leaf for one in inner for leaf in leaves(one))
        if not inner:
            yield name, field.description or ""


def test_every_key_is_in_the_reference_with_what_it_is(reference: Any) -> None:
    keys = reference.every_key()
    assert all(key.description for key in keys), [key.name for key in keys if not key.description]
    expected = list(leaves(StudyConfig))
    listed = [(key.name.rpartition(".")[2], key.description) for key in keys]
    assert len(expected) > 60
    assert not [leaf for leaf in expected if expected.count(leaf) > listed.count(leaf)]
    page = reference.render()
    assert all(page.count(f"| `{key.name}` |") == 1 for key in keys)


def test_defaults_are_those_of_the_default_study(reference: Any) -> None:
    keys = {key.name: key for key in reference.every_key()}
    assert keys["scvi.max_epochs"].default == "`40`"  # from conf/, the model has none
    assert keys["scanvi.linear_classifier"].default == "`true`"
    assert keys["resources.stage_minutes"].default == ""
    assert keys["scanvi.n_samples_per_label"].allowed == "whole number, 1 or more, or `all`"
    assert keys["data.queries.<name>.thin"].allowed == "number, above 0, at most 1, or `null`"


def test_the_page_says_where_the_tables_go() -> None:
    assert (DOCS / "reference.md").read_text().count("<!-- keys -->") == 1


def test_files_that_pages_name_exist() -> None:
    named = re.compile(r"`((?:tests|study|benchmarks|deploy)/[\w./-]+\.\w+)`")
    root = DOCS.parent
    pages = [*DOCS.glob("*.md"), *root.glob("*.md")]
    found = {(page.name, path) for page in pages for path in named.findall(page.read_text())}
    assert len(found) > 20
    assert not {one for one in found if not (root / one[1]).exists()}
