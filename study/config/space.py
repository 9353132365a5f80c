"""What varies in a study, and how often the whole design is repeated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from study.config.values import WHOLE_LIMIT, YARDSTICKS, Control, Count, Level, Model, written

# After how many replicates a study that stops when it is settled is looked at, where nothing else is declared.
LOOKS = tuple(range(3, 13))
# Narrower ranges, relative to their ends or at all, hold too few numbers for points that differ.
NARROWEST, TINIEST = 1e-6, 1e-300


class Domain(Model):
    """A range that a random design or a search draws from."""

    type: Literal["uniform", "loguniform", "randint"] = Field(description="how values are drawn from the range")
    low: float = Field(description="lower end")
    high: float = Field(description="upper end")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        ends, width = (self.low, self.high), self.high - self.low
        found = f"found low: {self.low!r} and high: {self.high!r}"
        if self.high <= self.low or (self.type == "loguniform" and self.low <= 0):
            zero = "0 < " if self.type == "loguniform" else ""
            raise ValueError(f"a {self.type} range needs {zero}low < high, {found}; a fixed value is no factor")
        if not math.isfinite(width):
            raise ValueError(
                f"a range from {self.low:g} to {self.high:g} is too wide to draw from: bring its ends closer"
            )
        if self.type != "randint" and width < max(NARROWEST * max(map(abs, ends)), TINIEST):
            raise ValueError(f"a {self.type} range needs ends that differ by more than rounding, {found}: widen it")
        if self.type == "randint" and not all(end.is_integer() and abs(end) <= WHOLE_LIMIT for end in ends):
            raise ValueError(f"a randint range goes from one integer to another, found {self.low:g} and {self.high:g}")
        if self.type == "randint" and self.high - self.low < 2:
            raise ValueError(
                f"a randint range from {self.low:g} to {self.high:g} holds one value, for its upper end is not drawn; "
                "a fixed value is no factor"
            )
        return self

    def __str__(self) -> str:
        return f"{self.type} from {self.low:g} to {self.high:g}"


Role = Literal["data", "parameter"]


def role_of(name: str) -> Role:
    """Return the role that follows from a factor's name: `query*` is data, the others are parameters."""
    return "data" if name.startswith("query") else "parameter"


