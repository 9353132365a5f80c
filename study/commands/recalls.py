"""What trials recall of each class while a study runs."""

from __future__ import annotations

import math
from statistics import fmean

from study.trials import HELD_OUT, RECALL, Result, metric

Recalls = dict[str, dict[str, float]]  # by class and trial key
RECALLS = f"{metric(HELD_OUT, RECALL)}/"


def note(recalls: Recalls, result: Result) -> None:
    """Add what a trial recalled of each class in held-out cells."""
    for name, value in result.metrics.items():
        if name.startswith(RECALLS) and not math.isnan(value):
            recalls.setdefault(name.removeprefix(RECALLS), {})[result.key] = value


def extremes(recalls: Recalls) -> str:
    """Say which class is recalled best so far, and which worst."""
    # A copy: results are noted in a thread of their own.
    means = {name: fmean(list(found.values())) for name, found in list(recalls.items())}
    if not means:
        return ""
    best, worst = max(means, key=lambda name: means[name]), min(means, key=lambda name: means[name])
    return f"best {best} {means[best]:.2f}, worst {worst} {means[worst]:.2f}"
