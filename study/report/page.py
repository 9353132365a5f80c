"""The report: one page of HTML that opens from disk, with everything it needs inside.

What a study is called, its classes, queries and batches, are other people's words: the template escapes all of them,
and the page's script writes them as text only.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from study.attribution import CAUSES, OTHER, Attribution, Share, StudyAttribution
from study.cells import Cells, DataReport
from study.config import StudyConfig, dump
from study.plan import Plan
from study.report.charts import Json, chart_data, data_chart, flip_chart, flip_tables, positions, trial_map
from study.studies import NOT_EXPLAINED, Search
from study.trials import MACRO, Result
from study.verdict import (
    FAIL,
    GROUPS,
    SUMMARIES,
    ControlResult,
    Flips,
    TradeOff,
    Verdict,
    audit_results,
    class_label,
    condition_label,
    control_frames,
    mechanism_frame,
    outcome_label,
    phrase,
    point_label,
    schedule_frame,
    word,
)

# What fits on a page; the tables beside it hold everything.
MOST_ROWS = 100
MOST_FAILURES = 20
MOST_NOTES = 6
MOST_NAMED = 3


def render_report(
    config: StudyConfig,
    plan: Plan,
    results: Mapping[str, Result],
    attribution: StudyAttribution | None,
    verdicts: Sequence[Verdict],
    cells: Mapping[str, Cells],
    checks: DataReport | None,
    failures: Mapping[str, str],
    command: str = "",
    controls: Sequence[ControlResult] = (),
    flips: Flips | None = None,
    matched: pd.DataFrame | None = None,
) -> str:
    """Return the report of a study as one HTML page that needs no network.

    Parameters
    ----------
    config
        The study.
    plan
        Its design: every trial, finished or not.
    results
        Finished trials by key.
    attribution
        Shares and effects; None where nothing can be attributed, and the page then says why.
    verdicts
        The two answers of each outcome.
    cells
        Prepared cells by query.
    checks
        What the data check found; None where it was not made.
    failures
        Reasons of failed trials by key.
    command
        The command that made the study, as typed; where it is not known the page names data and space.
    controls
        How the controls came out.
    flips
        Which reference cells are called otherwise under other conditions.
    matched
        How much queries differ as they are, and matched in size or depth.
    """
    outcomes = list(config.outcomes)
    data = chart_data(plan, results, attribution, outcomes)
    data["map"] = trial_map(plan, results, failures)
    audit, data["draws"] = schedule_frame(plan, results)
    data["flips"] = flip_chart(flips)
    data["data"] = data_chart(checks)
    return _template("report.html.j2").render(
        name=config.name,
        plotly=Markup(get_plotlyjs()),
        data=data,
        facts=_facts(plan, results, failures, cells) | {"whole": _whole(attribution)},
        missing=_missing(results, attribution),
        outcomes=data["outcomes"],
        cards=_cards(verdicts, outcomes),
        shares=_share_tables(attribution, outcomes),
        strata=[stratum.label for stratum in attribution.strata] if attribution else [],
        has_groups=[group for group in (*CAUSES, OTHER) if _has_group(attribution, group)],
        crossed=sum(bool(factor.levels) for factor in plan.factors),
        notes=(*plan.notes, *audit_results(plan, results)),
        audit=audit,
        mechanism=mechanism_frame(plan, results),
        controls=control_frames(controls)["controls"],
        broken=[one for one in controls if one.outcome == FAIL],
        flips=flip_tables(flips) if flips else [],
        baseline=flips.baseline if flips else "",
        matched=_matched(matched),
        checks=checks,
        factors=_factors(plan),
        failed=_failed(plan, failures),
        provenance=_provenance(config, plan, results, command),
        group_names=GROUPS,
        most_rows=MOST_ROWS,
        most_notes=MOST_NOTES,
    )


def render_search(
    config: StudyConfig,
    plan: Plan,
    results: Mapping[str, Result],
    search: Search,
    cells: Mapping[str, Cells],
    checks: DataReport,
    failures: Mapping[str, str],
    command: str = "",
) -> str:
    """Return the report of a search as one HTML page: candidates and confirmation. Parameters as in `render`."""
    return _template("search.html.j2").render(
        name=config.name,
        facts=_facts(plan, results, failures, cells),
        sentence=search.sentence,
        refusal=NOT_EXPLAINED,
        confirmation=search.confirmation.to_frame() if search.confirmation else None,
        candidates=search.table(),
        points=[
            (at, one.recall, one.state, f"{point_label(one.levels)}: {one.recall:.3f}, {one.state}")
            for at, one in enumerate(search.candidates)
            if one.groups
        ],
        notes=(*plan.notes, *audit_results(plan, results)),
        checks=checks,
        factors=_factors(plan),
        failed=_failed(plan, failures),
        provenance=_provenance(config, plan, results, command),
        most_rows=MOST_ROWS,
    )


def _template(name: str) -> Template:
    """Undefined names are errors, and everything that the template writes is escaped unless it says otherwise."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "ensure_ascii": False}
    environment.filters["cell"] = _cell
    return environment.from_string(resources.files("study.report").joinpath(name).read_text("utf-8"))


