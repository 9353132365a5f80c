"""The page of a check: like the report, one file that opens from disk, the data before anything is trained."""

from __future__ import annotations

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from study.cells import DataReport
from study.report.charts import Json
from study.report.described import data_chart, shift_chart
from study.report.page import MOST_ROWS, templates

# What the page's script asks of every page, and what there is none of before a study.
NOTHING: Json = {
    **{name: [] for name in ("outcomes", "classes", "factors", "conditions")},
    "confusion": {},
    "trials": {"settings": []},
}


def render_check(name: str, checks: DataReport) -> str:
    """Return the page of a check as HTML.

    Parameters
    ----------
    name
        Of the study.
    checks
        What was found, with points.
    """
    return (
        templates()
        .get_template("check.html")
        .render(
            name=name,
            checks=checks,
            data=NOTHING | {"data": data_chart(checks), "embedding": shift_chart(checks)},
            plotly=Markup(get_plotlyjs()),
            most_rows=MOST_ROWS,
        )
    )
