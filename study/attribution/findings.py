"""What attribution finds, as plain values: shares, chance by stratum, effects in points, and their tidy tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Literal

import pandas as pd

from study.attribution.correction import SIGNIFICANT
from study.attribution.effects import Kind
from study.config import Level, Role
from study.plan import Factor, Stratum

Method = Literal["balanced", "mixed model", "few cells", "none"]


@dataclass(frozen=True)
class Share:
    """The part of the differences between runs that a group explains. Chance has no p value."""

    group: str
    share: float
    lower: float
    upper: float
    p: float | None
    p_adjusted: float | None


@dataclass(frozen=True)
class ChancePart:
    """Chance that enters at one level of the stage tree: its share, its variance (logit scale), and a warning."""

    stratum: str
    label: str
    share: float
    lower: float
    upper: float
    variance: float
    df: int
    note: str


@dataclass(frozen=True)
class Block:
    """What replicates differ in, beside the shares: which cells were held out, and the seed.

    Variances on the logit scale, unbiased, so possibly negative; `relative` is in units of all four shares together.
    `seed`, `fold` and `both` are known where seeds and folds are crossed.
    """

    variance: float
    relative: float
    df: int
    seed: float | None
    fold: float | None
    both: float | None


@dataclass(frozen=True)
class Mean:
    """Mean of an outcome at one level of a factor, in percent, with its interval on the cells held out here."""

    factor: str
    level: Level
    points: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Effect:
    """A level of a factor instead of its baseline, in percentage points, overall or at a level of another factor."""

    kind: Kind
    factor: str
    level: Level
    baseline: Level
    at_factor: str | None
    at_level: Level | None
    role: Role
    strata: str
    points: float
    lower: float
    upper: float
    se: float
    df: float
    p: float
    p_adjusted: float

    @property
    def real(self) -> bool:
        """Whether it stays after correction for all effects of all classes."""
        return self.p_adjusted <= SIGNIFICANT


@dataclass(frozen=True)
class AnovaRow:
    """One line of the analysis of variance on the logit scale; an error line has no F and no p."""

    term: str
    order: int
    group: str
    stratum: str
    df: int
    ss: float
    ms: float
    f: float | None
    p: float | None
    variance: float


@dataclass(frozen=True)
class Sensitivity:
    """Part of the variance that involves a factor (total-order Sobol), and its fair part of it (Shapley)."""

    factor: str
    role: Role
    total: float
    shapley: float


PARTS = {
    "shares": Share,
    "chance": ChancePart,
    "block": Block,
    "means": Mean,
    "effects": Effect,
    "anova": AnovaRow,
    "sensitivity": Sensitivity,
}


@dataclass(frozen=True)
class Attribution:
    """What explains the differences in one outcome of one class.

    `method` is ``none`` where it is shown but not decomposed, and `reason` says why; then the tuples are empty. It is
    ``mixed model`` where trials are missing: approximate, and `reason` says so. With ``few cells`` there are means and
    effects alone. `clear` is the group (chance is one) whose share is the largest beyond the error that this look
    may make.
    """

    outcome: str
    class_name: str
    method: Method
    reason: str
    points: float
    support: float
    trials: int
    replicates: int
    clear: str | None = None
    shares: tuple[Share, ...] = ()
    chance: tuple[ChancePart, ...] = ()
    block: Block | None = None
    means: tuple[Mean, ...] = ()
    effects: tuple[Effect, ...] = ()
    anova: tuple[AnovaRow, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()

    def share(self, group: str) -> Share:
        """Return the share of a group.

        Raises
        ------
        KeyError
            If the design or the table has no such share.
        """
        for share in self.shares:
            if share.group == group:
                return share
        raise KeyError(group)


@dataclass(frozen=True)
class StudyAttribution:
    """All outcomes of all classes of a study. p values are adjusted over all classes of an outcome."""

    factors: tuple[Factor, ...]
    strata: tuple[Stratum, ...]
    attributions: tuple[Attribution, ...]

    def of(self, outcome: str, class_name: str) -> Attribution:
        """Return one outcome of one class.

        Raises
        ------
        KeyError
            If the study has none such.
        """
        for attribution in self.attributions:
            if (attribution.outcome, attribution.class_name) == (outcome, class_name):
                return attribution
        raise KeyError((outcome, class_name))

    def to_frames(self) -> dict[str, pd.DataFrame]:
        """Return tidy tables: tables, shares, chance, block, means, effects, anova, sensitivity.

        Every row starts with its `outcome` and `class_name`; `tables` has one row for each of them.
        """
        frames = {"tables": pd.DataFrame([_scalars(attribution) for attribution in self.attributions])}
        for part, kind in PARTS.items():
            # With its columns also where no class is decomposed.
            columns = ["outcome", "class_name", *(field.name for field in fields(kind))]
            columns += ["real"] if kind is Effect else []
            rows = []
            for attribution in self.attributions:
                found = getattr(attribution, part)
                for row in found if isinstance(found, tuple) else [found] if found else []:
                    extra = {"real": row.real} if isinstance(row, Effect) else {}
                    rows.append(
                        {"outcome": attribution.outcome, "class_name": attribution.class_name} | asdict(row) | extra
                    )
            frames[part] = pd.DataFrame(rows, columns=columns)
        return frames


def _scalars(attribution: Attribution) -> dict[str, object]:
    return {key: value for key, value in vars(attribution).items() if not isinstance(value, (tuple, Block))}
