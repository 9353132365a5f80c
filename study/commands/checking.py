"""The data of a study, checked, and the page that shows them."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from study import files
from study.cells import DataReport, check_data
from study.commands.terminal import show_frames, show_notes
from study.config import StudyConfig
from study.plan import refuse_without_truth
from study.report import render_check

MOST_POINTS = 20_000  # on a page, so that it stays one that a browser opens


def check_and_show(to: Console, config: StudyConfig, page: Path | None) -> tuple[DataReport, Path | None]:
    """Check the data of a study, print what was found, and write the page: `check.html` of the study, or another.

    Returns
    -------
    What was found, and where the page is; unfit data have none.

    Raises
    ------
    WritingError
        If the disk does not take the page.
    """
    refuse_without_truth(config)
    found = check_data(config.data, folds=config.space.n_folds, points=MOST_POINTS)
    show_frames(to, found.tables())
    show_notes(to, "warning", found.warnings)
    if found.problems:
        return found, None
    path = page or config.directory / "check.html"
    files.write(path, render_check(config.name, found).encode())
    return found, path
