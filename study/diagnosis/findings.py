"""What is wrong in one run, or worth knowing: each with its evidence, how sure it is, what it does, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd

from study.diagnosis.curves import flat_curves, warm_up
from study.diagnosis.finding import BEWARE, CERTAIN, FAQ, LIKELY, NOTE, OPEN, WRONG, Finding
from study.diagnosis.run import ALL, SEEN, TRAINED, UNSEEN, Run
from study.diagnosis.steps import dropout_off, training_state

FEW_CELLS = 20


def findings_of(run: Run) -> list[Finding]:
    """Return everything that is found in a run, what is wrong first."""
    found = [one for look in _LOOKS for one in look(run)]
    return sorted(found, key=lambda one: (WRONG, BEWARE, NOTE).index(one.level))


def _predictions(run: Run) -> Iterator[Finding]:
    if run.scanvi is not None:
        yield Finding(
            run.name,
            "predictions",
            NOTE if run.source else BEWARE,
            f"The numbers are from {run.source}."
            if run.source
            else "There are no predictions to recompute numbers from.",
            run.why or "its cells and classes are those of the model; whether this model wrote it is not recorded",
            CERTAIN,
            "A table that an earlier model wrote would give that one's numbers."
            if run.source
            else "No recall, no precision.",
            "--predict asks the model itself.",
        )


def _order(run: Run) -> Iterator[Finding]:
    if run.cells.shuffled:
        yield Finding(
            run.name,
            "other cells",
            WRONG,
            f"{run.cells.path.name} does not have the cells in the model's order, or with its labels.",
            "labels that the model kept against those in the file, cell by cell",
            CERTAIN,
            "Which cells it trained on cannot be told, for it kept their places only; so numbers are over all cells.",
            "Name the h5ad as it was when the model was set up.",
        )


def _counts(run: Run) -> Iterator[Finding]:
    where = f"layers[{run.model.layer!r}]" if run.model.layer else "X"
    for path, why in run.cells.spoilt.items():
        trained = path == run.cells.path
        yield Finding(
            run.name,
            "counts",
            WRONG if trained else BEWARE,
            f"{where} in {path.name} {why.split('. ')[0]}."
            + (
                ""
                if trained
                else f" In {run.cells.path.name} it has counts; which of them was trained on is not recorded."
            ),
            why,
            CERTAIN if trained else LIKELY,
            "scVI and scANVI model counts; of logarithms they learn another, compressed likelihood.",
            "a.X = a.layers['counts'].copy() before normalize_total and log1p, or set up with the raw counts.",
            f"{FAQ}#check-says-that-my-counts-look-like-log1p-i-have-a-counts-layer",
        )


def _trained_on(run: Run) -> Iterator[Finding]:
    if run.scanvi is None or run.scanvi.train is None or run.cells.shuffled:
        return
    sizes = {part: int(which.sum()) for part, which in run.parts.items()}
    every, trained = sizes[ALL], sizes[TRAINED]
    yield Finding(
        run.name,
        "training cells",
        BEWARE,
        f"{trained:,} of the {every:,} labelled reference cells were trained on with their labels"
        + (", by the last training alone." if run.scanvi.restarted else "."),
        "train_indices_ of the scANVI model, which are those of its last train()"
        + (f"; its scVI trained on {sizes[SEEN]:,} of the others" if sizes.get(SEEN) else ""),
        CERTAIN,
        "A number over all reference cells is mostly about cells whose labels the model was told; it changes with how "
        "long and on what else it trained, and says little about new cells.",
        "Report what is measured on cells that neither model trained on.",
        f"{FAQ}#my-confusion-matrix-says-98-of-what",
    )
    if trained < every and SEEN in sizes and (not sizes[UNSEEN] or (run.before is not None and run.before.restarted)):
        again = " It was trained more than once, and the first split is not kept." if sizes[UNSEEN] else ""
        yield Finding(
            run.name,
            "held-out cells",
            BEWARE,
            f"No labelled cell is known to be new to both models: of {every - trained:,} that scANVI kept back, scVI "
            f"trained on {sizes[SEEN]:,}.{again}",
            "train_indices_ of both models",
            CERTAIN,
            "There is no honest number in this run.",
            "Hold the same cells out of both trainings, as a study does.",
            f"{FAQ}#scanvi-has-a-validation-set-is-that-not-held-out",
        )
    if run.before is None and run.scanvi.inherited != 0:
        yield Finding(
            run.name,
            "its scVI",
            NOTE,
            "The scVI that it was made from is not beside it.",
            run.not_read or f"no SCVI of the same set-up in {run.scanvi.folder.parent}",
            OPEN,
            "Which of the kept-back cells scVI had trained on is not known; by itself scvi-tools splits anew.",
            "Put the saved SCVI into a folder beside this one.",
        )


def _overlap(run: Run) -> Iterator[Finding]:
    number = int(run.cells.again.sum())
    if number:
        of = int((~run.cells.reference).sum())
        example = run.cells.names[run.cells.again][0]
        yield Finding(
            run.name,
            "cells in two roles",
            WRONG,
            f"{number:,} of the {of:,} query cells are reference cells too.",
            f"Their counts are equal, gene by gene (such as {example!r}).",
            CERTAIN,
            "They train twice, once with a label and once without, and what is measured on the query is not new.",
            "Leave them out of the query: data.drop_duplicates=true does it in a study.",
            f"{FAQ}#my-confusion-matrix-says-98-of-what",
        )


def _labels(run: Run) -> Iterator[Finding]:
    sizes = pd.Series(run.cells.label[run.labelled]).value_counts()
    known = set(run.model.labels) - {run.model.unlabelled}
    empty = sorted(known - set(sizes.index)) if run.scanvi is not None else []
    if empty:
        yield Finding(
            run.name,
            "classes without cells",
            WRONG,
            f"No reference cell has the label {', '.join(empty)}.",
            f"labels of the model against obs of {run.cells.path.name}",
            CERTAIN,
            "The classifier has an output for it that nothing trains.",
            "obs[key] = obs[key].cat.remove_unused_categories() before the set-up.",
            f"{FAQ}#my-label-column-has-a-class-that-no-cell-has",
        )
    few = sizes[sizes < FEW_CELLS]
    if len(few):
        named = ", ".join(f"{name} ({size})" for name, size in few.items())
        yield Finding(
            run.name,
            "few cells",
            BEWARE,
            f"Labels with fewer than {FEW_CELLS} reference cells: {named}.",
            f"obs of {run.cells.path.name}",
            CERTAIN,
            "One cell more or less right moves their number by 5 points and more.",
            "Read their intervals, or put labels together.",
            f"{FAQ}#what-of-classes-with-few-cells",
        )


def _batches(run: Run) -> Iterator[Finding]:
    table = pd.crosstab(run.cells.label[run.labelled], run.cells.batch[run.labelled])
    if table.shape[1] > 1:
        single = [str(name) for name in table.index if (table.loc[name] > 0).sum() == 1]
        if single:
            yield Finding(
                run.name,
                "class in one batch",
                BEWARE,
                f"All cells of {', '.join(single)} are in one batch of the reference each.",
                "labels against batches",
                CERTAIN,
                "What is the class and what is the batch cannot be told apart, and scVI removes batches.",
                "Choose a batch column that crosses the classes.",
            )
    shared = set(run.cells.batch[run.cells.reference]) & set(run.cells.batch[~run.cells.reference])
    if not shared and run.cells.reference.any() and not run.cells.reference.all():
        yield Finding(
            run.name,
            "batches",
            NOTE,
            "Reference and query share no batch.",
            "batches of both",
            CERTAIN,
            "The batch is the query: what differs between them is removed as a batch effect, with what is real in it.",
            "That is how a new query comes; mind it where the query's make-up differs.",
        )


def _ignored(run: Run) -> Iterator[Finding]:
    """What from_scvi_model takes from the scVI, whatever is passed."""
    if run.scanvi is None or run.before is None:
        return
    key = run.before.key("labels")
    labels = (
        f" Labels are from obs[{key!r}], with which scVI was set up: another labels_key was ignored." if key else ""
    )
    shared = sorted(set(run.before.settings) & set(run.scanvi.settings))
    yield Finding(
        run.name,
        "ignored settings",
        BEWARE if key else NOTE,
        f"{', '.join(shared[:4])} and the like are those of the scVI, whatever was passed to from_scvi_model.{labels}",
        "the set-up of both models; what was passed is not kept",
        CERTAIN if key else OPEN,
        "A setting that seemed to vary between runs did not.",
        "Set them, and labels_key, where scVI is made.",
        f"{FAQ}#i-changed-an-argument-of-from-scvi-model-and-nothing-happened",
    )


def _sampling(run: Run) -> Iterator[Finding]:
    if run.scanvi is not None and run.scanvi.epochs:
        yield Finding(
            run.name,
            "sampling of labels",
            NOTE,
            "Whether n_samples_per_label was given, and cells were drawn anew in each epoch, is not in a saved model.",
            "scvi-tools keeps no arguments of train()",
            OPEN,
            "A custom callback can switch the drawing off: then scANVI sees the same few labelled cells in all epochs.",
            "Look in the script for callbacks= in train(); say in the study what n_samples_per_label was.",
            f"{FAQ}#my-own-training-callback-changed-the-result-how",
        )


_LOOKS: tuple[Callable[[Run], Iterator[Finding]], ...] = (
    *(training_state, _order, _counts, dropout_off, _overlap, _labels, _trained_on, _batches),
    *(flat_curves, warm_up, _predictions, _ignored, _sampling),
)  # fmt: skip
