"""A refused command leaves nothing behind: the cells that it prepared are removed, and nobody else's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from study.errors import InputError


@contextmanager
def nothing_left_if_refused(directory: Path) -> Iterator[Callable[[Path], None]]:
    """Remove what is told of inside, if what is done with it is refused before anything of the study is trained.

    Parameters
    ----------
    directory
        Folder of the study.

    Yields
    ------
    What is to be called with each folder that is made, the outer one first. One with cells is removed whole, another
    only where nothing else has come into it.
    """
    made: list[Path] = []
    try:
        yield made.append
    except InputError:
        trained = any((directory / "trials").glob("*"))
        for folder in reversed(made):
            if not trained and (folder / "cells.json").exists():
                shutil.rmtree(folder)
            elif folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
        raise
