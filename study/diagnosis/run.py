"""One finished run: its models, the cells that they were trained on, and what was predicted of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from study.config import DataConfig
from study.diagnosis.beside import RunCells, cells_of, predictions_of
from study.diagnosis.saved import FILE, SavedModel, read_model
from study.errors import InputError

BATCH_SIZE = 128  # scvi-tools' own; a saved model does not say which it had
ALL, TRAINED = "all labelled reference cells", "trained on by scANVI"
SEEN, UNSEEN, KEPT_BACK = "kept back by scANVI, trained on by scVI", "trained on by neither", "kept back by scANVI"


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run.

    Attributes
    ----------
    name
        What it is called here.
    model
        Its last model.
    before
        The scVI that a scANVI was made from, where that lies beside it.
    not_read
        Why a model beside it cannot be read, which could be that scVI; empty if all can.
    cells
        What it was trained on.
    soft
        Probability of each class for its cells, shape (n_cells, n_classes); None where nothing tells.
    source
        Where these come from.
    why
        Why there are none.
    """

    name: str
    model: SavedModel
    before: SavedModel | None
    not_read: str
    cells: RunCells
    soft: pd.DataFrame | None
    source: str
    why: str

    @property
    def scvi(self) -> SavedModel | None:
        """Its scVI."""
        return self.model if self.model.kind == "SCVI" else self.before

    @property
    def scanvi(self) -> SavedModel | None:
        """Its scANVI."""
        return self.model if self.model.kind == "SCANVI" else None

    @cached_property
    def called(self) -> npt.NDArray[np.object_] | None:
        """Most probable class of each cell."""
        if self.soft is None:
            return None
        found: npt.NDArray[np.object_] = np.asarray(self.soft.columns, dtype=object)[
            self.soft.to_numpy().argmax(axis=1)
        ]
        return found

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Which cells are of the reference and have a label."""
        found: npt.NDArray[np.bool_] = self.cells.label != ""
        return found

    @property
    def parts(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Labelled reference cells by what trained on them."""
        found = {ALL: self.labelled}
        if self.scanvi is None or self.scanvi.train is None or self.cells.shuffled:
            return found
        mine = self.within(self.scanvi.train)
        found[TRAINED] = self.labelled & mine
        left = self.labelled & ~mine
        if self.before is None or self.before.train is None:
            return found | ({KEPT_BACK: left} if left.any() else {})
        before = self.within(self.before.train)
        return found | {SEEN: left & before, UNSEEN: left & ~before}

    def within(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which cells some rows are."""
        found = np.zeros(len(self.cells.names), dtype=bool)
        found[rows] = True
        return found

    @cached_property
    def numbers(self) -> pd.DataFrame:
        """Recall and precision in percent of each class on each part of the labelled cells, with 95% intervals.

        Precision is the thread's "accuracy": correct among the cells that are called so. Intervals are exact binomial
        ones (Clopper & Pearson 1934).
        """
        if self.called is None:
            return pd.DataFrame()
        rows = []
        for part, which in self.parts.items():
            truth, called = self.cells.label[which], self.called[which]
            for name in sorted(set(self.cells.label[self.labelled])):
                right = int(((truth == name) & (called == name)).sum())
                of, as_ = int((truth == name).sum()), int((called == name).sum())
                rows.append({"run": self.name, "part": part, "class": name, "cells": of, "called": as_,
                             **_share("recall", right, of), **_share("precision", right, as_)})  # fmt: skip
        return pd.DataFrame(rows)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What a table of runs has of it: its query, sizes, schedule, settings, and its recalls and precisions."""
        queries = sorted(set(self.cells.dataset[~self.cells.reference]))
        found: dict[str, Any] = {
            "query": ", ".join(queries),
            "reference_cells": int(self.cells.reference.sum()),
            "query_cells": int((~self.cells.reference).sum()),
            "genes": len(self.model.genes),
        }
        for name, model in (("scvi", self.scvi), ("scanvi", self.scanvi)):
            if model is not None:
                found |= {f"{name}.epochs": model.epochs, f"{name}.steps": steps_of(model)}
        found |= {f"setting.{name}": _plain(value) for name, value in self.model.settings.items() if value is not None}
        if len(self.numbers):
            of_all = self.numbers[self.numbers["part"] == ALL].set_index("class")
            found |= {f"recall/{name}": value for name, value in of_all["recall"].items()}
            found |= {f"precision/{name}": value for name, value in of_all["precision"].items()}
        return found


def read_run(
    name: str, folder: Path, candidates: Sequence[Path], config: DataConfig | None, trust_pickle: bool, predict: bool
) -> Run:
    """Read a run from the folder of its last model.

    Parameters
    ----------
    name
        What to call it.
    folder
        As `model.save` was given it.
    candidates
        Files in which the cells may be.
    config
        Which of them are the reference, and their labels; as the model itself was told if None.
    trust_pickle
        Whether loading may run what the file holds.
    predict
        Whether to ask the model itself, which takes as long as predicting does; else the table beside it is read.

    Raises
    ------
    InputError
        If the model or its cells cannot be read.
    """
    model = read_model(folder, trust_pickle)
    before, not_read = _before(model, trust_pickle) if model.kind == "SCANVI" else (None, "")
    cells = cells_of(model, candidates, config)
    if predict:
        from study.diagnosis.asked import ask  # imports scvi-tools

        return Run(name, model, before, not_read, cells, ask(model, cells), "the model itself", "")
    found = predictions_of(model, cells)
    return Run(name, model, before, not_read, cells, found.soft, found.source, found.why)


def _before(model: SavedModel, trust_pickle: bool) -> tuple[SavedModel | None, str]:
    """The scVI that a scANVI was made from: of the same set-up, and as many cells, in a folder beside it."""
    not_read, fitting = "", []
    for path in sorted(model.folder.parent.glob(f"*/{FILE}")):
        if path.parent.samefile(model.folder):
            continue
        try:
            other = read_model(path.parent, trust_pickle)
        except InputError as error:
            not_read = str(error)
            continue
        if other.kind == "SCVI" and other.identity == model.identity and other.n_cells == model.n_cells:
            fitting.append(other)
    # A snapshot may lie there too: the one that it was made from has the minibatches that its decoder came with.
    exact = [one for one in fitting if model.inherited is not None and one.steps == model.inherited]
    if len(fitting) > 1 and len(exact) != 1:
        return None, f"{len(fitting)} SCVI of its set-up lie beside it, and nothing tells which one"
    return next(iter(exact or fitting), None), not_read


def steps_of(model: SavedModel) -> int:
    """Return the optimiser steps of a model: as BatchNorm counted them, else epochs times minibatches of usual size."""
    return model.epochs * minibatches(model) if model.steps is None else model.steps


def minibatches(model: SavedModel) -> int:
    """Return the minibatches of an epoch, if they had scvi-tools' own size."""
    n = model.n_cells if model.train is None else len(model.train)
    return -(-n // BATCH_SIZE)


def kl_weight(model: SavedModel) -> float | None:
    """Return the weight of the KL term as it was last logged; None where it was not, for warm-up can be set."""
    recorded = model.history.get("kl_weight")
    return float(recorded[-1]) if recorded is not None and recorded.size else None


def _share(name: str, right: int, of: int) -> dict[str, float]:
    low, high = proportion_confint(right, of, method="beta") if of else (np.nan, np.nan)
    return {name: 100 * (right / of) if of else np.nan, f"{name}_lower": 100 * low, f"{name}_upper": 100 * high}


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else getattr(value, "__name__", str(value))
