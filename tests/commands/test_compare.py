"""Two studies of one design on disk, really trained: what pairs, what is said of it, and the exit code."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import study
from study.commands.compare import make_comparison
from study.config.composition import compose, validate
from study.config.values import dump
from study.errors import InputError
from study.report.finished import read_finished
from study.studies.study import open_study
from study.training.hardware import Hardware
from study.trials.perform import perform
from study.trials.store import read_predictions, read_result, write_result
from study.trials.tables import trial_frame

FACTORS = {"query": {"levels": ["asis", "shallow"]}, "scanvi.max_epochs": {"levels": [6, 12]}}
REPLICATES = 3


def train(root: Path, name: str, engine: str = "exact") -> Path:
    """Train a tiny study of the bundled cells in this process, and leave its folder as a run does."""
    small = ["scvi.n_hidden=16", "scvi.n_latent=4", "scvi.norm=layer", "scvi.max_epochs=4", "query_cells=60"]
    values = dump(compose([*small, f"resources.engine={engine}", f"name={name}", f"root={root}"]))
    space = {"factors": FACTORS, "replicates": REPLICATES, "folds": 2, "controls": []}
    planned = open_study(validate({**values, "space": values["space"] | space}))
    folder = planned.config.directory
    for stage in planned.plan.missing((), ()):
        perform(stage, planned.cells[stage.condition.query], folder, Hardware.of(planned.config.resources))
    (folder / "config.yaml").write_text(yaml.safe_dump(dump(planned.config)))
    (folder / "tables").mkdir()
    trial_frame(planned.plan, read_finished(planned).results).to_csv(folder / "tables" / "trials.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("studies"), "before")


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """The same study elsewhere, without the cells and weights that a comparison does not need."""
    return Path(shutil.copytree(trained, tmp_path / "after", ignore=shutil.ignore_patterns("counts", "stages")))


def rewrite(folder: Path, change: Callable[[int, np.ndarray, list[str]], None]) -> None:
    """Change the held-out counts of every trial; predictions follow in one bit, so that nothing is equal any more."""
    for path in sorted((folder / "trials").glob("*.json")):
        result, found = read_result(folder, path.stem), read_predictions(folder, path.stem)
        assert result is not None
        matrix = np.array(result.confusion["heldout"])
        change(result.seed, matrix, result.classes)
        found.probabilities[0, 0] += 1e-6
        confusion = {**result.confusion, "heldout": matrix.tolist()}
        write_result(folder, replace(result, confusion=confusion, made_with={"torch": "9.9"}, evidence=""), found)


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "study", "compare", *map(str, words)], capture_output=True, text=True)


def test_the_same_trainings_are_equal_to_the_last_bit(trained: Path, copied: Path) -> None:
    found = study.compare(trained, copied)
    assert (found.code, found.verdict, found.pair.differing, found.pair.notes) == (0, "chance", (), ())
    assert repr(found) == "Equal to the last bit: all predictions of all 12 paired trials."


def test_another_training_step_is_told_and_is_no_drift(trained: Path, tmp_path: Path) -> None:
    found = study.compare(trained, train(tmp_path, "fast", "fast"), margin=90)
    assert [(one.what, one.a, one.b) for one in found.pair.differing] == [("engine", "exact", "fast")]
    assert not found.pair.called.equal and found.pair.called.otherwise <= found.pair.called.cells / 100
    assert (found.code, found.verdict) == (0, "chance")


def test_a_planted_difference_is_found_in_its_class_alone(trained: Path, copied: Path) -> None:
    def worsen(seed: int, matrix: np.ndarray, classes: list[str]) -> None:
        one, other = classes.index("T or NK cell"), classes.index("Dendritic cell")
        lost = min(int(matrix[one, one]), 14 - seed % 2)
        matrix[one, one] -= lost
        matrix[one, other] += lost

    rewrite(copied, worsen)
    ended = command(trained, copied, "--json")
    assert ended.returncode == 3, ended.stderr
    said = json.loads(ended.stdout)
    assert (said["verdict"], said["exit_code"], said["replicates"], said["trials"]) == ("more", 3, 3, 12)
    assert {one["class_name"] for one in said["classes"] if one["finding"] == "more"} <= {"T or NK cell", "(macro)"}
    found = next(one for one in said["classes"] if one["class_name"] == "T or NK cell")
    assert found["points"] == pytest.approx(found["b"] - found["a"]) and found["upper"] < -5
    assert "T or NK cell" in said["sentence"] and "torch" in {one["what"] for one in said["differing"]}


def test_what_scatters_by_replicate_cannot_be_told_and_how_many_would(trained: Path, copied: Path) -> None:
    def scatter(seed: int, matrix: np.ndarray, classes: list[str]) -> None:
        one, other = classes.index("Dendritic cell"), classes.index("B cell")
        moved = min(int(matrix[one].sum()) // 4, int(matrix[one, one if seed % 2 else other])) * (1 if seed % 2 else -1)
        matrix[one, one] -= moved
        matrix[one, other] += moved

    rewrite(copied, scatter)
    found = make_comparison(trained, copied, 3)
    assert found.code == 1 and "Cannot tell with 3 replicates" in found.sentence, found.table
    assert make_comparison(trained, copied, 100).code == 0, "nothing is more than 100 points"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no such folder"),
        (lambda folder: (folder / "config.yaml").unlink(), "no study"),
        (lambda folder: (folder / "tables" / "trials.csv").unlink(), "scanvi-study report"),
        (lambda folder: shutil.rmtree(folder / "trials"), "no results"),
        (lambda folder: reconfigured(folder, folds=3), "space.folds is 2 in the first and 3 in the second"),
        (lambda folder: only(folder, "seed > 2"), "no results"),
        (lambda folder: only(folder, "seed == 0"), "one replicate in common"),
        (lambda folder: only(folder, "seed != fold", seed=7), "do not pair"),
    ],
    ids=["no folder", "no study", "no table", "no results", "design", "no trials", "one replicate", "other seeds"],
)
def test_what_cannot_be_compared_is_one_message(
    change: Callable[[Path], None], message: str, trained: Path, copied: Path
) -> None:
    rewrite(copied, lambda *_: None)
    change(copied)
    with pytest.raises(InputError, match=message):
        make_comparison(trained, copied)


def reconfigured(folder: Path, **space: object) -> None:
    values = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**values, "space": {**values["space"], **space}}))


def only(folder: Path, kept: str, **values: object) -> None:
    path = folder / "tables" / "trials.csv"
    pd.read_csv(path).assign(**values).query(kept).to_csv(path, index=False)


def test_other_settings_are_another_design_and_bad_input_is_exit_2(trained: Path, copied: Path) -> None:
    for path in sorted((copied / "trials").glob("*.json")):
        result = read_result(copied, path.stem)
        assert result is not None
        settings = {**result.settings, "scvi": {**result.settings["scvi"], "n_hidden": 32}}
        write_result(copied, replace(result, settings=settings, evidence=""), read_predictions(copied, path.stem))
    ended = command(trained, copied)
    assert ended.returncode == 2
    assert "scvi.n_hidden is 16 in the first and 32 in the second" in ended.stderr and ended.stderr.count("\n") == 1
    with pytest.raises(InputError, match="are one folder"):
        make_comparison(trained, trained)
    for margin in (0, -1, float("nan"), float("inf"), 101):
        with pytest.raises(InputError, match="expected points above 0, and at most 100"):
            make_comparison(trained, copied, margin)


def test_a_design_point_that_neither_finished_is_named(trained: Path, copied: Path, tmp_path: Path) -> None:
    rewrite(copied, lambda *_: None)
    both = [copied, Path(shutil.copytree(trained, tmp_path / "again"))]
    table = pd.read_csv(copied / "tables" / "trials.csv", dtype=str)
    names = [name for name in table if name in ("query", "scanvi.max_epochs")]
    gone = table[(table[names] == table[names].iloc[0]).all(axis=1)]
    for folder in both:
        for key in gone["trial_key"]:
            (folder / "trials" / f"{key}.json").unlink()
    with pytest.raises(InputError, match=r"have no finished trial of .*query=.* the design is not whole in either"):
        make_comparison(*both)
