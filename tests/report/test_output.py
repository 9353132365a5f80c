"""Tables and page are written as they were found."""

from pathlib import Path

import pandas as pd

from study.report.analysis import analyse
from study.report.finished import read_finished
from study.report.output import write_report
from tests.scenes import on_disk


def test_tables_and_page_are_written_as_they_were_found(tmp_path: Path) -> None:
    study = on_disk(tmp_path, replicates=2)
    found = analyse(study, read_finished(study))
    page = write_report(study, found, "scanvi-study run name=mine")
    assert page == study.config.directory / "report.html" and "scanvi-study run name=mine" in page.read_text("utf-8")
    frames = found.frames(study.plan)
    assert {"trials", "counts", "shares", "effects", "verdicts", "flips", "flip_rates"} <= set(frames)
    written = {path.stem: path for path in (study.config.directory / "tables").iterdir()}
    assert set(written) == set(frames)
    for name, frame in frames.items():
        assert written[name].read_bytes() == frame.to_csv(index=False).encode()
    assert len(pd.read_csv(written["trials"])) == 16
