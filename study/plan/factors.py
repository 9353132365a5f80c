"""What varies: factors with their levels and roles, and the level of the stage tree at which each acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.config import Domain, FactorSpec, Level, Role, SearchSpace, role_of
from study.errors import InputError, nearest

Levels = tuple[tuple[str, Level], ...]  # of factors, by name


@dataclass(frozen=True)
class Factor:
    """One thing that varies.

    Attributes
    ----------
    levels
        The first is the baseline of differences; none if it is drawn from a range.
    domain
        That range.
    """

    name: str
    levels: tuple[Level, ...]
    role: Role
    domain: Domain | None = None


def factors_of(space: SearchSpace, queries: Sequence[str]) -> tuple[Factor, ...]:
    """Return the factors with levels, in the order of the search space.

    Parameters
    ----------
    space
        The search space. A factor that a random design draws from a range has no levels.
    queries
        Names that a level of `query` may have; the built-in twins `self` and `none` come last.

    Raises
    ------
    InputError
        If a level of `query` is no query.
    """
    return tuple(
        Factor(name, _queries_of(spec, queries) if name == "query" else _levels_of(spec), role_of(name), spec.domain)
        for name, spec in space.factors.items()
    )


def _levels_of(spec: FactorSpec) -> tuple[Level, ...]:
    return spec.levels if isinstance(spec.levels, tuple) else ()


def _queries_of(spec: FactorSpec, queries: Sequence[str]) -> tuple[str, ...]:
    """Return the queries that the factor `query` names; `4` is the query '4'."""
    real = tuple(query for query in queries if query not in ("self", "none"))
    for level in _levels_of(spec):
        if str(level) not in queries:
            switch = " Quote a name such as 'yes', which YAML takes for true." if isinstance(level, bool) else ""
            raise InputError(
                f"space.factors.query: {str(level)!r} is no query.{nearest(str(level), queries)}{switch} "
                f"Queries are: {', '.join(queries)}. Name some with 'space.factors.query.levels=[...]', "
                "or say 'space=queries', a search space with every query of the data."
            )
    named = tuple(dict.fromkeys(map(str, _levels_of(spec)))) or real
    if len(named) < 2:
        raise InputError(
            f"space.factors.query: needs at least 2 queries, found {list(named)}. "
            "Leave the factor out, or name more queries."
        )
    return named


def parameters_of(space: SearchSpace) -> tuple[str, ...]:
    """Return the names of the factors that are settings."""
    return tuple(name for name in space.factors if role_of(name) == "parameter")


@dataclass(frozen=True)
class Stratum:
    """A level of the stage tree at which chance enters, with the factors that act there."""

    name: str
    label: str
    factors: tuple[str, ...]


def strata(factors: Sequence[Factor], protocol: str = "joint") -> tuple[Stratum, ...]:
    """Return the levels of the stage tree that a design has, root first.

    Parameters
    ----------
    factors
        The factors of the design.
    protocol
        With 'surgery' the data acts last, when the query is mapped onto a finished reference.
    """
    last = protocol == "surgery"

    def at(factor: Factor) -> str:
        if factor.role == "data" or factor.name == "scanvi.surgery_epochs":
            return "surgery" if last else "pretraining"
        if factor.name in ("scvi.max_epochs", "budget"):
            return "pretraining snapshots"
        if factor.name == "scanvi.max_epochs":
            return "fine-tuning snapshots"
        return "pretraining" if factor.name.startswith("scvi.") else "fine-tuning"

    labels = {
        "pretraining": "training scVI again",
        "pretraining snapshots": "where scVI stops",
        "fine-tuning": "fine-tuning again",
        "fine-tuning snapshots": "where scANVI stops",
        "surgery": "mapping the query again",
    }
    found = [Stratum(name, label, tuple(f.name for f in factors if at(f) == name)) for name, label in labels.items()]
    return tuple(stratum for stratum in found if stratum.factors)
