"""How Sphinx builds these pages: `make docs` writes them to site/, to be read from disk."""

import re
import sys
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

sys.path.insert(0, str(Path(__file__).parent))
import pages
import reference

project = "scanvi-study"
author = copyright = "scanvi-study developers"
release = metadata.version("scanvi-study")
extensions = ["myst_parser"]
# Headings are link targets, by the same names as on GitHub.
myst_heading_anchors = 3
myst_links_external_new_tab = False
# Code on these pages is what is typed and printed; colours would guess.
highlight_language = "none"
html_theme = "furo"
html_title = "scanvi-study"
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_static_path = ["static"]
html_css_files = ["site.css"]


def _fill_in(_: Sphinx, page: str, source: list[str]) -> None:
    """Put the tables of the configuration where their page has its mark."""
    if page == "reference":
        source[0] = source[0].replace("<!-- keys -->", reference.render())


def _add_pages(app: Sphinx, error: Exception | None) -> None:
    """Put the example pages beside the others, and look whether those that are linked are there."""
    if error is None:
        made = {f"reports/{path.name}" for path in pages.put(Path(app.outdir))}
        linked = {
            found
            for path in Path(app.srcdir).glob("*.md")
            for found in re.findall(r'href="(reports/[^"]+)"', path.read_text(encoding="utf-8"))
        }
        if made != linked:
            raise ExtensionError(f"example pages: {sorted(made)} are there, {sorted(linked)} are linked")


def setup(app: Sphinx) -> None:
    """Let Sphinx call what is above."""
    app.connect("source-read", _fill_in)
    app.connect("build-finished", _add_pages)
