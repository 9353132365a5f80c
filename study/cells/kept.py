"""What a study keeps of its sources beside each prepared query: it can be read where the files are no longer there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from study.config import DataConfig, dump
from study.files import sha256

# The file of a prepared query that is written last, and is touched whenever its cells are used.
FACTS = "cells.json"


def origin_of(config: DataConfig, datasets: Sequence[str], twin: Any) -> dict[str, Any]:
    """Return what is kept of the sources of a prepared query.

    Parameters
    ----------
    config
        Where the cells come from; files are known by their names, as they were given.
    datasets
        Which data sets they hold beside the reference.
    twin
        What the query is made of.
    """
    return {"source": _source(config), "datasets": list(datasets), "twin": twin}


def kept_datasets(directory: Path, config: DataConfig) -> tuple[str, ...]:
    """Return the data sets of sources as they were when a study last used them; none if it never did."""
    return next((tuple(origin["datasets"]) for _, origin in _kept(directory, config)), ())


def kept_folder(directory: Path, config: DataConfig, twin: Any) -> Path | None:
    """Return the folder of a query as it was last prepared from these sources, if it was."""
    return next((folder for folder, origin in _kept(directory, config) if origin["twin"] == twin), None)


def _source(config: DataConfig) -> str:
    values = {key: value for key, value in dump(config).items() if key not in ("name", "queries")}
    return sha256(json.dumps(values, sort_keys=True).encode())


def _kept(directory: Path, config: DataConfig) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders of queries that were prepared from these sources, and what was kept of these, the last used first."""
    source = _source(config)
    paths = sorted(directory.glob(f"*/{FACTS}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in paths:
        try:
            origin = json.loads(path.read_bytes()).get("origin")
        except (OSError, ValueError, AttributeError):  # broken, which is told when they are read
            continue
        if origin and origin["source"] == source:
            yield path.parent, origin
