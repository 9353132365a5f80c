"""What is finished of a study, explained: its shares and effects with their verdicts, controls, flips and data check.

Nothing is written here, and nothing is put into words for the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pandas as pd

from study.attribution import Look, StudyAttribution, attribute_study, look_after
from study.cells import DataReport, check_data
from study.errors import InputError
from study.plan import Plan
from study.report.finished import Finished, of_whole_replicates
from study.studies import NOT_EXPLAINED, Search, Study, growth_of, strata_of, taken_looks, trusted
from study.trials import count_frame, probe_frame, read_predictions, trial_frame
from study.trust import Labels, trust_frame
from study.verdict import (
    ControlResult,
    Flips,
    ReplicateCost,
    Verdict,
    collapse_words,
    compare_yardsticks,
    control_frames,
    find_collapses,
    find_flips,
    judge,
    judge_controls,
    look_words,
    matched_spread,
    yardstick_sentences,
)


@dataclass(frozen=True)
class Attributed:
    """Some outcomes of a study at a look: the table that was attributed, what explains it, and a verdict each.

    `looked` says which look it is, and what it may use of the error.
    """

    look: Look
    looked: str
    counts: pd.DataFrame
    attribution: StudyAttribution
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Analysis(Finished):
    """What is finished of a study, and what it says.

    Attributes
    ----------
    table
        One row per finished trial: factors, replicate, seed, fold, key, probes and all metrics.
    checks
        What the data check found.
    attributed
        What explains the outcomes; None where no replicate is whole, and of a search.
    controls
        How the controls came out.
    flips
        Which reference cells are called otherwise under other conditions; None where no two trials can be compared.
    trust
        Labels of each query that enough trainings had whole, and how far they are to be trusted.
    yardsticks
        Held-out recall beside that of cheaper ways to the same labels; empty where none was tried.
    matched
        How much queries differ as they are, and matched in size or depth; empty where none are matched.
    collapses
        Trainings that are far worse than their siblings.
    without
        The verdicts without these; empty where there are none.
    search
        Candidates and confirmation, if the study is a search.
    grown
        How far epochs grew, in words; empty where they do not.
    """

    table: pd.DataFrame
    checks: DataReport
    attributed: Attributed | None = None
    controls: tuple[ControlResult, ...] = ()
    flips: Flips | None = None
    trust: Mapping[str, Labels] = field(default_factory=dict)
    yardsticks: pd.DataFrame = field(default_factory=pd.DataFrame)
    matched: pd.DataFrame = field(default_factory=pd.DataFrame)
    collapses: pd.DataFrame = field(default_factory=pd.DataFrame)
    without: tuple[Verdict, ...] = ()
    search: Search | None = None
    grown: str = ""

    @property
    def attribution(self) -> StudyAttribution | None:
        """Shares and effects, where there are any."""
        return self.attributed.attribution if self.attributed else None

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The two answers of each outcome, where there are any."""
        return self.attributed.verdicts if self.attributed else ()

    @property
    def looked(self) -> list[str]:
        """How far epochs grew, and which look at the study it is, where there is one."""
        looked = [self.attributed.looked] if self.attributed and self.attributed.look.replicates > 1 else []
        return [self.grown, *looked] if self.grown else looked

    @property
    def fallen(self) -> list[str]:
        """How many trainings collapsed, and the verdicts without them; nothing where none did."""
        return collapse_words(self.collapses, len(self.results), [one.sentence for one in self.without])

    @property
    def compared(self) -> list[str]:
        """How scANVI compares with cheaper ways to the same labels, a sentence each."""
        return yardstick_sentences(self.yardsticks)

    def frames(self, plan: Plan) -> dict[str, pd.DataFrame]:
        """Return every table by name; what was not found has none."""
        found = {"trials": self.table, "probes": probe_frame(plan, self.results)}
        if self.attributed:
            found |= {"counts": self.attributed.counts, **self.attributed.attribution.to_frames()}
            found |= {"verdicts": verdict_frame(self.verdicts)}
        found |= control_frames(self.controls) if self.controls else {}
        found |= self.flips.frames() if self.flips else {}
        found |= {"trust": trust_frame(self.trust)} if self.trust else {}
        found |= {"yardsticks": self.yardsticks} if len(self.yardsticks) else {}
        found |= {"collapses": self.collapses} if len(self.collapses) else {}
        found |= {"matching": self.matched} if len(self.matched) else {}
        return found | (self.search.frames() if self.search else {})