def _facts(plan: Plan, results: Mapping[str, Result], failures: Mapping[str, str], cells: Mapping[str, Cells]) -> Json:
    """Return what the head of the page says about the study as a whole."""
    some = next(iter(cells.values()), None)
    finished = max((result.finished for result in results.values()), default=None)
    return {
        "trials": len(plan.trials),
        "done": len(results),
        "failed": len(failures),
        "waiting": len(plan.trials) - len(results) - len(failures),
        "replicates": len({trial.replicate for trial in plan.trials}),
        "points": len(positions(trial.point for trial in plan.trials)),
        "reference": some.n_reference if some else 0,
        "classes": len(some.classes) if some else 0,
        "queries": {name: one.n_query for name, one in cells.items()},
        "sizes": len({trial.condition.n_cells for trial in plan.trials}),
        "finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(finished)) if finished else "",
    }


def _whole(attribution: StudyAttribution | None) -> int:
    """Return how many replicates the attribution had."""
    return max((found.replicates for found in attribution.attributions), default=0) if attribution else 0


def _missing(results: Mapping[str, Result], attribution: StudyAttribution | None) -> str:
    """Say why there are no shares and effects; nothing where there are some."""
    if not results:
        return "No trial is finished yet, so there is nothing to explain. What follows is the design and the data."
    if attribution is None:
        return "No replicate is complete yet. Shares and effects compare whole replicates: run the study further."
    if not any(found.shares for found in attribution.attributions):
        reasons = Counter(found.reason for found in attribution.attributions)
        return f"Nothing could be decomposed yet: {'; '.join(reasons)}."
    return ""


def _cards(verdicts: Sequence[Verdict], outcomes: Sequence[str]) -> list[Json]:
    """Return the verdict of each outcome, in the order of the outcomes."""
    known = {verdict.outcome: verdict for verdict in verdicts}
    return [
        {
            "outcome": outcome,
            "label": outcome_label(outcome)[0],
            "hint": outcome_label(outcome)[1],
            "why": known[outcome].why,
            "which": known[outcome].which,
            "trade_offs": [_trade_off(trade) for trade in known[outcome].trade_offs],
            # What is over all classes comes first, what is not decomposed last.
            "classes": [
                (class_label(one.class_name), one.why, one.which)
                for one in sorted(
                    known[outcome].classes, key=lambda one: (not one.which, one.class_name not in SUMMARIES)
                )
            ],
        }
        for outcome in outcomes
        if outcome in known
    ]


def _trade_off(trade: TradeOff) -> str:
    """Return a trade-off in words, with the classes that it matters to most."""
    sides = []
    for pairs in (trade.helps, trade.hurts):
        named = [f"{class_label(name)} {effect.points:+.1f}" for name, effect in pairs[:MOST_NAMED]]
        rest = len(pairs) - len(named)
        sides.append(", ".join(named) + (f" and {rest} more" if rest else ""))
    change = phrase(trade.factor, trade.level, trade.baseline)
    return f"{change[0].upper()}{change[1:]} helps {sides[0]}, and hurts {sides[1]} (points)."


