"""The audit after training: what schedules did, what models show, and which settings changed nothing."""

from study.trials.record import Result
from study.verdict.afterwards import audit_results, mechanism_frame, schedule_frame, schedules_of
from tests.made import TWO_BY_TWO, keys, planned, some_result


def test_schedules_are_what_finished_trials_did() -> None:
    made = planned(TWO_BY_TWO, replicates=2)
    done = made.trials[:-1]  # one of the last schedule is missing
    assert [trial.replicate.index for trial in made.trials] == [0] * 4 + [1] * 4

    def result(at: int, key: str, epochs: object) -> Result:
        draws = {"a": 1.0 + at, "b": 3.0} if at else {"b": 3.0}
        probes = {"kl_weight": 0.1 * (1 + at // 4), "draws_per_cell": draws}
        return some_result(key=key, probes=probes, epochs={"pretraining": 2, "fine-tuning": epochs})

    found = {t.key: result(at, t.key, t.levels["scanvi.max_epochs"]) for at, t in enumerate(done)}
    schedules = schedules_of(made, found)
    shown = schedule_frame(schedules)
    assert shown["condition"].tolist() == ["asis, 431 cells"] * 2 + ["shallow, 431 cells"] * 2
    assert shown["epochs"].tolist() == ["pretraining 2, fine-tuning 1", "pretraining 2, fine-tuning 2"] * 2
    assert shown["trials"].tolist() == [2, 2, 2, 1]
    assert shown["optimiser steps"].tolist() == [f"{trial.steps:,}" for trial in made.trials[:4]]
    assert shown["final KL weight"].tolist() == ["0.100 to 0.200"] * 3 + ["0.100"]
    assert set(shown["labelled batches per epoch"]) == {"not recorded"}
    assert shown["draws of a labelled cell"].tolist() == ["3.0 to 5.0", "2.0 to 6.0", "3.0 to 7.0", "3.0 to 4.0"]
    assert [one.mean_draws("a") for one in schedules] == [5.0, 4.0, 5.0, 4.0]
    assert schedules[0].mean_draws("c") is None
    assert schedules_of(made, {}) == () and schedule_frame(()).empty


def test_what_models_show_is_a_row_per_condition() -> None:
    made = planned(TWO_BY_TWO, replicates=1)
    values = {"latent_distance": 0.5, "reestimated_heldout_macro_recall": 0.9}
    metrics = {"heldout/macro_recall": 0.8}
    shown = mechanism_frame(made, {k: some_result(key=k, probes=values, metrics=metrics) for k in keys(made)})
    assert shown["condition"].tolist() == ["asis, 431 cells", "shallow, 431 cells"]
    assert shown["distance of the query"].tolist() == [0.5, 0.5]
    assert shown["BatchNorm from the reference alone: held-out points"].tolist() == [10, 10]
    assert "calibration error (ECE)" not in shown, "what no trial recorded is no column"


def test_the_audit_afterwards_names_what_changed_nothing() -> None:
    made = planned("{query_cells: {levels: [30, all]}, scvi.n_latent: {levels: [4, 5, 6]}}", replicates=1)

    def result(key: str, latent: object) -> Result:
        # 4 and 5 dimensions give the same predictions here.
        return some_result(
            key=key, predictions=f"{made.by_key[key].condition} {latent == 6}", probes={"kl_weight": 0.1}
        )

    found = {t.key: result(t.key, t.levels["scvi.n_latent"]) for t in made.trials}
    uneven, unchanged = audit_results(made, found)
    assert "unequal optimiser steps" in uneven
    assert unchanged.startswith("Levels 4 and 5 of scvi.n_latent gave the same predictions in all 2 pairs")
    assert audit_results(made, {}) == ()
