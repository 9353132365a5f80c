"""What a notebook shows of a study: what explains an outcome, and the settings that hold up, in words and tables."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from html import escape

import pandas as pd

from study.config import Level, Outcome
from study.errors import InputError, nearest
from study.verdict import GROUPS, Verdict, class_label, outcome_label, share_words, word


@dataclass(frozen=True, eq=False)
class Explanation:
    """What explains the differences in one outcome: a verdict, and the tables behind it.

    Attributes
    ----------
    outcome
        Such as ``heldout/recall``.
    verdict
        In words: why single runs differ, which effects are real, and which settings trade classes.
    tables
        One row per class: whether it is decomposed and why not, its mean and its support.
    shares, chance
        Parts of the differences between runs: of each group, and of chance by level of the stage tree.
    means, effects
        Percent at each level of each factor; levels instead of their baseline, in percentage points.
    """

    outcome: Outcome
    verdict: Verdict
    tables: pd.DataFrame
    shares: pd.DataFrame
    chance: pd.DataFrame
    means: pd.DataFrame
    effects: pd.DataFrame

    def __repr__(self) -> str:
        shown = [] if self.shares.empty else [self._shown().to_string()]
        return "\n".join([f"{self.outcome}:", *sentences_of(self.verdict), *shown])

    def _repr_html_(self) -> str:
        head = html_of(outcome_label(self.outcome)[0], sentences_of(self.verdict))
        return head if self.shares.empty else head + self._shown().to_html(border=0)

    def _shown(self) -> pd.DataFrame:
        """Shares with their intervals as text, a row per class that is decomposed."""
        text = [share_words(*row) for row in self.shares[["share", "lower", "upper"]].itertuples(index=False)]
        classes = self.shares["class_name"].map(class_label)
        wide = self.shares.assign(text=text, **{"class": classes}).pivot(index="class", columns="group", values="text")
        order = [group for group in GROUPS if group in wide]
        return wide.loc[list(dict.fromkeys(classes)), order].rename(columns=GROUPS).rename_axis(None, axis="columns")


@dataclass(frozen=True, eq=False)
class Best:
    """The settings that hold up: those whose worst condition has the best held-out macro recall.

    Attributes
    ----------
    settings
        Level of each factor that is a setting.
    reason
        One sentence.
    table
        All candidates, best first.
    """

    settings: dict[str, Level]
    reason: str
    table: pd.DataFrame

    def __repr__(self) -> str:
        return f"{self._settings}\n{self.reason}"

    def _repr_html_(self) -> str:
        return html_of(self._settings, [self.reason]) + self.table.to_html(
            border=0, index=False, float_format="{:.3f}".format
        )

    @property
    def _settings(self) -> str:
        """As overrides, so that they can be typed: what was drawn from a range is written with all its digits."""
        digits = {
            name: repr(level) if isinstance(level, float) else word(level) for name, level in self.settings.items()
        }
        return " ".join(f"{name}={level}" for name, level in digits.items())


def sentences_of(verdict: Verdict) -> list[str]:
    """Both answers and the trade-offs; where no class is decomposed, why not."""
    reasons = [] if any(one.which for one in verdict.classes) else dict.fromkeys(one.why for one in verdict.classes)
    return [verdict.why, *reasons, verdict.which, *(trade.sentence for trade in verdict.trade_offs)]


def html_of(title: str, sentences: Iterable[str], tag: str = "h4") -> str:
    """Return a title and a paragraph; names of studies and classes are plain text, never markup."""
    text = "<br>".join(escape(sentence) for sentence in sentences)
    return f"<{tag}>{escape(title)}</{tag}><p>{text}</p>"


def of_outcome(frame: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Return the rows of one outcome."""
    return frame[frame["outcome"] == outcome].drop(columns="outcome").reset_index(drop=True)


def refuse_unknown(what: str, found: str, known: Iterable[Hashable]) -> None:
    """Raise `InputError` unless a name is one of those that are known."""
    names = list(map(str, known))
    if found not in names:
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") or "none"
        raise InputError(f"{what} {found!r}: there is none such.{nearest(str(found), names)} There are: {shown}.")
