"""A refused command leaves nothing behind: the cells that it prepared are removed, and nobody else's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from study.cells import FACTS
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
            if (folder / FACTS).exists():
                if not trained and not _in_use(folder):
                    shutil.rmtree(folder)
            elif folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def _in_use(folder: Path) -> bool:
    """Whether another process has found cells here: `prepare` then touches the file that was written last."""
    return (folder / FACTS).stat().st_mtime_ns > folder.stat().st_mtime_ns
