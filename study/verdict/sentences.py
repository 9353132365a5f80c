"""What a study says, in words: why single runs differ, which effects are real, and which settings trade classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from study.attribution import (
    CAUSES,
    CHANCE,
    OTHER,
    SIGNIFICANT,
    Attribution,
    Effect,
    Layout,
    Share,
    StudyAttribution,
    layout_of,
)
from study.config import Level
from study.errors import InputError, few
from study.verdict.assurance import MOST_REPLICATES, replicates_needed
from study.verdict.words import (
    SUMMARIES,
    class_words,
    effect_words,
    group_words,
    outcome_words,
    phrase,
    points_words,
    share_words,
    size_words,
    word,
)


@dataclass(frozen=True)
class ReplicateCost:
    """What one more replicate of a study trains."""

    trainings: int
    steps: int


@dataclass(frozen=True)
class ClassVerdict:
    """What one class says.

    Attributes
    ----------
    dominant
        The group (chance is one) whose share is surely the largest; None if that cannot be told.
    further_replicates
        If it cannot be told: how many more are expected to settle it; None if more than 30 in all, or not decomposed.
    why
        Why single runs differ, in a sentence.
    which
        Which effects are real, in a sentence.
    real
        Those effects, largest first.
    decomposed
        Whether it has shares; else `why` says why not. With few cells there are effects all the same.
    """

    class_name: str
    dominant: str | None
    further_replicates: int | None
    why: str
    which: str
    real: tuple[Effect, ...]
    decomposed: bool = True

    @property
    def sentence(self) -> str:
        """Both answers."""
        return f"{self.class_name}: {self.why} {self.which}".strip()


@dataclass(frozen=True)
class TradeOff:
    """A setting that surely helps some classes and hurts others; effects of both, largest first."""

    factor: str
    level: Level
    baseline: Level
    helps: tuple[tuple[str, Effect], ...]
    hurts: tuple[tuple[str, Effect], ...]

    @property
    def sentence(self) -> str:
        """The trade-off in words."""
        gains, losses = (
            ", ".join(f"{name} {points_words(abs(effect.points))} points" for name, effect in side)
            for side in (self.helps, self.hurts)
        )
        return f"Trade-off: {phrase(self.factor, self.level, self.baseline)} helps {gains} and hurts {losses}."


@dataclass(frozen=True)
class Verdict:
    """The card of one outcome: a verdict per class, the trade-offs, and the study's two answers."""

    outcome: str
    classes: tuple[ClassVerdict, ...]
    trade_offs: tuple[TradeOff, ...]
    why: str
    which: str

    @property
    def names_a_cause(self) -> bool:
        """Whether the card blames anything but chance: a dominant cause or a real effect, in any class."""
        return any(one.dominant in CAUSES or one.real for one in self.classes)

    @property
    def sentence(self) -> str:
        """The study's two answers."""
        return f"{self.why} {self.which}"

    def to_frame(self) -> pd.DataFrame:
        """Return a row per class: outcome, class_name, dominant, further_replicates, why, which."""
        columns = ("class_name", "dominant", "further_replicates", "why", "which")
        return pd.DataFrame(
            [{"outcome": self.outcome} | {name: getattr(one, name) for name in columns} for one in self.classes]
        )


def judge(
    study: StudyAttribution, outcome: str, cost: ReplicateCost | None = None, later: float = SIGNIFICANT
) -> Verdict:
    """Return the card of one outcome.

    Parameters
    ----------
    study
        The attributed study.
    outcome
        Such as ``heldout/recall``.
    cost
        Of one more replicate, where it is known.
    later
        How much of the 5% a look after more replicates may use.

    Raises
    ------
    InputError
        If the study has no such outcome.
    """
    attributions = [found for found in study.attributions if found.outcome == outcome]
    if not attributions:
        measured = list(dict.fromkeys(found.outcome for found in study.attributions))
        raise InputError(f"outcome {outcome!r} was measured in no trial. Measured are: {few(measured)}.")
    crossed = all(factor.levels for factor in study.factors)
    layout = layout_of(study.factors, study.strata) if crossed else None
    classes = tuple(_class_verdict(found, layout, cost, later) for found in attributions)
    why = _study_why(classes, attributions[0].replicates, cost)
    return Verdict(outcome, classes, _trade_offs(attributions), why, _study_which(classes, outcome))


def dominant_group(found: Attribution) -> str | None:
    """Return the group whose interval clears all others; None if there is none.

    A cause must also be supported after correction for all groups of all classes.
    """
    if found.clear is None:
        return None
    supported = found.share(found.clear).p_adjusted
    return found.clear if supported is None or supported <= SIGNIFICANT else None


def further_words(further: int, now: int, cost: ReplicateCost | None) -> str:
    """Return so many further replicates in words, with what they cost and the override that runs only them."""
    words = f"about {further} further replicate{'' if further == 1 else 's'}"
    if cost is None:
        return words
    trainings, steps = further * cost.trainings, further * cost.steps
    return f"{words} ({trainings:,} trainings, {steps:,} optimiser steps: space.replicates={now + further})"


