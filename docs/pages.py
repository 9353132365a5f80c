"""Whole pages that scanvi-study made, as examples: kept in reports/ without Plotly, and put into the site with it.

`python docs/pages.py PAGE NAME` keeps a page: a report is 5 MB, and all but some hundred kB of it are Plotly.
"""

import sys
from gzip import compress, decompress
from pathlib import Path

from plotly.offline import get_plotlyjs

KEPT = Path(__file__).parent / "reports"
MARK = "/* Plotly is put in here when the site is made. */"


def keep(page: Path, name: str) -> Path:
    """Keep a page under a name; the same page is the same file."""
    text = page.read_text(encoding="utf-8").replace(get_plotlyjs(), MARK)
    path = KEPT / f"{name}.html.gz"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(compress(text.encode(), mtime=0))
    return path


def put(site: Path) -> list[Path]:
    """Write all kept pages into reports/ of a site, whole: each opens from disk and loads nothing."""
    (site / "reports").mkdir(parents=True, exist_ok=True)
    made = []
    for path in sorted(KEPT.glob("*.html.gz")):
        text = decompress(path.read_bytes()).decode().replace(MARK, get_plotlyjs())
        made.append(site / "reports" / path.stem)
        made[-1].write_text(text, encoding="utf-8")
    return made


if __name__ == "__main__":
    print(keep(Path(sys.argv[1]), sys.argv[2]))
