"""What is finished of a study, as it lies on disk, and which of its replicates are whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from study.errors import InputError
from study.plan import Plan
from study.studies import Study
from study.trials import Result, read_all, read_failures


@dataclass(frozen=True)
class Finished:
    """What is on disk of a study.

    Attributes
    ----------
    results, beside
        Finished trials by key: of the table, and of controls alone.
    failures
        Reasons of failed trials of either.
    """

    results: Mapping[str, Result]
    beside: Mapping[str, Result]
    failures: Mapping[str, str]

    def failures_of(self, plan: Plan) -> dict[str, str]:
        """Return the reasons of the failed trials of the table."""
        return {key: reason for key, reason in self.failures.items() if key in plan.by_key}


def read_finished(study: Study) -> Finished:
    """Read what is finished of a study, and why trials failed."""
    directory, plan = study.config.directory, study.plan
    every = read_all(directory, plan.all_by_key)
    failures = read_failures(directory, [key for key in plan.all_by_key if key not in every])
    found = {trial.key: every[trial.key] for trial in plan.trials if trial.key in every}
    return Finished(found, {key: result for key, result in every.items() if key not in found}, failures)


def read_some(study: Study) -> Finished:
    """Read what is finished of a study, of which something must be.

    Raises
    ------
    InputError
        If no trial of it has ended.
    """
    done = read_finished(study)
    if not (done.results or done.beside or done.failures):
        raise InputError(
            f"no trial of study {study.config.name!r} is finished in {study.config.directory}. "
            "Run it first, with the same overrides."
        )
    return done


def whole_results(study: Study) -> dict[str, Result]:
    """Return the results of the replicates in which every trial is finished; of a search, every result.

    Raises
    ------
    InputError
        If there is none.
    """
    found = read_all(study.config.directory, [trial.key for trial in study.plan.trials])
    if study.search is not None:
        return found
    used = of_whole_replicates(study.plan, found, {})
    if not used:
        failures = read_failures(study.config.directory, [key for key in study.plan.by_key if key not in found])
        advice = "Run it first, with the same overrides."
        if failed := list(failures.values()):
            advice = f"{len(failed)} failed ({failed[0]}): leave that level out, or run it again once that is mended."
        raise InputError(
            f"study {study.config.name!r} has no whole replicate yet ({len(found)} of {len(study.plan.trials)} trials "
            f"in {study.config.directory}). {advice}"
        )
    return used


def of_whole_replicates(plan: Plan, found: Mapping[str, Result], failures: Mapping[str, str]) -> dict[str, Result]:
    """Return the results of the replicates in which no trial is still to be trained."""
    unfinished = {t.replicate.index for t in plan.trials if t.key not in found and t.key not in failures}
    return {key: one for key, one in found.items() if plan.by_key[key].replicate.index not in unfinished}
