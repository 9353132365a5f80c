"""Two studies of one design, run with other versions: does any class differ by more than training again would give."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from study.commands.explained import html_of
from study.commands.terminal import show_frames, show_notes
from study.errors import InputError
from study.studies import Pair, read_pair
from study.verdict import (
    MARGIN,
    ClassDrift,
    class_label,
    difference_words,
    drift_sentence,
    find_drift,
    needed_of,
    overall,
)

# What a pipeline is told; 2 is bad input, as everywhere.
CODES = {"chance": 0, "cannot tell": 1, "more": 3}
# Of each class, in the table.
FOUND = {
    "more": "more than chance",
    "chance": "no more than chance",
    "cannot tell": "cannot tell",
    "not tested": "too few cells",
}
FEWEST = 5  # replicates that are advised where there is one


@dataclass(frozen=True, eq=False)
class Comparison:
    """What two studies of one design say of the versions that they were made with.

    Attributes
    ----------
    pair
        Their paired trials, and what they were made with.
    classes
        What was found of each class; of studies that are equal to the last bit nothing needs to be.
    margin
        In points.
    """

    pair: Pair
    classes: tuple[ClassDrift, ...]
    margin: float

    @property
    def verdict(self) -> str:
        """``chance``: no more than training again would give; ``more``; or ``cannot tell``."""
        return "chance" if self.pair.called.equal else overall(self.classes)

    @property
    def code(self) -> int:
        """The exit code: 0, 3 and 1."""
        return CODES[self.verdict]

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.pair.called.equal:
            return f"Equal to the last bit: all predictions of all {self.pair.trials} paired trials."
        return drift_sentence(self.classes, self.pair.replicates, self.margin)

    @property
    def needed(self) -> int | None:
        """How many replicates of both would tell; None if it can be told, or if no number that is advised would."""
        return needed_of(self.classes) if self.verdict == "cannot tell" else None

    @property
    def table(self) -> pd.DataFrame:
        """One row per class: held-out recall of both in percent, their difference in points, and what was found."""
        return pd.DataFrame([asdict(one) for one in self.classes])

    def to_json(self) -> dict[str, object]:
        """Return it as plain values."""
        classes = [asdict(one) for one in self.classes]
        plain = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in one.items()} for one in classes]
        return {
            "verdict": self.verdict,
            "exit_code": self.code,
            "sentence": self.sentence,
            "equal": self.pair.called.equal,
            "replicates": self.pair.replicates,
            "trials": self.pair.trials,
            "called_otherwise": self.pair.called.otherwise,
            "called": self.pair.called.cells,
            "replicates_needed": self.needed,
            "margin": self.margin,
            "classes": plain,
            "differing": [asdict(one) for one in self.pair.differing],
            "notes": list(self.pair.notes),
        }

    def __repr__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        head = html_of("Two studies of one design", [self.sentence, *self.pair.notes])
        return head + (_shown(self).to_html(border=0, index=False) if self.classes else "")


def make_comparison(a: str | Path, b: str | Path, margin: float = MARGIN) -> Comparison:
    """Compare the studies in two folders; see `study.compare`."""
    if not 0 < margin <= 100:
        raise InputError(f"margin {margin:g}: expected points above 0, and at most 100, such as {MARGIN:g}.")
    pair = read_pair(Path(a), Path(b))
    if pair.called.equal:
        return Comparison(pair, (), margin)
    if pair.replicates < 2:
        raise InputError(
            f"{a} and {b} have one replicate in common: one training tells nothing of what training again would give. "
            f"Run both with space.replicates={FEWEST}; only the new replicates are trained."
        )
    return Comparison(pair, find_drift(pair.counts, pair.factors, pair.protocol, margin), margin)


def show_comparison(to: Console, found: Comparison) -> None:
    """Print what the two were made with, each class, and the verdict."""
    if found.pair.differing:
        made = pd.DataFrame([asdict(one) for one in found.pair.differing])
        show_frames(to, [("made with", made.rename(columns={"what": "", "a": "A", "b": "B"}))])
    else:
        to.print("Made with the same versions, training step and cells.")
    if found.classes:
        title = f"held-out recall, {found.pair.trials} paired trials in {found.pair.replicates} replicates"
        show_frames(to, [(title, _shown(found))])
    show_notes(to, "note", found.pair.notes)
    if called := found.pair.called.cells:
        to.print(
            f"{found.pair.called.otherwise:,} of {called:,} held-out cells got another label, all trials together."
        )
    to.print(found.sentence, markup=False)


def _shown(found: Comparison) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "class": [class_label(one.class_name) for one in found.classes],
            "cells": [round(one.support, 1) for one in found.classes],
            "A %": [round(one.a, 1) for one in found.classes],
            "B %": [round(one.b, 1) for one in found.classes],
            "B - A, points [95%]": ["" if math.isnan(one.points) else difference_words(one) for one in found.classes],
            "p, corrected": ["" if math.isnan(one.p_adjusted) else f"{one.p_adjusted:.2g}" for one in found.classes],
            "found": [FOUND[one.finding] for one in found.classes],
        }
    )
