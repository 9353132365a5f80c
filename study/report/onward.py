"""What a study goes on with once all that it called for is there: further epochs while they matter, or replicates."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from study.attribution import Effect, StudyAttribution, attribute_study, last_look
from study.config import GROWING
from study.report.analysis import attribute
from study.report.finished import Finished, of_whole_replicates, read_finished
from study.studies import MOVES, Growth, Study, asked_classes, growth_of, keep_growth, keep_look, strata_of, taken_looks
from study.trials import MACRO, count_frame, forget_halted
from study.verdict import dominant_group, open_questions


def calls_for_more(study: Study) -> bool:
    """Judge a study that decides itself how far it goes, if that is due, and record it.

    Returns
    -------
    Whether its record may now call for more; never of a study with stated epochs and replicates, nor of a search.
    """
    done = read_finished(study)
    if study.search is not None or len(done.results) + len(done.failures_of(study.plan)) < len(study.plan.trials):
        return False
    growth = growth_of(study.config)
    if growth is not None and not growth.ended:
        return _grow(study, done, growth)
    return _look(study, done)


def _look(study: Study, done: Finished) -> bool:
    """Take a declared look; return whether something is open that later ones may tell."""
    declared = study.config.space.declared
    found = attribute(study, done, study.config.outcomes) if declared else None
    # Fewer replicates than were called for: in some every trial failed, and to look again would change nothing.
    if found is None or found[0].replicates < study.plan.replicates:
        return False
    look, _, attribution = found
    last = last_look(declared, taken_looks(study.config, study.plan.factors))
    open_ones = (
        open_questions(attribution, asked_classes(study.config), last) if look.replicates < last.replicates else ()
    )
    keep_look(study.config, study.plan.factors, replace(look, open=open_ones))
    return bool(open_ones)


def _grow(study: Study, done: Finished, growth: Growth) -> bool:
    """Judge the last level of epochs: more are called for while the mean of all classes, or a verdict, moves."""
    outcome = study.config.outcomes[0]
    used = of_whole_replicates(study.plan, done.results, done.failures_of(study.plan))
    if not used:
        return False
    counts = count_frame(study.plan, used, [outcome])
    here, before = growth.levels[growth.grown - 1], growth.levels[growth.grown - 2]
    now = attribute_study(counts, study.plan.factors, strata_of(study), {GROWING: before})
    change = _change(now, outcome, here)
    moves = change is None or max(abs(change.lower), abs(change.upper)) >= MOVES or _turns(study, counts, now, here)
    more = moves and growth.grown < len(growth.levels)
    kept = replace(growth, grown=growth.grown + more, ended=not more)
    if change is not None and not more:
        found = now.of(outcome, MACRO).replicates
        kept = replace(kept, points=change.points, lower=change.lower, upper=change.upper, replicates=found)
    keep_growth(study.config.directory, kept)
    if not more:
        forget_halted(study.config.directory, study.plan)
    return True


def _change(found: StudyAttribution, outcome: str, level: object) -> Effect | None:
    """What a level of epochs changes in the mean of all classes; None where that cannot be told."""
    effects = found.of(outcome, MACRO).effects
    return next((e for e in effects if (e.kind, e.factor, e.level) == ("marginal", GROWING, level)), None)


def _turns(study: Study, counts: pd.DataFrame, now: StudyAttribution, level: object) -> bool:
    """Whether a verdict is another one without the last level; with two of them there is nothing to compare."""
    factors = [
        replace(one, levels=tuple(other for other in one.levels if other != level)) if one.name == GROWING else one
        for one in study.plan.factors
    ]
    if any(len(one.levels) < 2 for one in factors):
        return False
    earlier = attribute_study(counts[counts[GROWING] != level], factors, strata_of(study))
    outcome = study.config.outcomes[0]
    return any(
        dominant_group(now.of(outcome, name)) != dominant_group(earlier.of(outcome, name))
        for name in asked_classes(study.config)
    )
