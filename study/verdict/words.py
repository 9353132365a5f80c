"""Words, once: what groups, outcomes, places, levels and conditions are called, in tables, sentences and pictures."""

from __future__ import annotations

from collections.abc import Iterable

from study.attribution import CHANCE, OTHER
from study.config import Level
from study.plan import Condition
from study.trials import MACRO, OVERALL

LABELS = {
    "heldout/recall": ("Held-out recall", "on cells that no training saw: what to trust"),
    "train/recall": ("Training recall", "on the cells that were trained on: flatters"),
    "train/precision": ("Training precision", "the forum's number: what people look at"),
}
PLACES = {"heldout": "held-out cells", "train": "training cells", "query": "query cells"}
SUMMARIES = {MACRO: "Mean of all classes (macro)", OVERALL: "All cells together (overall)"}


def word(level: Level | None) -> str:
    """Return a level as it is written in a search space; what was drawn from a range with five digits."""
    if isinstance(level, float):
        return f"{level:.5g}"
    return str(level).lower() if isinstance(level, bool) else str(level)


def short(factor: str) -> str:
    """Return a factor's name without the stage it belongs to."""
    return factor.rpartition(".")[2]


def class_label(name: str) -> str:
    """Return a class's name, or what a summary over classes is called."""
    return SUMMARIES.get(name, name)


def outcome_label(outcome: str) -> tuple[str, str]:
    """Return what an outcome is called, and which cells it is measured on."""
    part, _, metric = outcome.partition("/")
    place = PLACES.get(part, part)
    return LABELS.get(outcome, (f"{metric} on {place}".capitalize(), f"on {place}"))


def condition_label(condition: Condition) -> str:
    """Return a condition in words."""
    draw = f", draw {condition.draw}" if condition.draw else ""
    return f"{condition.query}, {condition.n_cells:,} cells{draw}" if condition.n_cells else condition.query


def point_label(levels: Iterable[tuple[str, Level]]) -> str:
    """Return some levels in words."""
    return ", ".join(f"{short(name)}={word(level)}" for name, level in levels)


GROUPS = {
    "data": "data",
    "parameter": "settings",
    "data x parameter": "data x settings",
    OTHER: "settings in no simple form",
    CHANCE: "chance",
}