def analyse(study: Study, done: Finished) -> Analysis:
    """Attribute what is finished, and judge it; of a search, which has no shares, only the data are checked.

    Replicates that are still being trained are left out, so that what was stopped is a smaller balanced study; trials
    that failed stay missing, and attribution says what follows.
    """
    config, plan, found = study.config, study.plan, done.results
    table = trial_frame(plan, found)
    checks = check_data(config.data, tuple(study.cells), config.space.n_folds)
    if study.search is not None:
        return Analysis(found, done.beside, done.failures, table, checks, search=study.search)
    read = partial(read_predictions, config.directory)
    collapses = find_collapses(plan, found)
    return Analysis(
        found,
        done.beside,
        done.failures,
        table,
        checks,
        attributed=explain(study, done, config.outcomes),
        controls=judge_controls(plan.controls, {**found, **done.beside}, done.failures, read, study.cells),
        flips=find_flips(plan, found, read, next(iter(study.cells.values()))),
        trust=trusted(study, found),
        yardsticks=compare_yardsticks(plan.controls, {**found, **done.beside}),
        matched=matched_spread(config.data.queries, plan, found),
        collapses=collapses,
        without=_without(study, done, set(collapses["trial_key"])),
        grown=_grown(study),
    )


def _grown(study: Study) -> str:
    """How far epochs grew, in words; empty where they do not."""
    growth = growth_of(study.config)
    if growth is None:
        return ""
    before, stages = growth.levels[growth.grown - 2], study.plan.stages
    beyond = sum(
        max(0, one.epochs[-1] - int(before)) * one.steps_per_epoch for one in stages if one.kind == "fine-tuning"
    )
    return growth.words(beyond / sum(one.epochs[-1] * one.steps_per_epoch for one in stages))


def _without(study: Study, done: Finished, collapsed: set[str]) -> tuple[Verdict, ...]:
    """The verdicts as if collapsed trainings had failed; none where nothing collapsed."""
    if not collapsed:
        return ()
    kept = {key: result for key, result in done.results.items() if key not in collapsed}
    failures = {**done.failures, **dict.fromkeys(collapsed, "collapsed")}
    found = explain(study, replace(done, results=kept, failures=failures), study.config.outcomes)
    return found.verdicts if found else ()


def explain(study: Study, done: Finished, outcomes: Sequence[str]) -> Attributed | None:
    """Attribute some outcomes over the whole replicates, and judge them; None where no replicate is whole.

    Raises
    ------
    InputError
        If the study is a search.
    """
    found = attribute(study, done, outcomes)
    if found is None:
        return None
    look, counts, attribution = found
    taken = taken_looks(study.config, study.plan.factors)
    others = [one for one in taken if one.replicates != look.replicates]
    cost, later = _replicate_cost(study), look_after(look.replicates + 1, (*others, look)).level
    verdicts = tuple(judge(attribution, outcome, cost, later) for outcome in outcomes)
    told = look_words(look, taken, study.config.space.declared)
    return Attributed(look, told, counts, attribution, verdicts)


def attribute(
    study: Study, done: Finished, outcomes: Sequence[str]
) -> tuple[Look, pd.DataFrame, StudyAttribution] | None:
    """Return the look that a study is at, the table of it, and what explains that; None where no replicate is whole.

    Raises
    ------
    InputError
        If the study is a search.
    """
    if study.search is not None:
        raise InputError(NOT_EXPLAINED)
    used = of_whole_replicates(study.plan, done.results, done.failures_of(study.plan))
    whole, declared = sorted({study.plan.by_key[key].replicate.index for key in used}), study.config.space.declared
    if declared:  # between declared looks what was there at the last one is told
        whole = whole[: max((count for count in declared if count <= len(whole)), default=0)]
        used = {key: one for key, one in used.items() if study.plan.by_key[key].replicate.index in whole}
    if not used:
        return None
    look = look_after(len(whole), taken_looks(study.config, study.plan.factors), study.config.space.passes)
    counts = count_frame(study.plan, used, outcomes)
    return look, counts, attribute_study(counts, study.plan.factors, strata_of(study), level=look.level)


def _replicate_cost(study: Study) -> ReplicateCost | None:
    """What one more replicate of the table trains; unknown unless replicates are a number."""
    if not isinstance(study.config.space.replicates, int):
        return None  # more of them is a choice between seeds and folds, or of another last look
    keys = {key for trial in study.plan.trials for key, _ in trial.chain}
    stages = [stage for stage in study.plan.stages if stage.key in keys]
    steps = sum(stage.length for stage in stages)
    replicates = study.plan.replicates
    return ReplicateCost(round(len(stages) / replicates), round(steps / replicates))


def verdict_frame(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return one row per outcome and class."""
    return pd.DataFrame([row for one in verdicts for row in one.to_frame().to_dict("records")])
