"""What reading the sources found."""

from __future__ import annotations

from dataclasses import dataclass, field

from study.errors import InputError


@dataclass(frozen=True)
class Findings:
    """What reading found: problems forbid a study, warnings do not."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def refuse(self) -> None:
        """Raise an `InputError` that joins the problems, if there are any."""
        if self.problems:
            raise InputError("\n".join(dict.fromkeys(self.problems)))
