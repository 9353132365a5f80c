"""Is scANVI the right tool here? Its held-out recall beside that of cheaper ways to the same labels, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from study.config import YARDSTICKS
from study.plan import PlannedTrial
from study.trials import HELD_OUT, MACRO, MACRO_RECALL, RECALL, Result, metric

YARDSTICK_NAMES = {"logistic": "logistic regression", "knn": "nearest neighbours in the latent space of scVI"}
COLUMNS = ("yardstick", "class", "replicates", "scANVI", "recall", "difference", "error")
VERDICT = "scANVI is"
BETTER, WORSE, ALIKE = "better", "worse", "not told apart"
ALPHA = 0.05


def compare_yardsticks(controls: Sequence[PlannedTrial], results: Mapping[str, Result]) -> pd.DataFrame:
    """Compare the base trial of a study with each yardstick on the same held-out cells.

    Parameters
    ----------
    controls
        The trials of a study's controls, with their base trials.
    results
        Finished trials by key.

    Returns
    -------
    One row per yardstick and class, the mean of all classes first: `replicates` in which both have a recall, the mean
    recall of `scANVI` and of the yardstick in percent, their paired `difference` in points with an interval that holds
    for all classes and yardsticks together (Student's t over replicates, Bonferroni), and what scANVI is by it.
    """
    found: dict[str, dict[int, Result]] = {}
    for trial in controls:
        if trial.key in results:
            found.setdefault(trial.control, {})[trial.replicate.index] = results[trial.key]
    base = found.get("base", {})
    rows = []
    for name in YARDSTICKS:
        pairs = [(base[index], result) for index, result in found.get(name, {}).items() if index in base]
        classes = pairs[0][0].classes if pairs else []
        for which in (MACRO, *classes) if pairs else ():
            word = metric(HELD_OUT, MACRO_RECALL) if which == MACRO else metric(HELD_OUT, RECALL, which)
            both = [(one.metrics[word], other.metrics[word]) for one, other in pairs
                    if word in one.metrics and word in other.metrics]  # fmt: skip
            if both:
                rows.append((name, which, *_compared(100 * np.array(both))))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    if table.empty:
        return table.assign(lower=np.nan, upper=np.nan, **{VERDICT: ""})
    error, n = table.pop("error"), table["replicates"]
    known = error > 0
    half = stats.t.ppf(1 - ALPHA / 2 / max(int(known.sum()), 1), np.maximum(n - 1, 1)) * error
    # No difference of two recalls is beyond 100 points.
    ends = [(table["difference"] + sign * half.where(known)).clip(-100, 100) for sign in (-1, 1)]
    table["lower"], table["upper"] = ends
    better, worse = table["lower"] > 0, table["upper"] < 0
    return table.assign(**{VERDICT: np.where(better, BETTER, np.where(worse, WORSE, ALIKE))})


def _compared(both: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Means and paired difference of recalls, shape (n_replicates, 2), and its error; one replicate has none."""
    gaps = both[:, 0] - both[:, 1]
    error = gaps.std(ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else np.nan
    return len(gaps), *both.mean(axis=0), gaps.mean(), error


def yardstick_sentences(table: pd.DataFrame) -> list[str]:
    """Say for each yardstick over all classes how scANVI compares, and in which classes they differ."""
    said: list[str] = []
    if table.empty:
        return said
    for name, rows in table.groupby("yardstick", sort=False):
        over_all, classes = rows[rows["class"] == MACRO].iloc[0], rows[rows["class"] != MACRO]
        interval = "" if np.isnan(over_all["lower"]) else f" [{over_all['lower']:+.1f}, {over_all['upper']:+.1f}]"
        parts = [f"{over_all['difference']:+.1f}{interval} points over all classes ({over_all[VERDICT]})"]
        for word in (BETTER, WORSE):
            named = classes.loc[classes[VERDICT] == word, "class"].tolist()
            if named:
                parts.append(f"{word} in {', '.join(named)}")
        parts.append(f"{(classes[VERDICT] == ALIKE).sum()} of {len(classes)} classes not told apart")
        said.append(f"scANVI beside {YARDSTICK_NAMES[str(name)]}: {'; '.join(parts)}.")
    return said
