"""A diagnosis: what was found in each run, what differs between them, and what they can say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from study.config import DataConfig
from study.diagnosis.columns import is_outcome
from study.diagnosis.finding import Finding
from study.diagnosis.findings import findings_of
from study.diagnosis.run import read_run
from study.diagnosis.saved import FILE
from study.diagnosis.smallest import SmallestStudy, smallest_study
from study.diagnosis.together import Together, compare_runs
from study.errors import InputError


def matches(numbers: pd.DataFrame, reported: Mapping[str, float]) -> list[str]:
    """Say which recomputed numbers the reported figures are, to the two decimals that figures usually have.

    Parameters
    ----------
    numbers
        Recall and precision in percent, by run, part and class.
    reported
        A figure for each class, from 0 to 1.
    """
    said = []
    for (run, part), rows in numbers.groupby(["run", "part"], sort=False) if len(numbers) else ():
        of_class = rows.set_index("class")
        for measured in ("recall", "precision"):
            found = of_class[measured].reindex(list(reported)) / 100
            if ((found - pd.Series(dict(reported))).abs() <= 0.005 + 1e-9).all():
                said.append(f"The reported figures are the {measured} of {run} on {part}.")
    return said or ["The reported figures are no recall or precision of these runs, on no part of their cells."]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What can be said of finished runs without training.

    Attributes
    ----------
    findings
        Of each run.
    numbers
        Recall and precision of each class, by what trained on the cells; empty for a table of runs.
    table
        One row per run: its query, sizes, schedule, settings, and what was measured.
    together
        What they can say together; None of one run.
    next
        The smallest study that would tell; None where the data are not known, or there is one query.
    """

    findings: tuple[Finding, ...]
    numbers: pd.DataFrame
    table: pd.DataFrame
    together: Together | None
    next: SmallestStudy | None = None

    @property
    def differences(self) -> pd.DataFrame:
        """What differs between the runs beside what was measured: a row each, a column per run."""
        if len(self.table) < 2:
            return pd.DataFrame()
        causes = [name for name in self.table if not is_outcome(str(name))]
        some = self.table[[name for name in causes if name != "run" and self.table[name].astype(str).nunique() > 1]]
        return some.T.set_axis(self.table["run"].astype(str), axis=1).rename_axis("differs").reset_index()

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "findings": [vars(one) for one in self.findings],
            "numbers": _records(self.numbers),
            "runs": _records(self.table),
            "together": self.together.sentences if self.together else [],
            "causes": _records(self.together.to_frame()) if self.together else [],
            "next": vars(self.next) if self.next else None,
        }


def diagnose_models(
    folders: Sequence[Path],
    candidates: Sequence[Path],
    config: DataConfig | None = None,
    words: Sequence[str] = (),
    trust_pickle: bool = False,
    predict: bool = False,
) -> Diagnosis:
    """Diagnose runs by their saved models.

    Parameters
    ----------
    folders
        Of the models, as `model.save` was given them.
    candidates
        Files in which their cells may be; those beside the models if empty.
    config
        Which cells are the reference, and their labels; as the models were told if None.
    words
        Overrides that name the data, for the study that would tell.
    trust_pickle
        Whether loading may run what the files hold.
    predict
        Whether to ask the models themselves what they call the cells.

    Raises
    ------
    InputError
        If a model or its cells cannot be read.
    """
    runs = [
        read_run(name, folder, candidates, config, trust_pickle, predict)
        for name, folder in zip(names_of(folders), folders, strict=True)
    ]
    table = pd.DataFrame([{"run": run.name, **run.facts} for run in runs])
    return Diagnosis(
        tuple(one for run in runs for one in findings_of(run)),
        pd.concat([run.numbers for run in runs], ignore_index=True),
        table,
        compare_runs(table) if len(runs) > 1 else None,
        smallest_study(runs, words) if config is not None else None,
    )


def diagnose_table(table: pd.DataFrame, measured: Sequence[str] = ()) -> Diagnosis:
    """Diagnose runs that are known by a table: settings, data, seeds and recalls, one row per run.

    Parameters
    ----------
    table
        The runs.
    measured
        Columns that were measured, beside those whose names say so.

    Raises
    ------
    InputError
        If there are fewer than two.
    """
    named = table if "run" in table else table.assign(run=range(1, len(table) + 1))
    return Diagnosis((), pd.DataFrame(), named, compare_runs(named, measured))


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return what runs are called: as little of the paths of their models as tells them apart, from the left."""
    whole = [(folder.parent if folder.name == FILE else folder).resolve() for folder in folders]
    if len(set(whole)) < len(whole):
        twice = next(folder for folder in whole if whole.count(folder) > 1)
        raise InputError(f"{twice}: is named twice. Name each run once.")
    parts = [folder.parts for folder in whole]
    shared = next((at for at, names in enumerate(zip(*parts, strict=False)) if len(set(names)) > 1), None)
    if shared is None:
        return [path[-1] for path in parts]
    return [path[shared] if len({other[shared] for other in parts}) == len(parts) else "/".join(path[shared:])
            for path in parts]  # fmt: skip


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    whole = frame.rename(columns=str).astype(object)
    return [
        dict(zip(whole.columns, row, strict=True)) for row in whole.where(frame.notna().to_numpy(), None).to_numpy()
    ]
