"""The report: one page of HTML that opens from disk, with everything it needs inside.

What a study is called, its classes, queries and batches, are other people's words: the template escapes all of them,
and the page's script writes them as text only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from study.cells import Cells
from study.plan import Plan
from study.report.analysis import Analysis
from study.report.charts import Json, chart_data, data_chart, draws_chart, flip_chart, flip_tables, trial_map
from study.report.embedding import embedding_chart
from study.report.sections import (
    cards,
    factor_table,
    facts,
    failed_trials,
    groups,
    held_out_words,
    labels_together,
    matched_table,
    mean_words,
    missing,
    provenance,
    share_tables,
    trust_tables,
    whole_replicates,
    yardstick_table,
)
from study.studies import NOT_EXPLAINED, Search, Study
from study.verdict import (
    FAIL,
    GROUPS,
    audit_results,
    control_frames,
    mechanism_frame,
    point_label,
    schedule_frame,
    schedules_of,
)

# What fits on a page; the tables beside it hold everything.
MOST_ROWS = 100
MOST_NOTES = 6


def render_report(study: Study, analysis: Analysis, command: str = "") -> str:
    """Return the report of a study as one HTML page that needs no network.

    Parameters
    ----------
    study
        Its design: every trial, finished or not.
    analysis
        What is finished, and what it says; where nothing can be attributed, the page says why.
    command
        The command that made the study, as typed; where it is not known the page names data and space.
    """
    failures = analysis.failures_of(study.plan)
    common = {
        "name": study.config.name,
        "facts": facts(study.plan, analysis.results, failures, study.cells),
        "notes": (*study.plan.notes, *audit_results(study.plan, analysis.results)),
        "checks": analysis.checks,
        "factors": factor_table(study.plan),
        "failed": failed_trials(study.plan, failures),
        "together": labels_together(study.config, analysis.results),
        "provenance": provenance(study.config, study.plan, analysis.results, command),
        "most_rows": MOST_ROWS,
    }
    if analysis.search is not None:
        return templates().get_template("search.html").render(common, **_of_search(analysis.search))
    outcomes = study.config.outcomes
    return (
        templates().get_template("page.html").render(common, **_of_design(study.plan, study.cells, analysis, outcomes))
    )


def _of_search(search: Search) -> Json:
    """Return what the page of a search says beyond what every page does: candidates and confirmation."""
    return {
        "sentence": search.sentence,
        "refusal": NOT_EXPLAINED,
        "confirmation": search.confirmation.to_frame() if search.confirmation else None,
        "candidates": search.table(),
        "points": [
            (at, one.recall, one.state, f"{point_label(one.levels)}: {one.recall:.3f}, {one.state}")
            for at, one in enumerate(search.candidates)
            if one.groups
        ],
    }


def _of_design(plan: Plan, cells: Mapping[str, Cells], analysis: Analysis, outcomes: Sequence[str]) -> Json:
    """Return what the page of a designed experiment says beyond what every page does."""
    results, attribution, flips = analysis.results, analysis.attribution, analysis.flips
    schedules = schedules_of(plan, results)
    charts = chart_data(plan, results, attribution, outcomes) | {
        "map": trial_map(plan, results, analysis.failures),
        "draws": draws_chart(schedules, results),
        "flips": flip_chart(flips),
        "data": data_chart(analysis.checks),
        "embedding": embedding_chart(cells, analysis.trust),
    }
    return {
        "plotly": Markup(get_plotlyjs()),
        "data": charts,
        "whole": whole_replicates(attribution),
        "missing": missing(results, attribution),
        "means": {outcome: mean_words(results, outcome) for outcome in outcomes},
        "cards": cards(analysis.verdicts, outcomes),
        "shares": share_tables(attribution, outcomes),
        "strata": [stratum.label for stratum in attribution.strata] if attribution else [],
        "has_groups": groups(attribution),
        "crossed": sum(bool(factor.levels) for factor in plan.factors),
        "audit": schedule_frame(schedules),
        "mechanism": mechanism_frame(plan, results),
        "controls": control_frames(analysis.controls)["controls"],
        "broken": [one for one in analysis.controls if one.outcome == FAIL],
        "flips": flip_tables(flips) if flips else [],
        "trust": trust_tables(analysis.trust),
        "looked": [held_out_words(plan, whole_replicates(attribution)), *analysis.looked],
        "fallen": next(iter(analysis.fallen), ""),
        "without": {one.outcome: one.sentence for one in analysis.without},
        "yardsticks": analysis.compared,
        "yardstick_table": yardstick_table(analysis.yardsticks),
        "baseline": flips.baseline if flips else "",
        "matched": matched_table(analysis.matched),
        "group_names": GROUPS,
        "most_notes": MOST_NOTES,
    }


@cache
def templates() -> Environment:
    """Return the templates of pages: undefined names are errors, and what they write is escaped unless they say so."""
    made = Environment(
        loader=PackageLoader("study.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "ensure_ascii": False}
    made.filters["cell"] = _cell
    return made


def _cell(value: Any) -> str:
    """Return one value of a table as text; the template escapes it."""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int | np.integer) and not isinstance(value, bool) else str(value)
