"""The notebook of the documentation, run from nothing in a kernel, and the study that it leaves, read in Python."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest

import study
from study.commands.notebook import StudyResults
from study.errors import InputError
from study.studies.agreed import label_all
from study.trials.metrics import MACRO
from tests.system.conftest import REPOSITORY

matplotlib.use("Agg")
import matplotlib.pyplot as plt

KEPT = REPOSITORY / "docs" / "notebook.ipynb"
PICTURES = ("shares", "effects", "size", "recall", "confusion")


@dataclass(frozen=True)
class Executed:
    """The notebook after a run, and the folder that it ran in."""

    folder: Path
    notebook: nbformat.NotebookNode

    def shown(self, cell: str, kind: str = "text/plain") -> str:
        """What a cell shows as its result."""
        return "".join(output.data.get(kind, "") for output in self._outputs(cell) if "data" in output)

    def printed(self, cell: str) -> str:
        """What a cell prints."""
        return "".join(output.text for output in self._outputs(cell) if output.output_type == "stream")

    def _outputs(self, cell: str) -> list[nbformat.NotebookNode]:
        (found,) = (one.outputs for one in self.notebook.cells if one.id == cell)
        return list(found)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    folder = tmp_path_factory.mktemp("notebook")
    out = folder / "executed.ipynb"
    # Ray and Jupyter write under HOME.
    environment = {**os.environ, "HOME": str(folder), "RAY_TMPDIR": "/tmp"}
    words = [sys.executable, str(REPOSITORY / "docs" / "execute.py"), str(folder), str(out)]
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=400)
    assert ran.returncode == 0, ran.stderr
    return Executed(folder, nbformat.read(out, as_version=4))


@pytest.fixture(scope="module")
def results(executed: Executed) -> StudyResults:
    return study.load("notebook", executed.folder / "studies")


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    yield
    plt.close("all")


def test_the_notebook_shows_what_the_study_holds(executed: Executed, results: StudyResults) -> None:
    assert "trials 30/30 done, 0 failed" in executed.printed("run")
    assert executed.shown("run") == repr(results)
    assert executed.shown("run").startswith("study notebook: 24 of 24 trials finished, 8 design points x 3 replicates")
    assert executed.printed("load") == f"{results!r}\n"
    explanation = results.attribute("train/recall")
    assert executed.shown("attribute") == repr(explanation)
    assert executed.shown("attribute", "text/html") == explanation._repr_html_()
    assert explanation.verdict.why in executed.shown("attribute")
    assert executed.shown("best") == repr(results.best())
    for name in PICTURES:
        assert executed.shown(name, "image/png"), name
    assert not [o for cell in executed.notebook.cells for o in cell.get("outputs", ()) if o.get("name") == "stderr"]


def test_the_kept_notebook_is_one_that_ran_and_tells_nothing_of_where(executed: Executed) -> None:
    kept = nbformat.read(KEPT, as_version=4)
    assert [(cell.id, cell.source) for cell in kept.cells] == [
        (cell.id, cell.source) for cell in executed.notebook.cells
    ]
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for notebook in (kept, executed.notebook):
        text = nbformat.writes(notebook)
        assert not re.search(r"(?<![\w.~])/(tmp|home|root|Users|var|work|opt|private|usr)/", text)
        assert len(text) < 1_000_000
        assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_tables_are_those_of_the_run(results: StudyResults) -> None:
    tables = results.config.directory / "tables"
    for name in ("trials", "shares", "effects"):
        on_disk, mine = pd.read_csv(tables / f"{name}.csv"), getattr(results, name)
        assert list(mine.columns) == list(on_disk.columns) and len(mine) == len(on_disk)
        numbers = mine.select_dtypes("number").columns
        assert len(numbers) > 3
        assert np.allclose(mine[numbers], on_disk[numbers], equal_nan=True)


def test_recalls_and_confusion_are_what_predictions_give(results: StudyResults) -> None:
    key = results.trials.trial_key.iloc[5]
    cells = results.predictions(key)
    assert cells.index.is_unique and set(cells.part) <= {"heldout", "train", "query", "left out"}
    assert (cells.part == "query").sum() == results.trials.cells.iloc[5]
    for part, mine in cells[cells.part != "left out"].groupby("part"):
        right = (mine.label == mine.predicted).groupby(mine.label).mean()
        rows = results.recalls[(results.recalls.trial_key == key) & (results.recalls.part == part)]
        rows = rows.set_index("class_name")
        assert np.allclose(rows.recall.dropna(), right.reindex(rows.recall.dropna().index))
        assert rows.support[rows.support > 0].to_dict() == mine.label.value_counts().to_dict()
        counts = results.confusion(str(part), [key])
        assert int(counts.to_numpy().sum()) == mine.label.notna().sum()
        for (label, called), found in mine.groupby(["label", "predicted"]):
            assert counts.loc[label, called] == len(found)
    two = results.trials.trial_key.iloc[:2]
    assert results.confusion("train", two).equals(
        results.confusion("train", two[:1]) + results.confusion("train", two[1:])
    )


def test_an_outcome_is_attributed_alike_whether_the_study_names_it(results: StudyResults) -> None:
    named = results.attribute("train/recall")
    shares = results.shares[results.shares.outcome == "train/recall"].drop(columns="outcome").reset_index(drop=True)
    pd.testing.assert_frame_equal(named.shares, shares)
    assert named.verdict == next(one for one in results.verdicts if one.outcome == "train/recall")
    assert "heldout/precision" not in results.config.outcomes
    other = results.attribute("heldout/precision")
    assert other.outcome == other.verdict.outcome == "heldout/precision"
    decomposed = other.tables[other.tables.method != "none"].class_name
    assert set(decomposed) == set(other.shares.class_name) and MACRO in set(decomposed)


def test_the_best_settings_have_the_best_worst_condition(results: StudyResults) -> None:
    best, trials = results.best(), results.trials
    means = trials.groupby([*best.settings, "query_cells"])["heldout/macro_recall"].mean()
    worst = means.groupby(list(best.settings)).min()
    assert set(best.settings) == {"scanvi.n_samples_per_label", "scanvi.max_epochs"}
    row = best.table[best.table.chosen].iloc[0]
    assert row["recall there"] == pytest.approx(worst[tuple(best.settings.values())])
    assert row["recall there"] + row["behind best"] == pytest.approx(worst.max())


@pytest.mark.parametrize(
    "draw",
    [
        lambda one, ax: one.plot_shares(ax=ax),
        lambda one, ax: one.plot_recall("query", by="scanvi.max_epochs", ax=ax),
        lambda one, ax: one.plot_effects("train/recall", ax=ax),
        lambda one, ax: one.plot_query_size("train/macro_recall", by="scanvi.n_samples_per_label", ax=ax),
    ],
)
def test_plots_draw_into_the_axes_given(
    results: StudyResults, draw: Callable[[StudyResults, plt.Axes], plt.Axes]
) -> None:
    figure, ax = plt.subplots()
    assert draw(results, ax) is ax and figure.axes == [ax] and ax.lines


def test_plots_show_the_tables(results: StudyResults) -> None:
    found = results.effects[(results.effects.outcome == "train/recall") & (results.effects.class_name == MACRO)]
    points = {round(points, 6) for points in found[found.kind == "marginal"].points}
    ax = results.plot_effects("train/recall")
    assert {round(float(line.get_xdata()[0]), 6) for line in ax.lines if len(line.get_xdata()) == 1} == points
    means = 100 * results.trials.groupby("cells")["train/macro_recall"].mean()
    (line,) = results.plot_query_size("train/macro_recall").lines
    assert np.allclose(line.get_xydata(), np.stack([means.index, means], axis=1))
    counts = results.confusion("query")
    drawn = results.plot_confusion("query").images[0].get_array()
    assert np.allclose(np.ma.filled(drawn, 0), 100 * counts.div(counts.sum(axis=1), axis=0).fillna(0))


def test_a_study_that_is_not_finished_says_so(executed: Executed, results: StudyResults, tmp_path: Path) -> None:
    """In another folder, too: what was moved is read where it is."""
    shutil.copytree(results.config.directory, tmp_path / "elsewhere" / "notebook")
    trials = tmp_path / "elsewhere" / "notebook" / "trials"
    of = {int(r): rows.trial_key.tolist() for r, rows in results.trials.groupby("replicate")}
    (trials / f"{of[2][0]}.json").unlink()
    part = study.load("notebook", tmp_path / "elsewhere")
    assert "23 of 24 trials finished" in repr(part) and "23 of 24 trials finished" in part._repr_html_()
    assert len(part.trials) == 23 and of[2][0] not in set(part.trials.trial_key)
    assert set(part.attribute().tables.replicates) == {2}
    assert "mean over 2 replicates" in part.best().reason
    (trials / f"{of[0][0]}.json").unlink()
    (trials / f"{of[1][0]}.json").rename(trials / f"{of[1][0]}.failed")
    none = study.load("notebook", tmp_path / "elsewhere")
    assert "21 of 24 trials finished, 1 failed" in repr(none)
    assert "No class could be decomposed" in repr(none) and "one replicate only" in repr(none)
    (trials / f"{of[1][0]}.failed").unlink()
    none = study.load("notebook", tmp_path / "elsewhere")
    assert "No replicate is whole yet" in repr(none)
    for call in (none.attribute, none.best, none.plot_shares, lambda: none.effects):
        with pytest.raises(InputError, match="whole"):
            call()


def test_the_labels_of_a_query_are_those_that_transfer_writes(results: StudyResults) -> None:
    """All trainings that had the whole query, put together; nothing is trained for it."""
    mine, said = results.labels("asis"), []
    (path,) = label_all(results.config, said.append)
    written = pd.read_csv(path, index_col="cell")
    assert list(written.row) == list(range(350, 700)), "as they are in the file"
    mine = mine.loc[written.index]
    assert (mine["label"] == written["label"]).all() and np.allclose(mine["novelty"], written["novelty"])
    of_query = results.trials[results.trials["query_cells"] == "all"].trial_key
    tables = [results.predictions(key) for key in of_query]
    agreed = np.mean([(one.predicted.loc[mine.index] == mine["label"]) for one in tables], axis=0)
    assert np.allclose(agreed, mine["agreement"])
    truth = tables[0].label.loc[mine.index]
    high, all_right = mine["trust"] == "high", (mine["label"] == truth)[truth.notna()].mean()
    assert high.sum() > 30 and (mine["label"] == truth)[high & truth.notna()].mean() > max(0.95, all_right)
    drawn = results.plot_trust("asis").containers
    assert sum(bar.get_width() for bars in drawn for bar in bars) == len(mine)
    shown = pd.read_csv(results.config.directory / "tables" / "trust.csv").set_index("label")
    assert shown["cells"].to_dict() == mine["label"].value_counts().to_dict() and shown["high"].sum() == high.sum()
    assert '<section id="s-trust">' in results.report.read_text()
    assert said[0].startswith(f"asis: trust in the labels of 350 cells: high {high.sum()}")
    assert "12 trainings of 3 replicates" in said[0]
    assert list(mine["row"]) == list(written["row"]), "by the names and in the order of the file"


def test_names_that_are_not_there_are_refused_with_their_neighbours(executed: Executed, results: StudyResults) -> None:
    for call, words in (
        (lambda: study.load("notebok", executed.folder / "studies"), "Did you mean 'notebook'?"),
        (lambda: study.run("name=other"), "['name=other']"),
        (lambda: results.labels("asi"), "'asi' is no query that is trained with. There are: asis"),
        (lambda: results.attribute("heldout/recal"), "Did you mean 'heldout/recall'?"),
        (lambda: results.plot_recall(by="query_cell"), "Did you mean 'query_cells'?"),
        (lambda: results.plot_recall("held-out"), "heldout"),
        (lambda: results.plot_effects(class_name="Dendritc cell"), "Did you mean 'Dendritic cell'?"),
        (lambda: results.plot_query_size("heldout/macro"), "heldout/macro_"),
        (lambda: results.predictions("0123"), "trial '0123'"),
        (lambda: results.confusion("train", []), "trial_key"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            call()


def test_importing_study_is_light() -> None:
    code = (
        "import sys, study; study.run, study.load; print(sorted({m.split('.')[0] for m in sys.modules} & set(HEAVY)))"
    )
    heavy = "{'ray', 'mlflow', 'torch', 'pandas', 'numpy', 'matplotlib', 'hydra'}"
    said = subprocess.run(
        [sys.executable, "-c", code.replace("HEAVY", heavy)], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]"
