"""The data of a study, checked, and the page that shows them."""

from __future__ import annotations

from pathlib import Path

from study import files
from study.cells import DataReport, check_data
from study.config import StudyConfig
from study.plan import refuse_without_truth
from study.report import render_check

MOST_POINTS = 20_000  # on a page, so that it stays one that a browser opens


def check_study(config: StudyConfig) -> DataReport:
    """Check the data of a study."""
    refuse_without_truth(config)
    return check_data(config.data, folds=config.space.n_folds, points=MOST_POINTS)


def write_page(config: StudyConfig, found: DataReport, path: Path | None) -> Path | None:
    """Write the page of a check, `check.html` in the study's folder unless a path is given; none of unfit data.

    Raises
    ------
    WritingError
        If the disk does not take it.
    """
    if found.problems:
        return None
    path = path or config.directory / "check.html"
    files.write(path, render_check(config.name, found).encode())
    return path
