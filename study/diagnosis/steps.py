"""Whether the models of a run were trained as their settings say: at all, to the end, with dropout."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from study.diagnosis.finding import BEWARE, CERTAIN, FAQ, LIKELY, NOTE, OPEN, WRONG, Finding
from study.diagnosis.run import BATCH_SIZE, Run, minibatches
from study.diagnosis.saved import SavedModel


def training_state(run: Run) -> Iterator[Finding]:
    """Say whether its models were trained at all, diverged, or began from scratch."""
    for model in filter(None, (run.scvi, run.scanvi)):
        if not model.epochs and model.train is None:
            yield Finding(
                run.name,
                "untrained",
                WRONG,
                f"{model.kind} was never trained.",
                "no history and no train_indices_",
                CERTAIN,
                "What it says is that of random weights.",
                "Save it after train().",
            )
        if any(np.isnan(values).any() for values in model.history.values()):
            yield Finding(
                run.name,
                "diverged",
                WRONG,
                f"{model.kind} diverged: its curves have values that are no numbers.",
                "history_",
                CERTAIN,
                "Its weights are worth nothing from there on.",
                "Look for cells without counts, or values that are none; lower the learning rate.",
            )
    if run.scanvi is not None and run.scanvi.inherited == 0 and run.scanvi.steps:
        yield Finding(
            run.name,
            "from scratch",
            NOTE,
            "scANVI was not made from a trained scVI.",
            "its decoder has met no more minibatches than the layers that only scANVI has",
            CERTAIN,
            "The latent space was learned together with the classifier, in as many epochs as scANVI had.",
            "SCANVI.from_scvi_model is the usual way.",
        )


def dropout_off(run: Run) -> Iterator[Finding]:
    """Say whether a part of the training ran in evaluation mode, as far as BatchNorm's counter tells."""
    for model in filter(None, (run.scvi, run.scanvi)):
        steps, usual = model.steps, model.epochs * minibatches(model)
        if steps is None and model.epochs:
            yield _no_batch_norm(run, model)
        elif steps is not None and model.epochs and steps < usual:
            yield _fewer_steps(run, model, steps, usual)


def _fewer_steps(run: Run, model: SavedModel, steps: int, usual: int) -> Finding:
    """Fewer minibatches than usual in training mode: a part in evaluation mode, or a larger batch size."""
    each = steps / model.epochs
    certain = model.restarted or not each.is_integer()
    also = "" if certain else f", or a batch size of about {-(-usual * BATCH_SIZE // steps):,} instead of {BATCH_SIZE}"
    return Finding(
        run.name,
        "trained without dropout" if certain else "fewer steps",
        WRONG if certain else BEWARE,
        f"{model.kind} made {steps:,} of {usual:,} usual optimiser steps in training mode: "
        f"{'the others ran' if certain else 'a part ran'} in evaluation mode{also}.",
        f"BatchNorm saw {steps:,} minibatches in training mode; {model.epochs} epochs of {minibatches(model)} of "
        f"{BATCH_SIZE} cells are {usual:,}" + ("; the epochs in its history begin anew" if model.restarted else ""),
        (CERTAIN if not each.is_integer() else LIKELY) if certain else OPEN,
        "In evaluation mode there is no dropout, and statistics of BatchNorm stand still: another training than its "
        "settings say.",
        "Train once, for all epochs; or call model.module.train() before a second train().",
        f"{FAQ}#can-i-train-some-more-epochs-on-a-trained-model",
    )


def _no_batch_norm(run: Run, model: SavedModel) -> Finding:
    return Finding(
        run.name,
        "no step counter",
        NOTE,
        f"Whether {model.kind} trained in evaluation mode for a part cannot be told.",
        f"It has no BatchNorm, which counts minibatches; the history alone has {model.epochs} epochs.",
        OPEN,
        "A second train() after a prediction would have run without dropout.",
        "Look in the script for two calls of train() on one model.",
        f"{FAQ}#can-i-train-some-more-epochs-on-a-trained-model",
    )
