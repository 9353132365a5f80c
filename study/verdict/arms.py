"""The trials of one control with their base trials, the numbers that it is judged by, and how it came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.plan import PlannedTrial
from study.trials import HELD_OUT, MACRO_RECALL, ReadPredictions, Result, metric

METRIC = metric(HELD_OUT, MACRO_RECALL)


@dataclass(frozen=True)
class Detail:
    """One number that a control was judged by."""

    control: str
    replicate: int
    query: str
    trial_key: str
    quantity: str
    value: float


@dataclass(frozen=True)
class ControlResult:
    """How a control came out.

    Attributes
    ----------
    expected
        What has to come out, in words.
    outcome
        `pass` or `fail`; `finished` where a control only measures; `not run`; `cannot hold` where these settings do
        not allow what is expected.
    found
        What came out, in words.
    details
        The numbers behind it.
    """

    control: str
    expected: str
    outcome: str
    found: str
    details: tuple[Detail, ...] = ()


@dataclass(frozen=True)
class Arm:
    """The finished trials of one control, each with the base trial of its replicate."""

    trials: Sequence[PlannedTrial]
    base: Sequence[PlannedTrial]
    results: Mapping[str, Result]
    read: ReadPredictions
    reference_batches: int

    def detail(self, trial: PlannedTrial, quantity: str, value: float) -> Detail:
        """Return one number that the control is judged by."""
        control, replicate = self.trials[0].control, trial.replicate.index
        return Detail(control, replicate, trial.condition.query, trial.key, quantity, float(value))

    def recalls(self, trials: Sequence[PlannedTrial]) -> list[Detail]:
        """Return the held-out macro recall of each trial."""
        return [self.detail(one, METRIC, self.results[one.key].metrics[METRIC]) for one in trials]
