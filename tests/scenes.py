"""A study with made-up results, and its page as it is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from study.attribution.attribute import attribute_study
from study.attribution.findings import StudyAttribution
from study.attribution.looks import Look
from study.cells.check import DataReport
from study.cells.points import Points
from study.cells.prepared import Cells
from study.cells.sources import query_names
from study.config.composition import compose, validate
from study.config.study import StudyConfig
from study.config.values import dump
from study.plan.factors import strata
from study.plan.split import split_cells
from study.plan.tree import Plan, plan_study
from study.report.analysis import Analysis, Attributed
from study.report.page import render_report
from study.studies.study import Study
from study.trials.metrics import measure
from study.trials.record import Predictions, Result
from study.trials.store import write_result
from study.trials.tables import count_frame
from study.trust.labels import Labels
from study.verdict.sentences import judge
from tests.made import FINE

HOSTILE = ("<script>alert(1)</script>", '"%s" %{x}', "../../x", "🧬 </title>", "{{ 7 * 7 }}<b>&amp;", "x" * 300)


FACTORS = {
    "query": {"levels": ["first", "second"]},
    "scanvi.linear_classifier": {"levels": [True, False]},
    "scanvi.max_epochs": {"levels": [2, 4]},
}


VERSIONS = {"scvi-tools": "1.4.2", "git": "abc"}


def labels_for(cells: Cells, keys: Sequence[str]) -> Labels:
    """Labels of a query as some trainings could give them: the first cell is new, the second one in doubt."""
    classes = np.asarray(cells.classes, dtype=object)
    n = cells.n_query
    label = np.arange(n) % len(classes)
    frame = pd.DataFrame(
        {
            "label": classes[label],
            "probability": 0.99,
            "agreement": np.linspace(0.5, 1, n),
            "set": classes[label],
            "second": classes[(label + 1) % len(classes)],
            "novelty": np.linspace(1, 0, n),
            "trust": ["none", "check", *["high"] * (n - 2)],
            "again": 0.75,
            "settings": 0.25,
        },
        index=cells.names[cells.n_reference :],
    )
    return Labels(frame, frame.assign(truth=frame["label"]), dict.fromkeys(keys, 0.75), len(keys), 2)


@dataclass(frozen=True)
class Scene:
    """A study with made-up results."""

    config: StudyConfig
    plan: Plan
    cells: dict[str, Cells]
    results: dict[str, Result]

    @property
    def attribution(self) -> StudyAttribution:
        """What explains the results."""
        counts = count_frame(self.plan, self.results, self.config.outcomes)
        return attribute_study(counts, self.plan.factors, strata(self.plan.factors))

    @property
    def study(self) -> Study:
        """The study as designed."""
        return Study(self.config, query_names(self.config.data), self.cells, self.plan)

    def page(self, command: str = "", **changes: Any) -> Page:
        """Render, and read what came out."""
        found = changes.pop("results", self.results)
        attribution = changes.pop("attribution") if "attribution" in changes else self.attribution if found else None
        verdicts = changes.pop("verdicts", None)
        if attribution is not None:
            if verdicts is None:
                verdicts = [judge(attribution, outcome) for outcome in self.config.outcomes]
            changes["attributed"] = Attributed(Look(3, 0.04, 0.04), "", pd.DataFrame(), attribution, tuple(verdicts))
        values = {"results": found, "beside": {}, "failures": {}, "table": pd.DataFrame(), "checks": described()}
        return Page(render_report(self.study, Analysis(**values | changes), command))


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self._inside = text, ""
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag opens."""
        self.tags.add(tag)
        self.attributes += attrs
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        """A tag closes."""
        self._inside = ""

    def handle_data(self, data: str) -> None:
        """Text between tags."""
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words.append(data)

    @property
    def data(self) -> Any:
        """What the charts are drawn from."""
        return json.loads(self.scripts[0])

    def says(self, words: str) -> bool:
        """Whether the page says something, whatever the line breaks."""
        return words in " ".join(" ".join(self.words).split())


def scene(
    classes: Sequence[str] = ("B", "NK", "T"),
    queries: Sequence[str] = ("first", "second"),
    factors: dict[str, Any] | None = None,
    per_class: int = 180,
    **space: Any,
) -> Scene:
    """Return a study whose results are random predictions, some settings better than others."""
    values = dump(compose(FINE))
    values["data"]["queries"] = {name: {} for name in queries}
    values["space"] |= {"factors": factors or FACTORS | {"query": {"levels": list(queries)}}, "folds": 3} | space
    config = validate(values)
    cells = {name: _cells(classes, per_class, seed) for seed, name in enumerate(queries)}
    planned = plan_study(config, cells, query_names(config.data))
    found = {}
    for trial in planned.trials:
        one = cells[trial.condition.query]
        parts = split_cells(one, trial.replicate.fold, 3, 128)
        random = np.random.default_rng(int(trial.key[:8], 16))
        right = 0.6 + 0.3 * (trial.settings.scanvi.max_epochs == 4)
        truth = np.concatenate([one.labels, one.truth])
        called = np.where(random.random(len(truth)) < right, truth, random.integers(len(classes), size=len(truth)))
        found[trial.key] = _result(trial.key, one, measure(np.eye(len(classes), dtype=np.float32)[called], one, parts))
    return Scene(config, planned, cells, found)