class FactorSpec(Model):
    """The levels of one factor, or the range that a random design draws from."""

    levels: tuple[Level, ...] | Literal["all"] | None = Field(
        None, description="two values or more, the baseline first; 'all': every query (for `query` only)"
    )
    domain: Domain | None = Field(
        None, description="a range instead of levels, in a random design or a search; its keys may stand without it"
    )

    @model_validator(mode="before")
    @classmethod
    def _inline_domain(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            ranged = {"type", "low", "high"} & set(value)
            if ranged and "levels" in value:
                raise ValueError("a factor has 'levels: [...]', or 'type', 'low' and 'high', and here are both")
            return {"domain": value} if ranged else value
        if not isinstance(value, FactorSpec):
            raise ValueError(f"a factor needs 'levels: [...]', or 'type', 'low' and 'high', found {written(value)}")
        return value

    @model_validator(mode="after")
    def _levels_or_domain(self) -> Self:
        if (self.levels is None) == (self.domain is None):
            raise ValueError(
                "a factor needs 'levels: [...]', or 'type', 'low' and 'high' unless the design is factorial"
            )
        if isinstance(self.levels, tuple):
            if len(self.levels) < 2:
                raise ValueError(
                    f"a factor needs at least 2 levels, found {written(self.levels)}; a fixed value is no factor"
                )
            # 1, 1.0 and true are one number to whatever takes them, and one key wherever levels are looked up.
            if len(set(self.levels)) < len(self.levels):
                raise ValueError(
                    f"levels {written(self.levels)} contain a duplicate (true is 1, false is 0); name each level once"
                )
        return self


class Crossed(Model):
    """Replicates in which training seeds and held-out folds are crossed."""

    seeds: Count = Field(description="number of training seeds")
    folds: Annotated[int, Field(strict=True, ge=2)] = Field(description="number of held-out folds")


class SearchSpace(Model):
    """What varies, and how often the whole design is repeated."""

    name: str = Field(description="name of the search space; part of the study's name unless `name` says otherwise")
    design: Literal["factorial", "random", "search"] = Field(
        description="all combinations of levels, settings drawn, or settings sought"
    )
    factors: dict[str, FactorSpec] = Field(min_length=1, description="what varies, by its dotted name")
    replicates: Count | Crossed | Literal["auto"] = Field(
        description="passes over the design, seeds crossed with folds, or `auto`: until nothing is open"
    )
    looks: tuple[Annotated[int, Field(strict=True, ge=3)], ...] | None = Field(
        None,
        description="with `replicates: auto`, after how many it is judged, the last the most; null: each from 3 to 12",
    )
    settle: tuple[str, ...] | None = Field(
        None, description="with `replicates: auto`, classes whose verdict it waits for; null: the mean of all classes"
    )
    folds: Annotated[int, Field(strict=True, ge=2)] = Field(3, description="parts of the reference held out in turn")
    points: Count | None = Field(None, description="settings drawn by a random design")
    candidates: Count | None = Field(None, description="settings that a search tries")
    confirm: Annotated[int, Field(strict=True, ge=3)] | None = Field(
        None, description="fresh replicates on which a search compares its winner with the default settings"
    )
    controls: tuple[Control, ...] | None = Field(
        None, description="trials beside the table, each with an expected outcome; [logistic, knn] if null, none if []"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_roles(cls, value: Any) -> Any:
        """Take factors as studies of version 0.1 wrote them, with the role that follows from the name."""
        factors = value.get("factors") if isinstance(value, Mapping) else None
        if not isinstance(factors, Mapping):
            return value
        return {**value, "factors": {name: _without_role(str(name), factor) for name, factor in factors.items()}}

    @property
    def n_folds(self) -> int:
        """In how many parts the reference is divided."""
        return self.replicates.folds if isinstance(self.replicates, Crossed) else self.folds

    @property
    def declared(self) -> tuple[int, ...]:
        """After how many replicates a study that goes on until nothing is open is looked at; of another none."""
        return (self.looks or LOOKS) if self.replicates == "auto" else ()

    @property
    def passes(self) -> int:
        """How many replicates there are; of a study that goes on until nothing is open the most."""
        if isinstance(self.replicates, Crossed):
            return self.replicates.seeds * self.replicates.folds
        return self.declared[-1] if self.replicates == "auto" else self.replicates

    @property
    def beside(self) -> tuple[Control, ...]:
        """Controls that stand beside the table: those that were asked for, else what costs seconds."""
        if self.controls is not None:
            return self.controls
        return () if self.design == "search" else YARDSTICKS

    @model_validator(mode="after")
    def _design_fits(self) -> Self:
        drawn = [name for name, factor in self.factors.items() if factor.domain is not None]
        if self.design == "factorial" and drawn:
            raise ValueError(f"a factorial design needs levels for {', '.join(drawn)}; or say 'design: random'")
        if "query" in drawn:
            raise ValueError("a 'query' is named, not drawn from a range: give it 'levels'")
        if [name for name, factor in self.factors.items() if factor.levels == "all" and name != "query"]:
            raise ValueError("'levels: all' means every query, so it belongs to the factor 'query' alone")
        if (self.design == "random") != (self.points is not None):
            raise ValueError("'points' (how many settings to draw) belongs to 'design: random', and only there")
        if self.design != "search" and "scanvi.protocol" in self.factors:
            raise ValueError(
                "'scanvi.protocol' cannot be a factor: joint training and surgery are different trees of stages, so "
                "chance enters at other places and one table cannot hold both. Run a study of each"
            )
        if self.controls and len(set(self.controls)) < len(self.controls):
            raise ValueError(f"controls {written(self.controls)} contain a duplicate; name each control once")
        return self

    @model_validator(mode="after")
    def _looks_fit(self) -> Self:
        auto = self.replicates == "auto"
        if auto and self.design != "factorial":
            raise ValueError(
                f"'replicates: auto' ends when a crossed table is settled, and 'design: {self.design}' has none: give "
                "their number"
            )
        if not auto and (self.looks, self.settle) != (None, None):
            raise ValueError(
                "'looks' and 'settle' belong to 'replicates: auto': say that, or leave them out, as in "
                "'space.looks=null space.settle=null'"
            )
        if self.settle is not None and len(set(self.settle)) != max(1, len(self.settle)):
            raise ValueError(f"settle {written(self.settle)} must name at least one class, and each once")
        if self.looks is not None and (not self.looks or list(self.looks) != sorted(set(self.looks))):
            raise ValueError(
                f"looks {written(self.looks)} must be numbers of replicates that grow, as in [3, 5, 8, 12]"
            )
        return self

    @model_validator(mode="after")
    def _search_fits(self) -> Self:
        if {self.design == "search"} != {self.candidates is not None, self.confirm is not None}:
            raise ValueError(
                "'candidates' (how many settings to try) and 'confirm' (fresh replicates for the winner, at least 3) "
                "belong to 'design: search', both of them, and only there"
            )
        if self.design == "search" and isinstance(self.replicates, Crossed):
            raise ValueError(
                "a search takes its replicates one after the other: give their number, as in 'replicates: 2'"
            )
        if self.design == "search" and self.controls:
            raise ValueError("controls stand beside a table that is attributed, and a search has none: leave them out")
        return self


def _without_role(name: str, factor: Any) -> Any:
    role = factor.get("role") if isinstance(factor, Mapping) else None
    if role not in (None, role_of(name)):
        raise ValueError(
            f"the role of a factor follows from its name: {name!r} is {role_of(name)}, found {role!r}. Leave 'role' out"
        )
    return {key: one for key, one in factor.items() if key != "role"} if isinstance(factor, Mapping) else factor
