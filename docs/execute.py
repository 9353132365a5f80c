"""Runs docs/notebook.ipynb from nothing, in an empty folder, and keeps what it shows: `make notebook`.

`execute.py FOLDER OUT` runs it in FOLDER and writes it to OUT instead.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "notebook.ipynb"


def execute(folder: Path, out: Path) -> None:
    """Run every cell in a folder; an error ends it and nothing is written."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute()
    # What the kernel says of itself changes with every Python and tells nothing of the study.
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, out)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        execute(*map(Path, sys.argv[1:]))
    else:
        with tempfile.TemporaryDirectory() as somewhere:
            execute(Path(somewhere), NOTEBOOK)
