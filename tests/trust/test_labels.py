"""Labels that the trainings of a study give together: what is known of them holds for cells that were made so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from study.cells.prepared import Cells
from study.errors import InputError
from study.plan.factors import strata
from study.trials.evidence import Evidence
from study.trials.record import Predictions
from study.trials.store import read_all, write_result
from study.trust.calibration import calibrate
from study.trust.conformal import least_probable, sets_of
from study.trust.consensus import Pool, pool
from study.trust.labels import Labels, labels_of
from study.trust.novelty import novelty
from tests.made import pbmc, planned, some_result

FACTORS = "{scanvi.linear_classifier: {levels: [true, false]}, query_cells: {levels: [30, all]}}"


def simulated(n: int, noise: float, seed: int) -> tuple[Pool, npt.NDArray[np.int32]]:
    """What 6 trainings say of cells of 3 classes, with noise that they share and noise of their own."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 3, n).astype(np.int32)
    shared = 3 * np.eye(3)[truth] + random.normal(0, noise, (n, 3))
    told = []
    for _ in range(6):
        soft = np.exp(3 * (shared + random.normal(0, 0.7, (n, 3))))  # too sure of itself
        soft = (soft / soft.sum(axis=1, keepdims=True)).astype(np.float32)
        order = np.argsort(-soft, axis=1)
        near = np.full(n, 1.0, dtype=np.float16)
        best = np.take_along_axis(soft, order, axis=1).astype(np.float16)
        told.append(Evidence(np.arange(n), order.astype(np.uint16), best, near))
    return pool(told, 3), truth


def test_a_probability_is_how_often_a_label_is_right() -> None:
    held_out, truth = simulated(4000, 1.8, 0)
    asked, answers = simulated(4000, 1.8, 1)
    probable, right = calibrate([held_out], [truth])(asked), asked.label == answers
    assert np.allclose(probable.sum(axis=1), 1)
    probability = probable[np.arange(4000), asked.label]
    bins = np.minimum((probability * 10).astype(int), 9)
    gaps = [abs(right[bins == at].mean() - probability[bins == at].mean()) * (bins == at).mean() for at in set(bins)]
    raw = np.minimum((asked.score * 10).astype(int), 9)
    before = [abs(right[raw == at].mean() - asked.score[raw == at].mean()) * (raw == at).mean() for at in set(raw)]
    assert sum(gaps) < 0.02 < 0.06 < sum(before)


@pytest.mark.parametrize("error", [0.05, 0.1, 0.3])
def test_sets_miss_as_many_cells_of_each_class_as_they_may(error: float) -> None:
    held_out, truth = simulated(20_000, 1.8, 0)
    asked, answers = simulated(20_000, 1.8, 1)
    sets = sets_of(asked.probabilities, least_probable(held_out.probabilities, truth, error))
    for code in range(3):
        assert sets[answers == code, code].mean() == pytest.approx(1 - error, abs=0.02)


def test_classes_with_too_few_cells_are_in_every_set_or_have_one_threshold_together() -> None:
    held_out, truth = simulated(300, 1.8, 0)
    few = np.flatnonzero((truth == 0) | (np.cumsum(truth == 1) <= 8) & (truth == 1))
    least = least_probable(held_out[few].probabilities, truth[few])
    assert least[1] == 0 < least[0]
    more = np.flatnonzero((truth == 0) | (np.cumsum(truth != 0) <= 16))
    least = least_probable(held_out[more].probabilities, truth[more])
    assert least[1] == least[2] > 0


def test_what_is_new_is_strange_and_the_reference_is_taken_for_it_as_often_as_it_may() -> None:
    held_out, _ = simulated(3000, 1.0, 0)
    like, _ = simulated(3000, 1.0, 1)
    new, _ = simulated(500, 1.0, 2)
    new = replace(new, distance=new.distance * 3, probabilities=(new.probabilities + 1) / 4)
    assert (novelty(like, held_out) > 0.95).mean() == pytest.approx(0.05, abs=0.02)
    assert (novelty(new, held_out) > 0.95).mean() > 0.9


def a_study(folder: Path, replicates: int) -> tuple[Labels, Cells]:
    """Trials of the bundled cells that call each cell what it is, but for some cells and trials."""
    made, cells = planned(FACTORS, replicates=replicates), pbmc()["asis"]
    for trial in made.trials:
        few = trial.condition.take(cells)
        held = np.arange(trial.replicate.fold % 3, few.n_reference, 3)
        truth = np.concatenate([few.labels[held], few.truth])
        # The first query cell depends on a setting, the second on the replicate; the third is unlike all.
        first = held.size
        truth[first] = trial.levels["scanvi.linear_classifier"]
        truth[first + 1] = trial.replicate.index % 2
        soft = np.full((truth.size, len(few.classes)), 0.1 / (len(few.classes) - 1), dtype=np.float32)
        soft[np.arange(truth.size), truth] = 0.9
        distance = np.ones(truth.size, dtype=np.float16)
        soft[first + 2], distance[first + 2] = 1 / len(few.classes), 50
        order = np.argsort(-soft, axis=1, kind="stable")[:, :3]
        best = np.take_along_axis(soft, order, axis=1).astype(np.float16)
        told = Evidence(held, order.astype(np.uint16), best, distance)
        reference = np.zeros((few.n_reference, len(few.classes)), dtype=np.float32)
        nothing = Predictions(reference, np.zeros(few.n_query, np.int32), np.zeros(few.n_query, np.float32), held)
        write_result(folder, some_result(key=trial.key), nothing, told)
    results = read_all(folder, [trial.key for trial in made.trials])
    return labels_of("asis", made, strata(made.factors), results, cells, folder), cells


def test_the_labels_of_a_study_are_those_of_all_its_trainings(tmp_path: Path) -> None:
    labels, cells = a_study(tmp_path, 4)
    assert (labels.trainings, labels.replicates) == (8, 4), "trials with all query cells alone"
    assert labels.cells.index.to_list() == list(cells.names[cells.n_reference :])
    classes = np.asarray(cells.classes)
    assert (labels.cells["label"].to_numpy()[3:] == classes[cells.truth[3:]]).all()
    setting, replicate, new = (labels.cells.iloc[at] for at in range(3))
    assert setting.agreement == replicate.agreement == 0.5
    assert (setting.again, setting.settings) == pytest.approx((0, 1))
    assert (replicate.again, replicate.settings) == pytest.approx((1, 0))
    assert {setting.label, setting.second} == {replicate.label, replicate.second} == set(classes[:2])
    assert new.trust == "none" and new.novelty > 0.95
    assert (labels.cells["agreement"][3:] == 1).all()
    assert (labels.held_out["label"] == labels.held_out["truth"]).all()
    assert labels.measured["query cells"].sum() == cells.n_query
    assert pd.isna(labels.cells["again"][3:]).all(), "nothing to explain where all agree"


def test_one_replicate_says_nothing_of_what_trainings_agree_on(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"query 'asis': 1 replicate of it is finished with all .* Expected two replicates"
    ):
        a_study(tmp_path, 1)
