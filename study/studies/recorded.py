"""A finished study as its folder records it: its configuration, and its trials by design point, seed and fold.

Only `config.yaml`, `tables/trials.csv` and `trials/` are read: no cells, which may have gone or changed since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from study.config import StudyConfig, load_stored, written
from study.errors import InputError, few
from study.trials import Result, read_all

KEPT = ["seed", "fold", "trial_key"]  # what a table of trials has of each, beside its factors
Key = tuple[tuple[str, ...], int, int]  # a design point, its levels as they are written; seed; fold


@dataclass(frozen=True)
class Recorded:
    """A study, and its finished trials."""

    folder: Path
    config: StudyConfig
    trials: Mapping[Key, Result]

    @property
    def points(self) -> list[tuple[str, ...]]:
        """The design points of which any trial is finished."""
        return list(dict.fromkeys(point for point, _, _ in self.trials))

    def whole(self, points: Sequence[tuple[str, ...]]) -> list[tuple[int, int]]:
        """Return the (seed, fold) in which every point is finished."""
        found = dict.fromkeys((seed, fold) for _, seed, fold in self.trials)
        return [one for one in found if all((point, *one) in self.trials for point in points)]


def read_recorded(folder: Path) -> Recorded:
    """Read the finished trials of a study.

    Raises
    ------
    InputError
        If the folder is none, is no study, is a search, or has no results.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder. Expected one of a study, such as studies/my-study.")
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: no study (it has no config.yaml). Expected a folder such as studies/my-study.")
    place = folder.resolve()
    config = load_stored(place.name, place.parent)
    if config.space.design == "search":
        raise InputError(f"{folder}: a search. It chose its trials by their results, so two of them are two designs.")
    path = folder / "tables" / "trials.csv"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise InputError(f"{path} {why}. 'scanvi-study report' writes it, once a trial is finished.") from None
    names = list(config.space.factors)
    if absent := [name for name in (*names, *KEPT) if name not in table]:
        raise InputError(f"{path}: has no column {few(absent)}. Expected the table that 'scanvi-study report' writes.")
    results = read_all(place, table["trial_key"])
    if not results:
        raise InputError(f"{folder}: has no results in trials/ ({len(table)} trials in its table). Run it first.")
    if not table[KEPT[:2]].apply(lambda column: column.str.fullmatch("[0-9]+")).to_numpy().all():
        raise InputError(f"{path}: has a seed or fold that is no number. 'scanvi-study report' writes it anew.")
    trials = {
        (point, int(seed), int(fold)): results[key]
        for *point_, seed, fold, key in table[[*names, *KEPT]].itertuples(index=False)
        if key in results
        for point in [tuple(point_)]
    }
    return Recorded(folder, config, trials)


def refuse_other_design(a: Recorded, b: Recorded) -> None:
    """Refuse two designs: what varies, over which levels, and in how many parts the reference was dealt.

    Raises
    ------
    InputError
        With the first that is not the same in both.
    """
    said = [_design(side) for side in (a, b)]
    for what in dict.fromkeys((*said[0], *said[1])):
        found = [design.get(what, "nothing") for design in said]
        if found[0] != found[1]:
            raise InputError(
                f"{a.folder} and {b.folder} are not of the same design: {what} is {found[0]} in the first and "
                f"{found[1]} in the second. Run both with the same search space."
            )


def _design(side: Recorded) -> dict[str, str]:
    space = side.config.space
    found = {"space.design": space.design, "space.folds": str(space.n_folds), "space.points": str(space.points)}
    for name, spec in space.factors.items():
        levels = sorted(map(written, spec.levels)) if isinstance(spec.levels, tuple) else spec.levels
        found[f"space.factors.{name}"] = f"[{', '.join(levels)}]" if isinstance(levels, list) else str(levels or spec)
    if space.design == "factorial" and "query" in space.factors:  # `all` is what the data has
        where = list(space.factors).index("query")
        found["space.factors.query"] = f"[{', '.join(sorted({point[where] for point in side.points}))}]"
    return found
