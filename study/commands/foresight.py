"""What a study will take, and how sharp it will be, before it is trained."""

from __future__ import annotations

from dataclasses import replace

from study.attribution import Attribution, attribute_study
from study.commands.refusal import nothing_left_if_refused
from study.config import load_stored
from study.errors import InputError
from study.report import of_whole_replicates
from study.studies import NOT_EXPLAINED, Study, open_study, strata_of
from study.sweep import Prediction, predict_cost
from study.trials import OVERALL, count_frame, halted_epochs, kept_states, read_all
from study.verdict import (
    ASSUMED,
    REPLICATES,
    Precision,
    assumptions_from,
    expected_precision,
    expected_replicates,
)


def expect(study: Study, pilot: str | None) -> Precision:
    """Return how sharp a study will be, from the chance that an earlier one found, or from stated assumptions.

    Parameters
    ----------
    study
        The study to plan.
    pilot
        Name of an earlier study beside it; None: this study's own finished replicates, if there are two.

    Raises
    ------
    InputError
        If there is no such study, or it cannot tell.
    """
    assumptions = ASSUMED
    earlier = study
    if pilot is not None:
        try:
            config = load_stored(pilot, study.config.root)
            with nothing_left_if_refused(config.directory) as wrote:
                earlier = open_study(config, wrote)
        except InputError as error:
            raise InputError(f"--pilot {pilot}: {error} Name a study that has been run.") from None
        if earlier.search is not None:
            raise InputError(f"--pilot {pilot}: {NOT_EXPLAINED}")
    found = _earlier_chance(earlier)
    if found is not None:
        assumptions = assumptions_from(found)
    elif pilot is not None:
        raise InputError(f"--pilot {pilot}: it has no attributed result; it needs at least 2 whole replicates.")
    try:
        classes = len(next(iter(study.cells.values())).classes)
        design, declared = (study.plan.factors, strata_of(study)), study.config.space.declared
        shown = tuple(dict.fromkeys((*declared[:3], *declared[-1:])))
        precision = expected_precision(*design, assumptions, shown or REPLICATES, classes=classes)
        ends = expected_replicates(*design, assumptions, declared) if declared else None
        return replace(precision, ends_after=ends)
    except ValueError as error:
        raise InputError(f"--pilot {pilot}: {error} Choose a pilot that varies the same kinds of settings.") from None


def foresee(study: Study, calibrate: bool = False) -> Prediction | None:
    """Return how long the rest of a study takes, from earlier records or steps trained now; None if nothing tells."""
    directory = study.config.directory
    done = read_all(directory, study.plan.all_by_key)
    missing = study.plan.missing(done.keys(), kept_states(directory, study.plan), halted_epochs(directory, study.plan))
    return predict_cost(directory, study.config.resources, study.plan, study.cells, missing, calibrate)


def _earlier_chance(study: Study) -> Attribution | None:
    """What the finished replicates of a study say of held-out recall over all cells; None if they say nothing."""
    found = read_all(study.config.directory, [trial.key for trial in study.plan.trials])
    used = of_whole_replicates(study.plan, found, {})
    if not used or study.config.space.design != "factorial":
        return None
    table = count_frame(study.plan, used, ["heldout/recall"])
    overall = attribute_study(table[table.class_name == OVERALL], study.plan.factors, strata_of(study))
    (one,) = overall.attributions
    return one if one.anova else None
