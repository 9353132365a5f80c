"""What the training curves of a run show: still learning, long flat, and how far the KL term had come."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from study.diagnosis.finding import BEWARE, CERTAIN, FAQ, LIKELY, NOTE, Finding
from study.diagnosis.run import Run, kl_weight

# A curve is flat where the best later epoch is better by less than this share of what all epochs gained.
FLAT = 0.02
FEWEST_EPOCHS = 10  # of fewer, a curve has no shape


def flat_curves(run: Run) -> Iterator[Finding]:
    """Say of each model whether it was still learning at the end, or had long stopped."""
    for model, name in ((run.scanvi, "train_classification_loss"), (run.scvi, "elbo_train")):
        if model is None or (curve := model.history.get(name)) is None:
            continue
        if curve.size < FEWEST_EPOCHS or not np.isfinite(curve).all():
            continue
        what = f"{name} of {model.kind}"
        flat = _flat_from(curve)
        if flat is None:
            yield Finding(
                run.name,
                "under-trained",
                BEWARE,
                f"{what} was still falling at the end.",
                f"the last {_last(curve)} of {curve.size} epochs gained {_last_gain(curve):.0%} of what all gained",
                LIKELY,
                "Runs of unequal length or with unequally many minibatches an epoch are at unequal stages.",
                "Train longer, or compare at equal optimiser steps (budget=steps).",
                f"{FAQ}#are-the-default-numbers-of-epochs-the-same-for-each-query",
            )
        elif flat < 0.7 * curve.size:
            yield Finding(
                run.name,
                "idle epochs",
                NOTE,
                f"{what} has hardly fallen since epoch {flat} of {curve.size}.",
                f"later epochs gained less than {FLAT:.0%} of what all gained",
                LIKELY,
                f"{(curve.size - flat) / curve.size:.0%} of its epochs, and of their cost, bought nothing to see.",
                "Fewer epochs may do; a study with levels of max_epochs tells.",
                f"{FAQ}#do-more-epochs-only-mean-more-training",
            )


def _flat_from(curve: np.ndarray) -> int | None:
    """Return the first epoch after which a curve gains next to nothing; None if it gains until the end."""
    best = np.minimum.accumulate(curve)
    gained = best[0] - best[-1]
    if gained <= 0:
        return 1
    left = (best - best[-1]) / gained
    flat = int(np.argmax(left < FLAT)) + 1
    return None if flat > 0.9 * curve.size and _last_gain(curve) > FLAT else flat


def _last(curve: np.ndarray) -> int:
    return int(max(2, curve.size // 10))


def _last_gain(curve: np.ndarray) -> float:
    best = np.minimum.accumulate(curve)
    gained = best[0] - best[-1]
    return float((best[-_last(curve) - 1] - best[-1]) / gained) if gained > 0 else 0.0


def warm_up(run: Run) -> Iterator[Finding]:
    """Say where scVI ended before its KL term had its full weight."""
    weight = None if run.scvi is None else kl_weight(run.scvi)
    # Where the weight has stood still it is as large as it was to become.
    if run.scvi is None or weight is None or weight > 0.95 or (run.scvi.history["kl_weight"][-3:] == weight).sum() > 1:
        return
    yield Finding(
        run.name,
        "KL warm-up",
        NOTE,
        f"scVI's KL term was still warming up: its weight was last logged as {weight:.2f}.",
        "kl_weight in its history",
        CERTAIN,
        "Runs that end at unequal weights are unequal models; by itself scvi-tools trains fewer epochs on more cells.",
        "State max_epochs, the same for all runs.",
        f"{FAQ}#are-the-default-numbers-of-epochs-the-same-for-each-query",
    )
