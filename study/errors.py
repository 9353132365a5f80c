"""What goes wrong in a user's hands, and the words that say so: one message, with the nearest of what there is."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class WritingError(OSError):
    """Something could not be written; the message says what, why, how much is free there and what to do."""


class InputError(Exception):
    """Something the user gave cannot be used; the message says what, where, what is expected and what to do."""


def nearest(word: str, words: Sequence[str], like: float = 0.5) -> str:
    """Return ' Did you mean ...?' for the nearest of some words, or nothing if none is so much like it (0 to 1)."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=like)
    return f" Did you mean {close[0]!r}?" if close else ""


def few(values: Sequence[str]) -> str:
    """Name some values, and say how many more there are."""
    shown = ", ".join(repr(value if len(value) <= 60 else f"{value[:60]}...") for value in values[:8])
    return f"{shown} and {len(values) - 8:,} more" if len(values) > 8 else shown or "none"