def _class_verdict(found: Attribution, layout: Layout | None, cost: ReplicateCost | None, later: float) -> ClassVerdict:
    if found.method == "none":
        return ClassVerdict(found.class_name, None, None, f"Not decomposed: {found.reason}.", "", (), decomposed=False)
    real = tuple(effect for effect in found.effects if effect.real)
    which = _which(real, outcome_words(found.outcome))
    if not found.shares:
        why = f"{found.reason[0].upper()}{found.reason[1:]}."
        return ClassVerdict(found.class_name, None, None, why, which, real, decomposed=False)
    dominant = dominant_group(found)
    further = None
    if dominant is None and layout:
        needed = replicates_needed(found, layout, later)
        further = needed - found.replicates if needed else None
    why = _why(found, dominant, further, cost)
    return ClassVerdict(found.class_name, dominant, further, why, which, real)


def _why(found: Attribution, dominant: str | None, further: int | None, cost: ReplicateCost | None) -> str:
    """Say why single runs differ."""
    note = f" ({found.reason})" if found.reason else ""
    if dominant:
        share = _share(found.share(dominant))
        return f"Single runs differ mostly by {group_words(dominant)}: {share} of their differences{note}."
    largest = sorted(found.shares, key=lambda share: -share.share)[:2]
    listed = ", ".join(f"{group_words(share.group)} {_share(share)}" for share in largest)
    if not found.anova:
        settle = "what would settle it is not known for a random design"
    elif further is None:
        settle = f"even {MOST_REPLICATES} replicates may well not settle it: the two are too much alike"
    else:
        settle = f"settled with a probability of 80% by {further_words(further, found.replicates, cost)}"
    return f"Cannot tell yet what single runs differ by most ({listed}); {settle}{note}."


def _which(real: Sequence[Effect], what: str) -> str:
    """Say which effects are real, overall ones before those at one level of another factor."""
    if not real:
        return "No effect stands out from chance after correction for all that were looked at."
    overall = [effect for effect in real if effect.kind == "marginal"]
    told = {(effect.factor, effect.level) for effect in overall}
    local = [effect for effect in real if effect.kind == "simple" and (effect.factor, effect.level) not in told]
    first = (*overall, *local)[0]
    text = effect_words(first, what)
    if first.kind == "marginal":
        inside = [e for e in real if e.kind == "simple" and (e.factor, e.level) == (first.factor, first.level)]
        largest = max(inside, key=lambda effect: abs(effect.points), default=None)
        if largest and abs(largest.points) > 1.5 * abs(first.points):
            text += f", and {size_words(largest)} at {largest.at_factor} = {word(largest.at_level)}"
    others = len(overall) + len(local) - 1
    more = f" {others} more {'effect is' if others == 1 else 'effects are'} real." if others else ""
    return f"{text[0].upper()}{text[1:]}.{more}"


def _study_why(classes: Sequence[ClassVerdict], replicates: int, cost: ReplicateCost | None) -> str:
    """Say of the whole study why single runs differ."""
    told = [one for one in classes if one.decomposed]
    if not told:
        return "No class could be decomposed."
    parts = []
    for group in (CHANCE, *CAUSES, OTHER):
        named = [class_words(one.class_name) for one in told if one.dominant == group]
        if named:
            parts.append(f"mostly by {group_words(group)} in {_listed(named)}")
    open_ones = [one for one in told if one.dominant is None]
    text = f"Single runs differ {'; '.join(parts)}." if parts else ""
    if open_ones:
        known = [one.further_replicates for one in open_ones if one.further_replicates is not None]
        settle = f"; {len(known)} of them settled with a probability of 80% by " if known else ""
        settle += further_words(max(known), replicates, cost) if known else ""
        names = _listed([class_words(one.class_name) for one in open_ones])
        text += f" What they differ by most cannot be told yet in {names}{settle}."
    return text.strip()


def _study_which(classes: Sequence[ClassVerdict], outcome: str) -> str:
    """Say of the whole study which effects are real: how many, and the largest."""
    real = [(one.class_name, effect) for one in classes for effect in one.real if effect.kind == "marginal"]
    real = real or [(one.class_name, effect) for one in classes for effect in one.real]
    if not real:
        return "No effect stands out from chance after correction for all that were looked at."
    name, largest = max(real, key=lambda pair: abs(pair[1].points))
    number = sum(bool(one.real) for one in classes if one.class_name not in SUMMARIES)
    where = "1 class" if number == 1 else f"{number} classes" if number else "no single class, but over all of them"
    text = effect_words(largest, f"{outcome_words(outcome)} of {class_words(name)}")
    return f"Effects that are real were found in {where}; the largest: {text}."


def _trade_offs(attributions: Sequence[Attribution]) -> tuple[TradeOff, ...]:
    """Return the settings with a real overall effect up in one class and down in another, widest first."""
    found: dict[tuple[str, Level, Level], list[tuple[str, Effect]]] = {}
    for attribution in attributions:
        for effect in attribution.effects if attribution.class_name not in SUMMARIES else ():
            if effect.real and (effect.kind, effect.role) == ("marginal", "parameter"):
                key = (effect.factor, effect.level, effect.baseline)
                found.setdefault(key, []).append((attribution.class_name, effect))
    trades = []
    for key, pairs in found.items():
        ordered = sorted(pairs, key=lambda pair: -abs(pair[1].points))
        helps = tuple(pair for pair in ordered if pair[1].points > 0)
        hurts = tuple(pair for pair in ordered if pair[1].points < 0)
        if helps and hurts:
            trades.append(TradeOff(*key, helps, hurts))
    return tuple(sorted(trades, key=lambda trade: trade.hurts[0][1].points - trade.helps[0][1].points))


def _listed(names: Sequence[str], most: int = 6) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _share(share: Share) -> str:
    return share_words(share.share, share.lower, share.upper)
