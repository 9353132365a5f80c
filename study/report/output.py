"""What the report leaves in a study's folder: tables and the page."""

from __future__ import annotations

from pathlib import Path

from study import files
from study.report.analysis import Analysis
from study.report.page import render_report
from study.studies import Study, keep_look


def write_report(study: Study, analysis: Analysis, command: str = "") -> Path:
    """Write tables and page of a study, which is a look at it, and return where the page is.

    Raises
    ------
    WritingError
        If the disk does not take them.
    """
    directory = study.config.directory
    if analysis.looked and analysis.attributed:
        keep_look(study.config, study.plan.factors, analysis.attributed.look)
    for name, frame in analysis.frames(study.plan).items():
        files.write(directory / "tables" / f"{name}.csv", frame.to_csv(index=False).encode())
    path = directory / "report.html"
    files.write(path, render_report(study, analysis, command).encode())
    return path
