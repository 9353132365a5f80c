"""Words, once: what groups, outcomes, places, levels, effects and conditions are called, wherever they are told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from study.attribution import CHANCE, DATA, MIXED, OTHER, PARAMETER, Effect
from study.config import Level, written
from study.plan import Condition
from study.trials import HELD_OUT, MACRO, OVERALL, PRECISION, QUERY, RECALL, TRAIN, metric

LABELS = {
    metric(HELD_OUT, RECALL): ("Held-out recall", "on cells that no training saw: what to trust"),
    metric(TRAIN, RECALL): ("Training recall", "on the cells that were trained on: flatters"),
    metric(TRAIN, PRECISION): ("Training precision", "the forum's number: what people look at"),
}
# Of each group of causes: its label, and what it is called inside a sentence.
GROUP_WORDS = {
    DATA: ("data", "the data"),
    PARAMETER: ("settings", "the settings"),
    MIXED: ("data x settings", "settings that act by data"),
    OTHER: ("settings in no simple form", "settings in no simple form"),
    CHANCE: ("chance", "chance"),
}
GROUPS = {group: label for group, (label, _) in GROUP_WORDS.items()}
# Of each outcome over all classes likewise: it is shown like a class, but is no party to a trade-off.
SUMMARY_WORDS = {
    MACRO: ("Mean of all classes (macro)", "the mean of all classes"),
    OVERALL: ("All cells together (overall)", "all cells together"),
}
SUMMARIES = {name: label for name, (label, _) in SUMMARY_WORDS.items()}
# How a level instead of its baseline reads; other factors read "name = level instead of baseline".
PHRASES = {
    "query": "query {level} instead of {baseline}",
    "query_cells": "{level} query cells instead of {baseline}",
    "scvi.max_epochs": "{level} scVI epochs instead of {baseline}",
    "scanvi.max_epochs": "{level} scANVI epochs instead of {baseline}",
    "scanvi.n_samples_per_label": "{level} labelled cells per class and epoch instead of {baseline}",
    "scanvi.linear_classifier": "linear classifier {level} instead of {baseline}",
    "scvi.norm": "{level} normalisation instead of {baseline}",
}
PART_WORDS = {HELD_OUT: "held-out", TRAIN: "training", QUERY: "query"}
PLACES = {part: f"{name} cells" for part, name in PART_WORDS.items()}


def word(level: Level | None) -> str:
    """Return a level as it is written in a search space; what was drawn from a range with four digits."""
    return f"{level:.4g}" if isinstance(level, float) else written(level)


def short(factor: str) -> str:
    """Return a factor's name without the stage it belongs to."""
    return factor.rpartition(".")[2]


def class_label(name: str) -> str:
    """Return a class's name, or what a summary over classes is called."""
    return SUMMARIES.get(name, name)


def class_words(name: str) -> str:
    """Return a class's name, or what a summary over classes is called inside a sentence."""
    return SUMMARY_WORDS[name][1] if name in SUMMARY_WORDS else name


def group_words(group: str) -> str:
    """Return what a group of causes is called inside a sentence."""
    return GROUP_WORDS[group][1]


def share_words(share: float, lower: float, upper: float) -> str:
    """Return a share in percent with its interval: "43% [30, 56]"."""
    return f"{100 * share:.0f}% [{100 * lower:.0f}, {100 * upper:.0f}]"


def points_words(value: float) -> str:
    """Return points to two digits: 22, 6.4, 0.3."""
    return f"{value:.0f}" if abs(value) >= 9.95 else f"{value:.1f}".removesuffix(".0")


def phrase(factor: str, level: Level, baseline: Level) -> str:
    """Return a difference in words, such as "30 query cells instead of all"."""
    template = PHRASES.get(factor, factor + " = {level} instead of {baseline}")
    return template.format(level=word(level), baseline=word(baseline))


def effect_words(effect: Effect, what: str) -> str:
    """Return an effect in words, such as "with 30 query cells instead of all, recall is 6 points lower [4, 8]"."""
    place = f", at {effect.at_factor} = {word(effect.at_level)}" if effect.at_level is not None else ""
    return f"with {phrase(effect.factor, effect.level, effect.baseline)}{place}, {what} is {size_words(effect)}"


def size_words(effect: Effect) -> str:
    """Return how large an effect is: "6 points lower [4, 8]"."""
    low, high = (effect.lower, effect.upper) if effect.points > 0 else (-effect.upper, -effect.lower)
    way = "higher" if effect.points > 0 else "lower"
    return f"{points_words(abs(effect.points))} points {way} [{points_words(low)}, {points_words(high)}]"


def outcome_words(outcome: str) -> str:
    """Return an outcome in words: ``train/recall`` is "recall on training cells"."""
    part, _, measured = outcome.rpartition("/")
    place = PLACES.get(part, part)
    return f"{measured.replace('_', ' ')} on {place}" if place else measured


def outcome_label(outcome: str) -> tuple[str, str]:
    """Return what an outcome is called, and which cells it is measured on."""
    part, _, measured = outcome.partition("/")
    place = PLACES.get(part, part)
    return LABELS.get(outcome, (f"{measured} on {place}".capitalize(), f"on {place}"))


def condition_label(condition: Condition) -> str:
    """Return a condition in words."""
    draw = f", draw {condition.draw}" if condition.draw else ""
    return f"{condition.query}, {condition.n_cells:,} cells{draw}" if condition.n_cells else condition.query


def point_words(levels: Iterable[tuple[str, Level]]) -> str:
    """Return some levels in words, each with the whole name of its factor; "all" where there is none."""
    return ", ".join(f"{name}={word(level)}" for name, level in levels) or "all"


def point_label(levels: Iterable[tuple[str, Level]]) -> str:
    """Return some levels in words, with the factors' names without their stage."""
    return ", ".join(f"{short(name)}={word(level)}" for name, level in levels)


def counts_words(counts: Sequence[int]) -> str:
    """Return numbers as text; "each from 3 to 12" where none between is missing."""
    each = len(counts) > 2 and list(counts) == list(range(counts[0], counts[-1] + 1))
    return f"each from {counts[0]} to {counts[-1]}" if each else ", ".join(map(str, counts))
