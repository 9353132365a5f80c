"""Controls: trials beside the table whose outcome is known beforehand, and whether it came out so.

A control trial is the study's base trial with one thing changed. Its result is stored like any other, and is never
part of the table, the attribution or the choice of settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from study.cells import Cells
from study.config import Settings
from study.plan import PlannedTrial
from study.trials import QUERY, Predictions, ReadPredictions, Result
from study.verdict.arms import Arm, ControlResult, Detail
from study.verdict.yardsticks import YARDSTICK_NAMES

PASS, FAIL, FINISHED, NOT_RUN, CANNOT = "pass", "fail", "finished", "not run", "cannot hold"
# How far reference predictions may drift under surgery where a normalisation leaks (MLP classifier and BatchNorm).
DRIFT = 0.01
# With encode_covariates the encoder gets columns for the query's batches, and its sums are rounded otherwise.
ROUNDING = 1e-6
# Shuffled labels fail only beyond this one-sided p value: false alarms are rare.
UNLIKELY = 0.001
EXPECTED = {
    "none": "reference only: what the base trial gives without any query",
    "self": "a pseudo-query of reference cells, as many as the query has: what its size does without new content",
    "surgery": "mapping a query onto a finished reference leaves the reference's predictions where they were",
    "shuffled": "with labels permuted among the reference cells, held-out recall falls to chance",
    "repeat": "the same trial, trained again from nothing, gives the same predictions bit for bit",
    "logistic": "scANVI is not certainly worse than logistic regression on log-normalised counts",
    "knn": "scANVI is not certainly worse than the labels of neighbours in the latent space of scVI",
    "novel": "without a class in the reference: what its cells are called then, and whether confidence gives them away",
}


def judge_controls(
    controls: Sequence[PlannedTrial],
    results: Mapping[str, Result],
    failures: Mapping[str, str],
    read: ReadPredictions,
    cells: Mapping[str, Cells],
) -> tuple[ControlResult, ...]:
    """Say of each control of a study how it came out.

    Parameters
    ----------
    controls
        The trials of a study's controls, with their base trials.
    results
        Finished trials by key, those of the table and of the controls.
    failures
        Reasons of failed trials by key.
    read
        Gives the predictions of a finished trial.
    cells
        Prepared cells by query.
    """
    arms: dict[str, list[PlannedTrial]] = {}
    for trial in controls:
        arms.setdefault(trial.control, []).append(trial)
    bases = {trial.replicate.index: trial for trial in arms.pop("base", [])}
    judged = []
    for name, trials in arms.items():
        needed = {trial.key: trial for trial in (*trials, *bases.values())}
        reasons = {failures[key] for key in needed if key in failures}
        missing = sum(key not in results for key in needed)
        if missing:
            why = f": {'; '.join(sorted(reasons))}" if reasons else ""
            found = f"{missing} of its {len(needed)} trials (with the base trials) have no result yet{why}"
            judged.append(ControlResult(name, EXPECTED[name], NOT_RUN, found))
            continue
        batches = len(cells[trials[0].condition.query].first(0).batches)
        base = [bases[trial.replicate.index] for trial in trials]
        judged.append(_JUDGES[name](Arm(trials, base, results, read, batches)))
    return tuple(judged)


def _measure(arm: Arm) -> ControlResult:
    """`none` and `self`: nothing to assert; the difference to the base trial is the reading."""
    name = arm.trials[0].control
    condition = arm.base[0].condition
    own, base = arm.recalls(arm.trials), arm.recalls(arm.base)
    what = (
        "without a query" if name == "none" else f"with {arm.trials[0].condition.n_cells:,} reference cells as a query"
    )
    found = (
        f"held-out macro recall {_percent(own)} {what}, {_percent(base)} with {condition.n_cells:,} cells of "
        f"{condition.query}: {_difference(base, own)}"
    )
    return ControlResult(name, EXPECTED[name], FINISHED, found, (*own, *base))


def _surgery(arm: Arm) -> ControlResult:
    before = {trial.replicate.index: trial for trial in arm.trials if trial.condition.n_cells == 0}
    details = []
    for trial in arm.trials:
        if trial.condition.n_cells:
            after, start = arm.read(trial.key), arm.read(before[trial.replicate.index].key)
            gap = np.abs(after.probabilities - start.probabilities).max()
            details.append(arm.detail(trial, "largest difference of a reference probability", gap))
    largest = max((one.value for one in details), default=0.0)
    limit, why = allowed_drift(arm.trials[-1].settings, arm.reference_batches)
    queries = sorted({one.query for one in details})
    found = f"reference predictions {_gap(largest)} after mapping {', '.join(queries)}"
    if limit is None:
        return ControlResult("surgery", EXPECTED["surgery"], CANNOT, f"{found}; {why}", tuple(details))
    outcome = PASS if largest <= limit else FAIL
    found += f"; {why}, so up to {limit} is expected" if limit else ""
    return ControlResult("surgery", EXPECTED["surgery"], outcome, found, tuple(details))


def allowed_drift(settings: Settings, reference_batches: int) -> tuple[float | None, str]:
    """Return how far reference predictions may move under surgery, and why; None where nothing can be promised.

    Parameters
    ----------
    settings
        Of the trial.
    reference_batches
        Number of batches of the reference.
    """
    if settings.scvi.extra.encode_covariates and reference_batches == 1:
        return None, (
            "with encode_covariates and a reference of one batch, the query's batches arrive in the encoder with "
            "random weights, so they move already on loading"
        )
    if settings.scvi.norm == "batch" and not settings.scanvi.linear_classifier:
        return DRIFT, "the BatchNorm of an MLP classifier is not frozen"
    if settings.scvi.extra.encode_covariates:
        return ROUNDING, "with encode_covariates sums have more terms and are rounded otherwise"
    return 0.0, ""


def _shuffled(arm: Arm) -> ControlResult:
    """Right calls against their permutation distribution, given how often each class occurs and is called."""
    right = mean = variance = 0.0
    details = []
    for trial in arm.trials:
        matrix = np.asarray(arm.results[trial.key].confusion["heldout"])
        expected, spread = matched_by_chance(matrix)
        right, mean, variance = right + np.trace(matrix), mean + expected, variance + spread
        details += [arm.detail(trial, "right calls", np.trace(matrix)), arm.detail(trial, "by chance", expected)]
        details.append(arm.detail(trial, "variance by chance", spread))
    p = float(stats.norm.sf((right - 0.5 - mean) / np.sqrt(variance))) if variance > 0 else 1.0
    own, base = arm.recalls(arm.trials), arm.recalls(arm.base)
    found = (
        f"held-out macro recall {_percent(own)}, in the base trial {_percent(base)}; {right:.0f} held-out cells called "
        f"right, {mean:.1f} by chance alone (standard deviation {np.sqrt(variance):.1f}), p = {p:.2g}; "
        f"fails below {UNLIKELY}"
    )
    outcome = PASS if p >= UNLIKELY else FAIL
    return ControlResult("shuffled", EXPECTED["shuffled"], outcome, found, (*details, *own, *base))


def matched_by_chance(matrix: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return mean and variance of the number of right calls if labels were dealt to the cells at random.

    Parameters
    ----------
    matrix
        Counts, shape (n_classes, n_classes), rows = true. Only its margins matter: with them fixed, each entry is
        hypergeometric, and the diagonal's covariances follow.
    """
    true, called, n = matrix.sum(axis=1).astype(float), matrix.sum(axis=0).astype(float), float(matrix.sum())
    if n < 2:
        return float(np.trace(matrix)), 0.0
    products = true * called
    own = (products * (n - true) * (n - called)).sum()
    pairs = products.sum() ** 2 - (products**2).sum()
    return float(products.sum() / n), float((own + pairs) / (n**2 * (n - 1)))


