"""Bad input as a user meets it: one message, exit code 2, nothing written; and odd input that must work.

Commands run in this process, which is what `python -m study` does, only faster; a few are real processes.
"""

import fcntl
import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml
from anndata import AnnData, read_h5ad

from study.commands.entry import main
from study.config.composition import compose, packaged_home
from study.config.values import dump
from tests.cells.test_alignment import BAD

SPACE = """
name: tiny
design: factorial
factors:
  query: {levels: all}
  scanvi.max_epochs: {levels: [1, 2]}
replicates: 2
folds: 3
"""
TOY = [
    *("space=tiny", "data=forum", "data.path=toy.h5ad", "data.layer=null", "data.dataset_key=ds", "data.batch_key=ds"),
    *("data.labels_key=label", "data.truth_key=label"),
]
NOBODY = 65534


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


class Place:
    """A folder as `init` makes it, with the toy cells in it."""

    def __init__(self, folder: Path, toy: AnnData, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.kept: IO[str] | None = None  # a file that stays open
        for name in ("conf", "search_spaces"):
            shutil.copytree(packaged_home() / name, folder / name)
        (folder / "search_spaces" / "tiny.yaml").write_text(SPACE)
        self.save(toy)

    def save(self, cells: AnnData, name: str = "toy.h5ad") -> None:
        """Write cells to a file of the folder."""
        cells.write_h5ad(self.folder / name)

    def call(self, *words: str) -> Said:
        """Run a command as `main` does; what Python or logging would say on the way is part of its output."""
        root = logging.getLogger()
        handlers, root.handlers = root.handlers, []  # pytest's own would keep the messages from standard error
        arguments, sys.argv = sys.argv, ["scanvi-study", *words]
        self.capsys.readouterr()
        try:
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("default")
                for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                    warnings.simplefilter("ignore", kind)  # as in any process
                main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            root.handlers, sys.argv = handlers, arguments
        out, err = self.capsys.readouterr()
        return Said(code, out, "".join(f"{warning.message}\n" for warning in heard) + err)

    def files(self) -> dict[Path, int]:
        """Everything in the folder, with when it was written."""
        return {path: path.lstat().st_mtime_ns for path in self.folder.rglob("*")}

    def refused(self, *words: str, code: int = 2) -> str:
        """Run a command that must be refused in one message, with nothing written; return the message."""
        before = self.files()
        said = self.call(*words)
        assert said.code == code, said
        assert one_message(said.err)
        assert self.files().keys() == before.keys()
        return said.err

    def plan(self, *changes: str) -> Said:
        """Plan the toy study with some changes."""
        return self.call("plan", *TOY, *changes)


def one_message(err: str) -> bool:
    return err.startswith("scanvi-study: ") and err.count("scanvi-study: ") == 1 and "Traceback" not in err


@pytest.fixture
def place(tmp_path: Path, toy: AnnData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, toy, capsys)


# --- cells


def as_override(key: str, value: Any) -> str:
    return f"data.{key}={written(value)}"


def written(value: Any) -> str:
    """A value in Hydra's syntax."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {written(one)}' for key, one in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(written, value))}]"
    return {None: "null", True: "true"}.get(value, str(value))


@pytest.mark.parametrize("name", BAD)
def test_bad_cells(place: Place, toy: AnnData, name: str) -> None:
    bad = BAD[name]
    cells = bad.cells(toy)
    place.save(toy if cells is None else cells)
    bad.file(place.folder / "toy.h5ad")
    changes = [as_override(key, value) for key, value in bad.config.items()]
    if "queries" in bad.config or name in ("no cells", "dataset missing"):  # fewer than 2 queries can be no factor
        space(factors="{scanvi.max_epochs: {levels: [1, 2]}}")(place)
    message = place.refused("plan", *TOY, *changes)
    for words in bad.said:
        assert words in message, message


# --- configuration, design and commands


def nothing(_: Place) -> None:
    pass


@dataclass(frozen=True)
class Case:
    """A command, the words that its refusal must have, and what is done to the folder before."""

    words: str
    said: tuple[str, ...]
    before: Callable[[Place], None] = nothing


def file(name: str, text: str) -> Callable[[Place], None]:
    def write(place: Place) -> None:
        (place.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (place.folder / name).write_text(text)

    return write


def space(**changes: str) -> Callable[[Place], None]:
    """The tiny search space with some lines changed."""
    lines = {**dict(line.split(":", 1) for line in SPACE.strip().splitlines() if line[0] != " "), **changes}
    factors = changes.get("factors", "{query: {levels: all}, scanvi.max_epochs: {levels: [1, 2]}}")
    text = "\n".join(f"{key}: {value}" for key, value in {**lines, "factors": factors}.items())
    return file("search_spaces/tiny.yaml", text)


def change(function: Callable[[AnnData], AnnData | None]) -> Callable[[Place], None]:
    def before(place: Place) -> None:
        cells = read_h5ad(place.folder / "toy.h5ad")
        made = function(cells)
        place.save(cells if made is None else made)

    return before


def one_cell_per_class(cells: AnnData) -> None:
    cells.obs["label"] = [f"type {i}" for i in range(cells.n_obs)]


def no_gene_in_common(place: Place) -> None:
    cells = read_h5ad(place.folder / "toy.h5ad")
    cells.var_names = [f"ENSG{i}" for i in range(cells.n_vars)]
    place.save(cells, "other.h5ad")
    place.save(cells, "another.h5ad")


def parts(place: Place, **rows: slice) -> None:
    """Some of the toy cells in files of their own, each called `part.h5ad`, in a folder of the name given."""
    cells = read_h5ad(place.folder / "toy.h5ad")
    for name, some in rows.items():
        (place.folder / name).mkdir()
        cells[some].copy().write_h5ad(place.folder / name / "part.h5ad")


def whole(place: Place) -> None:
    """A whole configuration, as `export` writes it."""
    (place.folder / "best.yaml").write_text(yaml.safe_dump(dump(compose(TOY))))


def planned(place: Place) -> None:
    """A study with cells and a configuration, as a run leaves it that was ended at once."""
    place.plan()
    (place.folder / "studies" / "forum-tiny" / "config.yaml").write_text(yaml.safe_dump(dump(compose(TOY))))


def locked(place: Place) -> None:
    path = place.folder / "studies" / "forum-tiny" / "lock"
    path.parent.mkdir(parents=True)
    path.write_text("process 7 on elsewhere")
    place.kept = path.open()
    fcntl.flock(place.kept, fcntl.LOCK_EX)


def with_blank(cells: AnnData) -> None:
    cells.obs["ds"] = ["q1 " if name == "cell30" else value for name, value in cells.obs["ds"].items()]


def versions_of_genes(place: Place) -> None:
    cells = read_h5ad(place.folder / "toy.h5ad")
    for name, version in {"toy": 1, "other": 2, "another": 3}.items():
        cells.var_names = [f"ENSG{i:011d}.{version}" for i in range(cells.n_vars)]
        place.save(cells, f"{name}.h5ad")


def codes_for_labels(place: Place) -> None:
    cells = read_h5ad(place.folder / "toy.h5ad")
    cells.obs["label"] = np.arange(60) % 3
    for name in ("toy", "other", "another"):
        place.save(cells, f"{name}.h5ad")


SEPARATE = (
    "data=separate space=tiny data.labels_key=label data.reference=toy.h5ad "
    "'data.query_paths={a: other.h5ad, b: another.h5ad}'"
)
CASES = {
    # data
    "no common genes": Case(
        f"plan {SEPARATE}", ("other.h5ad", "no gene in common", "ENSG0", "gene0", "Ensembl"), no_gene_in_common
    ),
    "other versions of genes": Case(
        f"plan {SEPARATE}",
        ("other.h5ad: shares 0 of the 20 genes", "20 of 20 without '.N'", "Say data.strip_gene_version=true."),
        versions_of_genes,
    ),
    "a column of var that is missing": Case(
        "plan TOY data.gene_names=symbol", ("toy.h5ad: var has no column 'symbol' (data.gene_names)", "It has: none")
    ),
    "a blank at the end of a name": Case(
        "plan TOY", ("obs['ds'] (data.dataset_key): 'q1' and 'q1 ' differ", "data.clean_names=true"), change(with_blank)
    ),
    "labels that are codes in several files": Case(
        f"plan {SEPARATE} data.truth_key=label",
        ("another.h5ad: its labels are numbers ('0', '1', '2')", "'data.labels={NAME: [0], ...}'"),
        codes_for_labels,
    ),
    "a misspelt label to put together": Case(
        "plan TOY 'data.labels={T cell: [A, BB]}'", ("data.labels.T cell: no cell has the label 'BB'", "'A', 'B', 'C'")
    ),
    "a label put under two names": Case(
        "plan TOY 'data.labels={T: [A], U: [B, A]}'", ("data: labels puts 'A' under 'T' and under 'U': choose one",)
    ),
    "a label put under nothing": Case(
        "plan TOY 'data.labels={T: A}'", ("data.labels.T: ", "list, as in [a, b]", "found 'A'")
    ),
    "only one query": Case(
        "plan data=separate space=tiny data.reference=toy.h5ad 'data.query_paths={a: other.h5ad}'",
        ("space.factors.query", "at least 2 queries", "['a']", "name more queries"),
    ),
    "a query file that is missing": Case(
        f"check {SEPARATE}", ("other.h5ad: no such file", "another.h5ad: no such file", "Expected an h5ad")
    ),
    "classes of one cell": Case("plan TOY", ("no held-out cell", "folds", "30 classes"), change(one_cell_per_class)),
    "more folds than cells": Case(
        "plan TOY space.folds=100 space.replicates=31", ("no held-out cell", "space.folds", "30 reference cells")
    ),
    "more query cells than there are": Case("plan TOY query_cells=21", ("query_cells: 21", "'q1'", "20", "'all'")),
    "more query cells than one has": Case("plan TOY query_cells=11", ("query_cells: 11", "'q2'", "10")),
    "no query cells": Case("plan TOY query_cells=0", ("query_cells", "greater than or equal to 2", "'all'", "found 0")),
    "one query cell": Case("plan TOY query_cells=1", ("query_cells", "greater than or equal to 2", "found 1")),
    "surgery onto nothing": Case(
        "plan TOY query=none scanvi.protocol=surgery",
        ("surgery", "'none'", "no cells"),
        space(factors="{scanvi.max_epochs: {levels: [1, 2]}}"),
    ),
    "a query that is none": Case(
        "plan TOY query=q3",
        ("query: 'q3'", "Did you mean 'q2'?", "q1, q2"),
        space(factors="{scanvi.max_epochs: {levels: [1, 2]}}"),
    ),
    "a level that is no query": Case(
        "plan TOY", ("space.factors.query: 'Q1'", "Did you mean 'q1'"), space(factors="{query: {levels: [Q1, q2]}}")
    ),
    "two levels that are the same cells": Case(
        "plan TOY",
        ("two design points are the same trial", "query_cells=10/all", "Drop or change"),
        space(factors="{query_cells: {levels: [10, all]}, query: {levels: [q2, q1]}}"),
    ),
    "no dataset column, separate files that have one": Case(
        "plan data=combined",
        ("there is no data 'combined'", "Found: forum, pbmc68k, pbmc68k-fine, separate, simulated"),
    ),
    "a path that is missing": Case("plan data=forum", ("data.path is missing", "Give it")),
    # configuration
    "a misspelt key": Case("plan TOY scvi.max_epoch=3", ("scvi.max_epoch: is no known key", "'max_epochs'")),
    "a misspelt group": Case("plan TOY resources=gpu_nod", ("resources 'gpu_nod'", "Did you mean 'gpu_node'?")),
    "a group that is nothing": Case("plan TOY data=null", ("there is no data 'null'", "Found: forum, pbmc68k")),
    "a misspelt space": Case("plan TOY space=tinny", ("search space 'tinny'", "Did you mean 'tiny'", "controls")),
    "a word": Case("plan TOY tiny", ("'tiny'", "expected key=value", "scvi.max_epochs=50")),
    "no key": Case("plan TOY =3", ("'=3'", "expected key=value")),
    "a key of Hydra": Case("plan TOY hydra.run.dir=x", ("'hydra.run.dir'", "no known key")),
    "an unquoted list": Case(
        "plan TOY scvi.n_latent=1,2", ("scvi.n_latent=1,2", "several values", "key=[a, b]", "search_spaces/")
    ),
    "an unknown variable": Case("plan TOY 'scvi.n_latent=${latent}'", ("'latent' not found", "scvi.n_latent")),
    "text for a number": Case("plan TOY scvi.n_latent=many", ("scvi.n_latent", "whole number", "'many'")),
    "a fraction for a number": Case("plan TOY scvi.n_latent=2.5", ("scvi.n_latent", "whole number", "2.5")),
    "a number for a switch": Case(
        "plan TOY scanvi.linear_classifier=1", ("linear_classifier", "true or false", "found 1")
    ),
    "a number for a group": Case("plan TOY scvi=3", ("scvi: ", "mapping", "found 3")),
    "a group for a number": Case("plan TOY scvi.n_latent.x=3", ("scvi.n_latent", "whole number", "a mapping")),
    "no value": Case("plan TOY '~scvi.n_latent'", ("scvi.n_latent: is missing", "scvi.n_latent=...")),
    "negative epochs": Case("plan TOY scvi.max_epochs=-5", ("scvi.max_epochs", "greater than or equal to 1", "-5")),
    "no epochs": Case(
        "plan TOY",
        ("space.factors", "max_epochs"),
        space(factors="{scanvi.max_epochs: {levels: [0, 2]}}"),
    ),
    "infinite": Case("plan TOY scanvi.classification_ratio=inf", ("classification_ratio", "finite", "found inf")),
    "not a number": Case("plan TOY scanvi.classification_ratio=nan", ("classification_ratio", "found nan")),
    "one of two kinds": Case("plan TOY data.genes=0", ("data.genes", "or equal to 1, or 'all', found 0.")),
    "a seed of 33 bits": Case("plan TOY data.seed=4294967296", ("data.seed", "less than 4294967296")),
    "seeds beyond 32 bits": Case(
        "plan TOY space.replicates=5000000000", ("5,000,000,000 replicates", "at most 100,000", "fewer")
    ),
    "an unknown argument of scvi-tools": Case(
        "plan TOY scvi.extra.log_variatinal=true", ("log_variatinal", "no known key", "Did you mean 'log_variational'")
    ),
    "a name with a slash": Case("plan TOY name=a/b", ("study name 'a/b'", "letters, digits")),
    "a name with a newline": Case("plan TOY 'name=\"a\nb\"'", ("study name 'a\\nb'", "letters, digits")),
    "a name that is a newline unquoted": Case("plan TOY 'name=a\nb'", ("cannot be read", "name=a", "Quote")),
    "a name that leads out": Case("plan TOY name=..", ("study name '..'", "not starting with '.'")),
    "no name": Case("plan TOY name=", ("study name ''", "1 to 100 letters")),
    "a GPU without one": Case("plan TOY resources.gpus=1", ("resources", "accelerator=cpu", "gpus=1")),
    "an outcome that is none": Case("plan TOY 'outcomes=[heldout/recal]'", ("outcomes.0", "'heldout/recall'")),
    "an outcome twice": Case(
        "plan TOY 'outcomes=[heldout/recall,heldout/recall]'", ("outcomes", "duplicate", "name each outcome once")
    ),
    **{
        f"{command} of query cells whose labels nobody knows": Case(
            f"{command} TOY 'outcomes=[query/recall]' data.truth_key=null",
            ("outcomes: query/recall", "'data.truth_key=...'", "leave the outcome out"),
        )
        for command in ("check", "plan", "run")
    },
    "query cells of which one query has no labels": Case(
        "plan TOY 'outcomes=[query/precision]' data.truth_key=known",
        ("outcomes: query/precision", "data.truth_key=known", "'q2 with 10 cells'", "Fill the column"),
        change(lambda cells: cells.obs.insert(0, "known", ["A"] * 50 + [""] * 10)),
    ),
    "no outcome": Case("plan TOY 'outcomes=[]'", ("outcomes", "at least 1 item")),
    "too deep to count": Case(
        "plan data=simulated space=tiny data.simulate.depth=1e12", ("data.simulate", "depth", "at most 1e+07")
    ),
    # search spaces
    "one level": Case(
        "plan TOY", ("space.factors.query", "at least 2 levels", "no factor"), space(factors="{query: {levels: [q1]}}")
    ),
    "no levels": Case(
        "plan TOY", ("space.factors.query", "at least 2 levels, found []"), space(factors="{query: {levels: []}}")
    ),
    "nothing to vary": Case("plan TOY", ("space.factors", "at least 1 item"), space(factors="{}")),
    "a level twice": Case(
        "plan TOY", ("scvi.n_latent", "[5, 5]", "duplicate"), space(factors="{scvi.n_latent: {levels: [5, 5]}}")
    ),
    "one and true": Case(
        "plan TOY",
        ("scvi.extra.x", "[1, true]", "true is 1"),
        space(factors="{scvi.extra.x: {levels: [1, true]}}"),
    ),
    "a level that is no setting": Case(
        "plan TOY",
        ("'scvi.n_laten'", "Did you mean 'scvi.n_latent'"),
        space(factors="{scvi.n_laten: {levels: [5, 6]}}"),
    ),
    "a range of what is no setting": Case(
        "plan TOY",
        ("'scvi.typo.extra.x' is no setting that can vary", "Settings are: "),
        space(design="random", points="5", factors="{scvi.typo.extra.x: {type: uniform, low: 0, high: 1}}"),
    ),
    "a range inside an argument of scvi-tools": Case(
        "plan TOY",
        ("'scvi.extra.prior.x' is no setting that can vary",),
        space(factors="{scvi.extra.prior.x: {levels: [1, 2]}}"),
    ),
    "a role that the name does not have": Case(
        "plan TOY",
        ("space", "role", "'query' is data, found 'parameter'", "Leave 'role' out"),
        space(factors="{query: {levels: [q1, q2], role: parameter}}"),
    ),
    "two protocols in one table": Case(
        "plan TOY",
        ("'scanvi.protocol' cannot be a factor", "Run a study of each"),
        space(factors="{scanvi.protocol: {levels: [joint, surgery]}}"),
    ),
    "a level that does not fit": Case(
        "plan TOY",
        ("space.factors: scvi.norm", "'group'", "'layer'"),
        space(factors="{scvi.norm: {levels: [layer, group]}}"),
    ),
    "a level that is not finite": Case(
        "plan TOY",
        ("space.factors", "finite", "found nan"),
        space(factors="{scvi.dropout_rate: {levels: [0.1, .nan]}}"),
    ),
    "a range in a factorial design": Case(
        "plan TOY",
        ("factorial design needs levels", "design: random"),
        space(factors="{scvi.dropout_rate: {type: uniform, low: 0, high: 0.5}}"),
    ),
    "a range upside down": Case(
        "plan TOY",
        ("space.factors.scvi.dropout_rate", "low < high"),
        space(design="random", points="5", factors="{scvi.dropout_rate: {type: uniform, low: 0.5, high: 0.1}}"),
    ),
    "a range of integers without one": Case(
        "plan TOY",
        ("randint", "integer", "0.2"),
        space(design="random", points="5", factors="{scvi.n_latent: {type: randint, low: 0.2, high: 0.9}}"),
    ),
    "a range of one integer": Case(
        "plan TOY",
        ("space.factors.scvi.n_latent", "randint range from 1 to 2 holds one value", "no factor"),
        space(design="random", points="5", factors="{scvi.n_latent: {type: randint, low: 1, high: 2}}"),
    ),
    "more points than there are": Case(
        "plan TOY",
        ("space.points: 9", "8 combinations", "design: factorial"),
        space(
            design="random",
            points="9",
            factors="{scvi.n_latent: {type: randint, low: 5, high: 9}, scvi.norm: {levels: [batch, layer]}}",
        ),
    ),
    "too many points": Case(
        "plan TOY",
        ("1,000,000 design points", "at most 100,000"),
        space(design="random", points="1000000", factors="{scvi.n_latent: {type: randint, low: 5, high: 9}}"),
    ),
    "a control that is none": Case("plan TOY 'space.controls=[slef]'", ("space.controls.0", "'self'", "'slef'")),
    "a broken search space": Case("plan TOY", ("tiny.yaml",), file("search_spaces/tiny.yaml", "a: [")),
    # commands
    "another run's lock": Case("run TOY", ("is being run already, by process 7", "name=..."), locked),
    "a report of nothing": Case("report TOY", ("no trial of study 'forum-tiny'", "Run it first")),
    "an export of nothing": Case("export TOY", ("no whole replicate yet (0 of 8 trials", "Run it first")),
    "a pilot that was never run": Case("plan TOY --pilot earlier", ("--pilot earlier", "Name a study that has been")),
    "a pilot that has no result": Case(
        "plan TOY --pilot forum-tiny",
        ("--pilot forum-tiny", "no attributed result", "2 whole replicates"),
        planned,
    ),
    "MLflow before a run": Case("ui TOY", ("mlflow.db", "Run a study first")),
    "a transfer of a study with more cells than one query has": Case(
        "transfer TOY query_cells=15 budget=steps", ("query_cells: 15", "'q2'", "10", "'all'")
    ),
    "a transfer into no file": Case(
        "transfer TOY --into toi.h5ad", ("toi.h5ad: no such file", "Did you mean 'toy.h5ad'?")
    ),
    "a transfer into another file": Case(
        "transfer TOY --into other.h5ad",
        ("--into other.h5ad: the cells do not come from this file", "'toy.h5ad'"),
        no_gene_in_common,
    ),
    "a transfer of bundled cells into a file": Case(
        "transfer --into toy.h5ad", ("--into toy.h5ad: the cells do not come from this file", "from no file")
    ),
    "a transfer into the reference": Case(
        "transfer data=separate data.labels_key=label data.reference=ref/part.h5ad "
        "'data.query_paths={a: a/part.h5ad}' --into a/part.h5ad --into ref/part.h5ad",
        ("--into ref/part.h5ad: no cell of it is labelled", "cells of 'a'"),
        lambda place: parts(place, ref=slice(30), a=slice(30, 60)),
    ),
    "a transfer of cells with two labels into their file": Case(
        "transfer TOY 'data.queries={a: {of: q1}, b: {of: [q1, q2]}}' --into toy.h5ad",
        ("--into toy.h5ad", "in several queries ('a', 'b')", "'query=a'"),
    ),
    "a transfer into two files whose copies are one": Case(
        "transfer data=separate data.labels_key=label data.reference=ref/part.h5ad "
        "'data.query_paths={a: a/part.h5ad, b: b/part.h5ad}' 'data.queries={both: {of: [a, b]}}' "
        "--into a/part.h5ad --into b/part.h5ad",
        ("--into b/part.h5ad", "part.labelled.h5ad, as that of a/part.h5ad", "Rename"),
        lambda place: parts(place, ref=slice(30), a=slice(30, 45), b=slice(45, 60)),
    ),
    "a share of unknown cells without a study": Case(
        "transfer TOY --unknown 0.1", ("--unknown", "no study was run in", "Run it first")
    ),
    "a consensus of a study that was not run": Case(
        "transfer TOY query=q1 --consensus",
        ("query 'q1'", "no trial", "Expected two replicates", "run the study"),
    ),
    "a consensus of a query that is not trained with": Case(
        "transfer TOY 'data.queries={q1: {}, q2: {of: q2}, more: {of: q1}}' query=more --consensus",
        ("'more' is no query that is trained with", "There are: q1, q2"),
        space(factors="{query: {levels: [q1, q2]}}"),
    ),
    "a diagnosis of nothing": Case("diagnose", ("nothing to look at", "runs.csv", "mlflow:NAME")),
    "a diagnosis of no model": Case("diagnose nowhere/model", ("nowhere/model: no such folder",)),
    "a diagnosis of a table that is not there": Case("diagnose runs.csv", ("runs.csv: no such file",)),
    "a diagnosis of two tables": Case("diagnose runs.csv more.csv", ("looked at alone",)),
    "a diagnosis of a table in which nothing was measured": Case(
        "diagnose runs.csv",
        ("nothing in it looks measured", "--outcome", "'query', 'loss'"),
        file("runs.csv", "query,loss\na,1\nb,2\n"),
    ),
    "a diagnosis with a column that is none": Case(
        "diagnose runs.csv --outcome los",
        ("--outcome los", "no such column", "Did you mean 'loss'?"),
        file("runs.csv", "query,loss\na,1\nb,2\n"),
    ),
    "a diagnosis of one run in a table": Case(
        "diagnose runs.csv",
        ("1 run: expected two",),
        file("runs.csv", "query,accuracy\na,1\n"),
    ),
    "a diagnosis of an experiment that is none": Case(
        "diagnose mlflow:none", ("mlflow:none", "mlflow.db", "tracking.uri")
    ),
    "a transfer of a query that is none": Case("transfer TOY query=q3", ("query: 'q3'", "Known: q1, q2")),
    "a transfer where all queries are twins": Case(
        "transfer TOY 'data.queries={small: {of: q1, match_size: true}}'",
        ("every query is an altered twin", "'query=small'"),
    ),
    "a transfer with no file": Case(
        "transfer --config best.yaml", ("best.yaml: there is no such file", "'export' writes")
    ),
    "a transfer with a folder": Case("transfer --config conf", ("conf: is a folder", "'export' writes")),
    "a configuration that is no UTF-8": Case(
        "check data=zur",
        ("conf/data/zur.yaml is no text in UTF-8", "Save it as that"),
        lambda place: (place.folder / "conf" / "data" / "zur.yaml").write_bytes(b"# Z\xfcrich\n"),
    ),
    "a run with a broken record of looks": Case(
        "run TOY name=looked", ("looks.json does not record looks",), file("studies/looked/looks.json", "{")
    ),
    "a file where the folder of a study is": Case(
        "plan TOY name=held", ("studies/held is a file, where a study has a folder",), file("studies/held", "x")
    ),
    "a transfer with no YAML": Case(
        "transfer --config best.yaml", ("best.yaml: cannot be read as YAML",), file("best.yaml", "a: [")
    ),
    "a transfer with a list": Case(
        "transfer --config best.yaml", ("best.yaml: expected a mapping", "found list"), file("best.yaml", "- a")
    ),
    "a transfer with half a file": Case(
        "transfer --config best.yaml", ("best.yaml: scvi: is missing",), file("best.yaml", "name: half")
    ),
    "a transfer with a variable": Case(
        "transfer --config best.yaml", ("best.yaml: name", "'${nowhere}'"), file("best.yaml", "name: ${nowhere}")
    ),
    "a transfer with a broken override": Case(
        "transfer --config best.yaml 'scvi.n_latent=['", ("best.yaml", "scvi.n_latent=["), file("best.yaml", "name: a")
    ),
    "a transfer with a misspelt group": Case(
        "transfer --config best.yaml resources=gpu_nod",
        ("best.yaml", "no resources 'gpu_nod'", "Did you mean 'gpu_node'?"),
        whole,
    ),
    "a transfer with data that are not named": Case(
        "transfer --config best.yaml data=forum", ("best.yaml", "data.path is missing. Give it"), whole
    ),
    "a transfer with a misspelt key that is forced": Case(
        "transfer --config best.yaml ++scvi.n_laten=3", ("best.yaml: scvi.n_laten: is no known key",), whole
    ),
    "init where one is": Case("init .", (".: has conf and search_spaces already", "nothing was changed", "new folder")),
}


def words_of(text: str) -> list[str]:
    return shlex.split(text.replace("TOY", shlex.join(TOY)))


@pytest.mark.parametrize("name", CASES)
def test_bad_words(place: Place, name: str) -> None:
    case = CASES[name]
    case.before(place)
    message = place.refused(*words_of(case.words))
    for words in case.said:
        assert words in message, message


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("paln", "'paln'"),
        ("plan --pilt", "--pilt"),
        ("plan --pilot", "'--pilot' requires an argument"),
        ("transfer --config", "'--config' requires an argument"),
        ("init", "'directory'"),
        ("--frob plan", "--frob"),
    ],
)
def test_unknown_commands_and_options(place: Place, words: str, named: str) -> None:
    before = place.files()
    said = place.call(*words.split())
    assert said.code == 2
    assert "Error" in said.err
    assert named in said.err
    assert "Traceback" not in said.err
    assert place.files() == before


# --- what this user may not read or write


@pytest.fixture
def shared(toy: AnnData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Place]:
    """A folder that anyone may search, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.chdir(folder)
        made = Place(Path(folder), toy, capsys)
        assert made.call("check", *TOY, "--page", "a/check.html").code == 0  # all modules are imported, and may be read
        assert (Path(folder) / "a" / "check.html").stat().st_size > 1e6 and not (Path(folder) / "studies").exists()
        yield made
        for path in Path(folder).iterdir():
            path.chmod(0o755)


def as_nobody(place: Place, *words: str, code: int = 2) -> str:
    """Run a command that must be refused; root, who may do anything, runs it as nobody."""
    import_module("study.studies.transfer")  # nobody may not be allowed to read Python's own modules
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        return place.refused(*words, code=code)
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("command", ["check", "plan"])
def test_a_file_that_may_not_be_read(shared: Place, command: str) -> None:
    (shared.folder / "toy.h5ad").chmod(0)
    message = as_nobody(shared, command, *TOY)
    assert "toy.h5ad: cannot be read (Permission denied)" in message
    assert "Check its permissions" in message


@pytest.mark.parametrize("command", ["check", "plan"])
def test_a_folder_that_may_not_be_searched(shared: Place, command: str) -> None:
    closed = shared.folder / "closed"
    closed.mkdir()
    shutil.copy(shared.folder / "toy.h5ad", closed)
    closed.chmod(0o600)
    message = as_nobody(shared, command, *TOY, "data.path=closed/toy.h5ad")
    assert "closed/toy.h5ad: cannot be read (Permission denied)" in message


def test_a_configuration_that_may_not_be_read(shared: Place) -> None:
    (shared.folder / "best.yaml").write_text("name: best")
    (shared.folder / "best.yaml").chmod(0)
    assert "best.yaml: cannot be read" in as_nobody(shared, "transfer", "--config", "best.yaml")


@pytest.mark.parametrize("words", ["plan TOY root=closed", "check TOY root=closed", "init closed/new"])
def test_a_folder_that_may_not_be_written(shared: Place, words: str) -> None:
    (shared.folder / "closed").mkdir(mode=0o555)
    message = as_nobody(shared, *words_of(words), code=1)
    assert "cannot be written (Permission denied)" in message
    assert "closed" in message


@pytest.mark.parametrize("words", ["plan TOY root=toy.h5ad", "init toy.h5ad"])
def test_a_folder_where_a_file_is(place: Place, words: str) -> None:
    message = place.refused(*words_of(words), code=1)
    assert "cannot be written (Not a directory)" in message
    assert "toy.h5ad" in message


# --- as a process


def process(place: Place, *words: str) -> Said:
    environment = {**os.environ, "HOME": str(place.folder), "RAY_TMPDIR": "/tmp", "PYTHONPATH": "poison"}
    command = [sys.executable, "-m", "study", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


def test_planning_never_imports_what_trains(place: Place) -> None:
    for library in ("scvi", "lightning"):
        poison = place.folder / "poison" / library / "__init__.py"
        poison.parent.mkdir(parents=True)
        poison.write_text("raise AssertionError('imported')")
    said = process(place, "plan", *TOY, "--json")
    assert (said.code, json.loads(said.out)["trials"]) == (0, 8), said


def test_more_memory_than_there_is(place: Place) -> None:
    said = process(place, "run", *TOY, "resources.memory_gib=1000000")
    assert said.code == 2, said
    assert one_message(said.err), said.err
    for words in ("resources.memory_gib", "wants 1e+06", "the largest node has", "Ask for less"):
        assert words in said.err
    assert not {"studies", "mlruns"} & {path.name for path in place.folder.iterdir()}


# --- what must work


def with_counts(make: Callable[[np.ndarray], Any]) -> Callable[[AnnData], AnnData]:
    return lambda cells: AnnData(make(np.asarray(cells.X.toarray())), obs=cells.obs, var=cells.var)


def with_labels(*labels: Any) -> Callable[[AnnData], None]:
    def label(cells: AnnData) -> None:
        cells.obs["label"] = pd.Series((list(labels) * 60)[:60], index=cells.obs_names)

    return label


GOOD: dict[str, Callable[[AnnData], AnnData | None]] = {
    "dense": with_counts(np.asarray),
    "CSR": with_counts(sp.csr_matrix),
    "CSC": with_counts(sp.csc_matrix),
    "int64": with_counts(lambda counts: sp.csr_matrix(counts.astype(np.int64))),
    "dense int64": with_counts(lambda counts: counts.astype(np.int64)),
    "float64": with_counts(lambda counts: counts.astype(np.float64)),
    "bool": with_counts(lambda counts: sp.csr_matrix(counts > 2)),
    "labels that are numbers": with_labels(1, 2, 3),
    "labels that are fractions": with_labels(0.5, 1.0),
    "labels that are switches": with_labels(True, False),
    "Greek": with_labels("Ελληνικά", "Ω/ω"),
    "one of 300 characters": with_labels("x" * 300, "x" * 299 + "y"),
    "a path": with_labels("../../x", "/etc/passwd"),
    "a tag": with_labels("<script>alert(1)</script>", "<b>"),
    "markup of the terminal": with_labels("[red]", "[/]", "[bold"),
    "a format": with_labels("%s", "%(x)d", "{0}"),
    "emoji": with_labels("T 🧬", "👩‍🔬"),
    "a quote and a line break": with_labels("'; drop", 'a"b\nc'),
    "two that cleaning would merge": with_labels("CD4+ T", "CD4 T", "CD4- T"),
    "formulas": with_labels("=1+1", "$x$", "nan"),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_must_work(place: Place, name: str) -> None:
    change(GOOD[name])(place)
    said = place.plan()
    assert said.code == 0, said
    assert said.err == ""


def test_a_file_that_was_written_backed_can_be_planned(place: Place) -> None:
    backed = read_h5ad("toy.h5ad", backed="r+")
    backed.obs["label"] = backed.obs["label"].astype(str)
    backed.write()
    backed.file.close()
    assert place.plan().code == 0


def test_labels_put_together_and_names_cleaned_on_the_command_line(place: Place) -> None:
    change(with_blank)(place)
    said = place.call("check", *TOY, "data.clean_names=true", 'data.labels={T cell: [A, "C"]}', "--json")
    assert said.code == 0, said
    found = json.loads(said.out)
    assert [row["name"] for row in found["cells"]] == ["reference", "q1", "q2"]
    assert [row["class"] for row in found["classes"]] == ["B", "T cell"]


def test_queries_that_are_numbers(place: Place, toy: AnnData) -> None:
    toy.obs["ds"] = toy.obs["ds"].map({"ref": 0, "q1": 1, "q2": 2})
    place.save(toy)
    space(factors="{query: {levels: [1, 2]}, scanvi.max_epochs: {levels: [1, 2]}}")(place)
    said = place.plan("data.reference_value=0", "--json")
    assert said.code == 0, said
    assert '"levels": ["1", "2"]' in said.out


def test_a_reference_batch_that_is_a_query_batch_too_is_a_warning(place: Place, toy: AnnData) -> None:
    """Nothing is wrong then (one sequencing run may hold both), but scVI corrects nothing between the two."""
    toy.obs["run"] = ["run1", "run2"] * 30
    place.save(toy)
    said = place.call("check", *TOY, "data.batch_key=run")
    assert said.code == 0
    assert "'run1', 'run2' occur in the reference and in queries: scVI corrects no difference" in " ".join(
        said.out.split()
    )


def test_a_refusal_leaves_an_older_study_as_it_is(place: Place) -> None:
    assert place.plan().code == 0
    before = place.files()
    place.refused("plan", *TOY, "query_cells=1000")
    place.refused("plan", *TOY, "data.seed=1", "query_cells=1000")
    place.refused("export", *TOY, "data.seed=1")
    assert place.files().keys() == before.keys()
    assert place.plan().code == 0
