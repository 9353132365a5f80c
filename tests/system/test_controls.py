"""Controls on real trainings: they come out as they must, and would fail if they did not."""

import json
import sqlite3
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from study.cells.prepared import Cells
from study.cells.sources import query_names
from study.cells.twins import prepare
from study.config.composition import compose, validate
from study.config.values import dump
from study.plan.split import split_cells
from study.plan.tree import Plan, plan_study
from study.training.building import State, state_of
from study.training.hardware import Hardware
from study.training.models import finetune, pretrain
from study.training.snapshot import Snapshot
from study.trials.perform import perform
from study.trials.probes import probe
from study.trials.store import read_all, read_predictions
from study.verdict.controls import ControlResult, judge_controls
from tests.system.conftest import Workplace

SMALL = [
    "data=pbmc68k-fine",
    "scvi.max_epochs=3",
    "scvi.n_hidden=16",
    "scvi.n_latent=4",
    "scanvi.max_epochs=3",
    "query_cells=100",
]
TWO_QUERIES = {"query": {"levels": ["asis", "shallow"]}}


def study(folder: Path, controls: list[str], *overrides: str) -> tuple[Plan, dict[str, Cells]]:
    values = dump(compose([*SMALL, *overrides, "scanvi.surgery_epochs=2"]))
    values["space"] |= {"factors": TWO_QUERIES, "replicates": 1, "controls": controls}
    config = validate(values)
    cells = prepare(config.data, ("asis", "shallow", "self", "none"), folder / "counts")
    return plan_study(config, cells, query_names(config.data)), cells


def trained(folder: Path, made: Plan, cells: dict[str, Cells]) -> dict[str, ControlResult]:
    for one in made.stages:
        perform(one, cells[one.condition.query], folder, Hardware())
    found = read_all(folder, made.all_by_key)
    return {
        one.control: one for one in judge_controls(made.controls, found, {}, partial(read_predictions, folder), cells)
    }


def test_shuffled_and_repeat_come_out_as_they_must(tmp_path: Path) -> None:
    made, cells = study(tmp_path, ["shuffled", "repeat"])
    judged = trained(tmp_path, made, cells)
    assert judged["repeat"].outcome == "pass", judged["repeat"].found
    assert judged["shuffled"].outcome == "pass", judged["shuffled"].found
    kinds = [(one.kind, one.condition.shuffled) for one in made.stages]
    assert kinds.count(("pretraining", None)) == 3, "two queries, and the repetition"
    assert kinds.count(("pretraining", 0)) == 1


@pytest.mark.parametrize(
    ("overrides", "outcome", "exact"),
    [
        ([], "pass", True),
        (["scvi.norm=layer", "scanvi.linear_classifier=false"], "pass", True),
        (["scanvi.linear_classifier=false"], "pass", False),
        # A reference of one batch: with two or more it would hold.
        (["scvi.extra.encode_covariates=true", "data.reference_value=['1']"], "cannot hold", False),
        # How sums of more terms are rounded is up to the machine: the same on some.
        (["scvi.extra.encode_covariates=true"], "pass", None),
    ],
)
def test_surgery_leaves_the_reference_where_it_was(
    tmp_path: Path, overrides: list[str], outcome: str, exact: bool | None
) -> None:
    """Against the model before surgery: exactly, or within what is known to leak, or with a reason why not."""
    made, cells = study(tmp_path, ["surgery"], *overrides)
    judged = trained(tmp_path, made, cells)["surgery"]
    assert judged.outcome == outcome, judged.found
    assert exact is None or (max(one.value for one in judged.details) == 0) == exact, judged.found