def described(classes: Sequence[str] = ("B", "NK", "T"), queries: Sequence[str] = ("first", "second")) -> DataReport:
    """Return what a check would say of some cells."""
    parts = ["reference", *queries]
    depth = {f"{what} {share}%": float(share * 40 + 2) for what in ("counts", "genes") for share in (25, 50, 75)}
    genes = {"genes": 900, "genes without counts": 100, "genes shared": 700}
    cells = pd.DataFrame([{"name": part, "cells": 1234, **genes, **depth} for part in parts])
    makeup: dict[str, list[float]] = {}
    for part in parts:
        makeup[f"{part} cells"] = [1 + at for at in range(len(classes))]
        makeup[f"{part} share"] = [(at + 1) / len(classes) / 2 for at in range(len(classes))]
    none = pd.DataFrame()
    files = pd.DataFrame([(part, 1000, 900, 0.9) for part in parts], columns=["source", "genes", "shared", "share"])
    drawn = np.random.default_rng(0)
    points = {
        part: Points(np.arange(9), drawn.poisson(50, 9).astype("f4"), drawn.normal(size=(9, 4)).astype("f4"), 1234)
        for part in parts
    }
    labels = {part: np.array([*classes, *[""] * 9][:9], dtype=object) for part in parts}
    makeup_of = pd.DataFrame({"class": classes, **makeup})
    return DataReport((), (f"class {classes[0]!r} is small",), cells, makeup_of, none, files, points, labels)


def _cells(classes: Sequence[str], per_class: int, seed: int) -> Cells:
    names = tuple(sorted(classes))
    labels = np.repeat(np.arange(len(names), dtype=np.int32), per_class)
    truth = np.repeat(np.arange(len(names), dtype=np.int32), 4)
    rows = labels.size + truth.size
    counts = np.random.default_rng(seed).poisson(1.0, (rows, 5)).astype(np.float32)
    return Cells(
        counts=sp.csr_matrix(counts),
        genes=np.array([f"gene{g}" for g in range(5)]),
        classes=names,
        labels=labels,
        truth=truth,
        truth_classes=names,
        batches=("a",),
        batch=np.zeros(rows, dtype=np.int32),
        names=np.array([f"cell{row}" for row in range(rows)]),
        origin=np.full(truth.size, -1),
    )


def _result(key: str, cells: Cells, evaluation: Any) -> Result:
    return Result(
        key=key,
        settings={},
        query="",
        query_cells=cells.n_query,
        seed=0,
        fold=0,
        folds=3,
        digest="d1ge57",
        epochs={"pretraining": 40, "fine-tuning": 4},
        classes=list(cells.classes),
        truth_classes=list(cells.truth_classes),
        metrics=evaluation.metrics,
        confusion={part: matrix.tolist() for part, matrix in evaluation.confusion.items()},
        curves={},
        probes={"kl_weight": 0.01, "labelled_batches": 3, "draws_per_cell": dict.fromkeys(cells.classes, 4.0)},
        left_out=[],
        seconds=1.0,
        finished=1e9,
        made_with=VERSIONS,
    )


def large() -> Scene:
    """Return a study of 60 classes and 5,000 trials, whose results are 50 random ones again and again."""
    factors = {
        "query": {"levels": ["first", "second"]},
        "query_cells": {"levels": [20, 40, 60, 80, 100]},
        "scanvi.n_samples_per_label": {"levels": list(range(1, 11))},
        "scanvi.max_epochs": {"levels": list(range(1, 11))},
    }
    classes = [f"class {code:02d} of a long name" for code in range(60)]
    values = dump(compose(FINE))
    values["data"]["queries"] = {"first": {}, "second": {}}
    values["space"] |= {"factors": factors, "replicates": 5}
    config = validate(values)
    cells = {name: _cells(classes, 30, seed) for seed, name in enumerate(("first", "second"))}
    planned = plan_study(config, cells, query_names(config.data))
    one = cells["first"]
    parts, random = split_cells(one, 0, 3, 128), np.random.default_rng(0)
    truth = np.concatenate([one.labels, one.truth])
    some = []
    for right in np.linspace(0.3, 0.9, 50):
        called = np.where(random.random(truth.size) < right, truth, random.integers(60, size=truth.size))
        some.append(_result("", one, measure(np.eye(60, dtype=np.float32)[called], one, parts)))
    found = {trial.key: replace(some[at % 50], key=trial.key) for at, trial in enumerate(planned.trials)}
    assert len(found) == 5000
    return Scene(config, planned, cells, found)


def on_disk(root: Path, replicates: int = 3, but: int = 0) -> Study:
    """Write the results of a made-up study, all but the last ones."""
    made = scene(replicates=replicates)
    study = Study(made.config.model_copy(update={"root": root}), made.study.queries, made.cells, made.plan)
    for trial in study.plan.trials[: len(study.plan.trials) - but]:
        cells = made.cells[trial.condition.query]
        random = np.random.default_rng(int(trial.key[:8], 16))
        probabilities = random.dirichlet(np.ones(len(cells.classes)), cells.n_reference).astype(np.float32)
        query = np.zeros(cells.n_query, dtype=np.uint16)
        predictions = Predictions(probabilities, query, np.ones(cells.n_query, dtype=np.float32), np.arange(6))
        write_result(study.config.directory, made.results[trial.key], predictions)
    return study
