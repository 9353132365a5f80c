"""Whether more replicates are worth it: what a study has left open, and its last look may yet tell."""

from __future__ import annotations

from collections.abc import Sequence

from study.attribution import (
    FEW,
    MIN_SUPPORT,
    SIGNIFICANT,
    Attribution,
    Effect,
    Layout,
    Look,
    StudyAttribution,
    layout_of,
    replicates_of_few,
)
from study.verdict.assurance import will_be_real, will_settle
from study.verdict.power import family_size
from study.verdict.sentences import dominant_group
from study.verdict.words import SUMMARIES, class_words, counts_words, phrase

# What is less likely than this to be told by the last look is not waited for: what single runs differ by most, and
# whether an effect is real. To wait longer for the first costs most and tells least (`benchmarks/looks.py`).
HOPE_OF_SHARE, HOPE_OF_EFFECT = 0.5, 0.2


def open_questions(study: StudyAttribution, asked: Sequence[str], last: Look) -> tuple[str, ...]:
    """Return what is open of some classes and may yet be told, in words; nothing where more replicates change nothing.

    Parameters
    ----------
    study
        The attributed study; its first outcome counts.
    asked
        Names of classes, or of means over them.
    last
        The last look that there will be.
    """
    layout = layout_of(study.factors, study.strata)
    mine = [found for found in study.attributions if found.outcome == study.attributions[0].outcome]
    tests = family_size(layout, sum(found.class_name not in SUMMARIES for found in mine))
    return tuple(
        question for found in mine if found.class_name in asked for question in _open_of(found, layout, last, tests)
    )


def _open_of(found: Attribution, layout: Layout, last: Look, tests: float) -> list[str]:
    where, left = class_words(found.class_name), []
    if FEW <= found.support < MIN_SUPPORT and found.replicates < replicates_of_few(found.support) <= last.replicates:
        left.append(f"effects in {where}, which has few cells")
    if found.shares and _may_settle(found, layout, last):
        left.append(f"what single runs differ by most in {where}")
    left += [_whether(effect, where) for effect in found.effects if _may_be_real(effect, found, last, tests)]
    return left


def _may_settle(found: Attribution, layout: Layout, last: Look) -> bool:
    return dominant_group(found) is None and will_settle(found, layout, last.replicates, last.level) >= HOPE_OF_SHARE


def _may_be_real(effect: Effect, found: Attribution, last: Look, tests: float) -> bool:
    if effect.kind != "marginal" or effect.real:
        return False
    return will_be_real(effect, found.replicates, last.replicates, last.level, tests) >= HOPE_OF_EFFECT


def _whether(effect: Effect, where: str) -> str:
    return f"whether {phrase(effect.factor, effect.level, effect.baseline)} matters in {where}"


def look_words(look: Look, taken: Sequence[Look], declared: Sequence[int]) -> str:
    """Say what a look may use of the 5%, and what is left; of declared looks also whether more follow.

    Parameters
    ----------
    look
        The look that is told.
    taken
        All that are recorded, this one or not.
    declared
        After how many replicates looks were declared; empty if none were.
    """
    others = [one for one in taken if one.replicates != look.replicates]
    spent = look.spent + sum(one.spent for one in others)
    counts = sorted({look.replicates, *(one.replicates for one in others)})
    number = f"Look {counts.index(look.replicates) + 1} at this study, after {look.replicates} replicates"
    earlier = f" (others after {_counts(others)})" if others else ""
    who = "all of them together name" if others else "it names"
    text = (
        f"{number}{earlier}: {who} something that is not so in at most {_percent(spent)} of studies; "
        f"{_percent(SIGNIFICANT - spent)} of the 5% are left for looks after more replicates."
    )
    if not declared:
        return text
    further = [count for count in declared if count > look.replicates]
    if look.open and further:
        return f"{text} It goes on: open is {'; '.join(look.open)}."
    if look.open == () and further:
        return f"{text} It ended here, before {declared[-1]} replicates: nothing is open that these are likely to tell."
    return text if not further else f"{text} Declared are looks after {counts_words(declared)}."


def _counts(looks: Sequence[Look]) -> str:
    return ", ".join(str(count) for count in sorted(look.replicates for look in looks))


def _percent(level: float) -> str:
    return f"{100 * max(level, 0.0):.2g}%"