def _repeat(arm: Arm) -> ControlResult:
    details = []
    for again, first in zip(arm.trials, arm.base, strict=True):
        one, other = arm.read(again.key), arm.read(first.key)
        gaps = [np.abs(one.probabilities - other.probabilities), np.abs(one.query_confidence - other.query_confidence)]
        largest = max(gap.max(initial=0) for gap in gaps)
        details.append(arm.detail(again, "largest difference of a probability", largest))
    largest = max(one.value for one in details)
    found = f"predictions of {len(details)} trials, each trained twice, {_gap(largest).rstrip(',')}"
    if largest:
        found += ": this machine does not repeat a training exactly, and chance includes that"
    return ControlResult("repeat", EXPECTED["repeat"], FAIL if largest else PASS, found, tuple(details))


def _yardstick(arm: Arm) -> ControlResult:
    name = arm.trials[0].control
    own, base = arm.recalls(arm.trials), arm.recalls(arm.base)
    gaps = np.array([one.value - other.value for one, other in zip(base, own, strict=True)])
    # Worse with a certainty of 95%; one replicate is no certainty.
    sure = gaps.size > 1 and gaps.mean() < -stats.t.ppf(0.95, gaps.size - 1) * gaps.std(ddof=1) / np.sqrt(gaps.size)
    found = (
        f"held-out macro recall {_percent(own)} by {YARDSTICK_NAMES[name]}, {_percent(base)} by the base trial: "
        f"{_difference(base, own)}"
    )
    return ControlResult(
        name, EXPECTED[name], FAIL if sure else PASS if gaps.size > 1 else FINISHED, found, (*own, *base)
    )


