"""One thing that is found in a run, with its evidence, how sure it is, what it does, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

WRONG, BEWARE, NOTE = "wrong", "beware", "note"
CERTAIN, LIKELY, OPEN = "certain", "likely", "cannot be read"
FAQ = "docs/faq.md"


@dataclass(frozen=True)
class Finding:
    """One thing that was found in a run.

    Attributes
    ----------
    run
        Which one.
    kind
        Which of the things that are looked for, in a word or two.
    level
        `wrong`, `beware` or `note`.
    found
        What it is, in a sentence.
    evidence
        What tells.
    sure
        `certain`, `likely`, or `cannot be read` where a saved model does not hold it.
    effect
        What it does to the numbers.
    remedy
        What to do.
    more
        Where it is explained.
    """

    run: str
    kind: str
    level: str
    found: str
    evidence: str
    sure: str
    effect: str
    remedy: str
    more: str = ""
