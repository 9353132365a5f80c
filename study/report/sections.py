"""What each section of the page says in words and tables; the charts beside them are in `charts`.

What others named (classes, queries, batches) is kept as it is: the template escapes it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd
import yaml

from study.attribution import CAUSES, OTHER, Attribution, StudyAttribution
from study.cells import Cells
from study.config import StudyConfig, dump
from study.plan import Plan
from study.report.charts import Json, positions
from study.trials import FEWEST_CELLS, HELD_OUT, MACRO, PRECISION, Result, confusion_frame, left_out_of
from study.trust import Labels
from study.verdict import (
    GROUPS,
    PART_WORDS,
    SUMMARIES,
    YARDSTICK_NAMES,
    TradeOff,
    Verdict,
    class_label,
    condition_label,
    labels_of,
    outcome_label,
    phrase,
    point_label,
    share_words,
    siblings,
    word,
)

# What fits on a page; the tables beside it hold everything.
MOST_FAILURES = 20
MOST_NAMED = 3
MOST_TORN = 20


def facts(plan: Plan, results: Mapping[str, Result], failures: Mapping[str, str], cells: Mapping[str, Cells]) -> Json:
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
        "unlabelled": some.unlabelled.size if some else 0,
        "classes": len(some.classes) if some else 0,
        "sizes": len({trial.condition.n_cells for trial in plan.trials}),
        "finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(finished)) if finished else "",
    }


def whole_replicates(attribution: StudyAttribution | None) -> int:
    """Return how many replicates the attribution had."""
    return max((found.replicates for found in attribution.attributions), default=0) if attribution else 0


def held_out_words(plan: Plan, whole: int) -> str:
    """Say which cells effects are about: those that were held out in so many replicates."""
    replicates = sorted({trial.replicate for trial in plan.trials}, key=lambda one: one.index)[:whole]
    parts = len({one.fold % plan.folds for one in replicates})
    which = "all labelled reference cells" if parts == plan.folds else f"{parts} of {plan.folds} parts of the reference"
    return (
        f"Effects on held-out cells are about the cells that were held out, {which}, and these queries."
        if whole
        else ""
    )


def missing(results: Mapping[str, Result], attribution: StudyAttribution | None) -> str:
    """Say why there are no shares and effects; nothing where there are some."""
    if not results:
        return "No trial is finished yet, so there is nothing to explain. What follows is the design and the data."
    if attribution is None:
        return (
            "Too few replicates are complete yet. Shares and effects compare whole replicates: run the study further."
        )
    if not any(found.effects for found in attribution.attributions):
        reasons = Counter(found.reason for found in attribution.attributions)
        return f"Nothing could be decomposed yet: {'; '.join(reasons)}."
    return ""


def cards(verdicts: Sequence[Verdict], outcomes: Sequence[str]) -> list[Json]:
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


def groups(attribution: StudyAttribution | None) -> list[str]:
    """Return the groups of causes that have a share anywhere, in order."""
    found = {share.group for one in attribution.attributions for share in one.shares} if attribution else set()
    return [group for group in (*CAUSES, OTHER) if group in found]


def share_tables(attribution: StudyAttribution | None, outcomes: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
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
    row |= {GROUPS[share.group]: share_words(share.share, share.lower, share.upper) for share in found.shares}
    row |= {f"chance: {part.label}": f"{100 * part.share:.0f}%" for part in found.chance}
    if found.block:
        row["beside: held-out cells and seed"] = f"{100 * found.block.relative:.0f}%"
    notes = [found.reason, *(f"{part.label}: {part.note}" for part in found.chance if part.note)]
    return row | {"note": ". ".join(note for note in notes if note)}


def matched_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return how much queries differ as they are and matched, in words, over all classes and for each."""
    if table.empty:
        return pd.DataFrame()
    part = table["metric"].str.partition("/")[0].map(PART_WORDS)
    name = table["metric"].str.extract(r"/recall/(.+)$")[0].fillna(class_label(MACRO))
    points = {"differ by (sd, points)": table["sd"].round(1), "chance (sd, points)": table["chance"].round(1)}
    return pd.DataFrame({"recall of": name, "cells": part, "queries": table["queries"], **points})


def mean_words(results: Mapping[str, Result], outcome: str) -> str:
    """Say which classes the mean of an outcome is over; nothing where it is over all."""
    left = left_out_of(results, outcome)
    if not left:
        return ""
    n = len(next(iter(results.values())).classes)
    why = f"fewer than {FEWEST_CELLS} such cells in some replicate"
    if outcome.endswith(PRECISION):
        why += ", or no cell that is called so in some trial"
    return f"Means of classes are over {n - len(left)} of {n}. Left out, with {why}: {', '.join(left)}."


def yardstick_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return how scANVI compares with each yardstick as text, a row per yardstick and class."""
    if table.empty:
        return table
    points = table["difference"].map("{:+.1f}".format)
    interval = table["lower"].map("{:+.1f}".format) + ", " + table["upper"].map("{:+.1f}".format)
    points = points.where(table["lower"].isna(), points + " [" + interval + "]")
    return pd.DataFrame(
        {
            "compared with": table["yardstick"].map(YARDSTICK_NAMES),
            "class": table["class"].map(class_label),
            "scANVI": table["scANVI"].map("{:.1f}%".format),
            "the other": table["recall"].map("{:.1f}%".format),
            "difference in points [95%]": points,
            "scANVI is": table["scANVI is"],
        }
    )


def trust_tables(trust: Mapping[str, Labels]) -> list[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    """Return of each query its name, what is known of its labels, a table by label, and one of cells that waver."""
    found = []
    for query, labels in trust.items():
        torn = labels.torn.head(MOST_TORN).rename(columns={"label": "called", "second": "or"})
        shares = ["agreement", "again", "settings"]
        torn[shares] = torn[shares].map(lambda value: "" if pd.isna(value) else f"{value:.0%}")
        found.append(
            (query, labels.sentence, labels.by_label.round({"agreement": 2}), torn.rename(columns={"again": "chance"}))
        )
    return found


def labels_together(config: StudyConfig, results: Mapping[str, Result]) -> str:
    """Return `data.labels`, as YAML, that puts together what is confused with each other; empty if nothing is."""
    found = [result for result in results.values() if HELD_OUT in result.confusion]
    groups = siblings(confusion_frame(found, HELD_OUT)) if found else {}
    labels = labels_of(groups, config.data.labels) if groups else {}
    return yaml.safe_dump({"labels": labels}, sort_keys=False, allow_unicode=True, width=100) if labels else ""


def factor_table(plan: Plan) -> pd.DataFrame:
    """Return the design as a table."""
    rows = []
    for factor in plan.factors:
        levels = ", ".join(map(word, factor.levels)) or str(factor.domain)
        rows.append({"factor": factor.name, "role": factor.role, "levels": levels})
    return pd.DataFrame(rows)


def failed_trials(plan: Plan, failures: Mapping[str, str]) -> Json:
    """Return the failed trials with their reasons, equal reasons once."""
    reasons: dict[str, list[str]] = {}
    for trial in plan.trials:
        if trial.key in failures:
            where = f"{point_label(trial.point)}, replicate {trial.replicate.index}"
            reasons.setdefault(failures[trial.key], []).append(where)
    shown = [(reason, trials[:MOST_FAILURES], len(trials)) for reason, trials in reasons.items()]
    return {"shown": shown[:MOST_FAILURES], "more": max(len(shown) - MOST_FAILURES, 0)}


def provenance(config: StudyConfig, plan: Plan, results: Mapping[str, Result], command: str) -> Json:
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