def _novel(arm: Arm) -> ControlResult:
    """Of each class that the reference was trained without: its cells' calls, and how well confidence finds them."""
    details, said = [], []
    for name in dict.fromkeys(trial.trial.removed for trial in arm.trials):
        mine = [trial for trial in arm.trials if trial.trial.removed == name]
        rows = [_calls_of(arm.results[trial.key], name) for trial in mine]
        found = [_found_by_doubt(arm.read(trial.key), row.sum()) for trial, row in zip(mine, rows, strict=True)]
        quantity = f"AUROC of 1 - confidence for {name}"
        details += [arm.detail(trial, quantity, auroc) for trial, auroc in zip(mine, found, strict=True)]
        called = pd.Series(np.sum(rows, axis=0), index=arm.results[mine[0].key].classes).nlargest(2)
        most = ", ".join(f"{other} {share:.0%}" for other, share in (called / np.sum(rows)).items() if share)
        said.append(f"{name} is called {most} (AUROC {np.mean(found):.2f})")
    words = f"{'; '.join(said)}. AUROC is how well 1 - confidence finds its cells among the query's: 0.5 is not at all"
    return ControlResult("novel", EXPECTED["novel"], FINISHED, words, tuple(details))


def _calls_of(result: Result, name: str) -> npt.NDArray[np.int64]:
    """How many query cells of a class are called each class of the reference."""
    return np.asarray(result.confusion[QUERY][result.truth_classes.index(name)])


def _found_by_doubt(found: Predictions, removed: int) -> float:
    """AUROC of 1 - confidence for the cells of the removed class, which stand behind the query's own."""
    doubt = 1 - found.query_confidence.astype(float)
    own, new = doubt[:-removed], doubt[-removed:]
    return float(stats.mannwhitneyu(new, own).statistic / (len(own) * len(new)))


_JUDGES: dict[str, Callable[[Arm], ControlResult]] = {
    "none": _measure,
    "self": _measure,
    "surgery": _surgery,
    "shuffled": _shuffled,
    "repeat": _repeat,
    "logistic": _yardstick,
    "knn": _yardstick,
    "novel": _novel,
}


def control_frames(judged: Sequence[ControlResult]) -> dict[str, pd.DataFrame]:
    """Return what came out as tables: `controls`, a row each, and `control_details`, the numbers behind them."""
    columns = ("control", "outcome", "expected", "found")
    return {
        "controls": pd.DataFrame([{name: getattr(one, name) for name in columns} for one in judged], columns=columns),
        "control_details": pd.DataFrame(_details(judged), columns=list(Detail.__dataclass_fields__)),
    }


def _details(judged: Sequence[ControlResult]) -> Iterator[dict[str, object]]:
    for one in judged:
        yield from (vars(detail) for detail in one.details)


def _percent(details: Sequence[Detail]) -> str:
    return f"{100 * np.mean([one.value for one in details]):.1f}%"


def _difference(base: Sequence[Detail], own: Sequence[Detail]) -> str:
    gaps = 100 * np.array([one.value - other.value for one, other in zip(base, own, strict=True)])
    error = f"standard error {gaps.std(ddof=1) / np.sqrt(gaps.size):.1f}" if gaps.size > 1 else "not known how certain"
    mean = gaps.mean()
    word = "higher" if mean > 0 else "lower"
    replicates = f"{gaps.size} replicate{'s' * (gaps.size != 1)}"
    return f"{abs(mean):.1f} points {word} in the base trial ({error}, {replicates})"


def _gap(largest: float) -> str:
    return f"differ by {largest:.2g} at most" if largest else "are the same, bit for bit,"