def test_probes_leave_the_model_as_it_was_and_say_what_they_must(tmp_path: Path) -> None:
    made, cells = study(tmp_path, ["self"], "scvi.max_epochs=15")
    leaves = {trial.condition.query: trial.chain for trial in (*made.trials, *made.controls)}
    found = {}
    for query in ("asis", "shallow", "self"):
        (first, epochs), (second, more) = leaves[query]
        one = made.stage_by_key[first]
        mine = one.condition.take(cells[query])
        parts = split_cells(mine, 0, 3, 128)
        kept: list[State] = []
        pretrain(mine, parts, one.settings, 0, [epochs], lambda s, k=kept: k.append(state_of(s.model)),
                       Hardware())  # fmt: skip

        def read(snapshot: Snapshot, query: str = query, mine: Cells = mine, parts: object = parts) -> None:
            before = state_of(snapshot.model)
            module = snapshot.model.module
            found[query] = probe(snapshot.model, mine, parts)
            assert snapshot.model.module is module and not any(part.training for part in module.modules())
            after = state_of(snapshot.model)
            assert all(torch.equal(value, after[name]) for name, value in before.items())

        finetune(mine, parts, made.stage_by_key[second].settings, 0, [more], read, Hardware(), kept[0])
    labelled = split_cells(cells["asis"].first(100), 0, 3, 128).labelled.size
    assert found["asis"]["unlabelled_share"] == 100 / (100 + labelled)
    assert found["self"]["latent_distance"] < 0.05 < found["shallow"]["latent_distance"]
    recalls = found["asis"]["reestimated_heldout_recall"]
    assert np.mean(list(recalls.values())) == pytest.approx(found["asis"]["reestimated_heldout_macro_recall"])


def test_there_is_nothing_to_reestimate_under_layer_norm(tmp_path: Path) -> None:
    made, cells = study(tmp_path, ["none"], "scvi.norm=layer")
    trained(tmp_path, made, cells)
    found = read_all(tmp_path, made.all_by_key)
    (none,) = [trial for trial in made.controls if trial.control == "none"]
    for key, result in found.items():
        assert not [name for name in result.probes if name.startswith("reestimated")]
        assert ("latent_distance" in result.probes) == (key != none.key), "no query, no distance"
        assert {"steps", "kl_weight", "unlabelled_share", "labelled_batches"} <= result.probes.keys()
    assert found[none.key].probes["unlabelled_share"] == 0


CONTROLLED = """
name: controlled
design: factorial
factors:
  query: {levels: [asis, shallow]}
replicates: 1
controls: [none, surgery, logistic, knn, novel]
"""


def test_a_study_with_controls_keeps_them_beside_its_table(workplace: Workplace) -> None:
    (workplace.folder / "search_spaces" / "controlled.yaml").write_text(CONTROLLED)
    words = ["space=controlled", *SMALL, "scanvi.surgery_epochs=2"]
    facts = json.loads(workplace.call("run", *words, "--json").stdout)
    found = facts["trials"], facts["trained"], facts["waiting"]
    assert found == (2, 8, 0), "beside two trials: without a query, surgery twice, both yardsticks, a class removed"
    assert facts["controls"]["none"]["outcome"] == "finished"
    assert facts["controls"]["surgery"]["outcome"] == "pass"
    assert facts["controls"]["novel"]["found"].startswith("Dendritic is called ")
    compared = {(one["yardstick"], one["class"]) for one in facts["yardsticks"]}
    assert {("logistic", "(macro)"), ("knn", "(macro)"), ("knn", "Dendritic")} <= compared
    folder = workplace.folder / "studies" / "pbmc68k-fine-controlled"
    assert len(pd.read_csv(folder / "tables" / "trials.csv")) == 2
    names = ["none", "surgery", "logistic", "knn", "novel"]
    assert pd.read_csv(folder / "tables" / "controls.csv")["control"].tolist() == names
    flips = pd.read_csv(folder / "tables" / "flips.csv")
    assert set(flips["condition"]) == {"query=shallow"} and set(flips["part"]) <= {"held-out", "training"}
    assert {key for key, _ in workplace.runs()} == set(pd.read_csv(folder / "tables" / "trials.csv")["trial_key"])
    with sqlite3.connect(workplace.folder / "mlruns" / "mlflow.db") as database:
        beside = database.execute("select value from tags where key = 'control_key'").fetchall()
        assert len({key for (key,) in beside}) == len(beside) == 6
        assert database.execute("select distinct status from runs").fetchall() == [("FINISHED",)]
    again = json.loads(workplace.call("run", *words, "--json").stdout)
    assert (again["already"], again["trained"]) == (8, 0)
