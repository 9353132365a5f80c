"""After how many replicates a study that goes on until nothing is open is expected to end: small studies, simulated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from study.attribution import (
    CAUSES,
    ClassTable,
    Floats,
    Layout,
    Look,
    StudyAttribution,
    attribute_tables,
    last_look,
    layout_of,
    look_after,
)
from study.plan import Factor, Stratum
from study.trials import HELD_OUT, MACRO, RECALL, metric
from study.verdict.power import stratum_of
from study.verdict.precision import Assumptions
from study.verdict.settled import open_questions

STUDIES = 12
# So many that counting adds nothing to what is assumed of chance.
CELLS = 1e6
OUTCOME = metric(HELD_OUT, RECALL)


def expected_replicates(
    factors: Sequence[Factor], strata: Sequence[Stratum], assumptions: Assumptions, declared: Sequence[int]
) -> float:
    """Return after how many replicates studies end on average, if differences are as assumed.

    Parameters
    ----------
    factors, strata
        The design.
    assumptions
        Variances to expect, each group's in a pattern drawn anew for each study.
    declared
        After how many replicates looks are declared.
    """
    layout, random = layout_of(factors, strata), np.random.default_rng(0)
    return float(
        np.mean([_ended(_drawn(layout, assumptions, declared[-1], random), layout, declared) for _ in range(STUDIES)])
    )


def _drawn(layout: Layout, assumptions: Assumptions, replicates: int, random: np.random.Generator) -> Floats:
    """Return the logits of a study, ``[replicate, cell]``."""
    group = np.array(["", *(layout.terms[t].group for t in layout.column_term[1:])])
    columns = np.zeros(layout.cells)
    for cause in CAUSES:
        pattern = random.normal(size=layout.cells) * (group == cause)
        if assumptions.causes.get(cause, 0.0) > 0 and pattern.any():
            columns += pattern * np.sqrt(layout.cells * assumptions.causes[cause]) / np.linalg.norm(pattern)
    eta = np.full((replicates, layout.cells), special.logit(assumptions.percent / 100)) + layout.rotation @ columns
    depth = [stratum_of(factor, layout) for factor in layout.factors]
    for s, stratum in enumerate(layout.strata):
        units = [size if depth[f] <= s else 1 for f, size in enumerate(layout.levels)]
        noise = random.normal(scale=np.sqrt(assumptions.chance[stratum.name]), size=(replicates, *units))
        eta += np.broadcast_to(noise, (replicates, *layout.levels)).reshape(eta.shape)
    return eta


def _ended(eta: Floats, layout: Layout, declared: Sequence[int]) -> int:
    """Return after how many replicates a study ends."""
    taken: list[Look] = []
    last = last_look(declared)
    for count in declared[:-1]:
        taken.append(look_after(count, taken, declared[-1]))
        total, index = np.full((count, layout.cells), CELLS), np.arange(count)
        table = ClassTable(total * special.expit(eta[:count]), total, index, index)
        found = attribute_tables({(OUTCOME, MACRO): table}, layout, level=taken[-1].level)
        study = StudyAttribution(layout.factors, layout.strata, found)
        if not open_questions(study, [MACRO], last):
            return count
    return declared[-1]