def _has_group(attribution: StudyAttribution | None, group: str) -> bool:
    found = attribution.attributions if attribution else ()
    return any(share.group == group for one in found for share in one.shares)


def _share_tables(attribution: StudyAttribution | None, outcomes: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """Return the shares as text, a table per outcome and a row per class."""
    found = attribution.attributions if attribution else ()
    tables = [(key, pd.DataFrame([_share_row(one) for one in found if one.outcome == key])) for key in outcomes]
    return [(key, table[[*table.columns.drop("note"), "note"]].fillna("")) for key, table in tables if len(table)]


def _share_row(found: Attribution) -> dict[str, str]:
    row = {
        "class": class_label(found.class_name),
        "mean": f"{found.points:.1f}%",
        "cells": f"{found.support:,.0f}",
    }
    row |= {GROUPS[share.group]: _share(share) for share in found.shares}
    row |= {f"chance: {part.label}": f"{100 * part.share:.0f}%" for part in found.chance}
    if found.block:
        row["beside: held-out cells and seed"] = f"{100 * found.block.relative:.0f}%"
    notes = [found.reason, *(f"{part.label}: {part.note}" for part in found.chance if part.note)]
    return row | {"note": ". ".join(note for note in notes if note)}


def _share(share: Share) -> str:
    return f"{100 * share.share:.0f}% [{100 * share.lower:.0f}, {100 * share.upper:.0f}]"


def _factors(plan: Plan) -> pd.DataFrame:
    """Return the design as a table."""
    rows = []
    for factor in plan.factors:
        levels = ", ".join(map(word, factor.levels)) or str(factor.domain)
        rows.append({"factor": factor.name, "role": factor.role, "levels": levels})
    return pd.DataFrame(rows)


def _failed(plan: Plan, failures: Mapping[str, str]) -> Json:
    """Return the failed trials with their reasons, equal reasons once."""
    reasons: dict[str, list[str]] = {}
    for trial in plan.trials:
        if trial.key in failures:
            where = f"{point_label(trial.point)}, replicate {trial.replicate.index}"
            reasons.setdefault(failures[trial.key], []).append(where)
    shown = [(reason, trials[:MOST_FAILURES], len(trials)) for reason, trials in reasons.items()]
    return {"shown": shown[:MOST_FAILURES], "more": max(len(shown) - MOST_FAILURES, 0)}


def _matched(table: pd.DataFrame | None) -> pd.DataFrame:
    """Return how much queries differ as they are and matched, in words, over all classes and for each."""
    if table is None or table.empty:
        return pd.DataFrame()
    part = table["metric"].str.partition("/")[0].map({"heldout": "held-out", "train": "training"})
    name = table["metric"].str.extract(r"/recall/(.+)$")[0].fillna(class_label(MACRO))
    points = {"differ by (sd, points)": table["sd"].round(1), "chance (sd, points)": table["chance"].round(1)}
    return pd.DataFrame({"recall of": name, "cells": part, "queries": table["queries"], **points})


def _provenance(config: StudyConfig, plan: Plan, results: Mapping[str, Result], command: str) -> Json:
    """Return what is needed to make the study again, and to see that it is the same."""
    made = Counter(tuple(sorted(result.made_with.items())) for result in results.values())
    digests = {plan.by_key[key].condition: result.digest for key, result in results.items()}
    return {
        "config": yaml.safe_dump(dump(config), sort_keys=False, allow_unicode=True),
        "command": command or f"scanvi-study run data={config.data.name} space={config.space.name} name={config.name}",
        "exact": bool(command),
        "versions": [(count, ", ".join(f"{name} {version}" for name, version in one)) for one, count in made.items()],
        "digests": pd.DataFrame(
            [{"condition": condition_label(one), "sha256 of its cells": digest} for one, digest in digests.items()]
        ),
    }


def _cell(value: Any) -> str:
    """Return one value of a table as text; the template escapes it."""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int | np.integer) and not isinstance(value, bool) else str(value)
