"""The page of a diagnosis: like the report, one file that opens from disk and loads nothing."""

from __future__ import annotations

from study.diagnosis import Diagnosis
from study.report.page import templates

MOST_ROWS = 200
COLUMNS = {"part": "measured on", "class": "class", "cells": "cells", "called": "called so"}


def render_diagnosis(diagnosis: Diagnosis) -> str:
    """Return the page of a diagnosis as HTML."""
    numbers = diagnosis.numbers
    shown = []
    for run in dict.fromkeys(numbers["run"]) if len(numbers) else ():
        mine = numbers[(numbers["run"] == run) & (numbers["cells"] > 0)]
        table = mine[list(COLUMNS)].rename(columns=COLUMNS)
        for name in ("recall", "precision"):
            interval = mine[f"{name}_lower"].map("{:.1f}".format) + ", " + mine[f"{name}_upper"].map("{:.1f}".format)
            table[f"{name} % [95%]"] = (mine[name].map("{:.1f}".format) + " [" + interval + "]").where(
                mine[name].notna(), ""
            )
        shown.append((run, table))
    by_run: dict[str, list[object]] = {}
    for one in diagnosis.findings:
        by_run.setdefault(one.run, []).append(one)
    return (
        templates()
        .get_template("diagnosis.html")
        .render(
            name="Diagnosis",
            runs=list(diagnosis.table["run"].astype(str)),
            findings=by_run,
            numbers=shown,
            differences=diagnosis.differences,
            together=diagnosis.together,
            causes=diagnosis.together.to_frame() if diagnosis.together else None,
            next=diagnosis.next,
            most_rows=MOST_ROWS,
        )
    )
